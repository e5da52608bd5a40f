"""tfmot, and those parts of it that it keeps to itself; imported once a pruning wrapper is asked for.

Importing tfmot sets TF_USE_LEGACY_KERAS for good, and turns a `tf.keras` that nobody has used yet into tf_keras. Users
who ask tf_lap for a wrapper have not asked for that. So `tf.keras` is loaded before, and the variable put back after.
"""

from __future__ import annotations

import os

import tensorflow as tf

_previous = os.environ.get("TF_USE_LEGACY_KERAS")
_ = tf.keras.layers  # loads tf.keras
try:
    from tensorflow_model_optimization.python.core.sparsity.keras import (
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
    if _previous is not None:
        os.environ["TF_USE_LEGACY_KERAS"] = _previous

__all__ = [
    "CELL_WEIGHTS",
    "LAYER_WEIGHTS",
    "RECURRENT",
    "prunable_layer",
    "prune",
    "prune_registry",
    "pruning_impl",
    "pruning_schedule",
    "pruning_utils",
    "pruning_wrapper",
]

LAYER_WEIGHTS: dict[type, list[str]] = prune_registry.PruneRegistry._LAYERS_WEIGHTS_MAP
"""For each class of layers the attributes that tfmot prunes."""
CELL_WEIGHTS: dict[type, list[str]] = prune_registry.PruneRegistry._RNN_CELLS_WEIGHTS_MAP
"""The same for each class of cells of recurrent layers."""
RECURRENT: frozenset[type] = prune_registry.PruneRegistry._RNN_LAYERS
"""The classes of recurrent layers that tfmot prunes."""
