"""Names for what Keras and TensorFlow give without a type: neither has annotations that a checker reads."""

from typing import Any, TypeAlias

Model: TypeAlias = Any
"""A model of Keras 3 or of tf_keras."""

Layer: TypeAlias = Any
"""A layer of Keras 3 or of tf_keras."""

Variable: TypeAlias = Any
"""A variable of Keras 3, or one of TensorFlow's."""

KerasTensor: TypeAlias = Any
"""A symbolic tensor of Keras 3 or of tf_keras."""

Callback: TypeAlias = Any
"""A callback of Keras 3 or of tf_keras."""
