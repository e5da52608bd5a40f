"""What a model's answers are measured by: labels where there are any, or the answers of another model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tf_lap.cli.data_files import as_inputs
from tf_lap.cli.errors import CommandError
from tf_lap.compat import exporting

_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Measure:
    """One number for a model's answers.

    Attributes:
        name: what it is.
        higher_is_better: whether a higher one is better.
        compute: the number for answers `(samples, ...)`.
    """

    name: str
    higher_is_better: bool
    compute: Callable[[np.ndarray], float]

    def format(self, value: float) -> str:
        """A value in words."""
        return f"{value:.2%}" if self.higher_is_better else f"{value:.4g}"


def predict(model: Any, columns: Sequence[np.ndarray]) -> np.ndarray:
    """What a Keras model answers to all samples.

    Raises:
        CommandError: it has several outputs.
    """
    model_inputs = exporting.inputs(model)
    fixed = model_inputs[0].shape[0] if model_inputs else None
    batch, samples = fixed or _BATCH, len(columns[0])
    if fixed:  # the last batch is filled up
        columns = [np.concatenate([column, column[-1:].repeat(-samples % fixed, 0)]) for column in columns]
    answers = model.predict(as_inputs(columns, model), batch_size=batch, verbose=0)
    if not isinstance(answers, np.ndarray):
        raise CommandError(f"model {model.name!r} has {len(answers)} outputs: answers of one output are measured")
    return answers[:samples]


def find_measure(answers: np.ndarray, labels: np.ndarray | None) -> Measure:
    """The measure for a kind of answers and labels.

    Labels that are classes give an accuracy, others a mean squared error. Without labels it is how often the class is
    that of `answers`, or how far away from them others are.

    Args:
        answers: what the dense model answers: `(samples, ...)`.
        labels: what is right; None where that is not known.

    Raises:
        CommandError: labels of another shape than the answers.
    """
    classes = answers.ndim > 1 and answers.shape[-1] > 1
    if labels is None:
        if classes:
            expected = answers.argmax(-1)
            return Measure("same answer", True, lambda other: float((other.argmax(-1) == expected).mean()))
        return _squared("mean squared difference", answers)
    if classes and _are_indices(labels, answers):
        expected = labels.reshape(answers.shape[:-1])
        return Measure("accuracy", True, lambda other: float((other.argmax(-1) == expected).mean()))
    if labels.shape == answers.shape and classes and _are_one_hot(labels):
        return find_measure(answers, labels.argmax(-1))
    if labels.size != answers.size:
        raise CommandError(f"--data: y has shape {labels.shape}, and the model's answers {answers.shape}")
    labels = labels.reshape(answers.shape)
    if set(np.unique(labels[:1000]).tolist()) <= {0, 1} and set(np.unique(labels).tolist()) <= {0, 1}:
        middle = 0.5 if answers.min() >= 0 and answers.max() <= 1 else 0.0  # of probabilities, or of logits
        return Measure("accuracy", True, lambda other: float(((other > middle) == (labels > 0.5)).mean()))
    return _squared("mean squared error", labels)


def _squared(name: str, expected: np.ndarray) -> Measure:
    return Measure(name, False, lambda other: float(np.square(other.astype(np.float64) - expected).mean()))


def _are_indices(labels: np.ndarray, answers: np.ndarray) -> bool:
    is_whole = labels.dtype.kind in "biu" or bool((labels == np.floor(labels)).all())
    return is_whole and labels.shape in (answers.shape[:-1], (*answers.shape[:-1], 1))


def _are_one_hot(labels: np.ndarray) -> bool:
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(-1) == 1).all())
