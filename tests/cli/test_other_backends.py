"""A model of Keras on JAX or torch is pruned by the command, and goes on where it came from."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TRAIN = """
import keras, numpy as np
assert keras.backend.backend() == BACKEND
keras.utils.set_random_seed(0)
layers = [keras.Input((8,)), keras.layers.Dense(32, activation="relu"), keras.layers.BatchNormalization()]
model = keras.Sequential([*layers, keras.layers.Dense(4)])
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
x = np.random.default_rng(0).standard_normal((64, 8)).astype("float32")
model.fit(x, x[:, :4].argmax(1), epochs=2, verbose=0)
model.save("model.keras")
"""

GO_ON = """
import keras, numpy as np
dense, sparse = keras.saving.load_model("model.keras"), keras.saving.load_model("sparse.keras")
for before, after in zip(dense.weights, sparse.weights):
    before, after = np.array(before), np.array(after)
    left = after != 0
    assert np.array_equal(before[left], after[left])
kernels = [np.array(layer.kernel) for layer in sparse.layers if hasattr(layer, "kernel")]
zeros = sum((kernel == 0).sum() for kernel in kernels) / sum(kernel.size for kernel in kernels)
assert abs(zeros - 0.75) < 0.01, zeros
assert [np.array(v).shape for v in dense.optimizer.variables] == [np.array(v).shape for v in sparse.optimizer.variables]
x = np.random.default_rng(0).standard_normal((64, 8)).astype("float32")
sparse.fit(x, x[:, :4].argmax(1), epochs=1, verbose=0)
print("went on")
"""


def run(backend, folder, *args):
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, *args], env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch", "tensorflow"])
def test_a_round_trip(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    run(backend, tmp_path, "-c", f"BACKEND = {backend!r}\n{TRAIN}")
    command = ["-m", "tf_lap.cli.main", "prune", "model.keras", "-o", "sparse.keras", "--sparsity", "0.75"]
    assert "written: sparse.keras" in run(backend, tmp_path, *command)
    assert run(backend, tmp_path, "-c", GO_ON) == "went on\n"
