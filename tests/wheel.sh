#!/usr/bin/env bash
# Builds the wheel, installs it into a new environment as `pip install tf-lap` would, and runs quick tests there, away from
# the checkout. Prints what was installed with it. PYTHON names the interpreter (python3 by default).
set -euo pipefail
cd "$(dirname "$0")/.."

unset PYTHONDONTWRITEBYTECODE # where it is set, setuptools warns that it writes no bytecode
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone -q . "$work/source"
"${PYTHON:-python3}" -m venv "$work/tools"
"$work/tools/bin/python" -m pip install -q build twine
"$work/tools/bin/python" -m build -o "$work/dist" "$work/source" >"$work/build.log" 2>&1 || {
  cat "$work/build.log" >&2
  exit 1
}
if grep -iE "warning|deprecat" "$work/build.log" >&2; then
  echo "tests/wheel.sh: building warned, see above" >&2
  exit 1
fi
"$work/tools/bin/python" -m twine check --strict "$work"/dist/*

"${PYTHON:-python3}" -m venv "$work/clean"
"$work/clean/bin/python" -m pip install -q "$work"/dist/*.whl
"$work/clean/bin/python" -m pip list --format=freeze
"$work/clean/bin/tf-lap" --help >/dev/null
"$work/clean/bin/python" -m pip install -q pytest pytest-xdist hypothesis
mkdir "$work/away"
cp -r "$work/source/tests" "$work/source/pyproject.toml" "$work/away"
cd "$work/away"
tests=$(sed -n '/^QUICK_TESTS = (/,/^)/p' tests/test_packaging.py | sed -n 's/^ *"\(.*\)",$/\1/p')
cd tests
"$work/clean/bin/python" -m pytest -q -c ../pyproject.toml --rootdir .. -m "not slow" $tests
