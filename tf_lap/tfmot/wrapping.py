"""`prune_lookahead`: tfmot's `prune_low_magnitude`, with lookahead scores."""

from __future__ import annotations

import functools
from typing import Any

import keras
import tf_keras

from tf_lap.compat import tf_keras as legacy
from tf_lap.scores import ScoreLike
from tf_lap.tfmot.prunable import has_kernel, has_kernel_rule, is_known
from tf_lap.tfmot.wrapper import DEFAULT_SCHEDULE, PrunableLayer
from tf_lap.warn import warn


def prune_lookahead(
    to_prune: Any,
    pruning_schedule: Any = DEFAULT_SCHEDULE,
    block_size: tuple[int, int] = (1, 1),
    block_pooling_type: str = "AVG",
    pruning_policy: Any | None = None,
    sparsity_m_by_n: tuple[int, int] | None = None,
    *,
    score: ScoreLike = "lookahead",
    **kwargs: Any,
) -> Any:
    """Wraps a tf_keras model, a list of layers or a layer, so that training prunes it by lookahead scores.

    The same call as `tfmot.sparsity.keras.prune_low_magnitude`, and what goes with that goes with this one:
    `UpdatePruningStep`, `PruningSummaries`, `strip_pruning`, tfmot's schedules and policies. Layers in which there is
    nothing to prune are left as they are, and shared with the given model, as are all weights.

    Example:

    >>> pruned = tf_lap.prune_lookahead(model, tf_lap.LookaheadPruningSchedule(0.9, end_step=1000))
    >>> pruned.layers[0].name
    'prune_low_magnitude_dense'

    Args:
        to_prune: a Sequential or functional tf_keras model, nested ones included, a list of layers, or a layer.
        pruning_schedule: a schedule of tfmot, or a `LookaheadPruningSchedule`.
        block_size: rows and columns of the blocks in which a matrix is pruned.
        block_pooling_type: "AVG" or "MAX": what makes one score of a block's.
        pruning_policy: a `tfmot.sparsity.keras.PruningPolicy`: which layers of a model or list are wrapped.
        sparsity_m_by_n: (m, n): m of every n consecutive inputs of an output are pruned, once.
        score: how much a weight matters: "lookahead", "magnitude", "random", or an object of `tf_lap.scores`.
        **kwargs: arguments of the wrapper, where `to_prune` is a layer.

    Returns:
        A new model, which is to be compiled; a new list; or a `PrunableLayer`.

    Raises:
        ValueError: a Keras 3 model or layer, a subclassed model, a layer by itself that there is no way to prune, or
            a model that the policy does not accept.
    """
    _check_kind(to_prune)
    make_wrapper = functools.partial(
        PrunableLayer,
        pruning_schedule=pruning_schedule,
        block_size=block_size,
        block_pooling_type=block_pooling_type,
        sparsity_m_by_n=sparsity_m_by_n,
        score=score,
    )
    unknown_layers: list[Any] = []
    other_wrappers: list[Any] = []  # of tfmot

    def wrap(layer: Any) -> Any:
        """The layer in a wrapper, or as it is; of a model a clone whose layers are wrapped."""
        if isinstance(layer, tf_keras.Model):
            _check_graph(layer)
            return tf_keras.models.clone_model(layer, clone_function=wrap)
        if isinstance(layer, tf_keras.layers.InputLayer):
            return type(layer).from_config(layer.get_config())
        if legacy.is_wrapper(layer) and not isinstance(layer, PrunableLayer):
            other_wrappers.append(layer)
        if legacy.is_wrapper(layer) or (pruning_policy and not pruning_policy.allow_pruning(layer)):
            return layer
        if not is_known(layer):
            unknown_layers.append(layer)
        return make_wrapper(layer) if has_kernel(layer) else layer

    if isinstance(to_prune, list):
        result = [wrap(layer) for layer in to_prune]
    elif isinstance(to_prune, tf_keras.Model):
        _check_graph(to_prune)
        if pruning_policy:
            pruning_policy.ensure_model_supports_pruning(to_prune)
        result = wrap(to_prune)
    else:
        return make_wrapper(to_prune, **kwargs)
    _warn_of_unwrapped(unknown_layers, other_wrappers)
    return result


def _check_kind(to_prune: Any) -> None:
    for member in to_prune if isinstance(to_prune, list) else [to_prune]:
        if isinstance(member, keras.layers.Layer):
            kind = "model" if isinstance(member, keras.Model) else "layer"
            raise ValueError(
                f"{kind} {member.name!r} is one of Keras 3 (keras {keras.__version__}), and tfmot's wrappers work on "
                f"tf_keras alone (tf_keras {tf_keras.__version__}): prune it with tf_lap.LAPCallback in fit, or at "
                "once with tf_lap.prune"
            )
        if not isinstance(member, tf_keras.layers.Layer):
            raise ValueError(
                f"prune_lookahead takes a tf_keras model, a list of its layers or a layer, got {type(member).__name__}"
            )


def _check_graph(model: Any) -> None:
    if not (isinstance(model, tf_keras.Sequential) or legacy.graph_of(model)):
        raise ValueError(
            f"model {model.name!r} is subclassed, and tfmot's wrappers go around the layers of Sequential and "
            "functional models only: wrap the layers where the model makes them, or use tf_lap.LAPCallback"
        )


def _warn_of_unwrapped(unknown_layers: list[Any], other_wrappers: list[Any]) -> None:
    if other_wrappers:
        names = ", ".join(repr(layer.name) for layer in other_wrappers)
        warn(
            f"tf_lap.prune_lookahead leaves {names} as they are, in tfmot's own wrapper, which goes on to prune by "
            "magnitude: take it off first with strip_pruning(model)"
        )
    unpruned = {layer.name: layer for layer in unknown_layers if _has_matrices(layer)}
    if unpruned:
        described = ", ".join(sorted(f"{name!r} ({type(layer).__name__})" for name, layer in unpruned.items()))
        with_rule = ", ".join(sorted(repr(name) for name, layer in unpruned.items() if has_kernel_rule(layer)))
        warn(
            f"tf_lap.prune_lookahead leaves {described} unpruned: tfmot does not know which of their weights to prune; "
            "a method get_prunable_weights() tells it"
            + (f". tf_lap.LAPCallback can prune {with_rule}, without tfmot" if with_rule else "")
        )


def _has_matrices(layer: Any) -> bool:
    return any(len(variable.shape) > 1 for variable in layer.trainable_weights)
