"""The wrappers of one model are a group and prune together: all kernels are ranked before any mask changes.

tfmot's wrapper updates its own mask in its own call. Here the first wrapper of a model that is called in a training
step does it for all of them, so that each kernel is ranked by its neighbours as they are at the beginning of the step.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from tf_lap.allocation import assign_sparsities
from tf_lap.compat import tf_keras as legacy
from tf_lap.compat.types import Layer
from tf_lap.graph.model_graph import Kernel, Recipe
from tf_lap.graph.resolver import resolve
from tf_lap.tfmot.frozen import select_trained, warn_of_frozen
from tf_lap.tfmot.mask_update import PruneRequest, WrapperUpdate, run_if
from tf_lap.tfmot.patterns import make_pattern
from tf_lap.tfmot.weight import PrunableWeight, make_layout
from tf_lap.tfmot.wrapper_schedule import ask_schedule, find_last_sparsity, schedule_key
from tf_lap.warn import warn

_NO_STEP = (
    "a layer is pruned by tf_lap.PrunableLayer, and nothing counts its steps: pass "
    "tfmot.sparsity.keras.UpdatePruningStep() among the callbacks of fit, or call its on_train_begin before a loop of "
    "your own. It looks for wrappers in models and not in custom layers: where all are in such, assign 0 to their "
    "pruning_step"
)


class WrapperGroup:
    """The wrappers of one model, or one wrapper alone.

    Args:
        wrappers: the wrappers.
        model: the Sequential or functional model that they are in, or None where nothing is known of one.
    """

    def __init__(self, wrappers: Sequence[Any], model: Any | None) -> None:
        self.wrappers = list(wrappers)
        self._last_pass = threading.local()  # replicas run in threads of their own
        self._trained: frozenset[PrunableWeight] = frozenset()
        self._recipe = Recipe((), (), {}, (), (), {})
        if model is not None:
            with tf.init_scope():  # what the rules compute now must not belong to the graph that is traced now
                self._recipe = resolve(model)
        self._weights = self._find_weights()
        # One condition for all that are due together: each costs time of its own.
        by_schedule: dict[Any, list[Any]] = collections.defaultdict(list)
        for wrapper in self.wrappers:
            by_schedule[schedule_key(wrapper)].append(wrapper)
        self._by_schedule = list(by_schedule.values())

    def _find_weights(self) -> list[PrunableWeight]:
        """The wrappers' weights; those that have no place in the graph are added to the recipe's kernels."""
        numbers = {id(kernel.variable): i for i, kernel in enumerate(self._recipe.kernels)}
        paths = {id(kernel.layer): kernel.path for kernel in self._recipe.kernels}
        kernels = list(self._recipe.kernels)
        weights = []
        for wrapper in self.wrappers:
            path = paths.get(id(wrapper.layer), wrapper.layer.name)
            for variable, mask, threshold in wrapper.pruning_vars:
                if id(variable) not in numbers:
                    numbers[id(variable)] = len(kernels)
                    kernels.append(Kernel(path, wrapper.layer, variable, make_layout(variable), uses=0))
                number = numbers[id(variable)]
                kernel = kernels[number]
                pattern = make_pattern(wrapper)
                weights.append(
                    PrunableWeight(kernel.path, wrapper, pattern, variable, mask, threshold, number, kernel.layout)
                )
        self._recipe = dataclasses.replace(self._recipe, kernels=tuple(kernels))
        return weights

    @property
    def ranked_by_magnitude(self) -> list[Layer]:
        """The wrappers of weights whose score looks around them, and that have no place in the model's graph."""
        unused = [weight.wrapper for weight in self._weights if not self._recipe.kernels[weight.kernel].uses]
        return list(dict.fromkeys(wrapper for wrapper in unused if wrapper.score.needs_energies))

    @tf.autograph.experimental.do_not_convert
    def handle_call(self, current: legacy.Pass, training: Any) -> None:
        """Does for all wrappers what a call of one of them asks for: once in each pass through the model.

        Args:
            current: the pass in which a wrapper is called.
            training: True, or a bool scalar tensor.
        """
        last = getattr(self._last_pass, "token", None)
        if current.token is not None and last is not None and last() is current.token:
            return
        self._last_pass.token = None if current.token is None else weakref.ref(current.token)
        for wrapper in self.wrappers:
            wrapper.attach_masks(current.trainer)
        in_all_replicas(functools.partial(self._count_and_prune, current, training))

    def _count_and_prune(self, current: legacy.Pass, training: Any) -> None:
        with legacy.uncast():
            is_unchanged = self._find_trained(current)
            before = {wrapper: tf.convert_to_tensor(wrapper.pruning_step) for wrapper in self.wrappers}
            counted = tf.reduce_any([step >= 0 for step in before.values()]) | ~tf.cast(training, tf.bool)
            with tf.control_dependencies([tf.debugging.Assert(counted, [_NO_STEP])]):
                requests = []
                for wrappers in self._by_schedule:
                    with tf.init_scope():  # as it is now, before the step that is traced
                        done = min(max(int(tf.convert_to_tensor(wrapper.pruning_step)), 0) for wrapper in wrappers)
                    # A traced step trains the same weights to the end: what they missed is made up for once.
                    missed = {} if is_unchanged and tf.executing_eagerly() else self._find_missed(wrappers, done)
                    step = self._count_step(wrappers, before, training)
                    requests.append(self._make_request(wrappers, step, training))
                    if missed:
                        requests.append(
                            PruneRequest(tf.equal(step, done + 1) & training, list(missed), _keep_fractions(missed))
                        )
            run_if(
                tf.reduce_any([request.due for request in requests]), lambda: self._update(requests), self._zero_pruned
            )

    def _find_trained(self, current: legacy.Pass) -> bool:
        """Notes which weights are trained now, warns of the others, and says whether they are those of before."""
        before, self._trained = self._trained, select_trained(self._weights, current.around)
        frozen = [weight for weight in self._weights if weight not in self._trained]
        if frozen:
            warn_of_frozen(frozen, current.around[0] if current.around else frozen[0].wrapper)
        return self._trained == before

    def _count_step(self, wrappers: Sequence[Any], before: dict[Any, tf.Tensor], training: Any) -> tf.Tensor:
        """Counts the step of wrappers that share a schedule, frozen or not, and returns its number."""
        # All count on from the smallest step among them: a wrapper may have joined the others later. Those that are
        # ahead lose nothing, since what is pruned stays pruned. tfmot's callback sets steps from -1 to 0, but misses
        # wrappers in custom layers. So -1 counts as 0 here.
        step = tf.reduce_min([tf.maximum(before[wrapper], 0) for wrapper in wrappers]) + 1
        for wrapper in wrappers:
            wrapper.pruning_step.assign(tf.where(training, step, before[wrapper]))
        return step

    def _make_request(self, wrappers: Sequence[Any], step: tf.Tensor, training: Any) -> PruneRequest:
        """What a schedule asks of the wrappers that share it at a step."""
        due, sparsity = ask_schedule(wrappers[0].pruning_schedule, step)
        if wrappers[0].sparsity_m_by_n:  # tfmot chooses m zeros of n once, at the first step
            due, sparsity = tf.equal(step, 1), 0.0
        sparsities = self._map_sparsities(wrappers, sparsity)
        return PruneRequest(due & training & bool(sparsities), list(sparsities), _keep_fractions(sparsities))

    def _find_missed(self, wrappers: Sequence[Any], done: int) -> dict[PrunableWeight, Any]:
        """What weights missed of their schedule, by being frozen.

        Args:
            wrappers: wrappers that share a schedule.
            done: how many steps they have counted.

        Returns:
            Those trained weights that keep more than the schedule asked for when it was due last, and that sparsity.
        """
        if done == 0:
            return {}

        def denser(sparsity: Any) -> dict[PrunableWeight, Any]:
            sparsities = self._map_sparsities(wrappers, sparsity)
            if wrappers[0].sparsity_m_by_n:
                return {weight: s for weight, s in sparsities.items() if not weight.is_pruned()}
            return {weight: s for weight, s in sparsities.items() if weight.keeps_more_than(float(s))}

        with tf.init_scope():  # the masks as they are now
            if wrappers[0].sparsity_m_by_n:
                missed = denser(0.0)
            else:
                schedule = wrappers[0].pruning_schedule
                missed = denser(ask_schedule(schedule, tf.constant(done, tf.int64))[1])
                # The schedule is asked for its past only where that matters: it takes time.
                last = find_last_sparsity(schedule, done) if missed else None
                missed = {} if last is None else denser(last)
        if missed:
            paths = ", ".join(repr(weight.path) for weight in missed)
            logging.info("tf_lap.PrunableLayer prunes %s now: what was due before was missed, by being frozen", paths)
        return missed

    def _map_sparsities(self, wrappers: Sequence[Any], sparsity: Any) -> dict[PrunableWeight, Any]:
        """A schedule's sparsity for each trained weight of some wrappers; without what a mapping does not name."""
        by_path = assign_sparsities(sparsity, [weight.path for weight in self._weights])
        weights = [weight for weight in self._weights if weight.wrapper in wrappers and weight in self._trained]
        return {weight: by_path[weight.path] for weight in weights if weight.path in by_path}

    def _update(self, requests: Sequence[PruneRequest]) -> None:
        """Prunes the weights that are due."""
        self._zero_pruned()  # where no optimizer keeps the zeros, weights are ranked without what grew back
        if self._weights:  # a user's layer may have none to prune
            WrapperUpdate(self._recipe, self._weights).run(requests)

    def _zero_pruned(self) -> None:
        for weight in self._weights:
            weight.zero_pruned()


_WARNED_OF: weakref.WeakSet[Any] = weakref.WeakSet()
"""Models whose wrappers are not in a graph, and wrappers in no model: a warning has named them."""


def find_group(wrapper: Any, current: legacy.Pass) -> WrapperGroup:
    """The wrappers that prune together with one that is being called.

    Args:
        wrapper: a built `PrunableLayer`.
        current: the pass in which it is called.
    """
    graph = None if current.model is None else legacy.graph_of(current.model)
    key = wrapper if graph is None else current.model
    # Each wrapper keeps its own: kept here, a wrapper would never be forgotten.
    cached = wrapper.pruning_obj.groups.get(key)
    if cached is not None and cached[0] is graph:
        return cached[1]
    around = (
        []
        if current.model is None
        else [other for other in legacy.wrappers(current.model) if hasattr(other, "attach_masks")]
    )
    if graph is not None and wrapper in around:
        group = WrapperGroup(around, current.model)
        _warn(group.ranked_by_magnitude, "the model's graph has no place for them")
    else:
        group = WrapperGroup([wrapper], None)
        owner = wrapper if current.model is None else current.model
        if owner not in _WARNED_OF:
            _WARNED_OF.add(owner)
            _warn(around or [wrapper], "it is called outside a model with a graph")
    for member in group.wrappers:
        member.pruning_obj.groups[key] = (graph, group)
    return group


def _warn(wrappers: Sequence[Any], why: str) -> None:
    if not wrappers:
        return
    layers = ", ".join(f"{wrapper.layer.name!r} ({type(wrapper.layer).__name__})" for wrapper in wrappers)
    warn(
        f"tf_lap.PrunableLayer ranks the weights of {layers} by magnitude: {why}, so nothing is known of what feeds "
        "them and what reads them"
    )


def in_all_replicas(function: Callable[[], None]) -> None:
    """Runs a function once for all replicas of a distribution strategy, whose variables it may then assign to."""
    context = tf.distribute.get_replica_context()
    if context is None:
        function()
    else:
        context.merge_call(lambda strategy: function())


def _keep_fractions(sparsities: dict[PrunableWeight, Any]) -> list[tf.Tensor]:
    """The fractions to keep."""
    return [1 - tf.cast(sparsity, tf.float64) for sparsity in sparsities.values()]
