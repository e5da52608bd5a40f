import numpy as np
import pytest

from tf_lap import backup


def test_what_is_saved_is_loaded(tmp_path):
    rng = np.random.default_rng(0)
    masks = {"dense": rng.random((3, 5)) > 0.5, "net/conv": rng.random((3, 3, 2, 7)) > 0.5}
    backup.save(tmp_path / "new" / "folder", 17, 12, masks)
    state = backup.load(tmp_path / "new" / "folder")
    assert (state.step, state.iterations, list(state.masks)) == (17, 12, list(masks))
    for path, mask in masks.items():
        np.testing.assert_array_equal(state.masks[path], mask)


def test_a_crash_while_saving_leaves_the_last_backup(tmp_path, monkeypatch):
    backup.save(tmp_path, 1, 1, {"dense": np.ones((2, 2), bool)})

    def crash(*args, **arguments):
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", crash)
    with pytest.raises(OSError, match="no space left"):
        backup.save(tmp_path, 2, 2, {"dense": np.zeros((2, 2), bool)})
    assert backup.load(tmp_path).step == 1


def test_nothing_saved_is_nothing_loaded_and_deleting_twice_is_fine(tmp_path):
    assert backup.load(tmp_path) is None
    backup.save(tmp_path, 1, 1, {})
    backup.delete(tmp_path)
    backup.delete(tmp_path)
    assert backup.load(tmp_path) is None
