"""Learning-rate schedules of tf_keras."""

from __future__ import annotations

import tf_keras

from tf_lap.compat.rewound_rate import RewoundRateBase

schedules = tf_keras.optimizers.schedules


@tf_keras.saving.register_keras_serializable(package="tf_lap")
class RewoundRate(RewoundRateBase, tf_keras.optimizers.schedules.LearningRateSchedule):
    """As `RewoundRateBase`."""

    _schedule_class = schedules.LearningRateSchedule
    _serialize = staticmethod(tf_keras.saving.serialize_keras_object)
    _deserialize = staticmethod(tf_keras.saving.deserialize_keras_object)
