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


def read_state(pruner: Pruner, step: int, callback_class: str) -> PruningState:
    """Step and masks as they are now; pruned weights are zeroed first.

    Args:
        pruner: whose masks.
        step: training steps done.
        callback_class: the name of the callback's class.
    """
    pruner.apply()
    masks = {path: mask.numpy() for path, mask in pruner.masks.items()}
    return PruningState(step, compat.iterations(pruner.enforcement.trainer), masks, callback_class)


def resume_from_snapshot(
    pruner: Pruner, handover: Handover | None, callback_class: str, final_sparsity: Sparsity | None
) -> int | None:
    """Restores the masks that a callback which restores whole trainings has handed over.

    Args:
        pruner: whose masks are restored.
        handover: what the other callback has handed over; None where there is no such callback.
        callback_class: the name of the class of the callback that prunes here.
        final_sparsity: the schedule's; None where it has none. Layers that a mapping does not name are skipped in the
            report.

    Returns:
        The step to go on with; None where nothing was restored.

    Raises:
        ValueError: the masks are not those of the layers that are pruned here.
    """
    if handover is None or handover.state is None:
        return None
    masks = match_masks(pruner.kernels_with(handover.state.masks), handover.state, handover.source, callback_class)
    pruner.restore(masks, final_sparsity or 0.0)
    return handover.state.step


def resume_from_backup(
    pruner: Pruner, backup_dir: str | None, final_sparsity: Sparsity | None, alternates: bool
) -> int | None:
    """Restores the masks of `LAPCallback(backup_dir=...)`, where the weights are those of that training.

    Args:
        pruner: whose masks are restored.
        backup_dir: the directory of the backup; None where there is none.
        final_sparsity: the schedule's; None where it has none. Layers that a mapping does not name are skipped in the
            report.
        alternates: whether pruned weights return in dense phases of the schedule.

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
    iterations = compat.iterations(pruner.enforcement.trainer)
    if state.iterations and not iterations and not is_pruned:
        warn(
            f"backup_dir={backup_dir!r} holds the masks of a training {state.step} steps in, but this model's "
            "weights are not those: pruning begins anew. Pass keras.callbacks.BackupAndRestore too, which restores "
            "the weights of the last epoch that ended"
        )
        return None
    # The weights may have been restored to an earlier moment than the masks. The optimizer's counter tells which.
    step = max(0, state.step + iterations - state.iterations)
    if alternates and step != state.step:
        pruner.hold_zeros()  # the masks may be those of another phase
    else:
        pruner.restore(state.masks, final_sparsity or 0.0)
    return step
