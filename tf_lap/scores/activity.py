"""How often the units of a model's layers are active over data."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from tf_lap import compat
from tf_lap.compat import exporting
from tf_lap.compat.types import Layer, Model
from tf_lap.graph.model_graph import Kernel, KernelStep, Recipe, RuleStep
from tf_lap.graph.rule_tables import has_activation, is_activation
from tf_lap.samples import Batch
from tf_lap.scores.base import register
from tf_lap.scores.weights import Lookahead
from tf_lap.warn import warn


@register("lookahead_activation")
@dataclasses.dataclass(frozen=True)
class LookaheadActivation(Lookahead):
    """Lookahead over kernels that are multiplied by the roots of how often their units are active.

    This is LAP-act of Park et al. Activity is measured at each update, over the data that `prune`, `Pruner` or
    `LAPCallback` is given: see `tf_lap.scores.activity`.
    """

    needs_data: ClassVar[bool] = True

    def gains(
        self, model: Model, recipe: Recipe, targets: Sequence[int], data: Sequence[Batch]
    ) -> dict[int, tf.Tensor]:
        """What each kernel is multiplied by, by its number: float32, in a shape that broadcasts against it."""
        roots = measure_activity(model, recipe, data)
        return {
            number: kernel.layout.outer(tf.ones([kernel.layout.inputs]), root)
            for number, (kernel, root) in enumerate(zip(recipe.kernels, roots, strict=True))
        }


class _Activation(NamedTuple):
    """One call of an activation.

    Attributes:
        layer: the layer or operation that activates.
        call: the number of the call among those of the layer, in the order of the recipe.
    """

    layer: Layer
    call: int


def measure_activity(model: Model, recipe: Recipe, data: Sequence[Batch]) -> list[tf.Tensor]:
    """For each kernel the root of how often each of its output units is active.

    A unit is active where the activation behind its kernel is above zero. Normalizations and sums may lie between the
    two. The roots are averaged over the positions of a convolution, as in Park et al.'s code, and over the uses of a
    shared layer. A kernel has ones if the next kernel comes before any activation, or if it puts out gates.

    It also has ones, with a warning, if its activation cannot be measured: in a custom layer, or behind a layer that
    mixes or joins channels.

    Args:
        model: the model.
        recipe: its graph.
        data: batches of its inputs.

    Returns:
        For each kernel a float32 tensor `(outputs,)`, between 0 and 1.
    """
    activations = [_find_activations(recipe, number, kernel) for number, kernel in enumerate(recipe.kernels)]
    layers = {id(activation.layer): activation.layer for calls in activations for activation in calls}
    samples = sum(len(batch[0]) for batch in data)
    uses = Counter(id(step.layer) for step in recipe.steps if isinstance(step, RuleStep))
    uses.update({id(kernel.layer): kernel.uses for kernel in recipe.kernels})
    roots = {
        key: _average_time_steps([_average_root(count / samples) for count in counts], uses[key])
        for key, counts in _count_active(model, layers, data).items()
    }
    return [_average_over_uses(*pair, roots) for pair in zip(recipe.kernels, activations, strict=True)]


def _count_active(model: Model, layers: Mapping[int, Layer], data: Sequence[Batch]) -> dict[int, list[tf.Tensor]]:
    """How many samples activate each output, for each call of each layer.

    Args:
        model: the model.
        layers: the layers to watch, by their ids.
        data: batches of the model's inputs.

    Returns:
        By the ids of the layers: for each call a float32 tensor in the shape of one sample of the output.
    """
    totals: dict[int, list[tf.Tensor]] = {}
    for batch in data:
        counts: dict[int, list[tf.Tensor]] = {key: [] for key in layers}
        with contextlib.ExitStack() as stack:
            stack.enter_context(exporting.states_kept(model))
            stack.enter_context(exporting.in_float32(model))
            for key, layer in layers.items():
                stack.enter_context(compat.intercepted(layer, _make_counter(counts[key]), False))
            exporting.outputs(model, batch)
        for key, by_call in counts.items():
            totals[key] = [a + b for a, b in zip(totals[key], by_call, strict=True)] if key in totals else by_call
    return totals


def _make_counter(counts: list[tf.Tensor]) -> Callable[[Any, Any], None]:
    """A function of a call's input and output that appends how many samples activate each output."""
    return lambda _, output: counts.append(tf.reduce_sum(tf.cast(output > 0, tf.float32), axis=0))


def _average_root(rates: tf.Tensor) -> tf.Tensor:
    """The roots of `(*positions, units)` numbers, averaged over the positions: `(units,)`."""
    return tf.reduce_mean(tf.sqrt(rates), axis=list(range(rates.shape.rank - 1)))


def _average_time_steps(roots: list[tf.Tensor], uses: int) -> list[tf.Tensor]:
    """One tensor for each use in the model's graph: TimeDistributed calls its layer once for each time step.

    Args:
        roots: a tensor for each call of a layer.
        uses: how often the model's graph uses the layer.
    """
    steps = len(roots) // uses
    if steps < 2:
        return roots
    return [tf.reduce_mean(tf.stack(roots[use * steps : (use + 1) * steps]), axis=0) for use in range(uses)]


def _average_over_uses(
    kernel: Kernel, activations: Sequence[_Activation], roots: Mapping[int, Sequence[tf.Tensor]]
) -> tf.Tensor:
    """The mean of the roots over a kernel's uses, `(outputs,)`; ones, with a warning, where one is not measured.

    Args:
        kernel: the kernel.
        activations: those of its outputs.
        roots: by the id of a layer, for each of its calls a tensor `(units,)`.
    """
    outputs = kernel.layout.outputs
    measured = [roots[id(layer)][call] for layer, call in activations if call < len(roots[id(layer)])]
    if len(measured) < len(activations) or any(root.shape != (outputs,) for root in measured):
        warn(f"how often the units of layer {kernel.path!r} are active cannot be measured: they count as always active")
        return tf.ones([outputs])
    return tf.reduce_mean(tf.stack(measured), axis=0) if measured else tf.ones([outputs])


def _find_activations(recipe: Recipe, number: int, kernel: Kernel) -> list[_Activation]:
    """The activations of a kernel's outputs, over all of its uses; none for a use without one."""
    activations = []
    for step in recipe.steps:
        if isinstance(step, KernelStep) and step.kernel == number:
            is_recurrent = hasattr(kernel.layer, "cell")  # its activation acts on one gate, and on the state
            if has_activation(kernel.layer) and not is_recurrent:
                activations.append(_Activation(kernel.layer, step.use))
            else:
                activations += _find_next_activation(recipe, step.target)
    return activations


def _find_next_activation(recipe: Recipe, tensor: int) -> list[_Activation]:
    """The first activation behind a tensor, if it comes before the next kernel."""
    reached = {tensor}
    calls: Counter[int] = Counter()
    for step in recipe.steps:
        if isinstance(step, RuleStep):
            if reached & set(step.sources):
                if is_activation(step.layer):
                    return [_Activation(step.layer, calls[id(step.layer)])]
                reached.add(step.target)
            calls[id(step.layer)] += 1
    return []
