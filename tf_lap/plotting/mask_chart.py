"""A picture of which weights of a kernel are left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tf_lap import compat
from tf_lap.charting import make_figure
from tf_lap.graph.layer_filters import select_paths
from tf_lap.graph.resolver import resolve
from tf_lap.plotting.mask_matrix import as_matrix, average_blocks
from tf_lap.tabular import elide

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONG, _SHORT = 6.0, 1.2
_CHARACTER = 0.11  # inches, of the title


def plot_masks(model: Any, layer: str) -> Figure:
    """Draws which weights of a kernel are not zero: a column for each output, a row for each input at each tap.

    Where a kernel has more rows or columns than there is room for, a cell is the share of a block of weights that are
    not zero.

    Example:

    >>> report = tf_lap.prune(model, 0.9)
    >>> figure = tf_lap.plot_masks(model, "dense_1")

    Args:
        model: a built Keras model, pruned or not.
        layer: the layer's path, or a regular expression that is found in one path alone.

    Returns:
        A figure of matplotlib.

    Raises:
        ValueError: no kernel or several have such a path. TypeError: `layer` is no string.
        ImportError: matplotlib is not installed; it comes with `pip install "tf_lap[plot]"`.
    """
    kernel = _find_kernel(model, layer)
    matrix, taps = as_matrix(compat.host_array(kernel.variable) != 0, kernel.layout)
    shares = average_blocks(matrix)
    rows, columns = matrix.shape
    size = max(_LONG * min(1.0, columns / rows), _SHORT), max(_LONG * min(1.0, rows / columns), _SHORT)
    figure = make_figure(size[0] + 2.6, size[1] + 1.4, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        shares,
        cmap="Blues",
        vmin=0,
        vmax=1,
        interpolation="nearest",
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        aspect="auto",
    )
    shape = "x".join(map(str, kernel.layout.shape))
    path = elide(kernel.path, int(figure.get_size_inches()[0] / _CHARACTER))
    figure.suptitle(f"{path}\n{shape}: {1 - matrix.mean():.1%} zeros", fontsize=10)
    axes.set_xlabel(f"{columns} outputs", fontsize=9)
    axes.set_ylabel(f"{rows // taps} inputs" + (f" at each of {taps} taps" if taps > 1 else ""), fontsize=9)
    if 1 < taps <= 49:
        for tap in range(1, taps):
            axes.axhline(tap * rows // taps - 0.5, color="#D55E00", linewidth=0.6)
    axes.tick_params(labelsize=8)
    axes.locator_params(integer=True)
    label = "weights that are left" if shares.shape == matrix.shape else "share of weights that are left"
    ticks = [0, 1] if shares.shape == matrix.shape else [0, 0.25, 0.5, 0.75, 1]
    figure.colorbar(image, ax=axes, ticks=ticks, shrink=0.6).set_label(label, fontsize=8)
    return figure


def _find_kernel(model: Any, layer: str) -> Any:
    """The kernel of a path.

    Raises:
        TypeError, ValueError: as `plot_masks`.
    """
    compat.check_model(model)
    if not isinstance(layer, str):
        raise TypeError(f"layer={layer!r}: expected the path of a layer, such as {resolve(model).kernels[0].path!r}")
    kernels = {kernel.path: kernel for kernel in resolve(model).kernels}
    if layer in kernels:
        return kernels[layer]
    paths = select_paths(layer, {path: kernel.layer for path, kernel in kernels.items()})
    if len(paths) > 1:
        raise ValueError(f"layer={layer!r} is found in {len(paths)} paths: name one of {', '.join(sorted(paths))}")
    return kernels[paths.pop()]
