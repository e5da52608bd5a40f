"""Which rule serves which class: one table for Keras's layers, its operations, and users' own layers."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import tensorflow as tf

from tf_lap import compat
from tf_lap.compat.types import Layer
from tf_lap.graph.channels import Call, ChannelRule, Flow, Signal, format_axis
from tf_lap.graph.composite import CompositeRule
from tf_lap.graph.declared_kernels import find_declared_rule
from tf_lap.graph.energy_maps import EnergyMap, Function, Identity
from tf_lap.graph.flows import reduce_to_axis, sum_signals

UserRule = TypeVar("UserRule", bound=Callable[..., tf.Tensor])

Rule: TypeAlias = ChannelRule | CompositeRule

RULES: dict[type, Rule] = {}
"""The rules of layer classes and of classes of operations."""
FUNCTIONS: dict[str, ChannelRule | CompositeRule] = {}
"""The rules of TensorFlow's functions, which tf_keras makes layers of, by their names below `tf.`"""


def register_rule(layer_class: type) -> Callable[[UserRule], UserRule]:
    """Registers the channel rule of a custom layer class and its subclasses.

    The rule is a function `rule(layer, *energies) -> energy`. Each energy is a float32 vector, one number a
    channel of that input tensor: the squared norms of what was put into the channel. It has length 1 where all
    channels are alike. Masks (arguments of the layer's call that are named `mask` or end with `_mask`) and tensors of
    truth values are not inputs. The rule returns the energies of the output in the same form. It must be linear in the
    energies, and use TensorFlow operations only; it may read variables of the layer with `tf.convert_to_tensor`.
    Channels stay on the axis that they lie on in the inputs. A rule registered later for the same class replaces the
    earlier one.

    Example:

    >>> class Residual(keras.layers.Layer):
    ...     def call(self, inputs):
    ...         return inputs[0] + 0.5 * inputs[1]
    >>> @tf_lap.register_rule(Residual)
    ... def residual_rule(layer, x, branch):
    ...     return x + 0.25 * branch

    Args:
        layer_class: a subclass of `keras.layers.Layer`.

    Raises:
        TypeError: `layer_class` is not a class, or the decorated object is not a function. A rule that does not fit
            the layer raises TypeError or ValueError when a model with the layer is resolved.
    """
    if not isinstance(layer_class, type):
        raise TypeError(
            f"register_rule takes a layer class, got {layer_class!r}: "
            "write @register_rule(MyLayer), then a function of (layer, *energies)."
        )

    def register(rule: UserRule) -> UserRule:
        if not callable(rule):
            raise TypeError(f"the rule of {layer_class.__name__} must be a function, got {rule!r}")
        RULES[layer_class] = ChannelRule(functools.partial(_apply_user_rule, rule), (0, None))
        return rule

    return register


def _apply_user_rule(rule: Callable[..., tf.Tensor], call: Call) -> Flow:
    """The flow of a user's rule: a linear function of tensors. Channels stay on the axis that they have in the inputs.

    Raises:
        Boundary: the channels of the inputs lie on different axes, or on others than the layer's data format names.
        TypeError: the rule does not take the call's inputs, or does not return energies.
        ValueError: it returns another number of energies than the output has channels.
    """
    try:
        inspect.signature(rule).bind(call.layer, *call.inputs)
    except TypeError as error:
        raise TypeError(
            f"the rule registered for {type(call.layer).__name__} does not take (layer, *energies) "
            f"with {len(call.inputs)} energies, one for each input of layer {call.layer.name!r}: {error}"
        ) from error
    input_flows = [_reduce_to_one_axis(call.layer, signal) for signal in call.inputs]
    inputs = [Signal(signal.shape, flow.axes) for signal, flow in zip(call.inputs, input_flows, strict=True)]
    axes = sum_signals(inputs, len(call.output)).axes

    def apply_rule(*energies: tf.Tensor) -> tf.Tensor:
        reduced = (flow.energy_map.apply(energy) for flow, energy in zip(input_flows, energies, strict=True))
        return rule(call.layer, *reduced)

    length = _count_energies(Function(apply_rule), call)
    if not axes and length > 1:
        axes = (format_axis(call.layer, len(call.output)),)
    channels = call.output[axes[0]] if axes else 1
    if length not in (1, channels):
        raise ValueError(
            f"the rule registered for {type(call.layer).__name__} returns {length} energies for layer "
            f"{call.layer.name!r}, whose output of shape {call.output} has {channels} channels"
        )
    fixed = f"{type(call.layer).__name__} has a rule of its own, which does not say which channels go together"
    if length != channels and channels is not None:
        return Flow(axes, Function(lambda *energies: tf.broadcast_to(apply_rule(*energies), [channels])), fixed)
    return Flow(axes, Function(apply_rule), fixed)


def _reduce_to_one_axis(layer: Layer, signal: Signal) -> Flow:
    """The flow of an input to one channel axis: a user's rule takes one number a channel."""
    if len(signal.axes) < 2:
        return Flow(signal.axes, Identity())
    return reduce_to_axis(signal, format_axis(layer, len(signal.shape)), "has a rule for")


def _count_energies(energy_map: EnergyMap, call: Call) -> int:
    """How many energies a user's rule returns; found out by calling it once on ones.

    Raises:
        TypeError: it returns something else than a float32 vector.
    """
    ones = [tf.ones([math.prod(signal.shape[axis] or 1 for axis in signal.axes)]) for signal in call.inputs]
    energy = energy_map.apply(*ones)
    if not (tf.is_tensor(energy) and energy.dtype == tf.float32 and energy.shape.rank == 1):
        raise TypeError(
            f"the rule registered for {type(call.layer).__name__} returns {energy!r} for layer {call.layer.name!r}; "
            "expected a float32 tensor of shape (channels,), the energies of the output"
        )
    return energy.shape[0]


def find_rule(layer: Layer) -> Rule | None:
    """The rule of a layer's class, or of its nearest base class that has one; None where none has.

    A layer without one may declare its only kernel by `get_prunable_weights`.
    """
    function = compat.function_name(layer)
    if function is not None:
        return FUNCTIONS.get(function)
    rule = next((RULES[cls] for cls in type(layer).__mro__ if cls in RULES), None)
    return find_declared_rule(layer) if rule is None else rule
