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
from tf_lap.pruning.mask_selection import HostSelection, KernelWeights, MaskSelection, ScratchMemory, ignore_overflow
from tf_lap.pruning.soundness import AROUND, BETWEEN, KERNEL_OR_TOO_LARGE, find_fault
from tf_lap.scores import Score
from tf_lap.tfmot.patterns import m_zeros_of_n
from tf_lap.tfmot.weight import PrunableWeight
from tf_lap.topk.traced_select import split_into_batches

_M_BY_N_THRESHOLD = 999.0  # as tfmot writes it


class PruneRequest(NamedTuple):
    """What a schedule asks of the wrappers that share it.

    Attributes:
        due: a bool scalar, whether their masks are chosen now.
        weights: those of their weights that the schedule speaks of.
        keep_fractions: for each the fraction to keep, float64 scalars.
    """

    due: tf.Tensor
    weights: Sequence[PrunableWeight]
    keep_fractions: Sequence[tf.Tensor]


class WrapperUpdate:
    """One update of a model's wrappers.

    Args:
        recipe: the model; its kernels include all weights of the wrappers.
        weights: all weights of the wrappers.
    """

    def __init__(self, recipe: Recipe, weights: Sequence[PrunableWeight]) -> None:
        self._recipe, self._weights = recipe, weights
        scale = Scale.of(recipe)
        distances = {_find_distance(weight) for weight in weights}
        self._measurers = {distance: Measurer(recipe, scale, distance) for distance in distances}
        self._measurer = next(iter(self._measurers.values()))  # for what is the same at all distances

    def run(self, requests: Sequence[PruneRequest]) -> None:
        """Chooses the masks that are due, and zeroes what they drop.

        Where a kernel or what is around it is not finite, training raises InvalidArgumentError and nothing changes.
        """
        # On the host all of this is one operation, which occupies a thread of TensorFlow's. What a user wrote may call
        # functions that wait for such a thread.
        is_of_users = any(
            isinstance(step, RuleStep) and isinstance(step.energy_map, Function) for step in self._recipe.steps
        ) or not all(_is_own_score(weight.wrapper.score) for weight in self._weights)
        if compat.computes_on_host() and not is_of_users:
            self._run_on_host(requests)
        else:
            self._run_in_graph(requests)

    def _selection(self, weight: PrunableWeight) -> MaskSelection:
        return MaskSelection(self._measurers[_find_distance(weight)], weight.wrapper.score, Uniform(), weight.pattern)

    def _run_on_host(self, requests: Sequence[PruneRequest]) -> None:
        scheduled = list(dict.fromkeys(weight for request in requests for weight in request.weights))
        variables = [variable for weight in self._weights for variable in (weight.mask, weight.threshold)]
        variables += [kernel.variable for kernel in self._recipe.kernels]
        variables += itertools.chain.from_iterable(self._measurer.variables_between.values())
        variables = list({id(variable): variable for variable in variables}.values())

        def choose(due: np.ndarray, keep_fractions: np.ndarray, *values: np.ndarray) -> list[Any]:
            arrays = {id(v): np.asarray(value, np.float32) for v, value in zip(variables, values, strict=True)}
            fault, masks, thresholds = self._choose_on_host(
                requests, scheduled, due, keep_fractions, functools.partial(_read_array, arrays)
            )
            return [fault.encode(), np.asarray(thresholds, np.float32), *masks]

        due = tf.stack([request.due for request in requests])
        keep_fractions = tf.stack([fraction for request in requests for fraction in request.keep_fractions])
        fault, thresholds, *masks = tf.numpy_function(
            choose,
            [due, keep_fractions, *map(compat.value, variables)],
            [tf.string, tf.float32, *[tf.float32] * len(scheduled)],
        )
        with tf.control_dependencies([tf.debugging.Assert(tf.equal(fault, ""), [fault])]):
            for number, (weight, mask) in enumerate(zip(scheduled, masks, strict=True)):
                weight.set_mask(mask, thresholds[number])

    def _choose_on_host(
        self,
        requests: Sequence[PruneRequest],
        scheduled: Sequence[PrunableWeight],
        due: np.ndarray,
        keep_fractions: np.ndarray,
        read: Reader,
    ) -> tuple[str, list[np.ndarray], list[np.float32]]:
        """Chooses masks.

        Args:
            requests: what the schedules ask for.
            scheduled: the weights of all requests, each once.
            due: bool, for each request whether its masks are chosen now.
            keep_fractions: float64, those of all requests one after the other.
            read: reads variables into float32 arrays.

        Returns:
            What is not finite, in words, or an empty string. The masks of the scheduled weights, float32 of their
            shapes, and the lowest scores that they kept when they were chosen. Where something is not finite they are
            what they were.
        """
        masks = {weight: read(weight.mask) for weight in scheduled}
        thresholds = {weight: np.float32(read(weight.threshold)) for weight in scheduled}
        energies: dict[int | None, Energies] = {}
        fractions = iter(keep_fractions)
        memory = ScratchMemory()
        with ignore_overflow():
            kernel_energies, totals = self._measurer.measure({}, read)
            finite_between = bool(self._measurer.is_finite_between(read))
            for distance, measurer in self._measurers.items():
                energies[distance], finite_around = measurer.energies_around(kernel_energies, {}, read)
                # No quotes around paths: TensorFlow, which raises this, would escape them.
                if fault := find_fault(measurer, totals, finite_around, finite_between, {}, read, quote=str):
                    return fault, list(masks.values()), list(thresholds.values())
            for is_due, request in zip(due, requests, strict=True):
                for weight, fraction in zip(request.weights, fractions, strict=False):
                    if is_due:
                        masks[weight], thresholds[weight] = self._choose_mask(
                            weight,
                            read(weight.variable),
                            masks[weight],
                            fraction,
                            energies[_find_distance(weight)],
                            memory,
                        )
        return "", list(masks.values()), list(thresholds.values())

    def _choose_mask(
        self,
        weight: PrunableWeight,
        values: np.ndarray,
        mask: np.ndarray,
        keep_fraction: float,
        energies: Energies,
        memory: ScratchMemory,
    ) -> tuple[np.ndarray, np.float32]:
        """The new mask of a weight, float32 of its shape, and the lowest score that it keeps."""
        shape = weight.layout.shape
        kernel = KernelWeights(weight.kernel, values.reshape(shape), mask.reshape(shape) != 0)
        selection = HostSelection(self._selection(weight), memory)
        if weight.wrapper.sparsity_m_by_n:
            scores = selection.compute_score_bits(kernel, energies, {}).view(np.float32)
            chosen = m_zeros_of_n(tf.constant(scores), weight.wrapper.sparsity_m_by_n).numpy()
            return chosen * mask, np.float32(_M_BY_N_THRESHOLD)
        count = keep_count(weight.pattern.units(weight.layout.plain), 1 - keep_fraction)
        (chosen,), threshold = selection.select([kernel], energies, count, {})
        return chosen.reshape(mask.shape).astype(np.float32), threshold

    def _run_in_graph(self, requests: Sequence[PruneRequest]) -> None:
        energies, flags = self._measure_in_graph()
        # XLA raises nothing: there the masks stay as they are.
        sound = tf.reduce_all([is_finite for _, is_finite in flags])
        requests = [
            request._replace(keep_fractions=[tf.where(sound, keep, 1.0) for keep in request.keep_fractions])
            for request in requests
        ]
        with tf.control_dependencies([tf.debugging.Assert(is_finite, [message]) for message, is_finite in flags]):
            if len(requests) == 1:  # something is due, so it is this one
                self._prune(requests[0], energies)
                return
            for request in requests:
                run_if(request.due, functools.partial(self._prune, request, energies), lambda: None)

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
            energies[distance], finite_around = measurer.energies_around(kernel_energies, {})
            flags += [
                (AROUND.format(path), is_finite | ~tf.reduce_all(finite))
                for path, is_finite in zip(paths, tf.unstack(finite_around), strict=True)
            ]
        flags.append((BETWEEN, tf.convert_to_tensor(self._measurer.is_finite_between())))
        return energies, flags

    def _prune(self, request: PruneRequest, energies: dict[int | None, Energies]) -> None:
        places = range(len(request.weights))
        for place in places:
            weight = request.weights[place]
            if weight.wrapper.sparsity_m_by_n:
                self._keep_m_of_n(weight, energies[_find_distance(weight)])
        ranked = [place for place in places if not request.weights[place].wrapper.sparsity_m_by_n]
        for alike in _group_alike(ranked, request.weights):
            for batch in split_into_batches([request.weights[place].layout.size for place in alike]):
                chosen = [alike[number] for number in batch]
                self._prune_batch(
                    [request.weights[place] for place in chosen],
                    [request.keep_fractions[place] for place in chosen],
                    energies,
                )

    def _prune_batch(
        self,
        weights: Sequence[PrunableWeight],
        keep_fractions: Sequence[tf.Tensor],
        energies: dict[int | None, Energies],
    ) -> None:
        """Prunes weights of one score and one pattern."""
        # As allocation.keep_count: tf.round too goes half to even.
        units = [weight.pattern.units(weight.layout.plain) for weight in weights]
        counts = tf.round([fraction * count for fraction, count in zip(keep_fractions, units, strict=True)])
        masks, thresholds = self._selection(weights[0]).select(
            [_read_weights(weight) for weight in weights],
            energies[_find_distance(weights[0])],
            tf.maximum(tf.cast(counts, tf.int32), 1),
            {},
            [[i] for i in range(len(weights))],
        )
        for weight, mask, threshold in zip(weights, masks, tf.unstack(thresholds), strict=True):
            weight.set_mask(mask, threshold)

    def _keep_m_of_n(self, weight: PrunableWeight, energies: Energies) -> None:
        scores = self._selection(weight).compute_scores(weight.kernel, _read_weights(weight).values, energies, {})
        mask = m_zeros_of_n(scores, weight.wrapper.sparsity_m_by_n) * compat.value(weight.mask)
        weight.set_mask(mask, tf.constant(_M_BY_N_THRESHOLD))


def run_if(condition: tf.Tensor, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
    """Runs one of two functions, as a bool scalar says."""

    def run(function: Callable[[], None]) -> tf.Tensor:
        function()
        return tf.constant(True)

    tf.cond(condition, functools.partial(run, then), functools.partial(run, otherwise))


def _read_array(arrays: dict[int, np.ndarray], variable: Any) -> np.ndarray:
    """A variable's values as the training step has them, or a number's."""
    array = arrays.get(id(variable))
    return compat.host_value(variable) if array is None else array


def _find_distance(weight: PrunableWeight) -> int | None:
    score = weight.wrapper.score
    return score.distance if score.needs_energies else 0


def _is_own_score(score: Score) -> bool:
    """Whether a score's class is one of this package."""
    return type(score).__module__.partition(".")[0] == "tf_lap"


def _is_same_score(score: Score, other: Score) -> bool:
    """Whether two scores rank alike. Those of users are compared as objects: their fields may have no truth value."""
    return score is other or (_is_own_score(score) and score == other)


def _group_alike(places: Sequence[int], weights: Sequence[PrunableWeight]) -> list[list[int]]:
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


def _read_weights(weight: PrunableWeight) -> KernelWeights:
    shape = weight.layout.shape
    values, mask = (tf.reshape(compat.value(variable), shape) for variable in (weight.variable, weight.mask))
    return KernelWeights(weight.kernel, values, tf.cast(mask, tf.bool))
