"""What of a model is to be changed so that XNNPACK runs it sparse, found in its graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tf_lap import compat
from tf_lap.compat.types import Layer
from tf_lap.tflite.operations import Padding

Offset = tuple[int, int]


@dataclasses.dataclass
class Changes:
    """What is to be changed, by the ids of layers and operations.

    Attributes:
        settings: settings that are to be others.
        before: layers to put before others.
        replacements: layers to put in place of others.
        moved: of depthwise kernels that become 5x5, at which row and column the old taps begin.
        words: the changes in words.
    """

    settings: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
    before: dict[int, compat.NewLayer] = dataclasses.field(default_factory=dict)
    replacements: dict[int, compat.NewLayer] = dataclasses.field(default_factory=dict)
    moved: dict[int, Offset] = dataclasses.field(default_factory=dict)
    words: list[str] = dataclasses.field(default_factory=list)

    def set(self, layer: Layer, **settings: Any) -> None:
        """Notes settings of a layer."""
        self.settings.setdefault(id(layer), {}).update(settings)

    def joined(self, other: Changes) -> Changes:
        """These changes and others."""
        settings = dict(self.settings)
        for key, added in other.settings.items():
            settings[key] = {**settings.get(key, {}), **added}
        return Changes(
            settings,
            self.before | other.before,
            self.replacements | other.replacements,
            self.moved | other.moved,
            self.words + other.words,
        )


def find_changes(graph: compat.Graph) -> tuple[Changes, Changes]:
    """What is to be changed in a model with this graph: what computes the same then, and what does not."""
    exact, inexact = Changes(), Changes()
    for level in _walk(graph):
        _Level(level, exact, inexact).find_all()
    return exact, inexact


def _walk(graph: compat.Graph) -> Iterator[compat.Graph]:
    """A graph, and those of the models in it."""
    yield graph
    for call in graph.calls:
        if isinstance(call.inside, compat.Inside) and not call.inside.is_traced:
            yield from _walk(call.inside.graph)


_POOLING = "GlobalAveragePooling2D"
_CHAINED = ("Activation", "ReLU", "Dropout", "Reshape", "BatchNormalization", "Dense", "Conv2D", "Rescaling")
"""What may stand between a global mean and what it scales, or behind the mean in a head."""
_SCALED = ("Multiply", "Add")


class _Level:
    """One graph: a model's, without what is inside of models in it."""

    def __init__(self, graph: compat.Graph, exact: Changes, inexact: Changes) -> None:
        self._graph, self._exact, self._inexact = graph, exact, inexact
        self._producers = {tensor: call for call in graph.calls for tensor in call.outputs}
        self._consumers: dict[compat.Tensor, list[compat.LayerCall]] = {}
        for call in graph.calls:
            for tensor in dict.fromkeys(call.inputs):
                self._consumers.setdefault(tensor, []).append(call)

    def find_all(self) -> None:
        """Notes all changes."""
        for call in self._graph.calls:
            name = _class_name(call)
            if name in ("Conv2D", "DepthwiseConv2D") and call.layer.data_format == "channels_last":
                self._change_padding(call, is_depthwise=name == "DepthwiseConv2D")
            elif name == _POOLING and call.layer.data_format == "channels_last":
                self._change_pooling(call)

    def _change_padding(self, call: compat.LayerCall, is_depthwise: bool) -> None:
        """Makes the padding of a convolution of stride 2 the same number on every side."""
        layer, sides = call.layer, tuple(call.layer.kernel_size)
        is_known = sides == (3, 3) or (is_depthwise and sides == (5, 5))
        is_stem = is_depthwise or call.inputs[0].shape[-1] == 3
        if not is_known or not is_stem or tuple(layer.strides) != (2, 2) or tuple(layer.dilation_rate) != (1, 1):
            return
        pad = self._producers.get(call.inputs[0])
        pad = pad if pad is not None and _class_name(pad) == "ZeroPadding2D" else None
        if pad is not None and (layer.padding != "valid" or len(self._consumers[call.inputs[0]]) > 1):
            return
        _, rows, columns, _ = (pad or call).inputs[0].shape
        if rows is None or columns is None:
            return
        padding = _read_padding(layer, pad, (rows, columns))
        needed = sides[0] // 2
        if padding in ((0, 0, 0, 0), (needed,) * 4):
            return
        path = repr(layer.name)
        top, bottom, left, right = padding
        new_padding, size = needed, sides[0]
        if is_depthwise and sides == (3, 3) and top <= 2 and left <= 2 and (top, left) != (1, 1):
            new_padding, size = 2, 5
        if not all(
            _count(extent, sum(pads), sides[0]) == _count(extent, 2 * new_padding, size)
            for extent, pads in ((rows, (top, bottom)), (columns, (left, right)))
        ):
            return
        changes = self._inexact if size == sides[0] else self._exact
        if size == sides[0]:
            changes.words.append(
                f"{path} pads {needed} on every side, in place of ({top}, {bottom}), ({left}, {right}): "
                f"it sees its image moved by {needed - top} rows and {needed - left} columns"
            )
        else:
            changes.words.append(f"{path} is 5x5 and pads 2, with its taps at row {2 - top}, column {2 - left}")
            changes.moved[id(layer)] = 2 - top, 2 - left
            changes.set(layer, kernel_size=(5, 5))
        if pad is None:
            name = f"{layer.name}_pad"
            changes.before[id(layer)] = "ZeroPadding2D", {"padding": new_padding, "name": name}
            changes.set(layer, padding="valid")
        else:
            changes.set(pad.layer, padding=((new_padding, new_padding),) * 2)

    def _change_pooling(self, call: compat.LayerCall) -> None:
        """Keeps the dimensions of a mean that scales channels; drops those of one that a head of convolutions reads."""
        chain, end = self._follow(call)
        if end is not None and _class_name(end) in _SCALED:
            if not call.layer.keepdims:
                self._exact.set(call.layer, keepdims=True)
                self._exact.words.append(f"{call.layer.name!r} keeps its dimensions")
            for link in chain:
                self._change_constant(link)
            return
        convolutions = [link for link in chain if _class_name(link) == "Conv2D"]
        flattens = end is not None and _class_name(end) == "Flatten"
        flattens = flattens or any(_class_name(link) == "Reshape" and len(link.outputs[0].shape) == 2 for link in chain)
        if not call.layer.keepdims or not convolutions or not flattens or not all(map(_is_plain, convolutions)):
            return
        self._exact.set(call.layer, keepdims=False)
        for link in chain:
            if _class_name(link) == "Conv2D":
                self._exact.replacements[id(link.layer)] = "Dense", _dense_config(link.layer)
            elif _class_name(link) == "BatchNormalization":
                self._exact.set(link.layer, axis=-1)
        names = ", ".join(repr(link.layer.name) for link in convolutions)
        self._exact.words.append(f"{names} behind {call.layer.name!r} is Dense")

    def _follow(self, call: compat.LayerCall) -> tuple[list[compat.LayerCall], compat.LayerCall | None]:
        """The calls behind a mean that nothing else joins, and the first one behind these."""
        chain: list[compat.LayerCall] = []
        current = call
        while True:
            readers = self._consumers.get(current.outputs[0], [])
            if len(readers) != 1 or current.outputs[0] in self._graph.outputs:
                return chain, None
            (current,) = readers
            is_link = _class_name(current) in _CHAINED or _read_constant(current) is not None
            if not is_link:
                return chain, current
            chain.append(current)

    def _change_constant(self, call: compat.LayerCall) -> None:
        """Gives a constant that single numbers are multiplied with four axes."""
        constant = _read_constant(call)
        if constant is None or constant[0] != "scale":
            return  # what is added goes into the bias of the convolution before it
        config = {"scale": [[[[constant[1]]]]], "name": call.layer.name}
        self._exact.replacements[id(call.layer)] = "Rescaling", config
        self._exact.words.append(f"{call.layer.name!r} is Rescaling by a constant of 4 axes")


def _class_name(call: compat.LayerCall) -> str:
    """The class of a layer or operation of Keras's own; empty for any other."""
    if call.function is not None or not call.is_keras_own:
        return ""
    return type(call.layer).__name__


_ARITHMETIC = {
    "Multiply": "scale", "Add": "offset", "math.multiply": "scale", "math.add": "offset", "__operators__.add": "offset",
}  # fmt: skip


def _read_constant(call: compat.LayerCall) -> tuple[str, float] | None:
    """What a call does with a single number, "scale" or "offset", and the number; None for any other call."""
    kind = _ARITHMETIC.get(call.function or _class_name(call))
    numbers = [argument for argument in call.arguments.values() if isinstance(argument, (int, float, np.number))]
    if kind is None or len(call.inputs) != 1 or len(numbers) != 1 or isinstance(numbers[0], bool):
        return None
    return kind, float(numbers[0])


def _read_padding(layer: Layer, pad: compat.LayerCall | None, extents: tuple[int, int]) -> Padding:
    """The zeros that a convolution of stride 2, and a layer before it, put around an image of this size."""
    if pad is not None:
        (top, bottom), (left, right) = pad.layer.padding
        return top, bottom, left, right
    if layer.padding != "same":
        return 0, 0, 0, 0
    totals = [max((-(-n // 2) - 1) * 2 + taps - n, 0) for n, taps in zip(extents, layer.kernel_size, strict=True)]
    rows, columns = totals
    return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2


def _count(extent: int, padding: int, size: int) -> int:
    """How many rows a convolution of stride 2 puts out."""
    return (extent + padding - size) // 2 + 1


def _is_plain(call: compat.LayerCall) -> bool:
    """Whether a convolution is 1x1 and nothing else, as a Dense layer is."""
    layer = call.layer
    return tuple(layer.kernel_size) == tuple(layer.strides) == (1, 1) and layer.groups == 1


def _dense_config(layer: Layer) -> Mapping[str, Any]:
    """The config of the Dense layer that does what a 1x1 convolution does at one position."""
    names = ("activation", "use_bias", "kernel_regularizer", "bias_regularizer", "activity_regularizer", "name")
    return {"units": layer.filters, **{name: getattr(layer, name) for name in names}}
