"""The benchmark for accelerators: what it writes, and that JAX gives the same masks for it, on the CPU."""

import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_lap

ROOT = Path(__file__).parent.parent


@pytest.fixture
def device():
    path = ROOT / "benchmarks" / "device.py"
    spec = importlib.util.spec_from_file_location("device", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def network():
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(6, 3, name="conv")(inputs))
    return keras.Model(inputs, keras.layers.Dense(5, name="head")(keras.layers.GlobalAveragePooling2D()(x)))


def write(device, folder, model):
    try:
        device.write(folder, model)
    except ValueError as error:
        if "Invalid stage selected: 'stablehlo'" not in str(error):
            raise
        pytest.skip("this TensorFlow writes no StableHLO")


@pytest.mark.slow
def test_it_writes_the_masks_that_a_pruner_chooses(device, tmp_path):
    model = network()
    write(device, tmp_path, model)
    about = json.loads((tmp_path / "about.json").read_text(encoding="utf-8"))
    kernels = [model.get_layer(name).kernel for name in ("conv", "head")]
    for kernel, weights in zip(kernels, device.make_weights(about["shapes"]), strict=True):
        kernel.assign(weights)
    pruner = tf_lap.Pruner(model, allocation="uniform")
    pruner.update(device.SPARSITY)
    with np.load(tmp_path / "masks.npz") as packed:
        for number, mask in enumerate(pruner.masks.values()):
            expected = np.unpackbits(packed[f"arr_{number}"], count=mask.numpy().size)
            np.testing.assert_array_equal(mask.numpy().reshape(-1), expected)
    assert about["keep"] == [int(np.count_nonzero(mask)) for mask in pruner.masks.values()]
    assert "stablehlo" in (tmp_path / "update.mlir").read_text(encoding="utf-8")


def test_jax_gives_the_same_masks(device, tmp_path):
    pytest.importorskip("jax", reason="JAX is installed by hand where accelerators are measured")
    write(device, tmp_path, network())
    result = device.run(tmp_path)
    assert result["differing_mask_bits"] == 0
    assert result["kept_exactly"]
    assert result["zeros_are_where_masks_are"]
    assert result["update_over_copy"] > 0
