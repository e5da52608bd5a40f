"""What a fit of tf_keras moves, and how it goes on with another epoch."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from tf_lap.compat.fits.keras3 import local_of
from tf_lap.compat.nodes import private
from tf_lap.compat.tf_keras import bare


def moved_variables(model: Any) -> dict[str, list[tuple[str, list[tf.Variable]]]]:
    """All variables that a fit moves, by what they belong to; see `compat.fits.variables`."""
    flattened = list(model._flatten_layers())
    states = [state for layer in flattened for state in tf.nest.flatten(getattr(layer, "states", None))]
    generators = [getattr(getattr(layer, "_random_generator", None), "_generator", None) for layer in flattened]
    held = [*model.variables, *(state for state in states if isinstance(state, tf.Variable))]
    held += [generator.state for generator in generators if generator is not None]
    sections = {"the model": [*held, private(model, "_train_counter")]}
    kinds = (tf_keras.optimizers.Optimizer, tf_keras.optimizers.legacy.Optimizer)
    optimizers = {name: value for name, value in vars(model).items() if isinstance(value, kinds)}
    for name, optimizer in optimizers.items():
        if optimizer is model.optimizer:
            _build(optimizer, model.trainable_variables)
        sections[f"{name} ({type(optimizer).__name__})"] = _optimizer_variables(optimizer, held)
    return {section: [(v.name, bare(v)) for v in variables] for section, variables in sections.items()}


def _build(optimizer: Any, variables: list[Any]) -> None:
    if isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
        optimizer._create_all_weights(variables)
    else:
        optimizer.build(variables)


def _optimizer_variables(optimizer: Any, of_model: list[Any]) -> list[Any]:
    # An optimizer's own list lacks its learning rate and its loss scale, and slots of legacy ones are no children.
    tracked = [v for v in tf.train.TrackableView(optimizer).descendants() if isinstance(v, tf.Variable)]
    listed = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    others = {id(variable) for variable in of_model}
    return list({id(v): v for v in [*listed, *tracked] if id(v) not in others}.values())


def steps_per_execution(model: Any) -> int:
    """How many batches one call of the training function takes."""
    return int(private(model, "_steps_per_execution").numpy())


class _Start(NamedTuple):
    """What `fit` asks with which epoch and step it begins."""

    epoch: int

    def maybe_load_initial_counters_from_ckpt(self, *_: Any, **__: Any) -> tuple[int, int]:
        """The epoch and the step in it."""
        return self.epoch, 0


def fit_data(model: Any) -> Any:
    """What iterates over the data of the fit that the model is in."""
    return local_of(tf_keras.Model.fit, model, "data_handler")


def begin_with(model: Any, data: Any, first_epoch: int, epoch: int) -> int:
    """Lets the fit that is beginning start with an epoch; see the function of this name in `keras3`."""
    model._training_state = _Start(epoch)
    if private(data, "_adapter").should_recreate_iterator():
        for _ in range(epoch - first_epoch):
            iter(private(data, "_dataset"))
        return 0
    return (epoch - first_epoch) * (data.inferred_steps or 0)


def began(model: Any) -> None:
    """Lets the next fit begin where it is told to."""
    model._training_state = None
