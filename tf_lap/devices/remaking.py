"""A copy of a model that XNNPACK runs sparse on ARM processors and in WebAssembly."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_lap import compat, samples
from tf_lap.compat import exporting
from tf_lap.compat.types import Model
from tf_lap.devices.changes import Changes, Offset, find_changes
from tf_lap.devices.converted import check_sizes
from tf_lap.graph.describing import describe
from tf_lap.shrinking.verification import compare_outputs
from tf_lap.warn import warn

_SAMPLES = 2
_MAX_WORDS = 3  # changes in a warning


def for_devices(model: Any, *, verbose: int = 0) -> Any:
    """Makes a copy of a model that XNNPACK can run sparse on ARM and in WebAssembly, with its weights.

    These change, and compute the same: a depthwise 3x3 convolution of stride 2 that pads below and on the right alone
    becomes 5x5, padded by 2, with its taps moved; 1x1 convolutions behind the last mean become Dense layers; means that
    scale channels keep their dimensions, and numbers that these are multiplied with get four axes.

    These change what is computed: a first convolution, and depthwise 5x5 ones, of stride 2 that pad otherwise than by
    the same number on every side. They do so in the copy, and read what lies one pixel up and to the left of before.
    A warning lists them: fine-tune the copy.

    The copy is a plain Keras model, and not compiled. The model itself does not change. `tf_lap.device_report` says
    what is still in the way.

    Example:

    >>> phone = tf_lap.for_devices(model)

    Args:
        model: a built Sequential or Functional model whose images have a fixed size.
        verbose: 1 prints what changes.

    Raises:
        TypeError: not a Keras model, or a subclassed one.
        ValueError: the model is not built, has pruning wrappers, an image has no fixed size, or a layer cannot be made
            anew from its config.
        RuntimeError: the copy does not compute the same where it should, which is a fault of this package.
    """
    compat.check_model(model)
    _check_kind(model)
    description = describe(model)
    assert isinstance(description.graph, compat.Graph)
    exact, inexact = find_changes(description.graph)
    copy = _remake(model, exact)
    _compare(model, copy)
    changes = exact.joined(inexact)
    if verbose:
        print("\n".join(changes.words) or "nothing to change")
    if not inexact.words:
        return copy
    shown = "; ".join(inexact.words[:_MAX_WORDS])
    more = f"; and {len(inexact.words) - _MAX_WORDS} more" if len(inexact.words) > _MAX_WORDS else ""
    warn(f"for_devices: the copy computes something else than {model.name!r}: {shown}{more}. Fine-tune it")
    return _remake(model, changes)


def _remake(model: Model, changes: Changes) -> Model:
    """A copy of a model with changes, and its weights."""
    rebuilt = compat.rebuild(
        model,
        lambda layer: changes.settings.get(id(layer), {}),
        lambda layer: changes.before.get(id(layer)),
        lambda layer: changes.replacements.get(id(layer)),
    )
    _copy_weights(rebuilt, changes)
    return rebuilt.model


def _check_kind(model: Model) -> None:
    """Raises TypeError or ValueError where a model cannot be made anew."""
    compat.check_unwrapped(model)
    if not compat.has_graph(model):
        raise TypeError(
            f"model {model.name!r} is a subclassed model ({type(model).__name__}): write it with the functional API, "
            "or take tf_lap.shrink(model, functional=True) of it first"
        )
    check_sizes(model)


def _copy_weights(rebuilt: compat.Rebuilt, changes: Changes) -> None:
    """Gives the copy the model's weights; taps of a kernel that became larger are moved."""
    offsets: dict[int, Offset] = {}
    for old, _ in rebuilt.layers:
        if id(old) in changes.moved:
            kernel = next(variable for variable in compat.own_weights(old) if len(variable.shape) == 4)
            offsets[id(kernel)] = changes.moved[id(old)]
    for before, after in rebuilt.variables():
        values = compat.host_array(before)
        if id(before) in offsets:
            row, column = offsets[id(before)]
            taps = np.zeros(tuple(after.shape), values.dtype)
            taps[row : row + values.shape[0], column : column + values.shape[1]] = values
            values = taps
        compat.assign(after, values.reshape(tuple(after.shape)))


def _compare(model: Model, copy: Model) -> None:
    """Raises RuntimeError unless a copy puts out what the model does, on random inputs."""
    drawn = samples.draw_samples(exporting.signature(model))[:_SAMPLES]
    for difference in compare_outputs(model, copy, drawn):
        if not difference.is_tolerated:
            raise RuntimeError(
                f"output {difference.name!r} of the copy of {model.name!r} differs by {difference.apart:.2g} of its "
                "largest number, and should be the same: please report this model"
            )
