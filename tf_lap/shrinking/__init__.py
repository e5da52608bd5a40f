"""A smaller copy of a sparse model, without the channels that compute nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal, overload

import numpy as np

from tf_lap import compat, samples
from tf_lap.compat import exporting
from tf_lap.compat.types import Model, Variable
from tf_lap.graph.coupling import find_coupling
from tf_lap.graph.resolver import resolve
from tf_lap.samples import Batch, Representative
from tf_lap.shrinking.constants import find_constants, find_independent
from tf_lap.shrinking.dead import Removal, find_removal
from tf_lap.shrinking.kept import Kept
from tf_lap.shrinking.remaking import Shrunk, remake
from tf_lap.shrinking.report import LayerShrinkage, ShrinkReport, count_of
from tf_lap.shrinking.verification import verify
from tf_lap.shrinking.weights import cut_slot
from tf_lap.warn import warn

_SAMPLES = 4


@overload
def shrink(
    model: Any,
    data: Representative = None,
    *,
    functional: bool = False,
    verbose: int = 0,
    return_report: Literal[False] = False,
) -> Any: ...


@overload
def shrink(
    model: Any,
    data: Representative = None,
    *,
    functional: bool = False,
    verbose: int = 0,
    return_report: Literal[True],
) -> tuple[Any, ShrinkReport]: ...


def shrink(
    model: Any,
    data: Representative = None,
    *,
    functional: bool = False,
    verbose: int = 0,
    return_report: bool = False,
) -> Any:
    """Makes a smaller copy of a sparse model, without the channels that compute nothing.

    A channel goes that nothing reads but weights of zero, whatever left these: `pattern="channels"`, or pruning without
    a pattern. A channel that is constant, because weights of zero alone lead to it, goes too: what layers read of it
    becomes part of their biases, where that is exact. Channels that other layers couple go together or not at all.

    The copy is a plain Keras model. Names, dtype policies, regularizers and what is frozen stay; so does what the model
    was compiled with, and what its optimizer remembers is cut to size, so that training goes on. The model itself does
    not change.

    Before it is returned, the copy is run beside the model: its outputs must be the same, but for rounding.

    Example:

    >>> report = tf_lap.prune(model, 0.9)
    >>> small = tf_lap.shrink(model)

    Args:
        model: a built Sequential or Functional model.
        data: inputs for that comparison, as `data` of `tf_lap.prune`. By default they are random.
        functional: whether a subclassed model is accepted. The copy is the Functional model of its `call` at inference,
            without other methods of its class.
        verbose: 1 prints the report.
        return_report: whether to return a `ShrinkReport` beside the copy.

    Returns:
        The copy; with `return_report` the copy and the report. Where there is nothing to remove, the copy is as large
        as the model, and a warning says so.

    Raises:
        TypeError: not a Keras model, or a subclassed one without `functional=True`.
        ValueError: the model is not built, has pruning wrappers, or a layer cannot be made anew from its config.
        ShrinkError: outputs differ, which is a fault of this package or of a rule of the user's.
    """
    compat.check_model(model)
    _check_kind(model, functional)
    functional_copy = None if compat.has_graph(model) else _make_functional(model)
    network = model if functional_copy is None else functional_copy.model
    batches = _read_batches(network, data)
    recipe = resolve(network)
    coupling = find_coupling(recipe)
    independent = find_independent(recipe, coupling)
    constants = find_constants(network, recipe, independent, batches)
    removal = find_removal(recipe, coupling, constants)
    kept = Kept(recipe, coupling, removal.is_kept)
    shrunk = remake(network, kept, constants)
    difference = verify(network, shrunk.rebuilt, kept, batches)
    _warn_of_untied(shrunk)
    _copy_compiled(model, functional_copy, shrunk)
    report = _describe(network, kept, removal, shrunk, difference)
    if not report.changed:
        held = ". ".join(["", *report.explain_held()])
        warn(f"shrink: {report.summary} are of use, so the model that is returned is an equal copy{held}")
    if verbose:
        print(report)
    return (shrunk.rebuilt.model, report) if return_report else shrunk.rebuilt.model


def _check_kind(model: Model, functional: bool) -> None:
    """Raises TypeError or ValueError where a model cannot be made anew."""
    compat.check_unwrapped(model)
    if not compat.has_graph(model) and not functional:
        raise TypeError(
            f"model {model.name!r} is a subclassed model ({type(model).__name__}): its own code says how wide its "
            "layers are. Pass functional=True to get the Functional model of its call, made smaller; or write it with "
            "the functional API"
        )


def _make_functional(model: Model) -> compat.Rebuilt:
    """The Functional model of a subclassed model's call, with copies of its weights.

    Raises:
        TypeError: its call cannot be followed.
    """
    try:
        rebuilt = compat.rebuild(model, lambda layer: {})
    except Exception as error:  # a user's `call` may raise anything
        raise TypeError(
            f"model {model.name!r} cannot become a Functional model: its call cannot be followed on symbolic tensors "
            f"({type(error).__name__}: {error}). Write it with the functional API"
        ) from error
    for old, new in rebuilt.variables():
        compat.assign(new, compat.host_array(old))
    rebuilt.finish()
    return rebuilt


def _read_batches(model: Model, data: Representative) -> list[Batch]:
    """Inputs of a model: a few of the user's, or random ones.

    Raises:
        TypeError, ValueError: as `read_samples`.
    """
    inputs = exporting.signature(model)
    if data is None:
        drawn = samples.draw_samples(inputs, "data")[:_SAMPLES]
    else:
        drawn = samples.read_samples(data, inputs, "data", _SAMPLES)
    return list(drawn) if exporting.has_fixed_batch(model) else list(samples.join_samples(drawn, _SAMPLES))


def _warn_of_untied(shrunk: Shrunk) -> None:
    """Warns where layers share a variable: a config does not say so."""
    untied = shrunk.rebuilt.find_untied()
    if untied:
        names = ", ".join(map(compat.variable_path, untied[:3]))
        warn(
            f"shrink: several layers share {count_of(len(untied), 'variable')} ({names}), and each has its own copy in "
            "the smaller model: trained further, they will no longer be the same"
        )


def _copy_compiled(model: Model, functional_copy: compat.Rebuilt | None, shrunk: Shrunk) -> None:
    """Compiles the smaller copy as the model is; a warning says where that cannot be.

    Args:
        model: the model.
        functional_copy: the Functional copy of it that was made smaller; None where that is the model itself.
        shrunk: the smaller copy.
    """
    variables = shrunk.rebuilt.variables()
    cuts = shrunk.cuts
    if functional_copy is not None:
        between = functional_copy.variables()
        smaller = {id(old): new for old, new in variables}
        variables = [(old, smaller[id(copy)]) for old, copy in between]
        cuts = {id(old): cuts[id(copy)] for old, copy in between}

    def cut(variable: Variable, slot: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        return cut_slot(slot, cuts[id(variable)], shape)

    try:
        compat.copy_compiled(model, shrunk.rebuilt.model, variables, cut)
    except Exception as error:  # a user's optimizer or metric may raise anything
        warn(
            f"shrink: what {model.name!r} was compiled with could not be copied ({type(error).__name__}: {error}). "
            "Call compile(...) on the smaller model before you train it"
        )


def _describe(model: Model, kept: Kept, removal: Removal, shrunk: Shrunk, difference: float) -> ShrinkReport:
    """What became of each kernel of a model."""
    layers = []
    for number, kernel in enumerate(kept.recipe.kernels):
        inputs, outputs = kept.kernel_inputs(number), kept.kernel_outputs(number)
        left = int(np.prod([places.sum() for places in kept.kernel_axes[number]]))
        layers.append(
            LayerShrinkage(
                kernel.path,
                (len(inputs), int(inputs.sum())),
                (len(outputs), int(outputs.sum())),
                (kernel.layout.size, left),
            )
        )
    held: Counter[str] = Counter()
    for label, reason in removal.held.items():
        held[reason] += sum(int((classes == label).sum()) for classes in kept.coupling.kernel_outputs)
    weights = (model.count_params(), shrunk.rebuilt.model.count_params())
    return ShrinkReport(tuple(layers), weights, shrunk.folded, dict(held), difference)
