"""What users read of the pruning while a model trains: lines, TensorBoard summaries, and the epoch's logs."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_lap import compat
from tf_lap.graph.energy import measure_kernels, sweep
from tf_lap.graph.model_graph import Recipe
from tf_lap.graph.resolver import resolve
from tf_lap.plotting.mask_matrix import as_matrix, average_blocks
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
        self._recipe: Recipe | None = None

    def note_update(self, step: int, pruner: Pruner, is_dense: bool) -> None:
        """Writes a line and the summaries after an update of the masks.

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
                self._write_summaries(pruner)

    def _write_summaries(self, pruner: Pruner) -> None:
        """Sparsities, the smallest weights that stay, energies and masks, by the paths of the pruned kernels."""
        if self._recipe is None:
            self._recipe = resolve(pruner.model)
        kernels = {kernel.path: number for number, kernel in enumerate(self._recipe.kernels)}
        incoming, outgoing = sweep(self._recipe, measure_kernels(self._recipe))
        tf.summary.scalar("sparsity", pruner.sparsity)
        for layer in pruner.report().pruned:
            number = kernels[layer.path]
            kernel = self._recipe.kernels[number]
            weights = np.abs(compat.host_array(kernel.variable))
            left = weights > 0
            cells = average_blocks(as_matrix(left, kernel.layout)[0])
            tf.summary.scalar(f"sparsity/{layer.path}", layer.sparsity)
            tf.summary.scalar(f"threshold/{layer.path}", weights[left].min() if left.any() else 0.0)
            tf.summary.histogram(f"energy/incoming/{layer.path}", tf.reshape(incoming[number], [-1]))
            tf.summary.histogram(f"energy/outgoing/{layer.path}", tf.reshape(outgoing[number], [-1]))
            tf.summary.image(f"mask/{layer.path}", cells[np.newaxis, :, :, np.newaxis])

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
