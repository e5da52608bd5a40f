"""The training of a Keras 3 model: its step, what a fit moves, and how a fit goes on with another epoch."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras.src.random.seed_generator import global_seed_generator

from tf_lap.compat.call_stack import read_local_of_fit
from tf_lap.compat.nodes import private
from tf_lap.compat.types import Model, Variable


def is_compiled(model: Model) -> bool:
    """Whether the model has a training step."""
    return model.compiled


def last_batch(model: Model, begin: int, end: int) -> int:
    """The number of the last batch that an execution was to take; see `compat.last_batch`."""
    # Before 3.11, Keras tells on_train_batch_end the number of the first batch again.
    return max(end, begin + model.steps_per_execution - 1)


def without_optimizer(model: Model) -> list[Variable]:
    """The trainable variables that the model's optimizer was not built for, so that a training step fails."""
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # A train_step of a user's own may train some variables with this optimizer, and others with another.
    if optimizer is None or not optimizer.built or type(model).train_step is not keras.Model.train_step:
        return []
    built_for = {id(variable) for variable in private(optimizer, "_trainable_variables")}
    return [variable for variable in model.trainable_variables if id(variable) not in built_for]


def averages(optimizer: Any, variables: list[Variable]) -> list[Variable | None]:
    """For each variable a built optimizer's moving average of it, or None where it has none."""
    pairs = zip(
        private(optimizer, "_trainable_variables"), private(optimizer, "_model_variables_moving_average"), strict=True
    )
    average_of = {id(variable): average for variable, average in pairs}
    return [average_of.get(id(variable)) for variable in variables]


def moved_variables(model: Model, build_optimizers: bool) -> dict[str, list[tuple[str, list[tf.Variable]]]]:
    """All variables that a fit moves, by what they belong to; see `compat.fits.variables`."""
    sections = {"the model": model.variables}
    optimizers = {name: value for name, value in vars(model).items() if isinstance(value, keras.optimizers.Optimizer)}
    for name, optimizer in optimizers.items():
        if build_optimizers and optimizer is model.optimizer and not optimizer.built:
            optimizer.build(model.trainable_variables)
        sections[f"{name} ({type(optimizer).__name__})"] = optimizer.variables
    sections["keras.random"] = [global_seed_generator().state]
    return {section: [(v.path, _replicas(v)) for v in variables] for section, variables in sections.items()}


def _replicas(variable: Variable) -> list[tf.Variable]:
    return list(getattr(variable.value, "values", [variable.value]))


def steps_per_execution(model: Model) -> int:
    """How many batches one call of the training function takes."""
    return int(model.steps_per_execution)


def fit_data(model: Model) -> Any:
    """The object that iterates over the data of the fit that the model is in.

    Raises:
        RuntimeError: the model is in no fit of Keras.
    """
    return read_local_of_fit(keras.Model.fit, model, "epoch_iterator")


def start_at_epoch(model: Model, data: Any, first_epoch: int, epoch: int) -> int:
    """Lets the fit that is beginning start with an epoch.

    Where the data makes a new iterator for each epoch, those of the epochs before are made, since a dataset that
    shuffles anew draws its orders one after another.

    Args:
        model: the model that is being fitted.
        data: what `fit_data` gives.
        first_epoch: the epoch that the training began with.
        epoch: the epoch to start with.

    Returns:
        How many batches the fit has to read first: those of the epochs before, where one iterator serves all epochs.
    """
    model._initial_epoch = epoch
    if data.steps_per_epoch is None:
        # Keras makes an iterator when an epoch begins, and one more when it ends.
        for _ in range(2 * (epoch - first_epoch)):
            iter(private(data, "_get_iterator")())
        return 0
    batches, length = (epoch - first_epoch) * data.steps_per_epoch, private(data, "_num_batches")
    return batches % length if length else batches


def forget_start(model: Model) -> None:
    """Takes back what `start_at_epoch` set, so that the next fit begins with the epoch that it is told."""
    model._initial_epoch = None
