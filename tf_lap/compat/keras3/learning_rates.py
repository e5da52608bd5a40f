"""Learning-rate schedules of Keras 3."""

from __future__ import annotations

from typing import Any

import keras

from tf_lap.compat.rewound_rate import RewoundRateBase

schedules = keras.optimizers.schedules


@keras.saving.register_keras_serializable(package="tf_lap")
class RewoundRate(RewoundRateBase, keras.optimizers.schedules.LearningRateSchedule):
    """As `RewoundRateBase`."""

    _schedule_class = schedules.LearningRateSchedule
    _serialize = staticmethod(keras.saving.serialize_keras_object)
    _deserialize = staticmethod(keras.saving.deserialize_keras_object)


def make_rewound_rate(rewind: Any, rewind_step: int, begin_step: int) -> RewoundRate:
    """Another schedule from a step of it on; see `RewoundRateBase`."""
    return RewoundRate(rewind, rewind_step, begin_step)


def make_linear_rate(peak: float, steps: int) -> Any:
    """Keras's own schedule that goes from a peak to zero in a straight line, and stays there."""
    return schedules.PolynomialDecay(peak, steps, end_learning_rate=0.0, power=1.0)


def is_learning_rate(thing: Any) -> bool:
    """Whether this is a learning-rate schedule of Keras 3."""
    return isinstance(thing, schedules.LearningRateSchedule)
