"""The training of a tf_keras model: its step, what a fit moves, and how a fit goes on with another epoch."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from tf_lap.compat.call_stack import read_local_of_fit
from tf_lap.compat.nodes import private
from tf_lap.compat.tf_keras.variables import bare, weights
from tf_lap.compat.types import Model, Variable


def is_compiled(model: Model) -> bool:
    """Whether the model has a training step."""
    return private(model, "_is_compiled")


def last_batch(model: Model, begin: int, end: int) -> int:
    """The number of the last batch that an execution was to take; see `compat.last_batch`."""
    return end


def without_optimizer(model: Model) -> list[Variable]:
    """The trainable variables that a training step fails for: none, since it trains what was trained when compiled."""
    return []


def averages(optimizer: Any, variables: list[Variable]) -> list[Variable | None]:
    """For each variable a built optimizer's moving average of it, or None where it has none."""
    index, key = private(optimizer, "_index_dict"), private(optimizer, "_var_key")
    all_averages = private(optimizer, "_model_variables_moving_average")
    positions = [index.get(key(variable)) for variable in variables]
    return [None if position is None else all_averages[position] for position in positions]


def moved_variables(model: Model, build_optimizers: bool) -> dict[str, list[tuple[str, list[tf.Variable]]]]:
    """All variables that a fit moves, by what they belong to; see `compat.fits.variables`."""
    layers = list(model._flatten_layers())
    states = [state for layer in layers for state in tf.nest.flatten(getattr(layer, "states", None))]
    generators = [getattr(getattr(layer, "_random_generator", None), "_generator", None) for layer in layers]
    of_model = [*weights(model), *(state for state in states if isinstance(state, tf.Variable))]
    of_model += [generator.state for generator in generators if generator is not None]
    sections = {"the model": [*of_model, private(model, "_train_counter")]}
    classes = (tf_keras.optimizers.Optimizer, tf_keras.optimizers.legacy.Optimizer)
    optimizers = {name: value for name, value in vars(model).items() if isinstance(value, classes)}
    for name, optimizer in optimizers.items():
        if build_optimizers and optimizer is model.optimizer:
            create_optimizer_variables(optimizer, model.trainable_variables)
        sections[f"{name} ({type(optimizer).__name__})"] = list_optimizer_variables(optimizer, of_model)
    return {section: [(v.name, bare(v)) for v in variables] for section, variables in sections.items()}


def create_optimizer_variables(optimizer: Any, variables: list[Variable]) -> None:
    """Lets an optimizer make what it remembers for variables."""
    if isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
        optimizer._create_all_weights(variables)
    else:
        optimizer.build(variables)


def list_optimizer_variables(optimizer: Any, of_model: list[Variable]) -> list[Variable]:
    """All variables of an optimizer that are not of the model."""
    # An optimizer's own list lacks its learning rate and its loss scale, and slots of legacy ones are no children.
    tracked = [v for v in tf.train.TrackableView(optimizer).descendants() if isinstance(v, tf.Variable)]
    listed = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    others = {id(variable) for variable in of_model}
    return list({id(v): v for v in [*listed, *tracked] if id(v) not in others}.values())


def steps_per_execution(model: Model) -> int:
    """How many batches one call of the training function takes."""
    return int(private(model, "_steps_per_execution").numpy())


class _Start(NamedTuple):
    """The object that `fit` asks with which epoch and step it begins."""

    epoch: int

    def maybe_load_initial_counters_from_ckpt(self, *_: Any, **__: Any) -> tuple[int, int]:
        """The epoch and the step in it."""
        return self.epoch, 0


def fit_data(model: Model) -> Any:
    """The object that iterates over the data of the fit that the model is in.

    Raises:
        RuntimeError: the model is in no fit of tf_keras.
    """
    return read_local_of_fit(tf_keras.Model.fit, model, "data_handler")


def start_at_epoch(model: Model, data: Any, first_epoch: int, epoch: int) -> int:
    """Lets the fit that is beginning start with an epoch; see the function of this name in `compat.keras3`."""
    model._training_state = _Start(epoch)
    if private(data, "_adapter").should_recreate_iterator():
        for _ in range(epoch - first_epoch):
            iter(private(data, "_dataset"))
        return 0
    return (epoch - first_epoch) * (data.inferred_steps or 0)


def forget_start(model: Model) -> None:
    """Takes back what `start_at_epoch` set, so that the next fit begins with the epoch that it is told."""
    model._training_state = None
