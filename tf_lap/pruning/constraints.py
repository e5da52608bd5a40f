"""Zeros that stay zeros: masks enforced by the optimizer itself, inside the compiled training step.

A mask is attached to a kernel as the kernel's constraint, and detached again. Users know the two as `Pruner.freeze` and
`Pruner.release`. Frozen and thawed layers are something else: those whose `trainable` is False, and True again.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from tf_lap import compat
from tf_lap.compat.types import Model, Variable

Constraint: TypeAlias = Callable[[Any], Any]
"""What an optimizer applies to a variable after each step."""


def apply_mask(weights: Any, mask: Any) -> tf.Tensor:
    """A variable or tensor with zeros where the mask is False, or 0 where it is one of zeros and ones."""
    tensor = tf.convert_to_tensor(weights)
    if tensor.dtype == tf.bfloat16:  # has no such product on GPUs
        return tf.where(tf.cast(mask, tf.bool), tensor, tf.zeros([], tensor.dtype))
    # A plain product would turn an infinite gradient step into NaN; tf.where reads and writes more.
    return tf.math.multiply_no_nan(tensor, tf.cast(mask, tensor.dtype))


class MaskConstraint(keras.constraints.Constraint, abc.ABC):
    """A variable's constraint: first the one that the user set, if any, then a mask.

    Attributes:
        inner: the constraint that was there before.
    """

    def __init__(self, inner: Constraint | None) -> None:
        self.inner = inner

    @abc.abstractmethod
    def find_mask(self) -> Variable | None:
        """The mask as a variable, which is read anew at each step; None where none is in force."""

    def __call__(self, weights: Any) -> tf.Tensor:
        """The weights, with zeros where the mask drops them."""
        weights = weights if self.inner is None else self.inner(weights)
        mask = self.find_mask()
        return weights if mask is None else apply_mask(weights, mask)


class KernelMask(MaskConstraint):
    """The mask of a pruner on one of its kernels.

    Attributes:
        mask: a bool variable of the kernel's shape.
        inner: the constraint that was there before.
        enforcement: what has attached it.
    """

    def __init__(self, mask: tf.Variable, inner: Constraint | None, enforcement: Enforcement) -> None:
        super().__init__(inner)
        self.mask, self.enforcement = mask, enforcement

    def find_mask(self) -> tf.Variable:
        """The mask."""
        return self.mask


class Enforcement:
    """Masks that are attached to the kernels of a model while it trains.

    Args:
        model: the model.
        variables: the kernels, by layer path.
        masks: a bool variable for each.

    Attributes:
        trainer: the model whose optimizer trains the kernels: `model`, or one around it.
        is_partial: whether `attach` left out a kernel for which the optimizer takes no constraint.
    """

    def __init__(self, model: Model, variables: dict[str, Variable], masks: Sequence[tf.Variable]) -> None:
        self.trainer = model
        self._variables = variables
        self._masks = list(masks)
        self.is_partial = False

    @property
    def kernels(self) -> dict[str, Variable]:
        """The kernels, by layer path."""
        return self._variables

    @property
    def attached(self) -> bool:
        """Whether the masks are attached now."""
        return any(find_enforcement(variable) is self for variable in self._variables.values())

    def check(self) -> None:
        """Raises what `attach` would, and changes nothing.

        Raises:
            ValueError: another pruner's or callback's masks are attached to a kernel already.
        """
        for path, variable in self._variables.items():
            if find_enforcement(variable) not in (None, self):
                raise ValueError(
                    f"the kernel of layer {path!r} is held by the masks of another Pruner or callback already: "
                    "use one at a time, or call its release() first"
                )

    def attach(self) -> None:
        """Attaches the masks to the kernels; the next training step is traced anew.

        Raises:
            ValueError: as `check`.
        """
        self.check()
        if self.attached:
            return
        self._attach_missing()

    def include(self, variables: dict[str, Variable], masks: Sequence[tf.Variable]) -> None:
        """Adds kernels. Their masks are attached at once where those of the others are.

        Args:
            variables: all kernels by layer path, those that were there before among them.
            masks: a bool variable for each; that of a kernel which was there before stays the same.

        Raises:
            ValueError: as `check`.
        """
        attached = self.attached
        self._variables, self._masks = variables, list(masks)
        if attached:
            self.check()
            self._attach_missing()

    def _attach_missing(self) -> None:
        refuses = compat.refuses_constraint(self.trainer)
        for variable, mask in zip(self._variables.values(), self._masks, strict=True):
            if find_enforcement(variable) is self:
                continue
            if refuses(variable):
                self.is_partial = True
                continue
            compat.set_constraint(variable, KernelMask(mask, compat.get_constraint(variable), self))
        compat.refresh_train_function(self.trainer)

    def detach(self) -> None:
        """Takes the masks off the kernels again, and leaves the constraints that were there before."""
        if not self.attached:
            return
        for variable in self._variables.values():
            constraint = compat.get_constraint(variable)
            if isinstance(constraint, KernelMask) and constraint.enforcement is self:
                compat.set_constraint(variable, constraint.inner)
        compat.refresh_train_function(self.trainer)

    def apply(self) -> None:
        """Zeroes the pruned weights now, and the optimizer's moving averages of them."""
        self._zero(list(self._variables.values()))
        self.zero_averages()

    def zero_averages(self) -> None:
        """Zeroes the optimizer's moving averages of pruned weights, which would bring them back when swapped in."""
        self._zero(compat.moving_averages(self.trainer, list(self._variables.values())))

    def count_revived(self) -> int:
        """How many pruned weights are not zero now."""
        return sum(revived for revived, _ in self.count_revived_and_zero())

    def measure_sparsity(self, paths: Collection[str]) -> float:
        """The fraction of weights that are zero now in some kernels together, given by their layer paths."""
        variables = [self._variables[path] for path in paths]
        size = sum(math.prod(variable.shape) for variable in variables)
        nonzero = sum(int(tf.math.count_nonzero(tf.convert_to_tensor(variable))) for variable in variables)
        return 1.0 - nonzero / size if size else 0.0

    def count_revived_and_zero(self) -> list[tuple[int, int]]:
        """For each kernel, how many pruned weights are not zero now, and how many kept ones are."""
        counts = []
        for variable, mask in zip(self._variables.values(), self._masks, strict=True):
            nonzero = tf.not_equal(tf.convert_to_tensor(variable), 0)
            counts += [tf.math.count_nonzero(nonzero & ~mask), tf.math.count_nonzero(mask & ~nonzero)]
        # One read for all kernels: on a GPU each waits for what runs.
        revived_and_zero = tf.reshape(tf.stack(counts), (-1, 2)).numpy().tolist()
        return [(revived, zero) for revived, zero in revived_and_zero]

    def _zero(self, variables: Sequence[Variable | None]) -> None:
        for variable, mask in zip(variables, self._masks, strict=True):
            if variable is not None:
                compat.assign(variable, apply_mask(variable, mask))


class RevivalWatch:
    """Checks whether pruned weights are revived: not zero any more, although the optimizer keeps them at zero.

    A `train_step` that assigns weights itself, and an optimizer that takes no constraint, do that. Once it has
    happened, pruned weights are zeroed after every batch. A check reads all kernels. So the first batches are checked,
    and after them one in a hundred.

    Args:
        enforcement: the masks, attached. Where some could not be, it zeroes after each batch from the beginning.

    Attributes:
        zeroes_each_batch: whether weights are zeroed after each batch by now.
    """

    _FIRST_BATCHES = 3
    _INTERVAL = 100

    def __init__(self, enforcement: Enforcement) -> None:
        self._enforcement = enforcement
        self._batches = 0
        self.zeroes_each_batch = enforcement.is_partial

    def end_batch(self) -> int:
        """Looks at the weights after a batch, and zeroes those that are pruned where the optimizer does not.

        Returns:
            How many pruned weights were not zero, the first time that there were any; else 0.
        """
        if self.zeroes_each_batch:
            self._enforcement.apply()
            return 0
        self._batches += 1
        if self._batches > self._FIRST_BATCHES and self._batches % self._INTERVAL:
            return 0
        revived = self._enforcement.count_revived()
        if revived:
            self.zeroes_each_batch = True
            self._enforcement.apply()
        return revived


def describe_revived(model: Model, revived: int) -> str:
    """What to tell users when `RevivalWatch` found revived weights."""
    return (
        f"model {model.name!r}: {revived:,} pruned weights were not zero after a training step, so something else than "
        "the optimizer moves them, such as a train_step that assigns weights itself. They are zeroed after each batch "
        "from now on; within a step they are not zero"
    )


def find_enforcement(variable: Variable) -> Enforcement | None:
    """What has attached a mask to a kernel; None where nothing has."""
    constraint = compat.get_constraint(variable)
    return constraint.enforcement if isinstance(constraint, KernelMask) else None
