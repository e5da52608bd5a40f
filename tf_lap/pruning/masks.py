"""The masks of the kernels that are pruned, as variables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tf_lap.compat.types import Variable


class Masks:
    """A mask for each kernel that is pruned; at first they drop nothing.

    Args:
        kernels: the kernels, by layer path.

    Attributes:
        variables: a bool variable for each, of the kernel's shape, True where the weight stays.
        kept: how many weights each keeps.
        have_taken_zeros: whether weights that were zero before count as dropped, or masks were taken over.
    """

    def __init__(self, kernels: Mapping[str, Variable]) -> None:
        self._kernels = dict(kernels)
        self.variables = [_make_mask(kernel) for kernel in self._kernels.values()]
        self.kept = self._sizes()
        self.have_taken_zeros = False

    def by_path(self) -> dict[str, tf.Tensor]:
        """The masks as bool tensors, by layer path."""
        return {path: tf.convert_to_tensor(mask) for path, mask in zip(self._kernels, self.variables, strict=True)}

    def values(self) -> dict[str, np.ndarray]:
        """Copies of the masks as bool arrays, by layer path."""
        return {path: mask.numpy().copy() for path, mask in zip(self._kernels, self.variables, strict=True)}

    def snapshot(self) -> tuple[dict[str, np.ndarray], bool]:
        """The masks as they are now, for `roll_back`."""
        return self.values(), self.have_taken_zeros

    def roll_back(self, snapshot: tuple[dict[str, np.ndarray], bool]) -> None:
        """Makes the masks what they were at a snapshot; those that were included since drop nothing."""
        values, have_taken_zeros = snapshot
        all_kept = {path: np.ones(mask.shape, bool) for path, mask in zip(self._kernels, self.variables, strict=True)}
        self.replace({**all_kept, **values})
        self.have_taken_zeros = have_taken_zeros

    def forget(self) -> None:
        """Makes the masks what they were at first."""
        self.reset()
        self.have_taken_zeros = False

    def drop_weights(self) -> bool:
        """Whether any weight is dropped."""
        return self.kept != self._sizes()

    def recount(self) -> None:
        """Counts anew how many weights each keeps."""
        self.kept = [int(tf.math.count_nonzero(tf.convert_to_tensor(mask))) for mask in self.variables]

    def reset(self, paths: Collection[str] | None = None) -> None:
        """Makes the masks drop nothing any more, and the zeros that are there count for nothing.

        Args:
            paths: of which kernels. None: of all.
        """
        self.have_taken_zeros = True
        for i, (path, mask) in enumerate(zip(self._kernels, self.variables, strict=True)):
            if paths is None or path in paths:
                mask.assign(tf.ones_like(mask))
                self.kept[i] = mask.shape.num_elements()

    def include(self, kernels: Mapping[str, Variable]) -> None:
        """Adds masks for more kernels, which drop nothing at first.

        Args:
            kernels: all kernels by layer path, those that have a mask already among them.
        """
        masks = dict(zip(self._kernels, self.variables, strict=True))
        kept = dict(zip(self._kernels, self.kept, strict=True))
        self._kernels = dict(kernels)
        self.variables = [masks[p] if p in masks else _make_mask(kernel) for p, kernel in kernels.items()]
        self.kept = [kept.get(path, size) for path, size in zip(kernels, self._sizes(), strict=True)]

    def drop_zeros(self, paths: Collection[str] | None = None) -> None:
        """Drops the weights that are zero now, but in a kernel that is zero altogether.

        Args:
            paths: in which kernels. None: in all.
        """
        self.have_taken_zeros = True
        for i, (path, mask) in enumerate(zip(self._kernels, self.variables, strict=True)):
            if paths is not None and path not in paths:
                continue
            kernel = self._kernels[path]
            live = tf.convert_to_tensor(mask) & tf.not_equal(tf.convert_to_tensor(kernel), 0)
            count = int(tf.math.count_nonzero(live))
            if 0 < count < self.kept[i]:
                mask.assign(live)
                self.kept[i] = count

    def replace(self, masks: Mapping[str, np.ndarray]) -> None:
        """Takes over bool arrays by layer path, which `check_masks` has accepted."""
        for path, variable in zip(self._kernels, self.variables, strict=True):
            variable.assign(masks[path])
        self.kept = [int(np.count_nonzero(masks[path])) for path in self._kernels]
        self.have_taken_zeros = True

    def _sizes(self) -> list[int]:
        return [mask.shape.num_elements() for mask in self.variables]


def check_masks(masks: Mapping[str, np.ndarray], kernels: Mapping[str, Variable]) -> None:
    """Raises ValueError unless masks have the paths and the shapes of kernels."""
    expected: dict[str, Sequence[int]] = {path: tuple(kernel.shape) for path, kernel in kernels.items()}
    shapes: dict[str, Sequence[int]] = {path: tuple(mask.shape) for path, mask in masks.items()}
    if shapes != expected:
        raise ValueError(
            f"the masks are of another model, or of other filters: they have {shapes}, the kernels that are pruned "
            f"here {expected}. Use the model and the filters that they were made with"
        )


def are_in_force(masks: Mapping[str, np.ndarray], kernels: Mapping[str, Variable]) -> bool:
    """Whether every weight of kernels that these masks drop is zero now.

    Raises:
        ValueError: as `check_masks`.
    """
    check_masks(masks, kernels)
    return all(not np.any(tf.convert_to_tensor(kernel).numpy()[~masks[path]]) for path, kernel in kernels.items())


def _make_mask(kernel: Variable) -> tf.Variable:
    """A mask that drops nothing."""
    return tf.Variable(tf.ones(kernel.shape, tf.bool), trainable=False)
