"""pyproject.toml, tests/versions.sh and the messages name the same oldest releases."""

import re
import subprocess
from pathlib import Path

import pytest

from tf_lap.compat.nodes import TESTED

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "versions.sh"
PACKAGES = ("tensorflow", "keras", "tf_keras", "tensorflow-model-optimization")


def lower_bounds():
    return dict(re.findall(r'"([a-z_-]+)>=([\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8")))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_oldest_environment_has_the_lower_bounds_of_the_project(package):
    oldest = SCRIPT.read_text("utf-8").partition("oldest)")[2].partition(";;")[0]
    (pinned,) = re.findall(rf'"{package}==([\d.]+)"', oldest)
    assert (pinned + ".").startswith(lower_bounds()[package] + ".")


@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_messages_name_releases_from_the_lower_bounds_on(package):
    (oldest,) = re.findall(rf"\b{package} ([\d.]+) to ", TESTED)
    assert oldest == lower_bounds()[package]


def test_an_environment_that_is_not_known_is_refused_with_those_that_are():
    run = subprocess.run(["bash", str(SCRIPT), "latest"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "'latest' is not known: the first argument is oldest, middle or newest" in run.stderr
