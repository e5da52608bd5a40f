"""The wrappers of one model prune together: one pass over the graph ranks all kernels before any mask changes.

tfmot's wrapper updates its own mask in its own call. Here the first wrapper of a model that is called in a training
step does it for all of them, so that each kernel is ranked by its neighbours as they are at the beginning of the step.
"""

from __future__ import annotations

import collections
import functools
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tf_lap import compat
from tf_lap.allocation import Uniform, per_kernel
from tf_lap.compat import tf_keras as legacy
from tf_lap.graph import resolve
from tf_lap.schedule import LookaheadPruningSchedule
from tf_lap.scores import Lookahead
from tf_lap.selection import batches, keep_largest
from tf_lap.tfmot.weight import Weight
from tf_lap.update import Updater

_NO_STEP = (
    "a layer is pruned by tf_lap.PrunableLayer, and nothing counts its steps: pass "
    "tfmot.sparsity.keras.UpdatePruningStep() among the callbacks of fit, or call its on_train_begin before a loop of "
    "your own"
)
# Without quotes around the path: TensorFlow escapes them.
_KERNEL = (
    "the kernel of layer {} holds NaN, infinity, or weights whose squares do not add up in float32: restore sound "
    "weights before pruning"
)
_AROUND = (
    "the energies around layer {} are not finite: a normalization layer beside it holds NaN, infinity or a negative "
    "variance, or weights beside it are too large for float32"
)


class Order(NamedTuple):
    """What is asked of wrappers that share a rhythm.

    Attributes:
        due: a bool scalar, whether their masks are chosen now.
        weights: those of their weights that the schedule speaks of.
        keep: for each the fraction to keep, float64.
    """

    due: tf.Tensor
    weights: Sequence[Weight]
    keep: Sequence[tf.Tensor]


class Joint:
    """The wrappers of one model, or one wrapper alone.

    Args:
        calls: the wrappers in the order of their calls, a shared one as often as it is called.
        model: the Sequential or functional model that they are in, or None where nothing is known of one.
    """

    def __init__(self, calls: Sequence[Any], model: Any | None) -> None:
        self.wrappers = list(dict.fromkeys(calls))
        self._leader = calls[0]
        self._calls = list(calls).count(self._leader)
        self._turns: weakref.WeakKeyDictionary[Any, collections.Counter[int]] = weakref.WeakKeyDictionary()
        self._model = None if model is None else weakref.ref(model)
        self._recipe = None
        numbers, paths = {}, {}
        if model is not None:
            with tf.init_scope():  # what the rules compute now must not belong to the graph that is traced now
                self._recipe = resolve(model)
            numbers = {id(kernel.variable): i for i, kernel in enumerate(self._recipe.kernels)}
            paths = {id(kernel.layer): kernel.path for kernel in self._recipe.kernels}
        self._weights = [
            Weight(paths.get(id(wrapper.layer), wrapper.layer.name), wrapper, *each, numbers.get(id(each[0])))
            for wrapper in self.wrappers
            for each in wrapper.pruning_vars
        ]
        # A condition for each weight would cost as much as a third of its update.
        groups: dict[Any, list[Any]] = collections.defaultdict(list)
        for wrapper in self.wrappers:
            groups[_rhythm(wrapper)].append(wrapper)
        self._groups = list(groups.values())

    @property
    def ranked_by_magnitude(self) -> list[Any]:
        """The wrappers of weights that have no place in the model's graph."""
        apart = [w for w in self._weights if w.kernel is None or not self._recipe.kernels[w.kernel].uses]
        return list(dict.fromkeys(weight.wrapper for weight in apart))

    @property
    def model(self) -> Any | None:
        """The model, while it is there."""
        return self._model and self._model()

    @tf.autograph.experimental.do_not_convert
    def called(self, wrapper: Any, training: Any) -> None:
        """Does for all wrappers what a call of one of them asks for: once in each pass through the model.

        Args:
            wrapper: who is called.
            training: True, or a bool scalar tensor.
        """
        if wrapper is not self._leader or not self._is_first_call():
            return
        for each in self.wrappers:
            each.hold_masks()
        in_all_replicas(functools.partial(self._step, training))

    def _step(self, training: Any) -> None:
        with legacy.uncast():
            before = {wrapper: tf.convert_to_tensor(wrapper.pruning_step) for wrapper in self.wrappers}
            counted = tf.reduce_any([step >= 0 for step in before.values()]) | ~tf.cast(training, tf.bool)
            with tf.control_dependencies([tf.debugging.Assert(counted, [_NO_STEP])]):
                orders = [self._order(group, before, training) for group in self._groups]
            _run_if(tf.reduce_any([order.due for order in orders]), lambda: self._update(orders), self._zero)

    def _order(self, wrappers: Sequence[Any], before: dict[Any, tf.Tensor], training: Any) -> Order:
        """Counts the step of wrappers that share a rhythm, and says what their schedule asks of them now."""
        # One clock: of the wrapper that is furthest behind, having joined the others later. Those that are ahead lose
        # nothing, since what is pruned stays pruned. The callback sets those at -1 to 0 that it finds; it looks into no
        # custom layer, nor behind the first.
        step = tf.reduce_min([tf.maximum(before[wrapper], 0) for wrapper in wrappers]) + tf.cast(training, tf.int64)
        for wrapper in wrappers:
            wrapper.pruning_step.assign(step)
        due, sparsity = _asked(wrappers[0].pruning_schedule, step)
        if wrappers[0].sparsity_m_by_n:  # tfmot chooses m zeros of n once, at the first step
            due, sparsity = tf.equal(step, 1), 0.0
        by_path = per_kernel(sparsity, [weight.path for weight in self._weights])
        named = [weight for weight in self._weights if weight.wrapper in wrappers and weight.path in by_path]
        keep = [1 - tf.cast(by_path[weight.path], tf.float64) for weight in named]
        return Order(due & training, named, keep)

    def _update(self, orders: Sequence[Order]) -> None:
        """Prunes the weights that are due."""
        self._zero()  # where no optimizer holds the zeros, weights are ranked without what grew back
        energies, checks = self._energies()
        with tf.control_dependencies(checks):
            if len(orders) == 1:  # it is what is due
                self._prune(orders[0], energies)
                return
            for order in orders:
                _run_if(order.due, functools.partial(self._prune, order, energies), lambda: None)

    def _zero(self) -> None:
        for weight in self._weights:
            weight.zero()

    def _energies(self) -> tuple[Any, list[tf.Operation]]:
        if self._recipe is None:
            return None, []
        updater = Updater(self._recipe, (), (), Lookahead(), Uniform(), {})
        norms, finite = updater.measure()
        energies, around = updater.all_energies(norms)
        # A kernel that is not finite makes what surrounds its neighbours so: it is named before them.
        with tf.control_dependencies(self._checks(finite, _KERNEL)):
            return energies, self._checks(around, _AROUND)

    def _checks(self, fine: tf.Tensor, what: str) -> list[tf.Operation]:
        kernels = zip(self._recipe.kernels, tf.unstack(fine), strict=True)
        return [tf.debugging.Assert(ok, [what.format(kernel.path)]) for kernel, ok in kernels]

    def _prune(self, order: Order, energies: Any) -> None:
        sizes = [weight.variable.shape.num_elements() for weight in order.weights]
        for batch in batches(sizes):
            weights = [order.weights[i] for i in batch]
            scores = [self._scores(weight, energies) for weight in weights]
            if weights[0].wrapper.sparsity_m_by_n:
                for weight, each in zip(weights, scores, strict=True):
                    weight.keep_m_of_n(each)
                continue
            ranked = [weight.ranked(each) for weight, each in zip(weights, scores, strict=True)]
            # As allocation.keep_count: tf.round too goes half to even.
            counts = tf.round(
                [order.keep[i] * r.scores.shape.num_elements() for i, r in zip(batch, ranked, strict=True)]
            )
            masks, lowest = keep_largest(*zip(*ranked, strict=True), tf.maximum(tf.cast(counts, tf.int32), 1))
            for weight, mask, score in zip(weights, masks, tf.unstack(lowest), strict=True):
                weight.keep(mask, score)

    def _scores(self, weight: Weight, energies: Any) -> tf.Tensor:
        values = compat.value(weight.variable)
        if weight.kernel is None:
            return tf.abs(values)
        kernel = self._recipe.kernels[weight.kernel]
        return Lookahead().score(kernel, values, energies[0][weight.kernel], energies[1][weight.kernel])

    def _is_first_call(self) -> bool:
        """Whether this is the leader's first call in a pass: it may be shared, and be called several times."""
        if self._calls == 1:
            return True
        # Replicas run in threads of their own.
        graph = self if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        turns = self._turns.setdefault(graph, collections.Counter())
        turns[threading.get_ident()] += 1
        return turns[threading.get_ident()] % self._calls == 1


_GRAPHLESS: weakref.WeakSet[Any] = weakref.WeakSet()
"""Models whose wrappers are not in a graph, and wrappers in no model, that were warned of."""


def joint_of(wrapper: Any) -> Joint:
    """The wrappers that prune together with one that is being called."""
    model = legacy.model_being_called()
    graph = None if model is None else legacy.graph_of(model)
    key = wrapper if graph is None else model
    # Each wrapper keeps its own: kept here, a wrapper would never be forgotten.
    known = wrapper.pruning_obj.joints.get(key)
    if known is not None and known[0] is graph:
        return known[1]
    calls = [] if graph is None else legacy.wrappers(model)
    if wrapper in calls:
        joint = Joint(calls, model)
        _warn(joint.ranked_by_magnitude, "the model's graph has no place for them")
    else:
        joint = Joint([wrapper], None)
        owner = wrapper if model is None else model
        if owner not in _GRAPHLESS:
            _GRAPHLESS.add(owner)
            _warn((model and legacy.wrappers(model)) or [wrapper], "it is called outside a model with a graph")
    for each in joint.wrappers:
        each.pruning_obj.joints[key] = (graph, joint)
    return joint


def _warn(wrappers: Sequence[Any], why: str) -> None:
    if not wrappers:
        return
    layers = ", ".join(f"{wrapper.layer.name!r} ({type(wrapper.layer).__name__})" for wrapper in wrappers)
    warnings.warn(
        f"tf_lap.PrunableLayer ranks the weights of {layers} by magnitude: {why}, so nothing is known of what feeds "
        "them and what reads them",
        stacklevel=2,
    )


def in_all_replicas(function: Callable[[], None]) -> None:
    """Runs a function once for all replicas of a distribution strategy, whose variables it may then assign to."""
    context = tf.distribute.get_replica_context()
    if context is None:
        function()
    else:
        context.merge_call(lambda strategy: function())


def _asked(schedule: Any, step: tf.Tensor) -> tuple[tf.Tensor, Any]:
    if isinstance(schedule, LookaheadPruningSchedule):
        return schedule.precisely(step)
    return schedule(step)


def _run_if(condition: tf.Tensor, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
    def done(function: Callable[[], None]) -> tf.Tensor:
        function()
        return tf.constant(True)

    tf.cond(condition, functools.partial(done, then), functools.partial(done, otherwise))


def _rhythm(wrapper: Any) -> Any:
    """What is equal for wrappers that are due at the same steps."""
    schedule = wrapper.pruning_schedule
    if wrapper.sparsity_m_by_n or not hasattr(schedule, "get_config"):
        return wrapper
    return type(schedule), repr(schedule.get_config())
