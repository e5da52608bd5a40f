"""What takes part in a Keras training: pruning in it, keeping its zeros, and resuming it."""

from tf_lap.callbacks.backup_and_restore import BackupAndRestore
from tf_lap.callbacks.lap_callback import LAPCallback
from tf_lap.callbacks.preserve_sparsity import PreserveSparsity

__all__ = ["BackupAndRestore", "LAPCallback", "PreserveSparsity"]
