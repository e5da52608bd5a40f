"""The masks of a model's wrappers, chosen in the graph of the training step that is traced now, or at once.

On the host that is one operation for all of it, because many operations take long to trace.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.allocation import Uniform, keep_count
from tf_lap.graph.energy import Energies
from tf_lap.graph.energy_maps import Function, Reader
from tf_lap.graph.measurer import Measurer
from tf_lap.graph.model_graph import Recipe, RuleStep
from tf_lap.graph.scale import Scale
from tf_lap.pruning.mask_selection import HostSelection, MaskSelection, Memory, Weights, ignore_overflow
from tf_lap.pruning.soundness import AROUND, BETWEEN, KERNEL_OR_TOO_LARGE, find_fault
from tf_lap.scores import Score
from tf_lap.tfmot.patterns import m_zeros_of_n
from tf_lap.tfmot.weight import Weight
from tf_lap.topk.traced_select import split_into_batches

_M_BY_N_THRESHOLD = 999.0  # as tfmot writes it


class Order(NamedTuple):
    """What is asked of wrappers that share a rhythm.

    Attributes:
        due: a bool scalar, whether their masks are chosen now.
        weights: those of their weights that the schedule speaks of.
        keep: for each the fraction to keep, float64 scalars.
    """

    due: tf.Tensor
    weights: Sequence[Weight]
    keep: Sequence[tf.Tensor]


class WrapperUpdate:
    """One update of a model's wrappers.

    Args:
        recipe: the model; its kernels include all weights of the wrappers.
        weights: all weights of the wrappers.
    """

    def __init__(self, recipe: Recipe, weights: Sequence[Weight]) -> None:
        self._recipe, self._weights = recipe, weights
        scale = Scale.of(recipe)
        distances = {_distance(weight) for weight in weights}
        self._measurers = {distance: Measurer(recipe, scale, distance) for distance in distances}
        self._measurer = next(iter(self._measurers.values()))  # for what is the same at all distances

    def run(self, orders: Sequence[Order]) -> None:
        """Chooses the masks that are due, and zeroes what they drop.

        Where a kernel or what is around it is not finite, training raises InvalidArgumentError and nothing changes.
        """
        # What a user wrote may call functions that wait for a thread of TensorFlow's, which the one operation that all
        # of this is on the host would hold.
        is_of_users = any(
            isinstance(step, RuleStep) and isinstance(step.energy_map, Function) for step in self._recipe.steps
        ) or not all(_is_own_score(weight.wrapper.score) for weight in self._weights)
        if compat.computes_on_host() and not is_of_users:
            self._run_on_host(orders)
        else:
            self._run_in_graph(orders)

    def _selection(self, weight: Weight) -> MaskSelection:
        return MaskSelection(self._measurers[_distance(weight)], weight.wrapper.score, Uniform(), weight.pattern)

    def _run_on_host(self, orders: Sequence[Order]) -> None:
        requested = list(dict.fromkeys(weight for order in orders for weight in order.weights))
        variables = [variable for weight in self._weights for variable in (weight.mask, weight.threshold)]
        variables += [kernel.variable for kernel in self._recipe.kernels]
        variables += itertools.chain.from_iterable(self._measurer.variables_between.values())
        variables = list({id(variable): variable for variable in variables}.values())

        def choose(due: np.ndarray, keep: np.ndarray, *values: np.ndarray) -> list[Any]:
            arrays = {id(v): np.asarray(value, np.float32) for v, value in zip(variables, values, strict=True)}
            fault, masks, lowest = self._choose_on_host(orders, requested, due, keep, functools.partial(_read, arrays))
            return [fault.encode(), np.asarray(lowest, np.float32), *masks]

        due = tf.stack([order.due for order in orders])
        keep = tf.stack([fraction for order in orders for fraction in order.keep])
        fault, lowest, *masks = tf.numpy_function(
            choose,
            [due, keep, *map(compat.value, variables)],
            [tf.string, tf.float32, *[tf.float32] * len(requested)],
        )
        with tf.control_dependencies([tf.debugging.Assert(tf.equal(fault, ""), [fault])]):
            for number, (weight, mask) in enumerate(zip(requested, masks, strict=True)):
                weight.take(mask, lowest[number])

    def _choose_on_host(
        self, orders: Sequence[Order], requested: Sequence[Weight], due: np.ndarray, keep: np.ndarray, read: Reader
    ) -> tuple[str, list[np.ndarray], list[np.float32]]:
        """Chooses masks.

        Args:
            orders: what is asked.
            requested: the weights that are spoken of.
            due: bool, for each order whether it is followed now.
            keep: float64, the fractions to keep, of the weights of all orders one after the other.
            read: reads variables into float32 arrays.

        Returns:
            What is not finite, in words, or an empty string. The masks of the weights that were requested, float32 of
            their shapes, and the lowest scores that they kept when they were chosen. Where something is not finite they
            are what they were.
        """
        masks = {weight: read(weight.mask) for weight in requested}
        lowest = {weight: np.float32(read(weight.threshold)) for weight in requested}
        energies: dict[int | None, Energies] = {}
        fractions = iter(keep)
        memory = Memory()
        with ignore_overflow():
            kernel_energies, totals = self._measurer.measure({}, read)
            between = bool(self._measurer.is_finite_between(read))
            for distance, measurer in self._measurers.items():
                energies[distance], around = measurer.energies_around(kernel_energies, {}, read)
                # No quotes around paths: TensorFlow, which raises this, would escape them.
                if fault := find_fault(measurer, totals, around, between, {}, read, quote=str):
                    return fault, list(masks.values()), list(lowest.values())
            for is_due, order in zip(due, orders, strict=True):
                for weight, fraction in zip(order.weights, fractions, strict=False):
                    if is_due:
                        masks[weight], lowest[weight] = self._choose_mask(
                            weight, read(weight.variable), masks[weight], fraction, energies[_distance(weight)], memory
                        )
        return "", list(masks.values()), list(lowest.values())

    def _choose_mask(
        self, weight: Weight, values: np.ndarray, mask: np.ndarray, keep: float, energies: Energies, memory: Memory
    ) -> tuple[np.ndarray, np.float32]:
        """The new mask of a weight, float32 of its shape, and the lowest score that it keeps."""
        shape = weight.layout.shape
        kernel = Weights(weight.kernel, values.reshape(shape), mask.reshape(shape) != 0)
        selection = HostSelection(self._selection(weight), memory)
        if weight.wrapper.sparsity_m_by_n:
            scores = selection.score_bits(kernel, energies, {}).view(np.float32)
            chosen = m_zeros_of_n(tf.constant(scores), weight.wrapper.sparsity_m_by_n).numpy()
            return chosen * mask, np.float32(_M_BY_N_THRESHOLD)
        count = keep_count(weight.pattern.units(weight.layout), 1 - keep)
        (chosen,), lowest = selection.select([kernel], energies, count, {})
        return chosen.reshape(mask.shape).astype(np.float32), lowest

    def _run_in_graph(self, orders: Sequence[Order]) -> None:
        energies, flags = self._measure_in_graph()
        # XLA raises nothing: there the masks stay as they are.
        sound = tf.reduce_all([is_finite for _, is_finite in flags])
        orders = [order._replace(keep=[tf.where(sound, keep, 1.0) for keep in order.keep]) for order in orders]
        with tf.control_dependencies([tf.debugging.Assert(is_finite, [message]) for message, is_finite in flags]):
            if len(orders) == 1:  # it is what is due
                self._prune(orders[0], energies)
                return
            for order in orders:
                run_if(order.due, functools.partial(self._prune, order, energies), lambda: None)

    def _measure_in_graph(self) -> tuple[dict[int | None, Energies], list[tuple[str, tf.Tensor]]]:
        """The energies by distance, and for each thing that must be finite what to say, and whether it is."""
        kernel_energies, totals = self._measurer.measure({})
        finite = tf.math.is_finite(totals)
        paths = [kernel.path for kernel in self._recipe.kernels]
        # A kernel that is not finite makes what surrounds its neighbours so: it is named before them.
        flags = [
            (KERNEL_OR_TOO_LARGE.format(path), is_finite)
            for path, is_finite in zip(paths, tf.unstack(finite), strict=True)
        ]
        energies: dict[int | None, Energies] = {}
        for distance, measurer in self._measurers.items():
            energies[distance], around = measurer.energies_around(kernel_energies, {})
            flags += [
                (AROUND.format(path), is_finite | ~tf.reduce_all(finite))
                for path, is_finite in zip(paths, tf.unstack(around), strict=True)
            ]
        flags.append((BETWEEN, tf.convert_to_tensor(self._measurer.is_finite_between())))
        return energies, flags

    def _prune(self, order: Order, energies: dict[int | None, Energies]) -> None:
        places = range(len(order.weights))
        for place in places:
            weight = order.weights[place]
            if weight.wrapper.sparsity_m_by_n:
                self._keep_m_of_n(weight, energies[_distance(weight)])
        ranked = [place for place in places if not order.weights[place].wrapper.sparsity_m_by_n]
        for alike in _alike(ranked, order.weights):
            for batch in split_into_batches([order.weights[place].layout.size for place in alike]):
                chosen = [alike[number] for number in batch]
                self._prune_batch(
                    [order.weights[place] for place in chosen], [order.keep[place] for place in chosen], energies
                )

    def _prune_batch(
        self, weights: Sequence[Weight], keep: Sequence[tf.Tensor], energies: dict[int | None, Energies]
    ) -> None:
        """Prunes weights of one score and one pattern."""
        # As allocation.keep_count: tf.round too goes half to even.
        counts = tf.round(
            [fraction * weight.pattern.units(weight.layout) for weight, fraction in zip(weights, keep, strict=True)]
        )
        masks, lowest = self._selection(weights[0]).select(
            [_weights(weight) for weight in weights],
            energies[_distance(weights[0])],
            tf.maximum(tf.cast(counts, tf.int32), 1),
            {},
            [[i] for i in range(len(weights))],
        )
        for weight, mask, score in zip(weights, masks, tf.unstack(lowest), strict=True):
            weight.take(mask, score)

    def _keep_m_of_n(self, weight: Weight, energies: Energies) -> None:
        scores = self._selection(weight).scores(weight.kernel, _weights(weight).values, energies, {})
        mask = m_zeros_of_n(scores, weight.wrapper.sparsity_m_by_n) * compat.value(weight.mask)
        weight.take(mask, tf.constant(_M_BY_N_THRESHOLD))


def run_if(condition: tf.Tensor, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
    """Runs one of two functions, as a bool scalar says."""

    def run(function: Callable[[], None]) -> tf.Tensor:
        function()
        return tf.constant(True)

    tf.cond(condition, functools.partial(run, then), functools.partial(run, otherwise))


def _read(arrays: dict[int, np.ndarray], variable: Any) -> np.ndarray:
    """A variable's values as the training step has them, or a number's."""
    array = arrays.get(id(variable))
    return compat.host_value(variable) if array is None else array


def _distance(weight: Weight) -> int | None:
    score = weight.wrapper.score
    return score.distance if score.needs_energies else 0


def _is_own_score(score: Score) -> bool:
    """Whether a score's class is one of this package."""
    return type(score).__module__.partition(".")[0] == "tf_lap"


def _is_same_score(score: Score, other: Score) -> bool:
    """Whether two scores rank alike. Those of users are compared as objects: what they hold may have no truth value."""
    return score is other or (_is_own_score(score) and score == other)


def _alike(places: Sequence[int], weights: Sequence[Weight]) -> list[list[int]]:
    """The places of some weights, those of an equal score and pattern together."""
    groups: list[list[int]] = []
    for place in places:
        for group in groups:
            other = weights[group[0]]
            if (
                _is_same_score(other.wrapper.score, weights[place].wrapper.score)
                and other.pattern == weights[place].pattern
            ):
                group.append(place)
                break
        else:
            groups.append([place])
    return groups


def _weights(weight: Weight) -> Weights:
    shape = weight.layout.shape
    values, mask = (tf.reshape(compat.value(variable), shape) for variable in (weight.variable, weight.mask))
    return Weights(weight.kernel, values, tf.cast(mask, tf.bool))
