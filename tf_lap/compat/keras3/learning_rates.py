"""Learning-rate schedules of Keras 3."""

from __future__ import annotations

import keras

from tf_lap.compat.rewound_rate import RewoundRateBase

schedules = keras.optimizers.schedules


@keras.saving.register_keras_serializable(package="tf_lap")
class RewoundRate(RewoundRateBase, keras.optimizers.schedules.LearningRateSchedule):
    """As `RewoundRateBase`."""

    _schedule_class = schedules.LearningRateSchedule
    _serialize = staticmethod(keras.saving.serialize_keras_object)
    _deserialize = staticmethod(keras.saving.deserialize_keras_object)
