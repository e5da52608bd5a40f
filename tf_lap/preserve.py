"""The callback that keeps zeros zero while a pruned model is fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_lap import compat
from tf_lap.claims import check_alone, claim, disclaim, held, release_leftovers
from tf_lap.enforce import Enforcement
from tf_lap.graph import Kernel, resolve


class PreserveSparsity(compat.Callback):
    """Keeps zeros zero while a pruned model is fine-tuned: every kernel weight that is exactly 0 at the start stays 0.

    A kernel that was initialised with zeros stays zero too: prune before, or train without this callback first.

    Example:

    >>> report = tf_lap.prune(model, 0.9)
    >>> history = model.fit(x, y, callbacks=[tf_lap.PreserveSparsity()], verbose=0)
    """

    def __init__(self) -> None:
        super().__init__()
        self._enforcement: Enforcement | None = None
        self._kernels: Sequence[Kernel] = ()

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Takes off what an interrupted fit left."""
        check_alone(self)
        release_leftovers(self.model)
        self._enforcement = None
        kernels = [kernel for kernel in resolve(self.model).kernels if kernel.variable.trainable]
        if not kernels:
            raise ValueError(f"model {self.model.name!r} has no trainable kernel whose zeros could be preserved")
        self._kernels = kernels
        claim(self)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Takes the zeros for its masks at the first batch, when weights are restored."""
        if self._enforcement is None:
            kernels = self._kernels
            masks = [tf.Variable(tf.not_equal(tf.convert_to_tensor(k.variable), 0), trainable=False) for k in kernels]
            self._enforcement = Enforcement(self.model, {k.path: k.variable for k in kernels}, masks)
            self._enforcement.apply_averages()
            self._enforcement.attach()
            held.add(self._enforcement)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Zeroes weights that another callback may have swapped in."""
        if self._enforcement is not None:
            self._enforcement.apply()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Zeroes weights that another callback may have swapped in."""
        if self._enforcement is not None:
            self._enforcement.apply()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Lets go of the model."""
        self.release()
        disclaim(self)

    def release(self) -> None:
        """Takes the masks off the model, after a fit that was interrupted; a fit that ends does this itself."""
        if self._enforcement is not None:
            self._enforcement.apply()
            self._enforcement.release()
            self._enforcement = None
