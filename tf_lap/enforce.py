"""Zeros that stay zeros: masks enforced by the optimizer itself, inside the compiled training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_lap import compat


def masked(weights: Any, mask: Any) -> tf.Tensor:
    """A variable or tensor with zeros where the mask is False, or 0 where it is one of zeros and ones."""
    tensor = tf.convert_to_tensor(weights)
    if tensor.dtype == tf.bfloat16:  # has no such product on GPUs
        return tf.where(tf.cast(mask, tf.bool), tensor, tf.zeros([], tensor.dtype))
    # A plain product would turn an infinite gradient step into NaN; tf.where reads and writes more.
    return tf.math.multiply_no_nan(tensor, tf.cast(mask, tensor.dtype))


class MaskConstraint(keras.constraints.Constraint):
    """A variable's constraint: first the one that the user set, if any, then the mask.

    Attributes:
        mask: a bool variable of the kernel's shape, read anew at each step.
        inner: the constraint that was there before.
        owner: whose mask it is.
    """

    def __init__(self, mask: tf.Variable, inner: Callable[[Any], Any] | None, owner: Enforcement) -> None:
        self.mask, self.inner, self.owner = mask, inner, owner

    def __call__(self, weights: Any) -> tf.Tensor:
        """The weights with zeros where the mask is False."""
        return masked(weights if self.inner is None else self.inner(weights), self.mask)


class Enforcement:
    """Masks held on the kernels of a model while it trains.

    Args:
        model: the model.
        variables: the kernels, by layer path.
        masks: a bool variable for each.
    """

    def __init__(self, model: Any, variables: dict[str, Any], masks: Sequence[tf.Variable]) -> None:
        self._model = model
        self._variables = variables
        self._masks = list(masks)

    @property
    def kernels(self) -> dict[str, Any]:
        """The kernels, by layer path."""
        return self._variables

    @property
    def attached(self) -> bool:
        """Whether the masks are on the kernels now."""
        return any(holder(variable) is self for variable in self._variables.values())

    def check(self) -> None:
        """Raises what `attach` would, and changes nothing.

        Raises:
            ValueError: another pruner's or callback's masks are on a kernel already.
        """
        for path, variable in self._variables.items():
            if holder(variable) not in (None, self):
                raise ValueError(
                    f"the kernel of layer {path!r} is held by the masks of another Pruner or callback already: "
                    "use one at a time, or call its release() first"
                )

    def attach(self) -> None:
        """Puts the masks on the kernels; the next training step is traced anew.

        Raises:
            ValueError: as `check`.
        """
        self.check()
        if self.attached:
            return
        for variable, mask in zip(self._variables.values(), self._masks, strict=True):
            compat.set_constraint(variable, MaskConstraint(mask, compat.get_constraint(variable), self))
        compat.refresh_train_function(self._model)

    def release(self) -> None:
        """Takes the masks off the kernels again, and leaves the constraints that were there before."""
        if not self.attached:
            return
        for variable in self._variables.values():
            if holder(variable) is self:
                compat.set_constraint(variable, compat.get_constraint(variable).inner)
        compat.refresh_train_function(self._model)

    def apply(self) -> None:
        """Zeroes the pruned weights now, and the optimizer's moving averages of them."""
        self._zero(list(self._variables.values()))
        self.apply_averages()

    def apply_averages(self) -> None:
        """Zeroes the optimizer's moving averages of pruned weights, which would bring them back when swapped in."""
        self._zero(compat.moving_averages(self._model, list(self._variables.values())))

    def census(self) -> list[tuple[int, int]]:
        """For each kernel, how many pruned weights are not zero now, and how many kept ones are."""
        counts = []
        for variable, mask in zip(self._variables.values(), self._masks, strict=True):
            nonzero = tf.not_equal(tf.convert_to_tensor(variable), 0)
            counts += [tf.math.count_nonzero(nonzero & ~mask), tf.math.count_nonzero(mask & ~nonzero)]
        # One read for all kernels: on a GPU each waits for what runs.
        revived_and_zero = tf.reshape(tf.stack(counts), (-1, 2)).numpy().tolist()
        return [(revived, zero) for revived, zero in revived_and_zero]

    def _zero(self, variables: Sequence[Any | None]) -> None:
        for variable, mask in zip(variables, self._masks, strict=True):
            if variable is not None:
                compat.assign(variable, masked(variable, mask))


def holder(variable: Any) -> Enforcement | None:
    """Whose masks are on a kernel, or None where nobody's are."""
    constraint = compat.get_constraint(variable)
    return constraint.owner if isinstance(constraint, MaskConstraint) else None
