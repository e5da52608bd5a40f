"""A model is read into a plain description, as far as there are rules for what is in it."""

from __future__ import annotations

from tf_lap import compat
from tf_lap.compat.types import Model
from tf_lap.graph.registry import find_rule
from tf_lap.graph.rule_tables import install_keras_hub, install_tf_keras, is_transparent


def describe(model: Model, resize: compat.Resize | None = None) -> compat.ModelDescription:
    """Reads a built Keras model, as far as there are rules for what is in it.

    Args:
        model: the model.
        resize: gives the shapes that its inputs are to have; None: those that it was built with.

    Raises:
        TypeError, ValueError: the model is of a kind that is not served, or not built.
    """
    compat.check_model(model)
    if compat.is_tf_keras(model):
        install_tf_keras()
    install_keras_hub()
    return compat.read_model(model, lambda layer: find_rule(layer) is not None, is_transparent, resize)
