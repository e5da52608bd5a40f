"""Layers that can be made anew with fewer channels: which settings of a layer hold their number.

Most layers take the number of their channels from what they read. The others have it in a setting, such as a Dense
layer's `units`; the table here says in which. A layer that has it nowhere, or in its code, cannot be made narrower.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from tf_lap import compat
from tf_lap.compat.types import Layer, Variable
from tf_lap.graph.channels import Shape
from tf_lap.graph.composite import CompositeRule
from tf_lap.graph.registry import find_rule

Settings: TypeAlias = dict[str, Any]
"""Settings of a layer's config. One of a layer inside it is a mapping of settings itself."""


@dataclasses.dataclass(frozen=True)
class Resized:
    """What a layer is to be made anew for.

    Attributes:
        shape_of: given a kernel of the layer, the shape that it is to have.
        output: the shape of the layer's output, batch first; empty where it is not known.
    """

    shape_of: Callable[[Variable], tuple[int, ...]]
    output: Shape = ()


def find_obstacle(layer: Layer) -> str | None:
    """Why a layer cannot be made anew with fewer channels, or None where it can.

    Args:
        layer: a layer, an operation or a function. It is about the layer's own class: nothing is said of layers in it.
    """
    name, entry = type(layer).__name__, _find_entry(layer)
    if has_own_call(layer):
        return f"{name} has a call of its own, which may read its kernel in another way"
    if entry is not None:
        return entry.find_obstacle(layer)
    rule = find_rule(layer)
    if isinstance(rule, CompositeRule) and rule.has_kernels:
        return f"no setting of a {name} is known that holds the number of its channels"
    if compat.own_weights(layer) and not compat.has_keras_call(layer):
        return f"{name} is a custom layer with weights of its own"
    return None


def has_own_call(layer: Layer) -> bool:
    """Whether a layer is of a subclass of one in the table, with a call that a user wrote."""
    return _find_entry(layer) is not None and not compat.has_keras_call(layer)


def find_settings(layer: Layer, resized: Resized) -> Settings:
    """The settings of a layer's config that hold numbers of channels, as they are to be.

    Args:
        layer: a layer without obstacle.
        resized: the new shapes of its kernels and of its output.
    """
    entry = _find_entry(layer)
    return {} if entry is None else entry.find_settings(layer, resized)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """How layers of a class are made anew.

    Attributes:
        find_settings: as the function of this name.
        find_own_obstacle: what stands against it, where a layer of the class may have something of its own.
    """

    find_settings: Callable[[Layer, Resized], Settings]
    find_own_obstacle: Callable[[Layer], str | None] = lambda layer: None

    def find_obstacle(self, layer: Layer) -> str | None:
        """Why a layer of the class cannot be made anew with fewer channels, or None where it can."""
        obstacle = self.find_own_obstacle(layer)
        if obstacle is not None or not layer.built:
            return obstacle
        current = Resized(lambda variable: tuple(variable.shape), _output_shape(layer))
        missing = _find_missing(self.find_settings(layer, current), layer.get_config())
        if not missing:
            return None
        return f"the config of {type(layer).__name__} {layer.name!r} does not hold its {' and '.join(missing)}"


def _output_shape(layer: Layer) -> Shape:
    """A shape that the settings of a Reshape layer are taken from."""
    target = getattr(layer, "target_shape", None)
    return () if target is None else (None, *target)


def _find_missing(settings: Settings, config: Mapping[str, Any]) -> list[str]:
    """The settings that a config does not hold: a subclass may fix them in its code."""
    missing = []
    for name, value in settings.items():
        if isinstance(value, dict):
            missing += _find_missing(value, (config.get(name) or {}).get("config", {}))
        elif isinstance(value, list):
            inner = config.get(name) or [{}] * len(value)
            for part, part_config in zip(value, inner, strict=True):
                missing += _find_missing(part, part_config.get("config", {}))
        elif name not in config:
            missing.append(name)
    return missing


def _dense(layer: Layer, resized: Resized) -> Settings:
    return {"units": resized.shape_of(layer.kernel)[-1]}


def _convolution(layer: Layer, resized: Resized) -> Settings:
    filters = resized.shape_of(layer.kernel)[-1]
    groups = getattr(layer, "groups", 1) or 1
    if groups == 1:
        return {"filters": filters}
    # A group goes whole, so that each keeps as many filters as it has.
    return {"filters": filters, "groups": groups * filters // layer.filters}


def _transposed_convolution(layer: Layer, resized: Resized) -> Settings:
    return {"filters": resized.shape_of(layer.kernel)[-2]}


def _separable_convolution(layer: Layer, resized: Resized) -> Settings:
    return {"filters": resized.shape_of(layer.pointwise_kernel)[-1]}


def _embedding(layer: Layer, resized: Resized) -> Settings:
    entries, channels = resized.shape_of(layer.embeddings)
    return {"input_dim": entries, "output_dim": channels}


def _einsum_dense(layer: Layer, resized: Resized) -> Settings:
    """The sizes of the axes that the output shares with the kernel; the others stay, and may be open."""
    operands, _, output = layer.equation.replace(" ", "").partition("->")
    kernel = dict(zip(operands.partition(",")[2], resized.shape_of(layer.kernel), strict=True))
    configured = layer.get_config()["output_shape"]
    sizes = list(configured) if isinstance(configured, (list, tuple)) else [configured]
    labels = output.replace("...", "")[-len(sizes) :]
    return {"output_shape": tuple(kernel.get(label, size) for label, size in zip(labels, sizes, strict=True))}


def _reshape(layer: Layer, resized: Resized) -> Settings:
    """The sizes of the output, open ones among them: at most one is open, and -1 stands for it."""
    configured = layer.get_config()["target_shape"]
    sizes = zip(configured, resized.output[1:], strict=True)
    return {"target_shape": tuple(-1 if size is None or old == -1 else size for old, size in sizes)}


def _cell(cell: Layer, resized: Resized) -> Settings:
    """The units or filters of a cell: its recurrent kernel reads as many."""
    setting = "units" if hasattr(cell, "units") else "filters"
    return {setting: resized.shape_of(cell.recurrent_kernel)[-2]}


def _recurrent(layer: Layer, resized: Resized) -> Settings:
    """The settings of a recurrent layer, or of the cells that the user gave it."""
    if type(layer).__name__ != "RNN":
        return _cell(layer.cell, resized)
    cells = getattr(layer.cell, "cells", None)
    if cells is None:
        return {"cell": _cell(layer.cell, resized)}
    return {"cell": {"cells": [_cell(cell, resized) for cell in cells]}}


def _bidirectional(layer: Layer, resized: Resized) -> Settings:
    settings: Settings = {"layer": _recurrent(layer.forward_layer, resized)}
    backward = _recurrent(layer.backward_layer, resized)
    if "backward_layer" in layer.get_config() or backward != settings["layer"]:
        settings["backward_layer"] = backward
    return settings


def _time_distributed(layer: Layer, resized: Resized) -> Settings:
    output = (*resized.output[:1], *resized.output[2:])
    return {"layer": find_settings(layer.layer, dataclasses.replace(resized, output=output))}


def _find_inner_obstacle(layer: Layer) -> str | None:
    return find_obstacle(layer.layer)


def _find_named(layer: Layer) -> dict[str, Layer]:
    return {inner.name: inner for inner in compat.sublayers(layer)}


def _multi_head_attention(layer: Layer, resized: Resized) -> Settings:
    """Whole heads go. Without a setting of its own the output is as wide as the queries."""
    inner = _find_named(layer)
    output_width = resized.shape_of(inner["attention_output"].kernel)[-1]
    settings: Settings = {"num_heads": resized.shape_of(inner["query"].kernel)[-2]}
    if layer.get_config().get("output_shape") is not None or output_width != inner["attention_output"].kernel.shape[-1]:
        settings["output_shape"] = output_width
    return settings


def _grouped_query_attention(layer: Layer, resized: Resized) -> Settings:
    inner = _find_named(layer)
    return {
        "num_query_heads": resized.shape_of(inner["query"].kernel)[-2],
        "num_key_value_heads": resized.shape_of(inner["key"].kernel)[-2],
    }


def _follow_input(layer: Layer, resized: Resized) -> Settings:
    """No setting: such a layer is as wide as what it reads."""
    return {}


def _find_listed_numbers(*names: str) -> Callable[[Layer], str | None]:
    """The obstacle of layers whose config may hold a number for each channel."""

    def find_own_obstacle(layer: Layer) -> str | None:
        config = layer.get_config()
        listed = [name for name in names if _holds_several(config.get(name))]
        return f"its {listed[0]} is a setting with a number for each channel" if listed else None

    return find_own_obstacle


def _holds_several(value: Any) -> bool:
    """Whether a setting is an array, or a list of more than one number, as a config writes either."""
    if isinstance(value, dict):
        value = value.get("config", {}).get("value")
    if isinstance(value, (list, tuple)):
        return len(value) > 1 or any(map(_holds_several, value))
    return getattr(value, "size", 1) > 1


def _find_colours(layer: Layer) -> str:
    """The obstacle of layers that augment images of three channels."""
    return "it takes its channels for colours"


def _find_custom_cell(layer: Layer) -> str | None:
    """The obstacle of a recurrent layer that has a cell of the user's own."""
    for inner in (layer.forward_layer, layer.backward_layer) if hasattr(layer, "forward_layer") else (layer,):
        for cell in getattr(inner.cell, "cells", [inner.cell]):
            if not compat.has_keras_call(cell):
                return f"its cell {type(cell).__name__} is a custom one"
    return None


_ENTRIES: dict[_Entry, str] = {
    _Entry(_dense): "Dense",
    _Entry(_convolution): "Conv1D Conv2D Conv3D",
    _Entry(_transposed_convolution): "Conv1DTranspose Conv2DTranspose Conv3DTranspose",
    _Entry(_separable_convolution): "SeparableConv1D SeparableConv2D",
    _Entry(_embedding): "Embedding ReversibleEmbedding",
    _Entry(_einsum_dense): "EinsumDense",
    _Entry(_reshape): "Reshape",
    _Entry(_recurrent, _find_custom_cell): "RNN",
    _Entry(_bidirectional, _find_custom_cell): "Bidirectional",
    _Entry(_time_distributed, _find_inner_obstacle): "TimeDistributed",
    _Entry(_multi_head_attention): "MultiHeadAttention",
    _Entry(_grouped_query_attention): "GroupedQueryAttention",
    _Entry(_follow_input): "DepthwiseConv1D DepthwiseConv2D AdditiveAttention",
    _Entry(_follow_input, _find_colours): """
        RandomColorDegeneration RandomColorJitter RandomHue RandomSaturation RandomGrayscale RandomPosterization
        RandomContrast RandomBrightness RandomInvert RandomSharpness RandomErasing RandomGaussianBlur
        RandAugment AugMix MixUp CutMix AutoContrast Equalization Solarization
    """,
    _Entry(_follow_input, _find_listed_numbers("scale", "offset")): "Rescaling",
    _Entry(_follow_input, _find_listed_numbers("mean", "variance")): "Normalization",
}
_BY_NAME = {name: entry for entry, names in _ENTRIES.items() for name in names.split()}


def _find_entry(layer: Layer) -> _Entry | None:
    """How layers of this class are made anew, or those of its nearest base class in the table."""
    if compat.is_operation(layer):
        return None
    classes = (cls for cls in type(layer).__mro__ if cls.__module__.partition(".")[0] in ("keras", "tf_keras"))
    return next((entry for cls in classes if (entry := _BY_NAME.get(cls.__name__)) is not None), None)
