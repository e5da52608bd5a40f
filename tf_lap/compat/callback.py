"""The base class of callbacks for both Kerases."""

from __future__ import annotations

import keras


class Callback(keras.callbacks.Callback):
    """A callback that `fit` of both Kerases takes."""

    # tf_keras asks these of each callback.
    _supports_tf_logs = False

    def _implements_train_batch_hooks(self) -> bool:
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False
