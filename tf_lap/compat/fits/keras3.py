"""What a fit of Keras 3 moves, and how it goes on with another epoch."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.src.random.seed_generator import global_seed_generator

from tf_lap.compat.nodes import private


def moved_variables(model: Any) -> dict[str, list[tuple[str, list[tf.Variable]]]]:
    """All variables that a fit moves, by what they belong to; see `compat.fits.variables`."""
    sections = {"the model": model.variables}
    optimizers = {name: held for name, held in vars(model).items() if isinstance(held, keras.optimizers.Optimizer)}
    for name, optimizer in optimizers.items():
        if optimizer is model.optimizer and not optimizer.built:
            optimizer.build(model.trainable_variables)
        sections[f"{name} ({type(optimizer).__name__})"] = optimizer.variables
    sections["keras.random"] = [global_seed_generator().state]
    return {section: [(v.path, _replicas(v)) for v in held] for section, held in sections.items()}


def _replicas(variable: Any) -> list[tf.Variable]:
    return list(getattr(variable.value, "values", [variable.value]))


def steps_per_execution(model: Any) -> int:
    """How many batches one call of the training function takes."""
    return int(model.steps_per_execution)


def fit_data(model: Any) -> Any:
    """What iterates over the data of the fit that the model is in."""
    return local_of(keras.Model.fit, model, "epoch_iterator")


def begin_with(model: Any, data: Any, first_epoch: int, epoch: int) -> int:
    """Lets the fit that is beginning start with an epoch.

    Where the data makes a new iterator for each epoch, those of the epochs before are made, since a dataset that
    shuffles anew draws its orders one after another.

    Returns:
        How many batches the fit has to pass over first: those of the epochs before, where one iterator serves all.
    """
    model._initial_epoch = epoch
    if data.steps_per_epoch is None:
        # Keras makes an iterator when an epoch begins, and one more when it ends.
        for _ in range(2 * (epoch - first_epoch)):
            iter(private(data, "_get_iterator")())
        return 0
    batches, length = (epoch - first_epoch) * data.steps_per_epoch, private(data, "_num_batches")
    return batches % length if length else batches


def began(model: Any) -> None:
    """Lets the next fit begin where it is told to."""
    model._initial_epoch = None


def local_of(method: Callable[..., Any], model: Any, name: str) -> Any:
    """A local variable of the call of a model's method that is running now.

    Keras tells a callback nothing of the data that it iterates over, so this looks at the call stack.

    Raises:
        RuntimeError: this method is not running, or has no such variable.
    """
    code = inspect.unwrap(method).__code__
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code is code and frame.f_locals.get("self") is model and name in frame.f_locals:
            return frame.f_locals[name]
        frame = frame.f_back
    raise RuntimeError(
        f"a killed training is resumed in Keras's own fit, in its variable `{name}`, and the fit of "
        f"{type(model).__name__} does not have it. Delete backup_dir and leave tf_lap.BackupAndRestore out, or use the "
        "fit of Keras and a release that tf_lap was tested with (keras 3.15, tf_keras 2.21)"
    )
