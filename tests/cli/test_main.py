"""The command answers quickly, says what is wrong in a line, and never with a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tf_lap
from tf_lap.cli import demo, main

ROOT = Path(__file__).parents[2]
IMAGES, LABELS = np.zeros((4, 28, 28), np.uint8), np.arange(4, dtype=np.uint8)
GOOD = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Takes back what the command sets for its own process."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(demo, "measure", lambda *args: pytest.fail("trained before the mistake was found"))


def python(*args, **environment):
    kept = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    env = {**kept, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, *args], env=env, capture_output=True, text=True, timeout=120)


def refused(capsys, *args):
    assert main.main(["demo", *map(str, args)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("tf-lap demo: ")
    assert message.count("\n") == 1
    return message


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def fail_with(message):
    os.write(2, message)
    raise ImportError


def test_version(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main.main(["--version"])
    assert capsys.readouterr().out == f"tf_lap {tf_lap.__version__}\n"


def test_help_documents_each_option_with_its_default(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main.main(["demo", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for option, default in (("--data", "scikit-learn's digits"), ("--output", "lap_demo"), ("--seeds", "3")):
        assert f"(default: {default})" in text[text.index(f" {option} ", text.index("options:")) :]
    assert "(default: 1500)" in text


def test_the_command_itself_imports_no_tensorflow():
    code = (
        "import sys, types; package = types.ModuleType('tf_lap'); package.__version__ = '0'\n"
        f"package.__path__ = [{str(ROOT / 'tf_lap')!r}]; sys.modules['tf_lap'] = package\n"
        "from tf_lap.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('tensorflow' in sys.modules)"
    )
    assert python("-c", code).stdout.endswith("\nFalse\n")


def test_help_imports_no_tensorflow():
    code = (
        "import sys\nfrom tf_lap.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('tensorflow' in sys.modules)"
    )
    assert python("-c", code).stdout.endswith("\nFalse\n")


@pytest.mark.slow
def test_tensorflow_starts_in_silence(tmp_path):
    run = python("-m", "tf_lap.cli.main", "demo", "--data", str(tmp_path / "none.npz"))
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"tf-lap demo: --data {tmp_path / 'none.npz'}: no such file\n"


def test_start_up_messages_are_held_back_unless_the_import_fails(monkeypatch, capfd):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    with main._quiet_tensorflow():
        os.write(2, b"chatter")
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    assert capfd.readouterr().err == ""
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    with pytest.raises(ImportError), main._quiet_tensorflow():
        fail_with(b"the cause")
    assert capfd.readouterr().err == "the cause"


def test_a_log_level_of_the_users_is_left_alone(monkeypatch, capfd):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    with main._quiet_tensorflow():
        os.write(2, b"wanted")
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1"
    assert capfd.readouterr().err == "wanted"


@pytest.mark.parametrize("option", ["--seeds", "--steps"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many"])
def test_counts_are_whole_numbers_of_at_least_one(option, value, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        main.main(["demo", f"{option}={value}"])
    assert f"argument {option}: '{value}' is not a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["sklearn", "matplotlib"])
@pytest.mark.usefixtures("no_training")
def test_a_missing_package(package, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    message = refused(capsys, "--output", tmp_path / "out")
    assert f"{package} is needed" in message
    assert 'pip install "tf_lap[demo]"' in message
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_training")
def test_an_output_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        assert f"--output {output}: cannot be written" in refused(capsys, "--output", output)


@pytest.mark.usefixtures("no_training")
def test_data_that_cannot_be_read(capsys, tmp_path):
    assert "no such file" in refused(capsys, "--data", tmp_path / "none.npz", "--output", tmp_path / "out")
    text, empty, array = tmp_path / "text.npz", tmp_path / "empty.npz", tmp_path / "array.npy"
    text.write_text("no archive")
    empty.touch()
    np.save(array, IMAGES)
    cut = save(tmp_path / "cut.npz", **GOOD)
    cut.write_bytes(cut.read_bytes()[:2000])
    for path in (text, empty, array, cut, tmp_path):
        message = refused(capsys, "--data", path, "--output", tmp_path / "out")
        assert f"--data {path}: cannot be read" in message
        assert "keras.datasets.mnist" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x_train": IMAGES[..., None]}, "x_train has shape (4, 28, 28, 1) and dtype uint8"),
        ({"x_test": IMAGES[:, :20]}, "x_test has shape (4, 20, 28) and dtype uint8"),
        ({"x_test": IMAGES[:0], "y_test": LABELS[:0]}, "x_test has shape (0, 28, 28)"),
        ({"x_train": IMAGES.astype(str)}, "x_train has shape (4, 28, 28) and dtype <U3"),
        ({"x_train": np.full((4, 28, 28), np.nan)}, "x_train holds NaN or infinity"),
        ({"y_train": LABELS[:3]}, "y_train has shape (3,) and dtype uint8"),
        ({"y_test": LABELS.astype(float)}, "y_test has shape (4,) and dtype float64"),
        ({"y_test": LABELS + 7}, "y_test holds labels from 7 to 10; expected 0 to 9"),
        ({"y_train": np.array([1, 2, 3, None])}, "cannot be read"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("no_training")
def test_data_of_another_layout(wrong, message, capsys, tmp_path):
    path = save(tmp_path / "data.npz", **{**GOOD, **wrong})
    assert message in refused(capsys, "--data", path, "--output", tmp_path / "out")


@pytest.mark.usefixtures("no_training")
def test_data_with_arrays_missing(capsys, tmp_path):
    path = save(tmp_path / "data.npz", x_train=IMAGES, y_test=LABELS)
    message = refused(capsys, "--data", path)
    assert f"--data {path}: has no y_train, x_test; expected" in message


def test_writing_that_fails_at_the_end(monkeypatch, capsys, tmp_path):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        demo, "measure", lambda *args: demo.Outcome([0.1], [demo.Retrained(0, 6, "magnitude", 0.9, 1, 0.2)])
    )
    monkeypatch.setattr(demo, "format_table", lambda *args: "")
    monkeypatch.setattr(demo, "write", full)
    assert "writing failed (No space left on device)" in refused(capsys, "--output", tmp_path)


def test_control_c(monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupted)
    assert main.main(["demo"]) == 130
    assert capsys.readouterr().err == "\ntf-lap: interrupted\n"
