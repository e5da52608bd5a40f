"""A fit that goes on where another was killed: all that training moves, and the data that it has read."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from tf_lap.compat.fits import keras3
from tf_lap.compat.flavours import is_tf_keras
from tf_lap.compat.nodes import private
from tf_lap.compat.passing import PassOver


def _flavour_of(model: Any) -> ModuleType:
    """The module for the kind of Keras that a model is of; importing tf_lap does not import tf_keras."""
    if not is_tf_keras(model):
        return keras3
    from tf_lap.compat.fits import tf_keras

    return tf_keras


def variables(model: Any) -> dict[str, list[tuple[str, list[tf.Variable]]]]:
    """All variables that a fit of this model moves, but for its metrics, by what they belong to.

    Optimizers are built first. Each variable comes with its name, and as one variable a replica. The order is that of
    the model's construction.
    """
    return _flavour_of(model).moved_variables(model)


def random_state() -> dict[str, Any]:
    """The states of the random generators of Python, of NumPy and of TensorFlow's eager operations, fit for JSON."""
    name, keys, *rest = np.random.get_state()
    generator = _eager_generator()
    return {
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), *rest],
        "tensorflow": None if generator is None else generator.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts back what `random_state` gave."""
    random.setstate(_generator_state(state["python"]))
    np.random.set_state(tuple(state["numpy"]))
    generator = _eager_generator()
    if generator is not None and state["tensorflow"] is not None:
        generator.setstate(_generator_state(state["tensorflow"]))


def _generator_state(state: Any) -> tuple[Any, ...]:
    version, numbers, following = state
    return version, tuple(numbers), following


def _eager_generator() -> random.Random | None:
    """What eager operations take their seeds from; None before TensorFlow's first of them."""
    return private(context.context(), "_rng")


def executions_of(model: Any) -> int:
    """How many batches one call of the training function takes."""
    return _flavour_of(model).steps_per_execution(model)


def go_on(model: Any, first_epoch: int, epoch: int, executions: int) -> None:
    """Lets a fit that is beginning go on with another epoch, and reads its data on to there.

    Called in `on_train_begin`. Calls of the training function that are done already pass their batches over.

    Args:
        model: the model that is being fitted.
        first_epoch: with which epoch the training began.
        epoch: with which epoch it goes on.
        executions: how many calls of the training function of that epoch are done.

    Raises:
        RuntimeError: the fit is not Keras's own loop.
    """
    library = _flavour_of(model)
    data = library.fit_data(model)
    behind = library.begin_with(model, data, first_epoch, epoch)
    if behind or executions:
        model.train_function = PassOver(model, library.fit_data, behind, executions, executions_of(model))


def began(model: Any) -> None:
    """Forgets with which epoch the fit went on, so that the next fit of the model does not begin there too."""
    _flavour_of(model).began(model)
