"""A snapshot is read as it was written, or is said to be damaged."""

import ml_dtypes
import numpy as np
import pytest

from tf_lap.callbacks import snapshot
from tf_lap.callbacks.mask_backup import PruningState
from tf_lap.callbacks.snapshot import DamagedError, Position, Snapshot, Value
from tf_lap.compat.callback_states import CallbackState


def small_snapshot(step=3):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((5, 3)).astype(np.float32)
    kernel[0, :2] = np.nan, -0.0
    values = [
        Value("kernel", [kernel]),
        Value("half", [kernel.astype(np.float16)]),
        Value("brain", [kernel.astype(ml_dtypes.bfloat16)]),
        Value("count", [np.array(2**40, np.int64)]),
        Value("seeds", [np.array([1, 2**32 - 1], np.uint32)]),
        Value("flag", [np.array(True)]),
        Value("empty", [np.zeros((0, 4), np.float32)]),
        Value("mirrored", [kernel[:2], kernel[2:4]]),
    ]
    masks = {"net/first": rng.random((5, 3)) > 0.5, "head": rng.random((2, 2, 3)) > 0.5}
    pruning = PruningState(step, 7, masks, "LAPCallback")
    callbacks = [
        CallbackState("EarlyStopping", {"wait": 2, "best": float("inf"), "best_epoch": 0}, [kernel, kernel[:1]]),
        CallbackState("ModelCheckpoint", {"best": None}, None),
        CallbackState("EarlyStopping", {"wait": 0}, [kernel[1:].astype(np.float16)]),
    ]
    variables = {"the model": values, "optimizer (Adam)": values[:1]}
    return Snapshot(Position(1, 4, 2, 8), variables, pruning, {"python": [3, [1], None]}, callbacks)


def assert_same(left, right):
    assert [(s.name, s.numbers) for s in left.callbacks] == [(s.name, s.numbers) for s in right.callbacks]
    for state, other in zip(left.callbacks, right.callbacks, strict=True):
        assert (state.weights is None) == (other.weights is None)
        for array, same in zip(state.weights or (), other.weights or (), strict=True):
            assert (array.dtype, array.shape, array.tobytes()) == (same.dtype, same.shape, same.tobytes())
    assert left.position == right.position
    assert left.random == right.random
    assert list(left.variables) == list(right.variables)
    for section, values in left.variables.items():
        for value, other in zip(values, right.variables[section], strict=True):
            assert (value.name, value.kinds) == (other.name, other.kinds)
            assert [array.tobytes() for array in value.arrays] == [array.tobytes() for array in other.arrays]
    assert left.pruning._replace(masks=None) == right.pruning._replace(masks=None)
    assert list(left.pruning.masks) == list(right.pruning.masks)
    for path, mask in left.pruning.masks.items():
        np.testing.assert_array_equal(mask, right.pruning.masks[path])


def test_every_bit_that_is_saved_is_loaded(tmp_path):
    snapshot.save(tmp_path / "file", small_snapshot())
    assert_same(snapshot.load(tmp_path / "file"), small_snapshot())
    snapshot.save(tmp_path / "file", small_snapshot()._replace(pruning=None))
    assert snapshot.load(tmp_path / "file").pruning is None


def test_damage_at_any_byte_is_an_error_or_does_no_harm(tmp_path):
    path = tmp_path / "file"
    snapshot.save(path, small_snapshot())
    saved, rng = path.read_bytes(), np.random.default_rng(0)
    damaged = [saved[:length] for length in (0, 1, len(saved) // 2, len(saved) - 1)]
    for place in rng.integers(0, len(saved), 300):
        damaged.append(saved[:place] + bytes([saved[place] ^ int(rng.integers(1, 256))]) + saved[place + 1 :])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            assert_same(snapshot.load(path), small_snapshot())
        except DamagedError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"{}"])
def test_a_file_of_another_kind_is_named(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DamagedError, match="file is damaged or is no snapshot"):
        snapshot.load(tmp_path / "file")


def test_a_crash_while_saving_leaves_the_last_snapshot(tmp_path, monkeypatch):
    snapshot.save(tmp_path / "file", small_snapshot(step=3))

    def crash(*_):
        raise OSError("no space left")

    monkeypatch.setattr("tf_lap.files.os.fsync", crash)
    with pytest.raises(OSError, match="no space left"):
        snapshot.save(tmp_path / "file", small_snapshot(step=4))
    assert snapshot.load(tmp_path / "file").pruning.step == 3
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_differs_is_named():
    variables = dict(small_snapshot().variables)
    assert snapshot.describe_difference(variables, variables) is None
    renamed = {**variables, "the model": [value._replace(name="x") for value in variables["the model"]]}
    assert snapshot.describe_difference(renamed, variables) is None
    assert snapshot.describe_difference({"the model": variables["the model"]}, variables) == (
        "it holds the variables of the model, optimizer (Adam), and this fit has the model"
    )
    shorter = {**variables, "the model": variables["the model"][:-1]}
    assert (
        snapshot.describe_difference(shorter, variables)
        == "the model has 8 variables in the snapshot, and 7 in this fit"
    )
    other = {**variables, "the model": [Value("wide", [np.zeros((5, 4), np.float16)]), *variables["the model"][1:]]}
    assert snapshot.describe_difference(other, variables) == (
        "in the model, variable 'kernel' of the snapshot has float32 of shape (5, 3), and 'wide' in its place has "
        "float16 of shape (5, 4)"
    )
