"""How much of a model can be pruned, and what to do where it is little."""

from __future__ import annotations

from typing import NamedTuple

import keras

from tf_lap import compat
from tf_lap.compat.types import Model
from tf_lap.report import VECTORS, PruningReport
from tf_lap.report.remarks import percent

OPT_IN = "pruned only where filters or a mapping names it"
"""Why depthwise kernels and embeddings are skipped: they are few weights, or looked up."""

# The reasons of kernels that the user's arguments leave out, as `pruning.options` and `pruning.pruner` give them.
_LEFT_OUT_BY_USER = ("left out by filters", "the mapping of sparsities does not name it")


class Coverage(NamedTuple):
    """How many weights in matrices can be pruned.

    Matrices are weights with two or more axes, without biases. What the user's `filters` or mapping of sparsities
    leave out counts as what can be pruned.

    Attributes:
        matrices: how many weights lie in matrices.
        prunable: how many of them can be pruned.
        reasons: how many cannot, by the reason why.
    """

    matrices: int
    prunable: int
    reasons: dict[str, int]

    @property
    def share(self) -> float:
        """The fraction of the weights in matrices that can be pruned; 1 where there is no matrix."""
        return self.prunable / self.matrices if self.matrices else 1.0


def measure_coverage(report: PruningReport) -> Coverage:
    """How many of the weights in matrices can be pruned, and why others cannot.

    Example:

    >>> measure_coverage(tf_lap.Pruner(model).report())
    Coverage(matrices=2720, prunable=2720, reasons={})
    """
    reasons = {
        reason: size for reason, size in report.left_whole.items() if reason not in (VECTORS, *_LEFT_OUT_BY_USER)
    }
    matrices = report.model_weights - report.left_whole.get(VECTORS, 0)
    return Coverage(matrices, matrices - sum(reasons.values()), reasons)


def left_whole_warning(model: Model, report: PruningReport) -> str | None:
    """A warning that says what cannot be pruned, why, and what to do; None where at least half can be pruned.

    Args:
        model: the model.
        report: what `Pruner(model).report()` returns.
    """
    coverage = measure_coverage(report)
    if coverage.share >= 0.5:
        return None
    share = percent(coverage.prunable, coverage.matrices)
    sizes = f"of its {coverage.matrices:,} weights in matrices {coverage.prunable:,} can be pruned ({share})"
    reasons = "; ".join(f"{size:,}: {reason}" for reason, size in coverage.reasons.items())
    sentences = [
        f"model {model.name!r}: {sizes}, so the whole model ends far less sparse than the kernels that are pruned.",
        f"Left whole: {reasons}.",
        *_list_remedies(model, report),
    ]
    return " ".join(sentences)


def _list_remedies(model: Model, report: PruningReport) -> list[str]:
    """What the user can do, a sentence each."""
    without_rule = dict.fromkeys(
        layer.layer_class for layer in report.skipped if layer.skipped == f"{layer.layer_class} has no kernel rule"
    )
    layers = compat.tf_keras_module().layers if compat.is_tf_keras(model) else keras.layers
    of_keras = [name for name in without_rule if hasattr(layers, name)]
    custom = [name for name in without_rule if name not in of_keras]
    sentences = []
    opt_in = [layer.path for layer in report.skipped if layer.skipped == OPT_IN]
    if opt_in:
        named = ", ".join(opt_in[:3]) + (f" and {len(opt_in) - 3} more" if len(opt_in) > 3 else "")
        sentences.append(f"To prune {named}, give filters with an expression that matches the whole path.")
    if any(str(layer.skipped).startswith("frozen") for layer in report.skipped):
        sentences.append(
            "To prune frozen layers, set trainable = True on them and on the models around them, and compile "
            "the model again."
        )
    if custom:
        sentences.append(
            f"To prune {', '.join(custom)}, say with tf_lap.register_kernel which of its variables are kernels, or "
            "hold a Dense or Conv layer in it in place of a matrix of its own."
        )
    if of_keras and compat.is_tf_keras(model):
        sentences.append(f"tf_lap.prune_lookahead prunes {', '.join(of_keras)} too, by magnitude.")
    elif of_keras:
        sentences.append(f"In Keras 3 tf_lap prunes no {', '.join(of_keras)}: judge by report.model_sparsity.")
    return sentences
