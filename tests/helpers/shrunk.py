"""Models with random channels masked by hand, and what `shrink` makes of them."""

import warnings

import numpy as np
import tensorflow as tf

from tf_lap import compat, shrink
from tf_lap.graph.coupling import find_coupling
from tf_lap.graph.resolver import resolve


def draw(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def draw_inputs(model, batch=3):
    inputs = [draw(batch, *tensor.shape[1:], seed=place) for place, tensor in enumerate(model.inputs)]
    inputs = [
        np.abs(values).astype(tf.as_dtype(tensor.dtype).as_numpy_dtype)
        if tf.as_dtype(tensor.dtype).is_integer
        else values
        for values, tensor in zip(inputs, model.inputs, strict=True)
    ]
    return inputs[0] if len(inputs) == 1 else inputs


def randomize(model, seed=0):
    """Gives biases, scales and statistics values of a trained network, so that a masked channel is not zero."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        values = compat.host_array(variable)
        name = compat.variable_name(variable)
        if name == "moving_variance":
            values = rng.uniform(0.5, 2, values.shape)
        elif name in ("bias", "beta", "gamma", "moving_mean", "alpha"):
            values = rng.normal(float(name == "gamma"), 0.5, values.shape)
        compat.assign(variable, values.astype(values.dtype))


def mask_channels(model, fraction, seed=0):
    """Zeroes what reads and what makes random classes of channels without a wall.

    Returns:
        For each kernel in the order of the graph how many weights lie between channels that stay, and None where
        nothing was masked.
    """
    recipe = resolve(model)
    coupling = find_coupling(recipe)
    parts = (*coupling.tensor_classes, *coupling.kernel_inputs, *coupling.kernel_outputs)
    count = 1 + max(int(part.max()) for part in parts if part.size)
    removed = np.random.default_rng(seed).random(count) < fraction
    removed[list(coupling.walls)] = False
    for classes in coupling.tensor_classes:
        if removed[classes].all():
            removed[classes[0]] = False
    left = []
    for number, kernel in enumerate(recipe.kernels):
        inputs, outputs = ~removed[coupling.kernel_inputs[number]], ~removed[coupling.kernel_outputs[number]]
        weights = compat.host_array(kernel.variable)
        kept = kernel.layout.find_between(inputs, outputs)
        compat.assign(kernel.variable, (weights * kept).astype(weights.dtype))
        left.append(int(kept.sum() * weights.size / kept.size))
    return left if removed.any() else None


def zero_channels(model, fraction, seed=0):
    """Zeroes what some kernels read in random channels, and what some put out, each kernel by itself."""
    rng = np.random.default_rng(seed)
    for kernel in resolve(model).kernels:
        inputs, outputs = (rng.random(size) >= fraction for size in (kernel.layout.inputs, kernel.layout.outputs))
        weights = compat.host_array(kernel.variable)
        kept = kernel.layout.find_between(inputs, outputs)
        compat.assign(kernel.variable, (weights * kept).astype(weights.dtype))


def outputs(model, inputs):
    return [np.asarray(tf.cast(output, tf.float32)) for output in tf.nest.flatten(model(inputs, training=False))]


def assert_agree(model, small, inputs=None, tolerance=1e-5):
    inputs = draw_inputs(model) if inputs is None else inputs
    for expected, output in zip(outputs(model, inputs), outputs(small, inputs), strict=True):
        assert output.shape == expected.shape
        np.testing.assert_allclose(output, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1e-30))


def shrunk(model):
    """Shrinks a model, which must not change, and compares both."""
    before = [np.array(compat.host_array(variable)) for variable in model.weights]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*equal copy")
        small, report = shrink(model, return_report=True)
    for values, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(values, compat.host_array(variable))
    assert_agree(model, small)
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    return small, report


def masked_and_shrunk(model, fraction=0.4, seed=0):
    """Masks random channels and shrinks; the smaller copy must lack all that was masked."""
    randomize(model, seed)
    left = mask_channels(model, fraction, seed)
    small, report = shrunk(model)
    assert left is None or all(layer.weights[1] <= count for layer, count in zip(report.layers, left, strict=True))
    return small, report
