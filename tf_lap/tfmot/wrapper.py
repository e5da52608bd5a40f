"""`PrunableLayer`: tfmot's pruning wrapper, ranking by lookahead scores over the graph of the model that it is in."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from tf_lap import compat, scores
from tf_lap.compat import tf_keras as legacy
from tf_lap.compat.tfmot import pruning_impl, pruning_schedule, pruning_wrapper
from tf_lap.compat.types import Variable
from tf_lap.pruning.constraints import Constraint, MaskConstraint
from tf_lap.scores import ScoreLike
from tf_lap.tfmot.prunable import has_kernel_rule, make_prunable
from tf_lap.tfmot.weight import zero_pruned
from tf_lap.tfmot.wrapper_group import WrapperGroup, find_group, in_all_replicas
from tf_lap.tfmot.wrapper_schedule import check_schedule

DEFAULT_SCHEDULE = pruning_schedule.ConstantSparsity(0.5, 0)
"""tfmot's default schedule."""


class WrapperMask(MaskConstraint):
    """The mask of a wrapper on one of its weights, while the wrapper trains it.

    `strip_pruning` puts the layer itself into a new model, weight and constraint with it. From then on the constraint
    does nothing, unless the wrapper is trained again.

    Attributes:
        wrapper: a weak reference to the wrapper.
        number: which of the wrapper's weights it is.
        inner: the user's own constraint.
    """

    def __init__(self, wrapper: PrunableLayer, number: int, inner: Constraint | None) -> None:
        super().__init__(inner)
        self.wrapper, self.number = weakref.ref(wrapper), number
        self._calls = legacy.symbolic_calls(wrapper.layer)

    def find_mask(self) -> Variable | None:
        """The mask, 1 where a weight stays and 0 where it is pruned; None once the layer was taken elsewhere."""
        wrapper = self.wrapper()
        if wrapper is None or legacy.symbolic_calls(wrapper.layer) > self._calls:
            return None
        return wrapper.pruning_vars[self.number][1]


class Hooks(pruning_impl.Pruning):
    """What tfmot's callbacks ask of a wrapper."""

    def __init__(self, wrapper: PrunableLayer) -> None:
        super().__init__(
            lambda: wrapper.pruning_step,
            wrapper.pruning_vars,
            wrapper.pruning_schedule,
            wrapper.block_size,
            wrapper.block_pooling_type,
            wrapper.sparsity_m_by_n,
        )
        self.trainer: weakref.ref[Any] | None = None
        self.groups: weakref.WeakKeyDictionary[Any, tuple[Any, WrapperGroup]] = weakref.WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        # What was found out about the models around is neither copied nor pickled: a copy is in none of them.
        return {**self.__dict__, "groups": weakref.WeakKeyDictionary(), "trainer": None}

    def weight_mask_op(self) -> None:
        """Zeroes what the masks drop, and the moving averages of it, which an optimizer writes back after `fit`."""
        in_all_replicas(self._zero_pruned)

    def conditional_mask_update(self) -> None:
        """Does nothing: masks change in the pass through the model that counts the step."""

    def _zero_pruned(self) -> None:
        variables = [variable for variable, _, _ in self._pruning_vars]
        # Averages are written back outside the compiled step, and zeroed there too.
        trainer = self.trainer() if self.trainer and tf.executing_eagerly() else None
        averages = compat.moving_averages(trainer, variables)
        with legacy.uncast():
            for (variable, mask, _), average in zip(self._pruning_vars, averages, strict=True):
                zero_pruned(variable, mask)
                if average is not None:
                    zero_pruned(average, mask)


@tf_keras.utils.register_keras_serializable(package="tf_lap")
class PrunableLayer(pruning_wrapper.PruneLowMagnitude):
    """A `PruneLowMagnitude` that looks ahead: drops the weights whose removal changes three layers together least.

    It is wrapped around a layer of a tf_keras model, most simply by `prune_lookahead`, trained with tfmot's
    `UpdatePruningStep`, and taken off with tfmot's `strip_pruning`. All wrappers of a model prune together, at the
    beginning of a training step: each kernel is ranked by its score over the graph of the outermost
    Sequential or functional model that is called, nested models included. Weights that have no place in such a graph
    (of a wrapper in a subclassed model; of a layer whose own `get_prunable_weights` gives more than one matrix, or one
    that does not fit) are ranked by their magnitude, and a warning says so once.

    A weight that is pruned once is exactly zero after every step and stays pruned: the optimizer itself keeps it so, by
    the constraint of its variable. Each kernel of n weights keeps exactly `max(1, round(n * (1 - sparsity)))`.
    Wrappers of a model that have equal schedules share one clock, that of the one furthest behind. Layers that are
    called with `training=False` only are left alone, as by tfmot.

    Frozen weights are left as they are, and a warning names them once: those that are not among the
    `trainable_variables` of the outermost model. Their steps are counted. When they train, from the next compiled step
    on, they are pruned at once to what the schedule asked for last, also where it is over.

    Training raises InvalidArgumentError where no `UpdatePruningStep` was called, or where a kernel is not finite; under
    `jit_compile=True`, where nothing can be raised, it goes on, and masks that a NaN would decide stay as they are.

    Example:

    >>> schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=1000)
    >>> layer = tf_lap.PrunableLayer(tf_keras.layers.Dense(10, name="head"), schedule)
    >>> layer.name
    'prune_low_magnitude_head'

    Args:
        layer: a layer that tfmot prunes, of a subclass of one, or with a method `get_prunable_weights`; or a
            TimeDistributed or Bidirectional layer around such a one.
        pruning_schedule: a schedule of tfmot, or a `LookaheadPruningSchedule`.
        block_size: rows and columns of the blocks in which a matrix is pruned.
        block_pooling_type: "AVG" or "MAX": what makes one score of a block's.
        sparsity_m_by_n: (m, n): at the first step m of every n consecutive inputs of an output are pruned, once.
        score: how much a weight matters: "lookahead", "magnitude", "random", or an object of `tf_lap.scores`.
        **kwargs: arguments of the wrapper as a layer. Its dtype policy is that of the layer; its name is, as tfmot's,
            "prune_low_magnitude_" and the name of the layer.

    Raises:
        ValueError: a layer that there is no way to prune; a schedule that cannot be called, counts in parts of
            steps or has dense phases; a score that is not known or is measured over data; options that tfmot does not
            take. When it is built: blocks for weights that are no matrix, or a layer that makes its weights in its
            first call.
    """

    def __init__(
        self,
        layer: tf_keras.layers.Layer,
        pruning_schedule: Any = DEFAULT_SCHEDULE,
        block_size: tuple[int, int] = (1, 1),
        block_pooling_type: str = "AVG",
        sparsity_m_by_n: tuple[int, int] | None = None,
        *,
        score: ScoreLike = "lookahead",
        **kwargs: Any,
    ) -> None:
        if not isinstance(layer, tf_keras.layers.Layer):
            raise ValueError(f"PrunableLayer wraps a layer of tf_keras, got {layer!r}")
        if not make_prunable(layer):
            raise ValueError(
                f"layer {layer.name!r} is a {type(layer).__name__}, in which there is nothing that tfmot prunes: give "
                "it a method get_prunable_weights() that returns its weights to prune, or leave it unwrapped"
                + (". tf_lap.LAPCallback can prune it, without tfmot" if has_kernel_rule(layer) else "")
            )
        if not callable(pruning_schedule):
            raise ValueError(f"pruning_schedule={pruning_schedule!r}: expected a schedule of tfmot or of tf_lap")
        check_schedule(pruning_schedule)
        self.score = scores.get(score)
        if self.score.needs_data:
            raise ValueError(
                f"score={score!r} is measured over data, which a wrapper is not given: use another score, such as "
                "'lookahead', or prune with tf_lap.LAPCallback(..., data=...)"
            )
        kwargs.setdefault("dtype", layer.dtype_policy)
        kwargs.setdefault("autocast", legacy.autocasts(layer))
        name = kwargs.pop("name", f"prune_low_magnitude_{layer.name}")
        super().__init__(layer, pruning_schedule, block_size, block_pooling_type, sparsity_m_by_n, **kwargs)
        legacy.rename(self, name)  # tfmot makes it from the name of the class
        self.supports_masking = layer.supports_masking

    def build(self, input_shape: Any) -> None:
        """Builds the layer, its masks, and the count of its steps."""
        try:
            super().build(input_shape)
        except AttributeError as error:
            raise ValueError(
                f"layer {self.layer.name!r} ({type(self.layer).__name__}) does not have the weights to prune when it "
                f"is built ({error}): call it once on its inputs before it is wrapped, or wrap the whole model that "
                "it is in with prune_lookahead(model)"
            ) from error
        self.pruning_obj = Hooks(self)

    def __getattr__(self, name: str) -> Any:
        # Only asked for what is not there: tfmot's callback reads the step as fit begins.
        if name == "pruning_step":
            raise AttributeError(
                f"{self.name!r} is not built, so it counts no steps yet: give the model an Input, or call "
                "model.build(input_shape), before fit"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer; in training, after the masks that are due at this step were chosen.

        Args:
            inputs: the layer's first argument.
            *args: its others by position. Where the layer takes no other, `training`, as in tfmot's wrapper.
            **kwargs: its others by name. Keras passes `training` and `mask` to every wrapper.
        """
        parameters = inspect.signature(self.layer.call).parameters
        names = _names_by_position(self.layer)
        kwargs.update(zip(names, args, strict=False))
        training = kwargs.pop("training", None)
        if training is None:
            training = tf_keras.backend.learning_phase()
        self._prune(training)
        if "training" in parameters:
            kwargs["training"] = training
        if "mask" not in parameters and not any(
            parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
        ):
            kwargs.pop("mask", None)
        return self.layer.call(inputs, *args[len(names) :], **kwargs)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """What the layer makes of a mask of time steps."""
        return self.layer.compute_mask(inputs, mask)

    def attach_masks(self, trainer: Any | None) -> None:
        """Attaches the masks to the weights: the optimizer keeps pruned ones at zero from the next traced step on.

        Args:
            trainer: the model whose optimizer that is, where one is known.
        """
        self.pruning_obj.trainer = None if trainer is None else weakref.ref(trainer)
        for number, (variable, _, _) in enumerate(self.pruning_vars):
            constraint = compat.get_constraint(variable)
            inner = constraint.inner if isinstance(constraint, WrapperMask) else constraint
            takes_mask = legacy.takes_constraint(self.layer, trainer)
            compat.set_constraint(variable, WrapperMask(self, number, inner) if takes_mask else inner)

    def get_config(self) -> dict[str, Any]:
        """The arguments; the schedule as the name that its class is registered by, and its own configuration."""
        schedule = self.pruning_schedule.get_config()
        name = tf_keras.utils.get_registered_name(type(self.pruning_schedule))
        return {
            **super().get_config(),
            "pruning_schedule": {"class_name": name, "config": schedule.get("config", schedule)},
            "sparsity_m_by_n": self.sparsity_m_by_n,
            "score": scores.serialize(self.score),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PrunableLayer:
        """Makes the wrapper that `get_config` describes.

        Raises:
            ValueError: the class of the schedule is not known to tf_keras.
        """
        schedule = config["pruning_schedule"]
        classes_of_tfmot = {
            cls.__name__: cls for cls in (pruning_schedule.ConstantSparsity, pruning_schedule.PolynomialDecay)
        }
        schedule_class = tf_keras.utils.get_registered_object(schedule["class_name"], module_objects=classes_of_tfmot)
        if schedule_class is None:
            raise ValueError(
                f"the pruning schedule {schedule['class_name']!r} is not known: decorate its class with "
                "tf_keras.utils.register_keras_serializable(), or load within a tf_keras.utils.custom_object_scope"
            )
        layer = tf_keras.layers.deserialize(config["layer"])
        options = {**config, "layer": layer, "pruning_schedule": schedule_class.from_config(schedule["config"])}
        return cls(**options)

    @tf.autograph.experimental.do_not_convert
    def _prune(self, training: Any) -> None:
        if legacy.is_rehearsal():
            return
        static = tf.get_static_value(training) if tf.is_tensor(training) else bool(training)
        if static is not None and not static:
            self.pruning_obj.weight_mask_op()
            return
        current = legacy.current_pass()
        find_group(self, current).handle_call(current, True if static else training)


def _names_by_position(layer: Any) -> list[str]:
    """The names of what a layer is called with by position, behind its first argument."""
    kinds = [parameter.kind for parameter in inspect.signature(layer.call).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return []
    if len(kinds) == 1:
        return ["training"]
    # Recurrent layers have a `__call__` of their own, with the states in second place.
    for function in (layer.__call__, layer.call):
        parameters = inspect.signature(function).parameters.values()
        names = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        if names:
            break
    return names[1:]
