"""The wrappers of one model prune together: one pass over the graph ranks all kernels before any mask changes.

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

from tf_lap.allocation import per_kernel
from tf_lap.compat import tf_keras as legacy
from tf_lap.compat.types import Layer
from tf_lap.graph.model_graph import Kernel, Recipe
from tf_lap.graph.resolver import resolve
from tf_lap.tfmot.frozen import trained, warn_of_frozen
from tf_lap.tfmot.mask_update import Order, WrapperUpdate, run_if
from tf_lap.tfmot.patterns import pattern_of
from tf_lap.tfmot.rhythm import ask_schedule, find_last_sparsity, rhythm
from tf_lap.tfmot.weight import Weight, layout_of
from tf_lap.warn import warn

_NO_STEP = (
    "a layer is pruned by tf_lap.PrunableLayer, and nothing counts its steps: pass "
    "tfmot.sparsity.keras.UpdatePruningStep() among the callbacks of fit, or call its on_train_begin before a loop of "
    "your own. It looks for wrappers in models and not in custom layers: where all are in such, assign 0 to their "
    "pruning_step"
)


class Joint:
    """The wrappers of one model, or one wrapper alone.

    Args:
        wrappers: the wrappers.
        model: the Sequential or functional model that they are in, or None where nothing is known of one.
    """

    def __init__(self, wrappers: Sequence[Any], model: Any | None) -> None:
        self.wrappers = list(wrappers)
        self._seen = threading.local()  # replicas run in threads of their own
        self._trained: frozenset[Weight] = frozenset()
        self._recipe = Recipe((), (), {}, (), 0, {})
        if model is not None:
            with tf.init_scope():  # what the rules compute now must not belong to the graph that is traced now
                self._recipe = resolve(model)
        self._weights = self._find_weights()
        # One condition for all that are due together: each costs time of its own.
        groups: dict[Any, list[Any]] = collections.defaultdict(list)
        for wrapper in self.wrappers:
            groups[rhythm(wrapper)].append(wrapper)
        self._groups = list(groups.values())

    def _find_weights(self) -> list[Weight]:
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
                    kernels.append(Kernel(path, wrapper.layer, variable, layout_of(variable), uses=0))
                number = numbers[id(variable)]
                kernel = kernels[number]
                weights.append(
                    Weight(kernel.path, wrapper, pattern_of(wrapper), variable, mask, threshold, number, kernel.layout)
                )
        self._recipe = dataclasses.replace(self._recipe, kernels=tuple(kernels))
        return weights

    @property
    def ranked_by_magnitude(self) -> list[Layer]:
        """The wrappers of weights whose score looks around them, and that have no place in the model's graph."""
        apart = [weight.wrapper for weight in self._weights if not self._recipe.kernels[weight.kernel].uses]
        return list(dict.fromkeys(wrapper for wrapper in apart if wrapper.score.needs_energies))

    @tf.autograph.experimental.do_not_convert
    def called(self, current: legacy.Pass, training: Any) -> None:
        """Does for all wrappers what a call of one of them asks for: once in each pass through the model.

        Args:
            current: the pass in which a wrapper is called.
            training: True, or a bool scalar tensor.
        """
        seen = getattr(self._seen, "token", None)
        if current.token is not None and seen is not None and seen() is current.token:
            return
        self._seen.token = None if current.token is None else weakref.ref(current.token)
        for wrapper in self.wrappers:
            wrapper.hold_masks(current.trainer)
        in_all_replicas(functools.partial(self._step, current, training))

    def _step(self, current: legacy.Pass, training: Any) -> None:
        with legacy.uncast():
            same = self._ask_who_trains(current)
            before = {wrapper: tf.convert_to_tensor(wrapper.pruning_step) for wrapper in self.wrappers}
            counted = tf.reduce_any([step >= 0 for step in before.values()]) | ~tf.cast(training, tf.bool)
            with tf.control_dependencies([tf.debugging.Assert(counted, [_NO_STEP])]):
                orders = []
                for group in self._groups:
                    with tf.init_scope():  # as it is now, before the step that is traced
                        done = min(max(int(tf.convert_to_tensor(wrapper.pruning_step)), 0) for wrapper in group)
                    # A traced step trains the same weights to the end: what they missed is made up for once.
                    missed = {} if same and tf.executing_eagerly() else self._missed(group, done)
                    step = self._count(group, before, training)
                    orders.append(self._order(group, step, training))
                    if missed:
                        orders.append(Order(tf.equal(step, done + 1) & training, list(missed), _fractions(missed)))
            run_if(tf.reduce_any([order.due for order in orders]), lambda: self._update(orders), self._zero)

    def _ask_who_trains(self, current: legacy.Pass) -> bool:
        """Notes which weights are trained now, warns of the others, and says whether they are those of before."""
        before, self._trained = self._trained, trained(self._weights, current.around)
        frozen = [weight for weight in self._weights if weight not in self._trained]
        if frozen:
            warn_of_frozen(frozen, current.around[0] if current.around else frozen[0].wrapper)
        return self._trained == before

    def _count(self, wrappers: Sequence[Any], before: dict[Any, tf.Tensor], training: Any) -> tf.Tensor:
        """Counts the step of wrappers that share a rhythm, frozen or not, and returns its number."""
        # All count on from the smallest step among them: a wrapper may have joined the others later. Those that are
        # ahead lose nothing, since what is pruned stays pruned. tfmot's callback sets steps from -1 to 0, but misses
        # wrappers in custom layers. So -1 counts as 0 here.
        step = tf.reduce_min([tf.maximum(before[wrapper], 0) for wrapper in wrappers]) + 1
        for wrapper in wrappers:
            wrapper.pruning_step.assign(tf.where(training, step, before[wrapper]))
        return step

    def _order(self, wrappers: Sequence[Any], step: tf.Tensor, training: Any) -> Order:
        """What the schedule of wrappers that share a rhythm asks of them at a step."""
        due, sparsity = ask_schedule(wrappers[0].pruning_schedule, step)
        if wrappers[0].sparsity_m_by_n:  # tfmot chooses m zeros of n once, at the first step
            due, sparsity = tf.equal(step, 1), 0.0
        sparsities = self._sparsities(wrappers, sparsity)
        return Order(due & training & bool(sparsities), list(sparsities), _fractions(sparsities))

    def _missed(self, wrappers: Sequence[Any], done: int) -> dict[Weight, Any]:
        """What weights missed of their schedule, by being frozen.

        Args:
            wrappers: wrappers that share a rhythm.
            done: how many steps they have counted.

        Returns:
            Those trained weights that keep more than the schedule asked for when it was due last, and that sparsity.
        """
        if done == 0:
            return {}

        def denser(sparsity: Any) -> dict[Weight, Any]:
            sparsities = self._sparsities(wrappers, sparsity)
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

    def _sparsities(self, wrappers: Sequence[Any], sparsity: Any) -> dict[Weight, Any]:
        """A schedule's sparsity by weight: of those of some wrappers that are trained, and that it speaks of."""
        by_path = per_kernel(sparsity, [weight.path for weight in self._weights])
        weights = [weight for weight in self._weights if weight.wrapper in wrappers and weight in self._trained]
        return {weight: by_path[weight.path] for weight in weights if weight.path in by_path}

    def _update(self, orders: Sequence[Order]) -> None:
        """Prunes the weights that are due."""
        self._zero()  # where no optimizer holds the zeros, weights are ranked without what grew back
        if self._weights:  # a user's layer may have none to prune
            WrapperUpdate(self._recipe, self._weights).run(orders)

    def _zero(self) -> None:
        for weight in self._weights:
            weight.zero()


_GRAPHLESS: weakref.WeakSet[Any] = weakref.WeakSet()
"""Models whose wrappers are not in a graph, and wrappers in no model, that were warned of."""


def joint_of(wrapper: Any, current: legacy.Pass) -> Joint:
    """The wrappers that prune together with one that is being called.

    Args:
        wrapper: a built `PrunableLayer`.
        current: the pass in which it is called.
    """
    graph = None if current.model is None else legacy.graph_of(current.model)
    key = wrapper if graph is None else current.model
    # Each wrapper keeps its own: kept here, a wrapper would never be forgotten.
    cached = wrapper.pruning_obj.joints.get(key)
    if cached is not None and cached[0] is graph:
        return cached[1]
    around = (
        []
        if current.model is None
        else [other for other in legacy.wrappers(current.model) if hasattr(other, "hold_masks")]
    )
    if graph is not None and wrapper in around:
        joint = Joint(around, current.model)
        _warn(joint.ranked_by_magnitude, "the model's graph has no place for them")
    else:
        joint = Joint([wrapper], None)
        owner = wrapper if current.model is None else current.model
        if owner not in _GRAPHLESS:
            _GRAPHLESS.add(owner)
            _warn(around or [wrapper], "it is called outside a model with a graph")
    for member in joint.wrappers:
        member.pruning_obj.joints[key] = (graph, joint)
    return joint


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


def _fractions(sparsities: dict[Weight, Any]) -> list[tf.Tensor]:
    """The fractions to keep."""
    return [1 - tf.cast(sparsity, tf.float64) for sparsity in sparsities.values()]
