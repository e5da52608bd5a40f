"""A plain description of a model, read once: what graph resolution works on, without asking Keras again.

`compat.read_model` writes it. Symbolic tensors of Keras become `Tensor`s, also inside the arguments of calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from tf_lap.compat.types import Layer, Variable


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A symbolic tensor.

    Attributes:
        shape: its shape, batch axis first, None where it is open; empty where not even the number of axes is known.
        dtype: the name of its dtype.
        producer: the name of the layer or operation that it comes from.
    """

    shape: tuple[int | None, ...]
    dtype: str
    producer: str

    @property
    def is_boolean(self) -> bool:
        """Whether it holds truth values."""
        return self.dtype == "bool"


@dataclasses.dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of a layer, of an operation of `keras.ops`, or of a TensorFlow function.

    Attributes:
        layer: what is called.
        function: the name below `tf.` of the TensorFlow function that tf_keras made the layer of; None for any other.
        is_operation: whether it is an operation of `keras.ops`.
        is_keras_own: whether Keras ships this exact class, so that its `call` is no user's code.
        arguments: the arguments by name, in the order of the signature, defaults among them; those in `*args` and
            `**kwargs` one by one.
        tensors: the tensors in each argument, by its name.
        inputs: all tensors among the arguments.
        outputs: the tensors that it returns.
        inside: what the layer does inside, where that was to be read and can be; None for layers that have a rule, and
            for Keras's own that have no layers in them.
    """

    layer: Layer
    function: str | None
    is_operation: bool
    is_keras_own: bool
    arguments: Mapping[str, Any]
    tensors: Mapping[str, tuple[Tensor, ...]]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    inside: Inside | TimeStep | Unreadable | None


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """Calls in topological order, with the tensors that enter and leave."""

    calls: tuple[LayerCall, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Inside:
    """The graph inside a nested model or a custom layer.

    Attributes:
        graph: its graph. An output that no call in it puts out, and that does not enter it, is a constant.
        entering: the tensors outside that it is called with, in the order of the graph's inputs.
        is_sized: whether the tensors in the graph have sizes where those outside have open axes.
        is_traced: whether the graph is what the layer's own `call` did, and not one that Keras keeps.
    """

    graph: Graph
    entering: tuple[Tensor, ...]
    is_sized: bool = False
    is_traced: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class TimeStep:
    """What a TimeDistributed layer does at one time step: a call on tensors without axis 1."""

    call: LayerCall


@dataclasses.dataclass(frozen=True, eq=False)
class Unreadable:
    """Why there is no graph of what a layer or model does.

    Attributes:
        reason: in words.
        error: what its own `call` raised on symbolic tensors; None where it was not run.
        traceable_code: what a `call` may be made of so that it can be read, in words.
    """

    reason: str
    error: Exception | None = None
    traceable_code: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class LayerEntry:
    """A layer inside a model.

    Attributes:
        layer: the layer.
        path: the names of the layers that it is in, and its own, joined by slashes.
        parent: the entry of the layer that it is in; None directly in the model.
        weights: the weights that the layer itself has, without those of layers in it.
    """

    layer: Layer
    path: str
    parent: LayerEntry | None
    weights: tuple[Variable, ...]

    def lineage(self) -> Iterator[LayerEntry]:
        """The entry itself, then the one that it is in, and so on outwards."""
        entry: LayerEntry | None = self
        while entry is not None:
            yield entry
            entry = entry.parent


@dataclasses.dataclass(frozen=True, eq=False)
class ModelDescription:
    """A model as pruning reads it.

    Attributes:
        graph: its calls, or why they cannot be read.
        layers: all layers in it, at any depth, each once.
    """

    graph: Graph | Unreadable
    layers: tuple[LayerEntry, ...]
