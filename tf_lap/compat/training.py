"""The training step of a model, and its optimizer."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_lap.compat.batch_skipping import BatchSkipper
from tf_lap.compat.flavours import flavour_of
from tf_lap.compat.types import Model, Variable


def refresh_train_function(model: Model) -> None:
    """Makes the next training step be traced anew.

    A step traced by an earlier `fit` knows nothing of constraints set since, nor that they were removed.
    """
    if flavour_of(model).is_compiled(model):
        previous, model.train_function = model.train_function, None
        model.make_train_function()
        if isinstance(previous, BatchSkipper):
            previous.train_function, model.train_function = model.train_function, previous


def check_compiled(model: Model) -> None:
    """Raises ValueError where layers were thawed and the model was not compiled again, so that its training fails."""
    unknown = flavour_of(model).without_optimizer(model)
    if unknown:
        raise ValueError(
            f"model {model.name!r} trains {len(unknown)} variables, such as {unknown[0].path!r}, that its optimizer "
            "does not know, because layers were thawed after it was compiled: call model.compile(...) again before fit"
        )


def last_batch(model: Model, begin: int, end: int) -> int:
    """The number of the last batch that an execution was to take; a short last execution takes fewer.

    Args:
        model: the model in training.
        begin: what Keras told `on_train_batch_begin`.
        end: what Keras told `on_train_batch_end`.
    """
    return flavour_of(model).last_batch(model, begin, end)


def has_moving_averages(model: Model) -> bool:
    """Whether the model's optimizer puts moving averages in place of the weights when training ends."""
    return bool(getattr(_inner_optimizer(model), "use_ema", False))


def moving_averages(model: Model, variables: list[Variable]) -> list[Variable | None]:
    """For each variable the optimizer's exponential moving average of it, or None where there is none."""
    optimizer = _inner_optimizer(model)
    is_built = getattr(optimizer, "built", getattr(optimizer, "_built", False))
    if not has_moving_averages(model) or not is_built:
        return [None] * len(variables)
    return flavour_of(model).averages(optimizer, variables)


def _inner_optimizer(model: Model) -> Any | None:
    """The model's optimizer, or the one inside it where it scales the loss; None where there is none."""
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)


def iterations(model: Model) -> int:
    """How many training steps the model's optimizer has counted; 0 where it has none."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return 0
    return int(tf.convert_to_tensor(optimizer.iterations)) * gradient_accumulation_steps(model)


def gradient_accumulation_steps(model: Model) -> int:
    """How many training steps the model's optimizer counts as one; 1 where it has no optimizer."""
    return getattr(getattr(model, "optimizer", None), "gradient_accumulation_steps", None) or 1
