"""The public API as README and guide use it: mypy reads this file, and `tests/test_typing_usage.py` runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tf_lap
from tf_lap.allocation import Allocation, Global
from tf_lap.patterns import Blocks, Channels, NOfM, Pattern
from tf_lap.scores import OBS, Lookahead, Score, Wanda

# One-shot pruning and what it returns. These functions train nothing, and take a built model.


def prune_with_names(model: keras.Model) -> tf_lap.PruningReport:
    return tf_lap.prune(model, 0.75, score="magnitude", allocation="auto", pattern="block:1x4", order="forward")


def prune_with_objects(model: keras.Model) -> tf_lap.PruningReport:
    return tf_lap.prune(
        model, 0.9, score=Lookahead(distance=2, look="ahead"), allocation=Global(), pattern=Blocks(1, 4), steps=3
    )


def prune_with_configurations(model: keras.Model) -> tf_lap.PruningReport:
    score = {"class_name": "lookahead", "config": {"distance": 2, "look": "both"}}
    allocation = tf_lap.allocation.serialize(tf_lap.allocation.Uniform())
    pattern = tf_lap.patterns.serialize(NOfM(2, 4))
    return tf_lap.prune(model, 0.5, score=score, allocation=allocation, pattern=pattern)


def prune_some_layers(model: keras.Model) -> list[tf_lap.PruningReport]:
    by_path: dict[str, float] = {"dense_1": 0.8, ".*": 0.5}
    return [
        tf_lap.prune(model, by_path),
        tf_lap.prune(model, 0.9, filters="dense"),
        tf_lap.prune(model, 0.9, filters=["dense_1", "dense"]),
        tf_lap.prune(model, 0.9, filters=lambda layer: layer.units > 1),
        tf_lap.prune(model, 0.9, neighbors={"dense_1": (["dense"], [])}),
    ]


def prune_over_data(model: keras.Model) -> tf_lap.PruningReport:
    samples = np.ones((8, *model.input_shape[1:]), np.float32)
    tf_lap.prune(model, 0.3, score=Wanda(), data=samples)
    tf_lap.prune(model, 0.5, score=OBS(), data=samples, order="forward")
    return tf_lap.prune(model, 0.9, score="lookahead_activation", data=samples)


def repair_at_once(model: keras.Model) -> float:
    samples = np.ones((8, *model.input_shape[1:]), np.float32)
    report: tf_lap.RepairReport | None = tf_lap.prune(model, 0.5, repair="weights").repair
    assert report is not None
    tf_lap.prune(model, 0.6, data=samples, repair=["weights", "bias"], verbose=0)
    pruner = tf_lap.Pruner(model)
    pruner.update(0.7, repair=True, data=samples)
    return sum(layer.after or 0.0 for layer in report.repaired) + len(report.render(all=True))


def repair_later(model: keras.Model) -> dict[str, list[str]]:
    dense = keras.models.clone_model(model)
    dense.set_weights(model.get_weights())
    tf_lap.prune(model, 0.5)
    report: tf_lap.RepairReport = tf_lap.repair(model, dense=dense)
    plain: dict[str, Any] = report.to_dict()
    assert plain["samples"] is None
    assert report.samples is None
    return report.left_by_reason()


def prune_channels(model: keras.Model) -> float:
    groups: dict[str, tf_lap.ChannelGroup] = tf_lap.channel_groups(model)
    sparsities = {name: 0.25 for name, group in groups.items() if not group.blocked}
    tf_lap.prune(model, sparsities, pattern=Channels(round_to=2))
    by_budget: Mapping[str, float] = tf_lap.Pruner(model, pattern="channels").fit_budget({"macs": 0.9})
    report = tf_lap.prune(model, budget={"weights": 0.9}, pattern="channels")
    assert report.channels is not None
    return report.channels.sparsity + len(by_budget)


def shrink_copies(model: keras.Model) -> float:
    samples = np.ones((8, *model.input_shape[1:]), np.float32)
    try:
        small = tf_lap.shrink(model, samples, verbose=0)
    except tf_lap.ShrinkError as error:
        raise AssertionError from error
    smaller, report = tf_lap.shrink(small, functional=True, return_report=True)
    shrunk: tf_lap.ShrinkReport = report
    assert smaller is not small
    return shrunk.difference + len(shrunk.render(all=True)) + len(shrunk.changed)


def read_report(report: tf_lap.PruningReport) -> str:
    left_whole: Mapping[str, int] = report.left_whole
    skipped: dict[str, list[str]] = report.skipped_by_reason()
    plain: dict[str, Any] = report.to_dict()
    fractions: list[float] = [report.sparsity, report.model_sparsity, *(layer.sparsity for layer in report.layers)]
    return f"{report.render(width=120, all=True)} {left_whole} {skipped} {plain} {fractions}"


def read_graph(model: keras.Model) -> tuple[int, float]:
    neighbors: dict[str, tf_lap.Neighbors] = tf_lap.neighbors(model)
    energies: dict[str, tf_lap.ChannelEnergies] = tf_lap.channel_energies(model)
    paths: list[str] = [path for adjacent in neighbors.values() for path in adjacent.previous]
    return len(paths), sum(float(np.sum(around.incoming)) for around in energies.values())


def use_pruner(model: keras.Model) -> float:
    pruner = tf_lap.Pruner(model, score=Lookahead(distance=None), pattern=Blocks(outputs=1, inputs=4))
    pruner.update(0.5, steps=2)
    pruner.update({".*": 0.6})
    pruner.apply()
    pruner.densify()
    pruner.densify({".*": 0.6})
    pruner.update(0.9)
    pruner.freeze()
    masks: dict[str, tf.Tensor] = pruner.masks
    pruner.restore({path: mask.numpy() for path, mask in masks.items()})
    pruner.release()
    read_report(pruner.report())
    return pruner.sparsity


# What sparsity costs.


def share_of_weights(model: keras.Model) -> float:
    kernels = [layer.kernel.numpy() for layer in model.layers]
    return float(sum(map(np.count_nonzero, kernels)) / sum(kernel.size for kernel in kernels))


def measure_layers(model: keras.Model) -> str:
    report: tf_lap.SensitivityReport = tf_lap.sensitivity(
        model, share_of_weights, sparsities=(0.5, 0.9), filters="dense", score=Lookahead(distance=2), verbose=0
    )
    by_path: dict[str, float] = {layer.path: report.drop(layer) for layer in report.by_sensitivity}
    plain: dict[str, Any] = report.to_dict()
    return f"{report.render(width=100, all=True)} {by_path} {plain} {report.together} {report.plot()}"


def measure_cost(model: keras.Model) -> tuple[str, float]:
    report: tf_lap.CostReport = tf_lap.cost(model, batch_size=2, input_shape=(8,))
    layers: tuple[tf_lap.LayerCost, ...] = report.layers
    macs: dict[str, int] = {layer.path: layer.macs for layer in layers}
    largest = report.largest_activation
    size = 0 if largest is None else largest.bytes
    text = f"{report.render(width=100, all=True)} {report.to_dict()} {macs} {report.uncounted} {report.bytes_by_dtype}"
    return text, (report.nonzero_macs + report.nonzero + size) / (report.macs + report.weights + report.bytes)


def search_and_prune(model: keras.Model) -> tf_lap.PruningReport:
    result: tf_lap.SearchReport = tf_lap.find_sparsity(
        model,
        share_of_weights,
        0.3,
        scores=["magnitude", Lookahead(distance=2)],
        allocations="global",
        patterns=["unstructured", NOfM(1, 4), {"class_name": "unstructured", "config": {}}],
        tolerance=0.05,
        verbose=0,
    )
    values: list[float] = [evaluation.value for evaluation in result.evaluations if evaluation.within]
    assert result.best_evaluation is not None
    assert values
    assert result.goal.is_reached(result.best_evaluation.value)
    assert result.to_dict()["best"]["value"] in values
    assert "best" in result.render(width=100, all=True)
    return tf_lap.prune(model, **result.best)


# Classes and rules of users.


class Gate(keras.layers.Layer):
    def call(self, x: tf.Tensor) -> tf.Tensor:
        return 2 * x


@tf_lap.register_rule(Gate)
def gate_rule(layer: Gate, x: tf.Tensor) -> tf.Tensor:
    return 4 * x


class Project(keras.layers.Layer):
    def build(self, shape: tuple[int, ...]) -> None:
        self.w = self.add_weight(shape=(shape[-1], 2, 4))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return keras.ops.einsum("bi,iho->bho", x, self.w)


tf_lap.register_kernel(Project, "w", "ioo", output_axis=(-2, -1))
tf_lap.register_kernel(Project, "w", inputs=0, outputs=(1, 2), output_axis=[1, 2])


def name_own_classes() -> tuple[Score, Allocation, Pattern]:
    """Not run by the test: the names would stay for all other tests of the process."""

    @tf_lap.register_score("rounded")
    @dataclasses.dataclass(frozen=True)
    class Rounded(Score):
        digits: int = 0

        def score(self, kernel: Any, weights: tf.Tensor, incoming: tf.Tensor, outgoing: tf.Tensor) -> tf.Tensor:
            return tf.round(tf.abs(weights) * 10**self.digits)

    @tf_lap.register_allocation("halves")
    @dataclasses.dataclass(frozen=True)
    class Halves(Allocation):
        def keep(self, sizes: Sequence[int], sparsities: Sequence[float], shapes: Sequence[Sequence[int]]) -> list[int]:
            return [size // 2 for size in sizes]

    @tf_lap.register_pattern("single_weights")
    @dataclasses.dataclass(frozen=True)
    class SingleWeights(Pattern):
        def units(self, layout: Any) -> int:
            return int(layout.size)

    names: list[str] = [*tf_lap.scores.names(), *tf_lap.allocation.names(), *tf_lap.patterns.names()]
    assert {"rounded", "halves", "single_weights"} <= set(names)
    return Rounded(digits=2), tf_lap.allocation.get("halves"), SingleWeights()


# Schedules and callbacks.


def every_hundredth_step(step: int) -> tuple[bool, float]:
    return step % 100 == 0, min(0.9, step / 10_000)


def make_schedules() -> list[tf_lap.LookaheadPruningSchedule]:
    schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=1000, frequency=100)
    should_prune, sparsity = schedule(1000)
    assert bool(should_prune)
    assert float(sparsity) > 0.8
    return [
        schedule,
        tf_lap.LookaheadPruningSchedule.from_config(schedule.get_config()),
        tf_lap.LookaheadPruningSchedule({"dense": 0.9}, begin_epoch=1, end_epoch=3.5, decay="geometric"),
        tf_lap.LookaheadPruningSchedule(0.9).for_training(steps=3000),
        tf_lap.LookaheadPruningSchedule(0.9, decay="alternating", phases=4),
    ]


def make_learning_rates(model: keras.Model) -> list[Any]:
    cosine = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=1000)
    return [
        tf_lap.retraining_rate(model, 0.1, 1000),
        tf_lap.retraining_rate(model, peak=0.1, steps=1000, begin_step=2000),
        tf_lap.retraining_rate(model, rewind=cosine, rewind_step=500),
        tf_lap.retraining_rate(model, rewind=lambda step: 0.1 / (1 + step), rewind_step=500, begin_step=1000),
    ]


def make_callbacks(folder: Path) -> list[keras.callbacks.Callback]:
    stop = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    return [
        tf_lap.LAPCallback(0.9),
        tf_lap.LAPCallback({"dense": 0.9, "dense_1": 0.5}, once_sparse=[stop], verbose=1),
        tf_lap.LAPCallback(every_hundredth_step, score=Lookahead(distance=2), allocation=Global()),
        tf_lap.LAPCallback(
            make_schedules()[0], pattern={"class_name": "blocks", "config": {"outputs": 1, "inputs": 4}}
        ),
        tf_lap.LAPCallback(0.9, backup_dir=folder / "masks", filters=["dense"]),
        tf_lap.PreserveSparsity(),
        tf_lap.BackupAndRestore(folder / "epochs"),
        tf_lap.BackupAndRestore(str(folder / "batches"), save_freq=100, double_checkpoint=True),
    ]


def train(model: keras.Model, x: np.ndarray, y: np.ndarray) -> tf_lap.PruningReport:
    pruning = tf_lap.LAPCallback(0.9)
    model.fit(x, y, epochs=5, callbacks=[pruning], verbose=0)
    model.fit(x, y, epochs=5, callbacks=[tf_lap.PreserveSparsity()], verbose=0)
    pruner: tf_lap.Pruner = pruning.pruner
    pruner.apply()
    step: int = pruning.step
    pruning.release()
    assert step > 0
    return pruning.report


# Pictures.


def draw(model: keras.Model, folder: Path) -> None:
    report = tf_lap.prune(model, 0.5)
    curves: dict[str, dict[float, list[float]]] = {"lookahead": {0.8: [0.97, 0.96], 0.9: [0.95]}}
    tf_lap.plot_graph(model).savefig(folder / "graph.png")
    tf_lap.plot_sparsity(report).savefig(folder / "sparsity.png")
    tf_lap.plot_masks(model, report.pruned[0].path).savefig(folder / "masks.png")
    tf_lap.plot_tradeoff(curves, dense=0.98, value="accuracy").savefig(folder / "tradeoff.png")


# Export and tfmot.


def export(model: keras.Model, path: Path, samples: Callable[[], Iterable[np.ndarray]]) -> str:
    try:
        report: tf_lap.ExportReport = tf_lap.export_tflite(
            model, path, quantization="int8", representative_dataset=samples, sparse="auto", batch_size=1, verbose=0
        )
    except tf_lap.ExportError as error:
        return str(error)
    tf_lap.export_tflite(model, str(path), sparse=False, verbose=0)
    return f"{report.file_bytes} of {report.dense_bytes} bytes: {report.gain}"


def prepare_for_devices(model: keras.Model, path: Path) -> str:
    report: tf_lap.DeviceReport = tf_lap.device_report(model)
    phone: keras.Model = tf_lap.for_devices(model, verbose=0)
    tf_lap.export_tflite(phone, path, micro=True, verbose=0)
    return report.summary if report.qualifies else tf_lap.device_report(path).render(width=80, all=True)


def wrap(model: Any, layer: Any) -> tuple[Any, tf_lap.PrunableLayer]:
    schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=1000)
    pruned = tf_lap.prune_lookahead(model, schedule, block_size=(1, 4), block_pooling_type="MAX", score="magnitude")
    return pruned, tf_lap.PrunableLayer(layer, schedule, score=Lookahead(distance=2))
