"""Which channels to remove: networks at about half of their multiply-accumulates, by several scores.

The networks of `benchmarks.trained`, each from the same trained weights. Every group of channels loses the same share,
so that all scores leave models of one size; "budget" divides the channels among the groups as `budget=` does, and
"repaired" repairs what lookahead leaves over 256 samples. The smaller model is then trained on, in the same order of
batches for all. `TF_LAP_MODELS`, `TF_LAP_MINUTES`: as in `benchmarks.choosing`. What `RUNS` has is not repeated.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import tf_lap
from benchmarks import measure, trained
from benchmarks.choosing import pick_samples
from tf_lap.graph.model_graph import Kernel

RUNS = Path(__file__).parent / "results" / "channels.json"
TASKS, SEEDS, EPOCHS, RATE = ("residual", "mobile"), 3, 2, 1e-3
REMOVED = 0.3  # of the channels of each group, which leaves about half of the multiply-accumulates


@dataclasses.dataclass(frozen=True)
class L1(tf_lap.scores.Score):
    """The L1 norm of a channel's weights (Li et al., 2017), once scores are pooled by their L2 norm."""

    distance = 0

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """The roots of magnitudes."""
        return tf.sqrt(tf.abs(weights))


@dataclasses.dataclass(frozen=True, eq=False)
class BatchNormScale(tf_lap.scores.Score):
    """The scales of the batch normalizations behind a channel's kernels (Liu et al., 2017), pooled likewise.

    Attributes:
        scales: the scale behind each kernel, by its path.
    """

    scales: dict[str, Any] = dataclasses.field(default_factory=dict)
    distance = 0

    @classmethod
    def of(cls, model: keras.Model) -> BatchNormScale:
        """The scales of a model in which each kernel has a normalization directly behind it, or none."""
        layers = model.layers
        return cls(
            {
                layer.name: reader.gamma.numpy()
                for layer, reader in itertools.product(layers, layers)
                if isinstance(reader, keras.layers.BatchNormalization) and reader.input is layer.output
            }
        )

    def score(self, kernel: Kernel, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
        """The scale of each output, divided among its weights."""
        scale = self.scales.get(kernel.path)
        if scale is None:
            return tf.zeros_like(weights)
        axis_sizes = tf.size(weights, tf.int32) // scale.size
        by_output = tf.abs(scale) / tf.sqrt(tf.cast(axis_sizes, tf.float32))
        shape = [-1, 1] if kernel.layout.roles else [-1]  # a depthwise kernel has an axis behind its channels
        return tf.broadcast_to(tf.reshape(by_output, shape), weights.shape)


def prune(model: keras.Model, name: str, seed: int, samples: Any) -> tf_lap.PruningReport:
    """Prunes channels of a model by the score of a name."""
    if name == "budget":
        return tf_lap.prune(model, budget={"macs": 0.5}, pattern="channels")
    scores = {
        "lookahead": "lookahead",
        "repaired": "lookahead",
        "lookahead_wanda": "lookahead_wanda",
        "L2 norm": "magnitude",
        "L1 norm": L1(),
        "batch-norm scale": BatchNormScale.of(model),
        "random": tf_lap.scores.Random(seed),
    }
    data = samples if name in ("lookahead_wanda", "repaired") else None
    repair = True if name == "repaired" else None
    return tf_lap.prune(model, REMOVED, pattern="channels", score=scores[name], data=data, repair=repair)


# What is asked for most comes first, for all seeds.
NAMES = (("lookahead", "L1 norm", "batch-norm scale", "random"), ("lookahead_wanda", "budget", "repaired", "L2 norm"))


def fine_tune(model: keras.Model, data: trained.Data, seed: int) -> None:
    """Trains a smaller model on, with a learning rate that falls to zero."""
    steps = EPOCHS * -(-len(data.x_train) // trained.BATCH)
    trained.compile_model(model, tf_lap.retraining_rate(model, RATE, steps))
    keras.utils.set_random_seed(seed)
    model.fit(data.x_train, data.y_train, trained.BATCH, EPOCHS, verbose=0)


def measure_place(task: str, seed: int, score: str) -> dict[str, Any]:
    """The test errors of a network without channels, before and after it is trained on, and what is left of it."""
    model, data = trained.train(task, seed, trained.find_folder()), trained.TASKS[task].load()
    dense_error = trained.measure_error(model, data)
    channels = prune(model, score, seed, pick_samples(data, seed)).channels
    assert channels is not None
    assert channels.before is not None
    assert channels.after is not None
    small = tf_lap.shrink(model)
    once = trained.measure_error(small, data)
    fine_tune(small, data, seed)
    return {
        "dense error": dense_error,
        "error": once,
        "fine-tuned error": trained.measure_error(small, data),
        "macs": channels.after.macs / channels.before.macs,
        "weights": small.count_params() / model.count_params(),
    }


def run() -> dict[str, Any]:
    """Does all fits that are not done yet, writing each down."""
    places = itertools.product(TASKS, NAMES, range(SEEDS))
    named = ({"task": task, "seed": seed, "score": name} for task, names, seed in places for name in names)
    runs = measure.measure_missing(RUNS, named, measure_place)
    return {
        "what": f"test errors in percent on CIFAR-10 of models without {REMOVED:.0%} of the channels, before and after "
        f"{EPOCHS} epochs of training on, {SEEDS} seeds",
        "ratios": summarize(runs),
        "runs": runs,
    }


def summarize(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The spread over seeds, by task, score and time."""
    named = (
        (f"{entry['task']}, {entry['score']}, {field}", entry[field])
        for entry in runs
        for field in ("dense error", "error", "fine-tuned error", "macs", "weights")
    )
    return measure.spread_by_name(sorted(named))
