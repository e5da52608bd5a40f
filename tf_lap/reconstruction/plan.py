"""What of a model can be repaired, and where: readers of kernels, biases, and normalizations behind kernels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

from tf_lap.compat.types import Layer, Variable
from tf_lap.graph.model_graph import Kernel, KernelStep, ProductStep, Recipe, RuleStep, Step
from tf_lap.graph.rule_tables import has_activation
from tf_lap.moments.rows import RowReader, find_reader


@dataclasses.dataclass(frozen=True)
class KernelPlan:
    """A kernel that is repaired.

    Attributes:
        kernel: the kernel.
        reader: what reads the rows that it is multiplied by.
        bias: what is added to each of its outputs, in their order; None where nothing is.
        normalization: the batch normalization that alone reads what it puts out, before any activation; None where
            there is none.
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


def plan_kernels(
    recipe: Recipe, numbers: Collection[int], fits_weights: bool = True
) -> tuple[dict[int, KernelPlan], dict[int, str]]:
    """Which kernels are repaired, and why others are not, by their numbers.

    Args:
        recipe: the recipe of the model.
        numbers: the numbers of the kernels that are pruned.
        fits_weights: whether weights are fitted. Otherwise kernels to whose outputs nothing is added are left.
    """
    plans: dict[int, KernelPlan] = {}
    reasons: dict[int, str] = {}
    for number in numbers:
        reader = find_reader(recipe, number)
        if isinstance(reader, str):
            reasons[number] = reader
            continue
        kernel = recipe.kernels[number]
        plan = KernelPlan(kernel, reader, _find_bias(kernel), _find_normalization(recipe, kernel, number))
        if fits_weights or plan.shift is not None:
            plans[number] = plan
        else:
            reasons[number] = "nothing is added to its outputs that could make up for their means"
    return plans, reasons


def _find_bias(kernel: Kernel) -> Variable | None:
    """The bias that a layer adds to the outputs of its only kernel, one number for each of them and in their order."""
    layer = kernel.layer
    bias = getattr(layer, "bias", None)
    if hasattr(layer, "cell") or bias is None or getattr(layer, "use_bias", True) is False:
        return None
    return bias if math.prod(bias.shape) == kernel.layout.outputs and _has_order_of_outputs(kernel) else None


def _has_order_of_outputs(kernel: Kernel) -> bool:
    """Whether the axes of a layer's bias are those of the kernel's outputs, in their order."""
    operands, _, output = getattr(kernel.layer, "equation", "").partition("->")
    labels = operands.partition(",")[2]
    if not labels:
        return True
    in_kernel = [labels[axis] for axis in kernel.layout.order if labels[axis] in output]
    return in_kernel == [label for label in output if label in kernel.layer.bias_axes]


def _find_normalization(recipe: Recipe, kernel: Kernel, number: int) -> Layer | None:
    """The batch normalization that alone reads what a kernel puts out, right behind it."""
    uses = [use for use in recipe.kernel_uses if use.kernel == number]
    if len(uses) != 1 or has_activation(kernel.layer):
        return None
    target = uses[0].target
    readers = [step for step in recipe.steps if target in _find_sources(step)]
    if len(readers) != 1 or not isinstance(readers[0], RuleStep) or target in dict(recipe.outputs):
        return None
    layer = readers[0].layer
    is_normalization = any(cls.__name__ == "BatchNormalization" for cls in type(layer).__mro__)
    return layer if is_normalization and _has_one_use(recipe, layer) else None


def _find_sources(step: Step) -> tuple[int, ...]:
    """The tensors that a step reads."""
    match step:
        case KernelStep():
            return (step.source,)
        case ProductStep():
            return (step.left, step.right)
    return step.sources


def _has_one_use(recipe: Recipe, layer: Layer) -> bool:
    return sum(isinstance(step, RuleStep) and step.layer is layer for step in recipe.steps) == 1
