"""tfmot, and those parts of it that it keeps to itself; imported once a pruning wrapper is asked for.

Importing tfmot sets TF_USE_LEGACY_KERAS for good, and turns a `tf.keras` that nobody has used yet into tf_keras. Who
asks tf_lap for a wrapper has not asked for that: `tf.keras` is settled before, and the variable put back after.
"""

from __future__ import annotations

import os

import tensorflow as tf

_before = os.environ.get("TF_USE_LEGACY_KERAS")
_settled = tf.keras.layers
try:
    from tensorflow_model_optimization.python.core.sparsity.keras import (  # noqa: F401
        prunable_layer,
        prune,
        prune_registry,
        pruning_impl,
        pruning_schedule,
        pruning_utils,
        pruning_wrapper,
    )
finally:
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
    if _before is not None:
        os.environ["TF_USE_LEGACY_KERAS"] = _before

LAYER_WEIGHTS: dict[type, list[str]] = prune_registry.PruneRegistry._LAYERS_WEIGHTS_MAP
CELL_WEIGHTS: dict[type, list[str]] = prune_registry.PruneRegistry._RNN_CELLS_WEIGHTS_MAP
RECURRENT: frozenset[type] = prune_registry.PruneRegistry._RNN_LAYERS
