"""`typing_usage.py`, which mypy checks, uses every public name, and what it does without training works."""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest
import tf_keras
import typing_usage

import tf_lap

ON_A_MODEL = (
    typing_usage.prune_with_names,
    typing_usage.prune_with_objects,
    typing_usage.prune_with_configurations,
    typing_usage.prune_some_layers,
    typing_usage.prune_over_data,
    typing_usage.repair_at_once,
    typing_usage.repair_later,
    typing_usage.prune_channels,
    typing_usage.shrink_copies,
    typing_usage.read_graph,
    typing_usage.use_pruner,
    typing_usage.make_learning_rates,
    typing_usage.measure_layers,
    typing_usage.measure_cost,
    typing_usage.search_and_prune,
)


def build_model(library=keras):
    first = library.layers.Dense(16, activation="relu", name="dense")
    return library.Sequential([library.layers.Input((8,)), first, library.layers.Dense(4, name="dense_1")])


def test_every_public_name_is_used():
    tree = ast.parse(Path(typing_usage.__file__).read_text(encoding="utf-8"))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "tf_lap"}
    assert set(tf_lap.__all__) <= used


@pytest.mark.filterwarnings("ignore:model .* has more zeros already", "ignore:shrink. nothing to remove")
@pytest.mark.parametrize("function", ON_A_MODEL, ids=lambda function: function.__name__)
def test_functions_of_a_model_run(function):
    assert function(build_model())


def test_a_report_is_read():
    assert "dense_1" in typing_usage.read_report(tf_lap.prune(build_model(), 0.5))


def test_schedules_and_callbacks_are_made(tmp_path):
    schedules = typing_usage.make_schedules()
    assert schedules[0] == schedules[1]
    assert all(isinstance(callback, keras.callbacks.Callback) for callback in typing_usage.make_callbacks(tmp_path))


def test_pictures_are_drawn(tmp_path):
    typing_usage.draw(build_model(), tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_layers_are_wrapped():
    pruned, layer = typing_usage.wrap(build_model(tf_keras), tf_keras.layers.Dense(3))
    assert isinstance(layer, tf_lap.PrunableLayer)
    assert isinstance(pruned.layers[0], tf_lap.PrunableLayer)


def test_a_model_is_exported(tmp_path):
    samples = np.random.default_rng(0).standard_normal((4, 1, 8)).astype(np.float32)
    assert "bytes: " in typing_usage.export(build_model(), tmp_path / "model.tflite", lambda: [[x] for x in samples])


def test_a_model_is_prepared_for_devices(tmp_path):
    assert "1x1 convolutions" in typing_usage.prepare_for_devices(build_model(), tmp_path / "model.tflite")
