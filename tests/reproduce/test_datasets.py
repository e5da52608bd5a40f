import numpy as np
import pytest

from tf_lap.reproduce.datasets import ARRAYS, load_digits_task, load_npz_task


def test_inputs_are_scaled_by_the_training_images_alone(tmp_path):
    images = np.arange(784, dtype=np.uint8).reshape(1, 28, 28)
    labels = np.zeros(1, np.uint8)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images // 2, y_test=labels)
    arrays = load_npz_task(tmp_path / "data.npz").arrays
    expected = (images // 2 - images.mean()) / images.std()
    np.testing.assert_allclose(arrays["x_test"], expected.reshape(1, 784), rtol=1e-4, atol=1e-5)


def test_the_split_of_digits_is_fixed_and_shares_no_image():
    first, second = load_digits_task().arrays, load_digits_task().arrays
    for name in ARRAYS:
        np.testing.assert_array_equal(first[name], second[name])
    assert first["x_train"].mean() == pytest.approx(0, abs=1e-5)
    assert first["x_train"].std() == pytest.approx(1, abs=1e-5)
    assert len(first["x_train"]) + len(first["x_test"]) == 1797
