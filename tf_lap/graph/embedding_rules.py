"""Embeddings: tables that are looked up by number, and turned round to tell features apart again."""

from __future__ import annotations

from tf_lap.compat.types import Layer
from tf_lap.graph.channels import Boundary, Flow
from tf_lap.graph.composite import LayerSteps, Target
from tf_lap.graph.energy_maps import ChannelScale
from tf_lap.graph.kernels import ChannelAxes, LayerKernel
from tf_lap.graph.layouts import Layout


def find_embedding_kernels(layer: Layer) -> list[LayerKernel]:
    """The table `(entries, channels)`: its entries are inputs, of which a look-up reads one."""
    return [LayerKernel("", layer.embeddings, Layout(tuple(layer.embeddings.shape)), is_opt_in=True)]


def find_reversible_kernels(layer: Layer) -> list[LayerKernel]:
    """The table, and the one for the way back where that has its own, `(channels, entries)`."""
    kernels = find_embedding_kernels(layer)
    if not layer.tie_weights:
        table = layer.reverse_embeddings
        kernels.append(LayerKernel("reverse_embeddings", table, Layout(tuple(table.shape))))
    return kernels


def find_position_kernels(layer: Layer) -> list[LayerKernel]:
    """The table `(positions, channels)` of keras-hub's PositionEmbedding."""
    table = layer.position_embeddings
    return [LayerKernel("", table, Layout(tuple(table.shape)), is_opt_in=True)]


def follow_embedding(steps: LayerSteps) -> list[Target]:
    """A look-up reads one row of the table: the mean energy over its rows counts."""
    (kernel, *_) = find_embedding_kernels(steps.layer)
    source = steps.read(next(iter(steps.call.arguments.values())))
    if steps.signal(source).axes:
        raise Boundary("looks up by a tensor that carries channels")
    return [_look_up(steps, kernel, source)]


def follow_position_embedding(steps: LayerSteps) -> list[Target]:
    """A look-up by the numbers of positions. What the layer is called with says how many there are, and no more."""
    (kernel,) = find_position_kernels(steps.layer)
    output = steps.call.outputs[0].shape
    reason = f"{type(steps.layer).__name__} {steps.path!r}: looks up by the numbers of positions"
    return [_look_up(steps, kernel, steps.begin(output[:-1], reason))]


def _look_up(steps: LayerSteps, kernel: LayerKernel, source: int) -> Target:
    """Adds a look-up in a table: the mean energy over its rows counts."""
    output = steps.call.outputs[0].shape
    channel_axis = (len(output) - 1,)
    target = steps.use_kernel(kernel, source, ChannelAxes((0,), channel_axis), output)
    entries = kernel.layout.inputs
    return steps.apply([target], output, Flow(channel_axis, ChannelScale(lambda read: read(1 / entries))))


def follow_reversible(steps: LayerSteps) -> list[Target]:
    """A look-up, or the way back: features times the rows of the table, or of the table for the way back."""
    if not steps.argument("reverse"):
        return follow_embedding(steps)
    source = steps.read(next(iter(steps.call.arguments.values())))
    output = steps.call.outputs[0].shape
    axes = ChannelAxes((len(steps.signal(source).shape) - 1,), (len(output) - 1,))
    kernel = find_reversible_kernels(steps.layer)[-1]
    return [steps.use_kernel(kernel, source, axes, output, is_transposed=steps.layer.tie_weights)]
