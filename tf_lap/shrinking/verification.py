"""Whether a smaller copy of a model puts out what the model does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_lap import compat
from tf_lap.compat import exporting
from tf_lap.compat.types import Layer, Model
from tf_lap.graph.model_graph import KernelStep, RuleStep
from tf_lap.samples import Batch
from tf_lap.shrinking.kept import Kept
from tf_lap.shrinking.running import running
from tf_lap.shrinking.weights import cut

TOLERANCE = 1e-4
"""How far an output may lie from the model's, as a fraction of the largest number in it."""
HALF_TOLERANCE = 3e-2
"""The same where weights are of half precision themselves. Mixed precision is compared in float32."""


class ShrinkError(RuntimeError):
    """A smaller copy of a model that does not put out what the model does."""


class OutputDifference(NamedTuple):
    """How far an output of a copy lies from that of the model.

    Attributes:
        name: the output.
        batch: the inputs that both were run on.
        apart: the largest difference, as a fraction of the largest number in the model's output.
        tolerance: how much of that is rounding.
    """

    name: str
    batch: Batch
    apart: float
    tolerance: float

    @property
    def is_tolerated(self) -> bool:
        """Whether it is no more than rounding."""
        return self.apart <= self.tolerance


def compare_outputs(model: Model, copy: Model, batches: Sequence[Batch]) -> list[OutputDifference]:
    """How far each output of a copy lies from that of the model, on each batch of inputs."""
    with running(model, copy) as is_float32:
        tolerance = TOLERANCE if is_float32 else HALF_TOLERANCE
        differences = []
        for batch in batches:
            expected, outputs = (exporting.outputs(either, batch) for either in (model, copy))
            differences += [
                OutputDifference(name, batch, measure(value, outputs[name]), tolerance)
                for name, value in expected.items()
            ]
    return differences


def verify(model: Model, rebuilt: compat.Rebuilt, kept: Kept, batches: Sequence[Batch]) -> float:
    """Compares the outputs of a smaller copy with those of the model.

    Args:
        model: the model.
        rebuilt: its copy.
        kept: what is left of it.
        batches: inputs of both.

    Returns:
        The largest difference, as a fraction of the largest number in an output of the model.

    Raises:
        ShrinkError: they differ; it says at which layer they part.
    """
    differences = compare_outputs(model, rebuilt.model, batches)
    for difference in differences:
        if not difference.is_tolerated:
            with running(model, rebuilt.model):
                place = _find_parting(model, rebuilt, kept, difference.batch, difference.tolerance)
            raise ShrinkError(
                f"output {difference.name!r} of the smaller model differs by {difference.apart:.2g} of its largest "
                f"number; {difference.tolerance:g} is tolerated. {place}"
            )
    return max((difference.apart for difference in differences), default=0.0)


def measure(expected: np.ndarray, output: np.ndarray) -> float:
    """The largest difference of two arrays, as a fraction of the largest number in the first; inf for other shapes."""
    if expected.shape != output.shape:
        return float("inf")
    if expected.dtype.kind not in "fV":  # V: bfloat16
        return 0.0 if np.array_equal(expected, output) else float("inf")
    values, others = expected.astype(np.float64), output.astype(np.float64)
    is_finite = np.isfinite(values)
    if not np.array_equal(values[~is_finite], others[~is_finite], equal_nan=True):
        return float("inf")
    values, others = values[is_finite], others[is_finite]
    if not np.isfinite(others).all():
        return float("inf")
    largest = float(np.max(np.abs(values), initial=0.0))
    apart = float(np.max(np.abs(values - others), initial=0.0))
    return apart / largest if largest else (0.0 if not apart else float("inf"))


def _find_parting(model: Model, rebuilt: compat.Rebuilt, kept: Kept, batch: Batch, tolerance: float) -> str:
    """At which layer a model and its copy part first, in words."""
    puts_out: dict[int, int] = {}
    for step in kept.recipe.steps:
        match step:
            case RuleStep():
                puts_out[id(step.layer)] = step.target
            case KernelStep():
                puts_out[id(kept.recipe.kernels[step.kernel].layer)] = step.target
    pairs = [pair for pair in rebuilt.layers if id(pair[0]) in puts_out]
    expected = _record_outputs(model, [old for old, _ in pairs], batch)
    outputs = _record_outputs(rebuilt.model, [new for _, new in pairs], batch)
    for layer, value in expected:
        new = next(new for old, new in pairs if old is layer)
        output = next((array for other, array in outputs if other is new), None)
        places = kept.places(puts_out[id(layer)])
        if output is None or value.ndim != len(kept.recipe.signals[puts_out[id(layer)]].shape):
            continue
        left = cut(value, [places.get(axis, np.ones(size, bool)) for axis, size in enumerate(value.shape)])
        if measure(left, output) > tolerance:
            return f"They part at {type(layer).__name__} {layer.name!r}"
    return "No layer could be found at which they part"


def _record_outputs(model: Model, layers: Sequence[Layer], batch: Batch) -> list[tuple[Layer, np.ndarray]]:
    """What layers put out at their first calls, in the order of these."""
    recorded: dict[int, tuple[Layer, np.ndarray]] = {}
    with contextlib.ExitStack() as stack:
        for layer in layers:

            def record(_: Any, output: Any, layer: Layer = layer) -> None:
                for tensor in _tensors(output):
                    recorded.setdefault(id(layer), (layer, compat.host_array(tensor)))

            stack.enter_context(compat.intercepted(layer, record, linear=False))
        exporting.tensors(model, batch)
    return list(recorded.values())


def _tensors(structure: Any) -> Iterator[Any]:
    """The first tensor of what a layer put out."""
    if isinstance(structure, (list, tuple)):
        yield from structure[:1]
    elif not isinstance(structure, dict):
        yield structure
