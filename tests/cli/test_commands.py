"""All commands are of one form: help with an example, one-line errors, exit codes, and a quick start."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_lap
from tf_lap import allocation, patterns, scores
from tf_lap.channels.budget import BUDGETS
from tf_lap.cli import main, values
from tf_lap.pruning.options import ORDERS
from tf_lap.reconstruction.methods import METHODS

PRUNE = ["prune", "m.keras", "-o", "s.keras", "--sparsity", "0.5"]
ROOT = Path(__file__).parents[2]
COMMANDS = ["inspect", "prune", "report", "shrink", "repair", "export", "compare", "sweep", "demo", "reproduce"]


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Takes back what the command sets for its own process."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="first"), keras.layers.Dense(3)])
    model.save("m.keras")
    np.savez("d.npz", x=np.ones((6, 4), np.float32), y=np.arange(6) % 3)


def refused(capsys, *args, code=2):
    """The one line that a command leaves with."""
    try:
        got = main.main(list(args))
    except SystemExit as left:
        got = left.code
    printed = capsys.readouterr()
    assert (got, printed.out) == (code, "")
    assert printed.err.startswith(f"tf-lap {args[0]}: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_can_be_read(command, capsys, monkeypatch):
    with pytest.raises(SystemExit, match=r"^0$"):
        main.main([command, "--help"])
    text = capsys.readouterr().out
    examples = re.findall(rf"^  tf-lap ({command} .*)$", text, flags=re.MULTILINE)
    assert examples
    monkeypatch.setattr(values, "_existing", Path)  # their files are not there
    parser, _ = main._make_parser()
    for example in examples:
        parser.parse_args(example.replace("'", "").split())


def test_examples_of_the_page_can_be_read(monkeypatch):
    monkeypatch.setattr(values, "_existing", Path)
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    examples = re.findall(r"^tf-lap (.*)$", text, flags=re.MULTILINE)
    assert {example.split()[0] for example in examples} == set(COMMANDS) - {"demo", "reproduce"}
    parser, _ = main._make_parser()
    for example in examples:
        parser.parse_args(example.partition("#")[0].replace("'", "").split())


def test_misuse_and_help_import_nothing_heavy():
    heavy = ("tensorflow", "keras", "numpy", "h5py", "matplotlib")
    code = (
        "import sys\nfrom tf_lap.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        f"except SystemExit: print([name for name in {heavy} if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for args in (["prune", "--help"], ["prune", "none.keras", "-o", "x.keras", "--sparsity", "2"], ["nothing"]):
        run = subprocess.run([sys.executable, "-c", code, *args], env=environment, capture_output=True, text=True)
        assert run.stdout.endswith("[]\n"), run.stdout + run.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["prune", "none.keras", "-o", "s.keras", "--sparsity", "0.5"], "none.keras: no such file"),
        (["prune", "m.keras", "-o", "s.keras"], "one of the arguments --sparsity --budget is required"),
        (["prune", "m.keras", "-o", "s.keras", "--sparsity", "90"], "'90' is not a fraction of zeros in [0, 1)"),
        (["prune", "m.keras", "-o", "s.keras", "--sparsity", "(=0.5"], "'(' is no regular expression"),
        (["prune", "m.keras", "-o", "s.txt", "--sparsity", "0.5"], "its name ends in .txt; expected .keras, .h5"),
        (["prune", "m.keras", "-o", "no/s.keras", "--sparsity", "0.5"], "there is no folder no"),
        ([*PRUNE, "--score", "x"], "--score 'x' is not known: use"),
        ([*PRUNE, "--pattern", "3"], "'3' is not known: use unstr"),
        ([*PRUNE, "--sparsity", "a=0.1"], "pass one fraction for"),
        (["prune", "m.keras", "-o", "s.keras", "--budget", "macs=0.5"], "add --pattern channels"),
        (
            ["prune", "m.keras", "-o", "s.keras", "--sparsity", "0.5", "--input-shape", "8,8,3"],
            "--input-shape is of use with --pattern channels alone",
        ),
        (["prune", "m.keras", "-o", "s.keras", "--budget", "time=1"], "is not NAME=NUMBER with a name of macs"),
        ([*PRUNE, "--repair", "all"], "'all' is not known: use one"),
        ([*PRUNE, "--data", "m.keras"], "expected an npz file"),
        ([*PRUNE, "--plot", "p"], "expected .png"),
        ([*PRUNE, "--custom", "a-b:C"], "is not module:Class"),
        (["inspect", "m.keras", "--input-shape", "8x8"], "is no shape, such as 224,224,3"),
        (["repair", "m.keras", "-o", "s.keras"], "--dense and --data: pass one of them or both"),
        (["export", "m.keras", "-o", "s.tflite", "--quantization", "int8"], "add --data X.npz"),
        (["sweep", "m.keras", "--data", "d.npz", "--max-drop", "-1"], "'-1' is not a number of at least 0"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("files")
def test_mistakes_are_found_before_anything_is_read(args, message, capsys, monkeypatch):
    monkeypatch.setattr(main, "_run", lambda args: pytest.fail("read the model before the mistake was found"))
    assert message in refused(capsys, *args)


@pytest.mark.usefixtures("files")
def test_a_missing_matplotlib_is_found_at_once(capsys, monkeypatch):
    monkeypatch.setattr(main.model_parsers.importlib.util, "find_spec", lambda name: None)
    assert 'pip install "tf_lap[plot]"' in refused(capsys, "report", "m.keras", "--plot", "p.png")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["prune", "m.keras", "-o", "s.keras", "--sparsity", "none.*=0.5"], "matches no layer"),
        ([*PRUNE, "--score", "obs"], "data"),
        (["prune", "m.keras", "-o", "s", "--sparsity", "0.5"], "--output s: its name ends in nothing"),
        ([*PRUNE, "--custom", "no_such:C"], "--custom no_such:C: "),
        ([*PRUNE, "--repair", "--data", "w.npz"], "has shape (None, 4)"),
        ([*PRUNE, "--repair", "--data", "o.npz"], "it holds z; expected"),
        ([*PRUNE, "--repair", "--data", "t.npz"], "cannot be read as"),
        (["compare", "m.keras", "m.keras", "--data", "y.npz"], "its arrays have [5, 6] samples"),
        (["compare", "m.keras", "m.keras", "--data", "f.npz"], "y has shape (6, 2), and the model's answers (6, 3)"),
        (["compare", "m.keras", "t.tflite", "--data", "d.npz"], "t.tflite: cannot be read as a TFLite file"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("files")
def test_mistakes_that_only_the_model_shows(args, message, capsys):
    x = np.ones((6, 4), np.float32)
    np.savez("w.npz", x=x[:, :3])
    np.savez("o.npz", z=x)
    np.savez("y.npz", x=x, y=np.zeros(5, int))
    np.savez("f.npz", x=x, y=np.zeros((6, 2)))
    Path("t.npz").write_text("text")
    Path("t.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
    assert message in refused(capsys, *args)
    assert not Path("s.keras").exists()


@pytest.mark.usefixtures("files")
def test_what_fails_leaves_with_one_and_what_was_there(capsys, monkeypatch):
    Path("s.keras").write_text("what was there")
    args = PRUNE

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keras.Sequential, "save", full)
        assert refused(capsys, *args, code=1) == "tf-lap prune: No space left on device\n"
    assert Path("s.keras").read_text() == "what was there"

    def broken(self, *args, **kwargs):
        raise KeyError("inner")

    monkeypatch.setattr(keras.Sequential, "save", broken)
    assert refused(capsys, *args, code=1) == "tf-lap prune: KeyError: 'inner' (--debug shows where)\n"
    assert main.main([*args, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_names_of_options_are_those_of_the_package():
    for options, room in ((values.SCORES, scores), (values.ALLOCATIONS, allocation), (values.PATTERNS, patterns)):
        by_name = {name: type(room.get(name)) for name in room.names()}
        # Other tests, and examples in docstrings, may have registered classes that are not the package's.
        assert set(options) == {name for name, cls in by_name.items() if getattr(room, cls.__name__, None) is cls}
    assert (values.ORDERS, values.REPAIRS, values.BUDGETS) == (ORDERS, METHODS, BUDGETS)


LAYERS = """
import keras
class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs
"""


def test_a_class_of_ones_own_is_named(capsys, monkeypatch):
    Path("layers_of_mine.py").write_text(LAYERS)
    monkeypatch.syspath_prepend(os.getcwd())
    module = __import__("layers_of_mine")
    layers = [keras.Input((4,)), keras.layers.Dense(8), module.Doubled(), keras.layers.Dense(2)]
    keras.Sequential(layers).save("own.keras")
    args = ["prune", "own.keras", "-o", "s.keras", "--sparsity", "0.5"]
    message = refused(capsys, *args)
    assert "Doubled, which is not Keras's own: pass --custom " in message
    assert main.main([*args, "--custom", "layers_of_mine:Doubled"]) == 0
    loaded = keras.saving.load_model("s.keras", custom_objects={"Doubled": module.Doubled})
    assert tf_lap.Pruner(loaded).report().sparsity == pytest.approx(0.5, abs=0.05)


def test_stored_code_is_run_only_where_that_is_allowed(capsys):
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: 2 * x), keras.layers.Dense(2)]).save("l.keras")
    assert refused(capsys, "report", "l.keras").endswith("which is not run: pass --unsafe if you trust the file\n")
    assert main.main(["report", "l.keras", "--unsafe"]) == 0


def test_the_package_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tf_lap", "prune"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("tf_lap", run_name="__main__")
    assert capsys.readouterr().err.startswith("tf-lap prune: the following arguments are required")
