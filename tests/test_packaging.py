"""What is built from the repository: an sdist and a wheel, without a warning; the wheel holds the package alone."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Tests of the package alone, without documents or benchmarks, that take seconds.
QUICK_TESTS = (
    "test_allocation.py",
    "test_patterns.py",
    "schedule/test_schedule.py",
    "pruning/test_options.py",
    "topk/test_select.py",
    "graph/test_scale.py",
)

pytestmark = pytest.mark.slow


def call(*command, **options):
    run = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False, timeout=600, **options
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with both files, and what building them printed."""
    pytest.importorskip("build", reason="the package `build` is missing: pip install 'tf_lap[test]'")
    if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
        pytest.skip("building needs setuptools 77: pip install 'tf_lap[test]'")
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "tf_lap", source / "tf_lap", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # Where it is set, setuptools warns that it writes no bytecode.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    printed = call("-m", "build", "--no-isolation", source, cwd=source, env=environment)
    return source / "dist", printed


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built[0].glob("*.whl")
    return path


def test_building_warns_of_nothing(built):
    files, printed = built
    assert sorted(path.name.partition("-")[0] for path in files.iterdir()) == ["tf_lap", "tf_lap"]
    assert not re.search(r"(?i)warning|deprecat", printed), printed


def test_twine_finds_nothing_wrong(built):
    pytest.importorskip("twine", reason="the package `twine` is missing: pip install 'tf_lap[test]'")
    printed = call("-m", "twine", "check", "--strict", *sorted(built[0].iterdir()))
    assert printed.count("PASSED") == 2


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tf_lap").rglob("*.py")}
    assert names == package | {"tf_lap/py.typed"}


def test_the_wheel_asks_for_what_the_project_names_alone(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(archive.read(name).decode())
    required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    names = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in required}
    # Keras comes with TensorFlow, and tf-keras with tfmot: they are named for their oldest versions.
    assert names == {"tensorflow", "keras", "tf-keras", "tensorflow-model-optimization", "numpy", "absl-py"}
    assert metadata["License-Expression"] == "Apache-2.0"


def test_quick_tests_pass_on_what_the_wheel_holds(wheel, tmp_path):
    """tests/wheel.sh does the same in a new environment."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "PYTEST_ADDOPTS": ""}
    found = call("-c", "import tf_lap; print(tf_lap.__file__)", cwd=tmp_path, env=environment)
    assert str(tmp_path / "installed") in found
    tests = [f"tests/{name}" for name in QUICK_TESTS]
    printed = call("-m", "pytest", "-q", "-m", "not slow", *tests, cwd=tmp_path, env=environment)
    assert re.search(r"\d{2,} passed", printed)
