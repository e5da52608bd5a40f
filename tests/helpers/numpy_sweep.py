"""The channel energies by their definition, in NumPy and float64: what the package's own sweep is checked against.

A rule is a pair of functions written out by hand: `forward` takes the incoming energies of a layer's inputs to that
of its output, `backward` the outgoing energy of its output to those of its inputs. Whatever has no rule raises.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras.src.applications.convnext import LayerScale
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from keras.src.ops import numpy as keras_ops

SAME = {
    keras.layers.Activation,
    keras.layers.AveragePooling2D,
    keras.layers.Cropping2D,
    keras.layers.Dropout,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.MaxPooling2D,
    keras.layers.ReLU,
    keras.layers.ZeroPadding2D,
}
SUM = {keras.layers.Add, keras.layers.Multiply, keras_ops.Add}


class Rule(NamedTuple):
    """How energy passes one call of a layer, in both directions."""

    forward: Any
    backward: Any


class Kernel(NamedTuple):
    """A kernel's sums of squares, and the rule between the layer's input and the kernel's."""

    reads: np.ndarray  # of all weights that read an input channel
    writes: np.ndarray  # of all weights that write an output channel
    before: Rule


def sweep(model):
    """The incoming and the outgoing energy of each kernel, by path; depthwise ones among them."""
    incoming, outgoing = {}, {}
    _forward(model, [np.ones(_width(tensor)) for tensor in model.inputs], "", incoming)
    _backward(model, [np.ones(_width(tensor)) for tensor in model.outputs], "", outgoing)
    assert set(incoming) == set(outgoing)
    return {path: (incoming[path], outgoing[path]) for path in incoming}


def randomise(model, seed):
    """Gives each scale that a new model leaves at 1, or near 0, values that a wrong rule would not survive."""
    generator = np.random.default_rng(seed)

    def draw(variable):
        variable.assign(generator.uniform(0.5, 1.5, variable.shape).astype("float32"))

    for layer in layers_of(model).values():
        if type(layer) is keras.layers.BatchNormalization:
            draw(layer.moving_variance)
            if layer.scale:
                draw(layer.gamma)
        elif type(layer) in (keras.layers.LayerNormalization, LayerScale):
            draw(layer.gamma)
        elif type(layer) is keras.layers.Normalization and layer.input_variance is None:
            draw(layer.adapt_variance)
            layer.finalize_state()


def layers_of(model, prefix=""):
    """All layers that are no models themselves, by path."""
    layers = {}
    for layer in model.layers:
        path = prefix + layer.name
        layers |= layers_of(layer, path + "/") if isinstance(layer, keras.Model) else {path: layer}
    return layers


def _forward(model, inputs, prefix, incoming):
    energies = {id(tensor): energy for tensor, energy in zip(model.inputs, inputs, strict=True)}
    for node in _nodes(model):
        layer, path = node.operation, prefix + node.operation.name
        arriving = [energies[id(tensor)] for tensor in node.input_tensors]
        if isinstance(layer, keras.Sequential):
            leaving = _forward(layer._functional, arriving, path + "/", incoming)
        elif (kernel := _kernel(layer)) is not None:
            assert path not in incoming, f"{path} is shared"
            incoming[path] = kernel.before.forward(*arriving)
            if type(layer) is keras.layers.SeparableConv2D:
                (incoming[f"{path}/depthwise_kernel"],) = arriving
            leaving = [kernel.writes]
        else:
            if type(layer) is keras.layers.DepthwiseConv2D:
                (incoming[path],) = arriving
            leaving = [_rule(node).forward(*arriving)]
        for tensor, energy in zip(node.output_tensors, leaving, strict=True):
            assert energy.shape == (_width(tensor),), path
            energies[id(tensor)] = energy
    return [energies[id(tensor)] for tensor in model.outputs]


def _backward(model, outputs, prefix, outgoing):
    energies = {}

    def add(tensors, arriving):
        for tensor, energy in zip(tensors, arriving, strict=True):
            assert energy.shape == (_width(tensor),), tensor
            energies[id(tensor)] = energies.get(id(tensor), 0.0) + energy

    add(model.outputs, outputs)
    for node in reversed(_nodes(model)):
        layer, path = node.operation, prefix + node.operation.name
        arriving = [energies[id(tensor)] for tensor in node.output_tensors]
        if isinstance(layer, keras.Sequential):
            leaving = _backward(layer._functional, arriving, path + "/", outgoing)
        elif (kernel := _kernel(layer)) is not None:
            assert path not in outgoing, f"{path} is shared"
            (outgoing[path],) = arriving
            if type(layer) is keras.layers.SeparableConv2D:
                outgoing[f"{path}/depthwise_kernel"] = kernel.reads
            leaving = kernel.before.backward(kernel.reads)
        else:
            if type(layer) is keras.layers.DepthwiseConv2D:
                (outgoing[path],) = arriving
            leaving = _rule(node).backward(*arriving)
        add(node.input_tensors, leaving)
    return [energies[id(tensor)] for tensor in model.inputs]


def _nodes(model):
    """The calls of a model's layers, each after those that it reads."""
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def _width(tensor):
    return tensor.shape[-1]


def _kernel(layer):
    if type(layer) is keras.layers.Dense:
        square = _square(layer.kernel)
        return Kernel(square.sum(axis=1), square.sum(axis=0), _scale(1.0))
    if type(layer) is keras.layers.Conv2D:
        _channels_last(layer)
        square = _square(layer.kernel).sum(axis=(0, 1))  # inputs of one group, all outputs
        inputs, outputs = square.shape
        grouped = square.reshape(inputs, layer.groups, outputs // layer.groups)
        return Kernel(grouped.sum(axis=2).T.reshape(-1), square.sum(axis=0), _scale(1.0))
    if type(layer) is keras.layers.SeparableConv2D:
        _channels_last(layer)
        square = _square(layer.pointwise_kernel).sum(axis=(0, 1))
        return Kernel(square.sum(axis=1), square.sum(axis=0), _depthwise(layer.depthwise_kernel))
    return None


def _rule(node):
    layer, inputs, output = node.operation, node.input_tensors, node.output_tensors[0]
    kind = type(layer)
    _channels_last(layer)
    if kind in SUM:
        if len(inputs) < 2:
            raise NotImplementedError(f"{layer.name} takes something that is no tensor")
        return Rule(lambda *energies: sum(energies), lambda energy: [energy] * len(inputs))
    if kind is keras.layers.Concatenate:
        assert layer.axis in (-1, len(output.shape) - 1)
        edges = np.cumsum([_width(tensor) for tensor in inputs])[:-1]
        return Rule(lambda *energies: np.concatenate(energies), lambda energy: np.split(energy, edges))
    if kind is CustomScaleLayer:
        square = float(layer.scale) ** 2
        return Rule(lambda x, branch: x + square * branch, lambda energy: [energy, square * energy])
    if len(inputs) != 1:
        raise NotImplementedError(f"{layer.name} is a {kind} of {len(inputs)} inputs")
    before, after = _width(inputs[0]), _width(output)
    if kind in SAME or (kind is keras.layers.Reshape and before == after):
        return _scale(1.0)
    if kind is keras.layers.Flatten:
        return Rule(
            lambda energy: np.tile(energy, after // before), lambda energy: [energy.reshape(-1, before).sum(axis=0)]
        )
    if kind is keras.layers.DepthwiseConv2D:
        return _depthwise(layer.kernel)
    if kind is keras.layers.BatchNormalization:
        assert layer.axis in (-1, len(output.shape) - 1)
        gamma = _square(layer.gamma) if layer.scale else 1.0
        return _scale(gamma / (np.asarray(layer.moving_variance, "float64") + layer.epsilon))
    if kind is keras.layers.LayerNormalization:
        assert list(layer.axis) in ([-1], [len(output.shape) - 1])
        return _scale(_square(layer.gamma))
    if kind is LayerScale:
        return _scale(_square(layer.gamma))
    if kind is keras.layers.Normalization:
        return _scale(1.0 / np.asarray(layer.variance, "float64").reshape(before))
    if kind is keras.layers.Rescaling:
        return _scale(float(layer.scale) ** 2)
    raise NotImplementedError(f"{layer.name} is a {kind}")


def _scale(factor):
    return Rule(lambda energy: energy * factor, lambda energy: [energy * factor])


def _depthwise(kernel):
    square = _square(kernel).sum(axis=(0, 1))  # channels, depth multiplier
    channels, multiplier = square.shape
    return Rule(
        lambda energy: np.repeat(energy, multiplier) * square.reshape(-1),
        lambda energy: [(energy.reshape(channels, multiplier) * square).sum(axis=1)],
    )


def _square(variable):
    return np.square(np.asarray(variable, "float64"))


def _channels_last(layer):
    assert getattr(layer, "data_format", "channels_last") == "channels_last", layer.name
