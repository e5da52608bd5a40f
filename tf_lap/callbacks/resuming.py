"""Restores a pruner's masks and step after a killed training.

They come from the snapshot of `tf_lap.BackupAndRestore`, or from `LAPCallback(backup_dir=...)`. Weights, optimizer and
epoch are restored in `backup_and_restore`.
"""

from __future__ import annotations

from tf_lap import compat
from tf_lap.allocation import Sparsity
from tf_lap.callbacks import mask_backup
from tf_lap.callbacks.claims import Handover
from tf_lap.callbacks.mask_backup import PruningState, match_masks
from tf_lap.pruning.pruner import Pruner
from tf_lap.warn import warn


def read_state(pruner: Pruner, step: int, holder: str) -> PruningState:
    """Step and masks as they are now; pruned weights are zeroed first.

    Args:
        pruner: whose masks.
        step: training steps done.
        holder: the name of the callback's class.
    """
    pruner.apply()
    masks = {path: mask.numpy() for path, mask in pruner.masks.items()}
    return PruningState(step, compat.iterations(pruner.model), masks, holder)


def resume_from_snapshot(pruner: Pruner, handover: Handover | None, holder: str, mapping: Sparsity) -> int | None:
    """Restores the masks that a callback which restores whole trainings has handed over.

    Args:
        pruner: whose masks are restored.
        handover: what the other callback has handed over; None where there is no such callback.
        holder: the name of the callback's class that prunes here.
        mapping: the schedule's mapping of sparsities, or 0.0 where it has none.

    Returns:
        The step to go on with; None where nothing was restored.

    Raises:
        ValueError: the masks are not those of the layers that are pruned here.
    """
    if handover is None or handover.state is None:
        return None
    masks = match_masks(pruner.enforcement.kernels, handover.state, handover.source, holder)
    pruner.restore(masks, mapping)
    return handover.state.step


def resume_from_backup(pruner: Pruner, backup_dir: str | None, mapping: Sparsity) -> int | None:
    """Restores the masks of `LAPCallback(backup_dir=...)`, where the weights are those of that training.

    Args:
        pruner: whose masks are restored.
        backup_dir: the directory of the backup; None where there is none.
        mapping: the schedule's mapping of sparsities, or 0.0 where it has none.

    Returns:
        The step to go on with; None where nothing was restored.

    Raises:
        ValueError: the backup is damaged, or its masks are not those of the layers that are pruned here.
    """
    state = None if backup_dir is None else mask_backup.load(backup_dir)
    if state is None:
        return None
    try:
        is_pruned = pruner.agrees(state.masks)
    except ValueError as error:
        raise ValueError(f"backup_dir={backup_dir!r}: {error}. Delete the directory to begin anew") from error
    iterations = compat.iterations(pruner.model)
    if state.iterations and not iterations and not is_pruned:
        warn(
            f"backup_dir={backup_dir!r} holds the masks of a training {state.step} steps in, but this model's "
            "weights are not those: pruning begins anew. Pass keras.callbacks.BackupAndRestore too, which restores "
            "the weights of the last epoch that ended"
        )
        return None
    pruner.restore(state.masks, mapping)
    # The weights may have been restored to an earlier moment than the masks. The optimizer's counter tells which.
    return max(0, state.step + iterations - state.iterations)
