"""What of a model can be repaired, and where: readers of kernels, biases, and normalizations behind kernels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

from tf_lap.compat.types import Layer, Model, Variable
from tf_lap.graph.model_graph import Kernel, KernelStep, Recipe, RuleStep
from tf_lap.moments.rows import RowReader, find_reader


@dataclasses.dataclass(frozen=True)
class KernelPlan:
    """A kernel that is repaired.

    Attributes:
        kernel: the kernel.
        reader: what reads the rows that it is multiplied by.
        bias: what is added to each of its outputs, in their order; None where nothing is.
        normalization: the batch normalization that alone reads what it puts out; None where there is none.
    """

    kernel: Kernel
    reader: RowReader
    bias: Variable | None
    normalization: Layer | None

    @property
    def shift(self) -> Variable | None:
        """The variable that a shift of the outputs goes into: the bias, or the mean that is subtracted behind."""
        if self.bias is not None:
            return self.bias
        return None if self.normalization is None else self.normalization.moving_mean

    @property
    def shift_sign(self) -> int:
        """1 where the shift is added to the variable, -1 where it is subtracted."""
        return 1 if self.bias is not None else -1


def plan_kernels(recipe: Recipe, numbers: Collection[int]) -> tuple[dict[int, KernelPlan], dict[int, str]]:
    """Which kernels are repaired, and why others are not, by their numbers.

    Args:
        recipe: the recipe of the model.
        numbers: the numbers of the kernels that are pruned.
    """
    plans: dict[int, KernelPlan] = {}
    reasons: dict[int, str] = {}
    for number in numbers:
        reader = find_reader(recipe, number)
        if isinstance(reader, str):
            reasons[number] = reader
            continue
        kernel = recipe.kernels[number]
        bias = _find_bias(kernel)
        plans[number] = KernelPlan(kernel, reader, bias, _find_normalization(recipe, number))
    return plans, reasons


def find_normalizations(model: Model) -> list[Layer]:
    """The batch normalizations of a model that are at work, each once."""
    names = ("BatchNormalization", "SyncBatchNormalization")
    return [
        layer
        for layer in model._flatten_layers()
        if any(cls.__name__ in names for cls in type(layer).__mro__) and isinstance(layer.axis, (int, list, tuple))
    ]


def _find_bias(kernel: Kernel) -> Variable | None:
    """The bias that a layer adds to the outputs of its only kernel, one number for each of them."""
    layer = kernel.layer
    bias = getattr(layer, "bias", None)
    if hasattr(layer, "cell") or bias is None or getattr(layer, "use_bias", True) is False:
        return None
    return bias if math.prod(bias.shape) == kernel.layout.outputs else None


def _find_normalization(recipe: Recipe, number: int) -> Layer | None:
    """The batch normalization that reads a kernel's only use, and nothing else does."""
    uses = [step for step in recipe.steps if isinstance(step, KernelStep) and step.kernel == number]
    if len(uses) != 1:
        return None
    target = uses[0].target
    readers = [
        step
        for step in recipe.steps
        if target in (step.sources if hasattr(step, "sources") else (getattr(step, "source", None),))
    ]
    if len(readers) != 1 or not isinstance(readers[0], RuleStep) or target in dict(recipe.outputs):
        return None
    layer = readers[0].layer
    is_normalization = any(cls.__name__ == "BatchNormalization" for cls in type(layer).__mro__)
    return layer if is_normalization and _has_one_use(recipe, layer) else None


def _has_one_use(recipe: Recipe, layer: Layer) -> bool:
    return sum(isinstance(step, RuleStep) and step.layer is layer for step in recipe.steps) == 1
