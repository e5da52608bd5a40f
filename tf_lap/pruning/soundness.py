"""What to say where a kernel, or what is measured around it, is not finite or not known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tf_lap import compat
from tf_lap.graph.energy_maps import Reader
from tf_lap.graph.measurer import Gains, Measurer
from tf_lap.graph.model_graph import Recipe

_KERNEL = "the kernel of layer {} holds NaN or infinity: restore sound weights before pruning"

_TOO_LARGE = (
    "the weights of layer {} are so large that their squares do not add up in float32: restore sound weights, or "
    "rescale them, before pruning"
)

KERNEL_OR_TOO_LARGE = (
    "the kernel of layer {} holds NaN, infinity, or weights whose squares do not add up in float32: restore sound "
    "weights before pruning"
)
"""Both, for a graph, where a message is written before anything is known."""

AROUND = (
    "the energies around layer {} are not finite: a normalization layer beside it holds NaN, infinity or a negative "
    "variance, or weights beside it are too large for float32: restore sound weights, or rescale those that are too "
    "large"
)

BETWEEN = (
    "a layer between the kernels, such as a normalization, holds NaN or infinity: restore sound weights before pruning"
)

MEASURED = (
    "what score was measured over data around layer {} is NaN or infinite: restore sound weights and biases, or divide "
    "the data by a large number"
)


def find_fault(
    measurer: Measurer,
    totals: np.ndarray,
    finite_around: np.ndarray,
    finite_between: bool,
    gains: Gains,
    read: Reader = compat.host_value,
    quote: Callable[[str], str] = repr,
) -> str:
    """The first thing that is not finite, in words; an empty string where all is.

    A kernel that is not finite makes what surrounds its neighbours so. So kernels are named before their surroundings.

    Args:
        measurer: the model.
        totals: as `Measurer.measure` gives them.
        finite_around: the flags that `Measurer.energies_around` gives.
        finite_between: what `Measurer.is_finite_between` gives.
        gains: as `Measurer.measure` took them.
        read: reads variables into arrays.
        quote: writes the path of a layer.
    """
    kernels = measurer.recipe.kernels
    for number, total in enumerate(totals):
        if not np.isfinite(total):
            is_finite = bool(np.isfinite(read(kernels[number].variable)).all())
            message = (MEASURED if number in measurer.energy_gains(gains) else _TOO_LARGE) if is_finite else _KERNEL
            return message.format(quote(kernels[number].path))
    for kernel, is_finite in zip(kernels, finite_around, strict=True):
        if not is_finite:
            return AROUND.format(quote(kernel.path))
    if not finite_between:
        for name, variables in measurer.variables_between.items():
            if not all(np.isfinite(read(variable)).all() for variable in variables):
                return f"{BETWEEN} (layer {quote(name)})"
    return ""


def describe_untraced(recipe: Recipe) -> str:
    """What to say of layers whose call cannot be followed."""
    return (
        f"the call of {', '.join(recipe.untraced)} cannot be followed, so kernels in and beside it are ranked without "
        "the energies on that side; report() has the reasons"
    )
