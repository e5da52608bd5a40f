"""The callback that keeps zeros zero while a pruned model is fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_lap import compat
from tf_lap.backup import State, masks_for
from tf_lap.claims import check_alone, claim, disclaim, handed_over, held, release_leftovers
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
        self._masks: dict[str, tf.Variable] = {}

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
            kernels = {kernel.path: kernel.variable for kernel in self._kernels}
            nonzero = {path: tf.not_equal(tf.convert_to_tensor(kernel), 0) for path, kernel in kernels.items()}
            if (handed := handed_over(self)) is not None and handed.state is not None:
                # Weights that training has brought to zero since are free, as they were.
                nonzero = masks_for(kernels, handed.state, handed.source)
            self._masks = {path: tf.Variable(nonzero[path], trainable=False) for path in kernels}
            self._enforcement = Enforcement(self.model, kernels, list(self._masks.values()))
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

    def get_state(self) -> State:
        """The masks, for a snapshot of the training; what they drop is zeroed first."""
        if self._enforcement is not None:
            self._enforcement.apply()
        masks = {path: mask.numpy() for path, mask in self._masks.items()}
        return State(0, compat.iterations(self.model), masks)

    def release(self) -> None:
        """Takes the masks off the model, after a fit that was interrupted; a fit that ends does this itself."""
        if self._enforcement is not None:
            self._enforcement.apply()
            self._enforcement.release()
            self._enforcement = None
