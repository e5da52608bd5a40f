"""Calls on symbolic tensors that Keras 3 makes no node of, and that work when the model runs."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src.backend.common.variables import Variable as BaseVariable
from keras.src.models.functional import Functional
from keras.src.ops.nn import DotProductAttention
from keras.src.ops.node import Node
from keras.src.ops.operation import Operation

from tf_lap.compat.types import Layer, Model

_OPERATORS = ("__add__", "__sub__", "__mul__", "__truediv__", "__pow__", "__matmul__")
_KERNEL_LAYERS = (keras.layers.Dense, keras.layers.EinsumDense)
_LOCK = threading.RLock()
"""Held while classes of Keras are changed: of two threads each would else put back what the other had put there."""


@contextlib.contextmanager
def admit_more_calls() -> Iterator[None]:
    """Makes nodes of more kinds of calls.

    A layer may return None beside tensors, as attention without a cache does. It may take arguments that the
    `compute_output_spec` which it inherits does not know. A variable may be the left operand of a symbolic tensor.
    Attention of Keras 3.7 runs the `call` of its Dense layers itself: that is a node of the layer, too. Where what a
    layer reads has sizes alone, what it puts out has, too. Attention puts out as many channels as its values have, also
    where Keras takes it for as wide as the queries. What a Functional model is called with need not be converted.
    """
    replaced = {
        (Node, "__init__"): _leave_out_missing(Node.__init__),
        (Functional, "_convert_inputs_to_tensors"): _keep_symbolic(Functional._convert_inputs_to_tensors),
        (keras.Layer, "symbolic_call"): _specify_outputs(keras.Layer.symbolic_call),
        (DotProductAttention, "compute_output_spec"): _take_width_of_values(DotProductAttention.compute_output_spec),
        **{(layer_class, "call"): _make_node_of_layer(layer_class.call) for layer_class in _KERNEL_LAYERS},
        **{(BaseVariable, name): _yield_to_tensors(getattr(BaseVariable, name)) for name in _OPERATORS},
    }
    with _LOCK, contextlib.ExitStack() as stack:
        for (owner, name), function in replaced.items():
            stack.enter_context(_replace(owner, name, function))
        yield


@contextlib.contextmanager
def _replace(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Gives a class or a layer another function as an attribute of its own, for a while."""
    # A layer's own `__setattr__` would keep track of the function.
    kind = type if isinstance(owner, type) else object
    is_own, original = name in vars(owner), vars(owner).get(name)
    kind.__setattr__(owner, name, function)
    try:
        yield
    finally:
        if is_own:
            kind.__setattr__(owner, name, original)
        else:
            kind.__delattr__(owner, name)


def _leave_out_missing(make_node: Callable[..., None]) -> Callable[..., None]:
    """A node's constructor that leaves out outputs which are None."""

    def make_node_of_tensors(
        node: Node, operation: Any, call_args: Any = None, call_kwargs: Any = None, outputs: Any = None
    ) -> None:
        present = [output for output in keras.tree.flatten(outputs) if output is not None]
        make_node(node, operation, call_args, call_kwargs, present)

    return make_node_of_tensors


def _make_node_of_layer(layer_call: Callable[..., Any]) -> Callable[..., Any]:
    """A layer's `call` that makes a node of the layer where it is run on a symbolic tensor."""

    def call(layer: Layer, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        is_symbolic = isinstance(inputs, keras.KerasTensor)
        return layer(inputs) if is_symbolic else layer_call(layer, inputs, *args, **kwargs)

    return call


def _specify_outputs(symbolic_call: Callable[..., Any]) -> Callable[..., Any]:
    """A symbolic call that finds out more often what a layer puts out."""

    def call(layer: Layer, *args: Any, **kwargs: Any) -> Any:
        specify = functools.partial(_find_outputs, layer, layer.compute_output_spec)
        with _replace(layer, "compute_output_spec", specify):
            return symbolic_call(layer, *args, **kwargs)

    return call


def _find_outputs(layer: Layer, compute_output_spec: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call of a layer puts out: with a size on every axis where what it reads has sizes alone."""
    try:
        outputs = compute_output_spec(*args, **kwargs)
    except TypeError:  # inherited from a layer whose `call` takes fewer arguments
        return Operation.compute_output_spec(layer, *args, **kwargs)
    # An EinsumDense layer says that axes are open wherever it was made so.
    is_open = _has_open_axes(outputs) and not _has_open_axes((args, kwargs))
    return Operation.compute_output_spec(layer, *args, **kwargs) if is_open else outputs


def _has_open_axes(structure: Any) -> bool:
    tensors = (leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, keras.KerasTensor))
    return any(None in tensor.shape for tensor in tensors)


def _take_width_of_values(compute_output_spec: Callable[..., Any]) -> Callable[..., Any]:
    """What attention puts out, with as many channels as the values."""

    def specify(attention: Operation, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        spec = compute_output_spec(attention, query, key, value, *args, **kwargs)
        return keras.KerasTensor((*spec.shape[:-1], value.shape[-1]), dtype=spec.dtype)

    return specify


def _keep_symbolic(convert_inputs: Callable[..., Any]) -> Callable[..., Any]:
    """A Functional model's conversion of its inputs, without a node for symbolic tensors of the right dtypes."""

    def convert(model: Model, inputs: Any) -> Any:
        is_right = all(
            isinstance(tensor, keras.KerasTensor) and tensor.dtype == expected.dtype
            for tensor, expected in zip(inputs, model.inputs, strict=False)
        )
        return inputs if is_right else convert_inputs(model, inputs)

    return convert


def _yield_to_tensors(operator: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """An operator of variables that leaves the operation to a symbolic tensor on its right."""

    def operate(variable: Any, other: Any) -> Any:
        return NotImplemented if isinstance(other, keras.KerasTensor) else operator(variable, other)

    return operate
