import shutil

import numpy as np
import pytest

from tf_lap.callbacks import mask_backup
from tf_lap.callbacks.mask_backup import PruningState


def test_what_is_saved_is_loaded(tmp_path):
    rng = np.random.default_rng(0)
    masks = {"dense": rng.random((3, 5)) > 0.5, "net/conv": rng.random((3, 3, 2, 7)) > 0.5}
    mask_backup.save(tmp_path / "new" / "folder", PruningState(17, 12, masks))
    state = mask_backup.load(tmp_path / "new" / "folder")
    assert (state.step, state.iterations, list(state.masks)) == (17, 12, list(masks))
    for path, mask in masks.items():
        np.testing.assert_array_equal(state.masks[path], mask)


def test_a_crash_while_saving_leaves_the_last_backup(tmp_path, monkeypatch):
    mask_backup.save(tmp_path, PruningState(1, 1, {"dense": np.ones((2, 2), bool)}))

    def crash(*args, **arguments):
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", crash)
    with pytest.raises(OSError, match="no space left"):
        mask_backup.save(tmp_path, PruningState(2, 2, {"dense": np.zeros((2, 2), bool)}))
    assert mask_backup.load(tmp_path).step == 1


def test_nothing_saved_is_nothing_loaded_and_deleting_twice_is_fine(tmp_path):
    assert mask_backup.load(tmp_path) is None
    mask_backup.save(tmp_path, PruningState(1, 1, {}))
    mask_backup.delete(tmp_path)
    mask_backup.delete(tmp_path)
    assert mask_backup.load(tmp_path) is None


def test_a_damaged_backup_names_the_directory_and_the_remedy_and_the_remedy_helps(tmp_path):
    masks = {"dense": np.random.default_rng(0).random((30, 5)) > 0.5}
    mask_backup.save(tmp_path, PruningState(5, 4, masks))
    (path,) = tmp_path.iterdir()
    saved, rng = path.read_bytes(), np.random.default_rng(1)
    damaged = [b"", b"PK", b"\x93NUMPY", saved[:-1], saved[: len(saved) // 2]]
    for place in rng.integers(0, len(saved), 200):
        damaged.append(saved[:place] + bytes([saved[place] ^ int(rng.integers(1, 256))]) + saved[place + 1 :])
    messages = []
    for content in damaged:
        path.write_bytes(content)
        try:
            state = mask_backup.load(tmp_path)
        except ValueError as error:
            messages.append(str(error))
        else:
            assert (state.step, state.iterations) == (5, 4)
            np.testing.assert_array_equal(state.masks["dense"], masks["dense"])
    assert len(messages) > 100
    for message in messages:
        assert message.startswith(f"backup_dir={str(tmp_path)!r}: tf_lap_backup.npz is damaged or is no backup")
        assert message.endswith("Delete the directory to begin anew")
    shutil.rmtree(tmp_path)
    assert mask_backup.load(tmp_path) is None


def test_masks_go_to_the_kernels_by_path_or_where_layers_were_renamed_by_order():
    first, second = np.eye(3, dtype=np.float32), np.ones((2, 2), np.float32)
    state = PruningState(1, 1, {"dense": first.astype(bool), "dense_1": second.astype(bool)})
    assert mask_backup.match_masks({"dense_1": second, "dense": first}, state, "x", "LAPCallback") is state.masks
    assert list(mask_backup.match_masks({"dense_2": first, "dense_3": second}, state, "x", "LAPCallback")) == [
        "dense_2",
        "dense_3",
    ]
    for kernels in ({"dense": first}, {"dense_2": second, "dense_3": first}, {"dense": first + 1, "dense_1": second}):
        with pytest.raises(ValueError, match=r"backup_dir='x' holds masks of the layers dense, dense_1, and this fit"):
            mask_backup.match_masks(kernels, state, "x", "LAPCallback")
