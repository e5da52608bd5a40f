"""Learning-rate schedules for the optimizers of the Keras that a model is of."""

from __future__ import annotations

from typing import Any

from tf_lap.compat.flavours import flavour_of, is_tf_keras
from tf_lap.compat.models import check_kind
from tf_lap.compat.types import Model


def make_linear_rate(model: Model, peak: float, steps: int) -> Any:
    """Keras's own schedule that goes from a peak to zero in a straight line, and stays there.

    Raises:
        TypeError, ValueError: `model` is no Keras model that TensorFlow runs.
    """
    check_kind(model)
    return flavour_of(model).schedules.PolynomialDecay(peak, steps, end_learning_rate=0.0, power=1.0)


def make_rewound_rate(model: Model, rewind: Any, rewind_step: int, begin_step: int) -> Any:
    """Another schedule's learning rate from a step of it on; see `RewoundRateBase`.

    Raises:
        TypeError, ValueError: `model` is no Keras model that TensorFlow runs, or `rewind` is a schedule of the other
            Keras.
    """
    check_kind(model)
    flavour = flavour_of(model)
    if hasattr(rewind, "get_config") and not isinstance(rewind, flavour.schedules.LearningRateSchedule):
        library = "tf_keras" if is_tf_keras(model) else "keras"
        raise ValueError(
            f"rewind={rewind!r} is no {library}.optimizers.schedules.LearningRateSchedule, and model {model.name!r} is "
            f"one of {library}: give such a schedule, or a function of a step"
        )
    return flavour.RewoundRate(rewind, rewind_step, begin_step)
