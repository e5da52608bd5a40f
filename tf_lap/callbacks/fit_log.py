"""What users read of the pruning while a model trains: lines, TensorBoard summaries, and the epoch's logs."""

from __future__ import annotations

import importlib
from typing import Any

import tensorflow as tf
from absl import logging

from tf_lap.pruning.pruner import Pruner
from tf_lap.report.census import model_census


class FitLog:
    """Lines and TensorBoard summaries of one fit.

    Args:
        log_dir: the directory for the summaries; None where none are written.
        verbose: whether lines are printed. Otherwise they go to absl's log.
        progress_bar: whether Keras draws a progress bar in this fit.
    """

    def __init__(self, log_dir: str | None, verbose: bool, progress_bar: bool) -> None:
        self._writer = None if log_dir is None else tf.summary.create_file_writer(log_dir)
        self._verbose, self._progress_bar = verbose, progress_bar

    def note_update(self, step: int, pruner: Pruner, is_dense: bool) -> None:
        """Writes the sparsities after an update of the masks.

        Args:
            step: training steps done.
            pruner: whose masks.
            is_dense: whether a dense phase begins.
        """
        if self._verbose or logging.level_info():  # to count the zeros takes a pass over the kernels
            phase = ", a dense phase begins" if is_dense else ""
            self.write_line(f"step {step}: sparsity {pruner.sparsity:.4f}{phase}")
        if self._writer is not None:
            with self._writer.as_default(step=step):
                tf.summary.scalar("sparsity", pruner.sparsity)
                for layer in pruner.report().pruned:
                    tf.summary.scalar(f"sparsity/{layer.path}", layer.sparsity)

    def write_line(self, line: str) -> None:
        """Prints a line, or hands it to absl's log."""
        if self._verbose:
            # The progress bar leaves its line open.
            print(f"\n{line}" if self._progress_bar else line)
        else:
            logging.info("%s", line)

    def close(self) -> None:
        """Closes the file of the summaries."""
        if self._writer is not None:
            self._writer.close()


def add_sparsities(logs: dict[str, Any], pruner: Pruner) -> None:
    """Adds `sparsity` and `model_sparsity`, two fractions of zeros, to the logs of an epoch."""
    weights, zeros = model_census(pruner.model)
    logs["sparsity"], logs["model_sparsity"] = pruner.sparsity, zeros / weights


def require_tensorboard() -> None:
    """Raises ImportError where the tensorboard package is missing."""
    try:
        importlib.import_module("tensorboard")
    except ImportError as error:
        raise ImportError(
            "log_dir needs the tensorboard package: pip install tensorboard, or leave log_dir out"
        ) from error
