#!/usr/bin/env bash
# Runs the tests with the oldest, a middle and the newest releases that pyproject.toml admits, each in an environment of its
# own, made from the package registry by pip.
#
#   tests/versions.sh                         all three, the whole suite in each
#   tests/versions.sh oldest                  one of them: oldest, middle or newest
#   tests/versions.sh middle -m "not slow"    what follows the name is for pytest
#
# The environments are kept in .venvs/ and used again; delete one to have it made anew. Each needs its Python: from the
# path, or from pyenv.
set -euo pipefail
cd "$(dirname "$0")/.."

# Prints the interpreter of the first of these Python versions that is at hand.
find_python() {
  local version prefix
  for version in "$@"; do
    if "python$version" -c "import ensurepip" 2>/dev/null; then
      echo "python$version"
      return
    fi
    if prefix=$(pyenv prefix "$version" 2>/dev/null); then
      echo "$prefix/bin/python"
      return
    fi
  done
  echo "tests/versions.sh: none of these Python versions is at hand: $*. Install one, or name another environment" >&2
  return 1
}

# Runs the suite in the environment of a name.
run_suite() {
  local name=$1 python pins
  shift
  case $name in
    oldest)
      python=$(find_python 3.10) || return
      pins=("tensorflow==2.17.1" "keras==3.7.0" "tf_keras==2.17.0" "tensorflow-model-optimization==0.8.0")
      ;;
    middle)
      python=$(find_python 3.11) || return
      pins=("tensorflow==2.18.1" "keras==3.8.0" "tf_keras==2.18.0" "tensorflow-model-optimization==0.8.0")
      ;;
    newest)
      python=$(find_python 3.13 3.12 3.11) || return
      pins=()
      ;;
  esac
  local environment=.venvs/$name
  if [ ! -e "$environment/complete" ]; then
    rm -rf "$environment" &&
      "$python" -m venv "$environment" &&
      "$environment/bin/python" -m pip install -q -e ".[test]" ${pins[@]+"${pins[@]}"} &&
      touch "$environment/complete" || return
  fi
  echo "== $name: $("$environment/bin/python" --version), $(
    "$environment/bin/python" -m pip list 2>/dev/null |
      awk '/^(tensorflow|keras|tf_keras|tensorflow-model-optimization|numpy|ai-edge-litert) / {printf "%s%s %s", s, $1, $2; s = ", "}'
  )"
  "$environment/bin/python" -m pytest "$@"
}

names=(oldest middle newest)
if [ $# -gt 0 ]; then
  if [[ " ${names[*]} " != *" $1 "* ]]; then
    echo "tests/versions.sh: '$1' is not known: the first argument is oldest, middle or newest" >&2
    exit 2
  fi
  names=("$1")
  shift
fi

failed=()
for name in "${names[@]}"; do
  run_suite "$name" "$@" || failed+=("$name")
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
