"""A fit that goes on where another was killed: all that training moves, and the data that it has read."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from tf_lap.compat.batch_skipping import BatchSkipper
from tf_lap.compat.flavours import flavour_of
from tf_lap.compat.nodes import private
from tf_lap.compat.types import Model


def variables(model: Model, build_optimizers: bool = True) -> dict[str, list[tuple[str, list[tf.Variable]]]]:
    """All variables that a fit of this model moves, but for its metrics, by what they belong to.

    Each variable comes with its name, and as one variable a replica. The order is that of the model's construction.

    Args:
        model: the model.
        build_optimizers: whether optimizers are built first. One that is not built lacks most of its variables.
    """
    return flavour_of(model).moved_variables(model, build_optimizers)


def random_state() -> dict[str, Any]:
    """The states of the random generators of Python, of NumPy and of TensorFlow's eager operations, fit for JSON."""
    numpy_state = np.random.get_state(legacy=False)
    generator = _eager_generator()
    return {
        "python": random.getstate(),
        "numpy": [
            numpy_state["bit_generator"],
            numpy_state["state"]["key"].tolist(),
            numpy_state["state"]["pos"],
            numpy_state["has_gauss"],
            numpy_state["gauss"],
        ],
        "tensorflow": None if generator is None else generator.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts back what `random_state` gave."""
    random.setstate(_as_generator_state(state["python"]))
    np.random.set_state(tuple(state["numpy"]))
    generator = _eager_generator()
    if generator is not None and state["tensorflow"] is not None:
        generator.setstate(_as_generator_state(state["tensorflow"]))


def _as_generator_state(state: Any) -> tuple[Any, ...]:
    """A state as `random.setstate` takes it: JSON has made lists of its tuples."""
    version, numbers, next_gauss = state
    return version, tuple(numbers), next_gauss


def _eager_generator() -> random.Random | None:
    """The generator that eager operations take their seeds from; None where `tf.random.set_seed` was not called."""
    return None if context.global_seed() is None else private(context.context(), "_rng")


def steps_per_execution(model: Model) -> int:
    """How many batches one call of the training function takes."""
    return flavour_of(model).steps_per_execution(model)


def resume_at(model: Model, first_epoch: int, epoch: int, executions: int) -> None:
    """Lets a fit that is beginning go on with another epoch, and reads its data on to there.

    Called in `on_train_begin`. Calls of the training function that are done already skip their batches.

    Args:
        model: the model that is being fitted.
        first_epoch: the epoch that the training began with.
        epoch: the epoch that it goes on with.
        executions: how many calls of the training function of that epoch are done.

    Raises:
        RuntimeError: the fit is not Keras's own loop.
    """
    flavour = flavour_of(model)
    data = flavour.fit_data(model)
    batches = flavour.start_at_epoch(model, data, first_epoch, epoch)
    if batches or executions:
        size = flavour.steps_per_execution(model)
        model.train_function = BatchSkipper(model, flavour.fit_data, batches, executions, size)


def forget_start(model: Model) -> None:
    """Forgets with which epoch the fit went on, so that the next fit of the model does not begin there too."""
    flavour_of(model).forget_start(model)
