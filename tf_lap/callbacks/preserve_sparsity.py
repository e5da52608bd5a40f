"""The callback that keeps zeros zero while a pruned model is fine-tuned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.callbacks.claims import (
    attached_by_callbacks,
    check_alone,
    claim,
    detach_leftovers,
    disclaim,
    find_handover,
)
from tf_lap.callbacks.mask_backup import PruningState, match_masks
from tf_lap.compat.types import Model, Variable
from tf_lap.graph.kernels import weight_matrices
from tf_lap.graph.resolver import resolve
from tf_lap.pruning.constraints import Enforcement, RevivalWatch, describe_revived
from tf_lap.warn import warn


class PreserveSparsity(compat.Callback):
    """Keeps zeros zero while a pruned model is fine-tuned: every weight that is exactly 0 at the start stays 0.

    This holds for all weight matrices that are trained and have zeros, whoever owns them: kernels, and the weights of
    recurrent, embedding, attention and custom layers. A warning names the matrices whose zeros are not kept: one that
    is zero altogether was not pruned but initialised so, and a LoRA adapter adds what it learns to the zeros under it.

    Example:

    >>> report = tf_lap.prune(model, 0.9)
    >>> history = model.fit(x, y, callbacks=[tf_lap.PreserveSparsity()], verbose=0)

    Raises:
        ValueError: at the start of `fit`: the model is not built, has no weight matrix that is trained, or another
            callback or a `Pruner` has masks attached to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enforcement: Enforcement | None = None
        self._watch: RevivalWatch | None = None
        self._has_warned = False
        self._matrices: dict[str, Variable] = {}  # by layer path
        self._masks: dict[str, tf.Variable] = {}  # those that are attached, by layer path

    def __getstate__(self) -> dict[str, Any]:
        # The model and the masks on it are neither copied nor pickled.
        without_model: dict[str, Any] = {"_enforcement": None, "_watch": None, "_matrices": {}, "_masks": {}}
        return {**vars(self), **without_model, "_model": None, "params": None}

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Finds the matrices, and takes off what an interrupted fit left."""
        compat.check_model(self.model)
        compat.check_compiled(self.model)
        check_alone(self, "PreserveSparsity twice in one fit: pass it once, it keeps the zeros of all layers")
        detach_leftovers(self.model)
        self._enforcement = self._watch = None
        self._matrices = _find_trained_matrices(self.model)
        if not self._matrices:
            raise ValueError(
                f"model {self.model.name!r} has no trainable weight matrix whose zeros could be preserved: leave the "
                "callback out, since frozen weights do not change, or set trainable = True on the layers"
            )
        claim(self)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Takes the zeros for its masks at the first batch, when weights are restored."""
        if self._enforcement is not None or compat.is_skipping_batches(self.model):
            return
        nonzero = {path: tf.not_equal(tf.convert_to_tensor(matrix), 0) for path, matrix in self._matrices.items()}
        if (handover := find_handover(self)) is not None and handover.state is not None:
            # Not the zeros of its weights: training may have brought a free weight to zero.
            nonzero = match_masks(self._matrices, handover.state, handover.source, type(self).__name__)
        counts = {path: int(tf.math.count_nonzero(mask)) for path, mask in nonzero.items()}
        masked_paths = [path for path, mask in nonzero.items() if 0 < counts[path] < math.prod(mask.shape)]
        # One half of a LoRA adapter is initialised with zeros.
        adapters = {path for path, matrix in self._matrices.items() if _is_lora(matrix)}
        self._warn_of_free_zeros(masked_paths, [path for path, n in counts.items() if not n and path not in adapters])
        masks = [tf.Variable(nonzero[path], trainable=False) for path in masked_paths]
        self._masks = dict(zip(masked_paths, masks, strict=True))
        self._enforcement = Enforcement(self.model, {path: self._matrices[path] for path in masked_paths}, masks)
        self._enforcement.check()
        self._enforcement.zero_averages()
        self._enforcement.attach()
        self._watch = RevivalWatch(self._enforcement)
        attached_by_callbacks.add(self._enforcement)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Checks the zeros, and restores them where something else than the optimizer moves weights."""
        if self._watch is None:  # a training that was killed did this batch already
            return
        revived = self._watch.end_batch()
        if revived and not self._has_warned:
            self._has_warned = True
            warn(describe_revived(self.model, revived))

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Zeroes weights that another callback may have swapped in."""
        if self._enforcement is not None:
            self._enforcement.apply()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Zeroes weights that another callback may have swapped in."""
        if self._enforcement is not None:
            self._enforcement.apply()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Detaches the masks."""
        self.release()
        disclaim(self)

    def get_state(self) -> PruningState:
        """The masks, for a snapshot of the training. What they drop is zeroed first."""
        if self._enforcement is not None:
            self._enforcement.apply()
        attached = {path: mask.numpy() for path, mask in self._masks.items()}
        masks = {path: attached.get(path, np.ones(m.shape, bool)) for path, m in self._matrices.items()}
        return PruningState(0, compat.iterations(self.model), masks, callback_class=type(self).__name__)

    def release(self) -> None:
        """Takes the masks off the model, after a fit that was interrupted; a fit that ends does this itself."""
        if self._enforcement is not None:
            self._enforcement.apply()
            self._enforcement.detach()
            self._enforcement = None

    def _warn_of_free_zeros(self, masked_paths: list[str], zero_paths: list[str]) -> None:
        """Warns once of zeros that are not kept."""
        overlaid = compat.overlaid_matrices(self.model)
        adapters = [name for name, matrix in overlaid.items() if bool(tf.reduce_any(tf.equal(matrix, 0)))]
        sentences = []
        if adapters:
            sentences.append(
                f"it cannot hold the zeros of {_quote(adapters)}: LoRA adds what it learns to them; train the layer "
                "itself, without enable_lora, to keep it sparse"
            )
        if zero_paths:
            sentences.append(
                f"it leaves {_quote(zero_paths)} free, where all weights are zero, as initialised and not as pruned; "
                "to keep them zero, freeze the layers (trainable = False)"
            )
        if not masked_paths and not sentences:
            sentences.append("it found no zero in the weight matrices: prune first, with tf_lap.prune or LAPCallback")
        if sentences:
            warn(f"PreserveSparsity, model {self.model.name!r}: {'; '.join(sentences)}")


def _quote(paths: list[str]) -> str:
    return ", ".join(map(repr, paths))


def _is_lora(matrix: Variable) -> bool:
    return compat.variable_name(matrix).startswith("lora_")


def _find_trained_matrices(model: Model) -> dict[str, Variable]:
    """The weight matrices that a step of the model trains, by layer path, or by the variable's where none is known."""
    recipe = resolve(model)
    paths = {id(kernel.variable): kernel.path for kernel in recipe.kernels}
    for name, _, matrix in recipe.other_matrices():
        paths.setdefault(id(matrix), name)
    matrices: dict[str, Variable] = {}
    for matrix in weight_matrices(model.trainable_variables):
        name = paths.get(id(matrix), compat.variable_path(matrix))
        matrices[name if name not in matrices else f"{name}:{len(matrices)}"] = matrix
    return matrices
