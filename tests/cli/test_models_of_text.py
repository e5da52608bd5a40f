"""Commands on models that read text."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tf_lap
from tf_lap.cli import main

WORDS = np.array([["red"], ["green"], ["blue"], ["unknown"]] * 4)


@pytest.fixture(params=[keras, tf_keras], ids=["keras", "tf_keras"])
def model(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kr = request.param
    lookup = kr.layers.StringLookup()
    lookup.adapt(WORDS[:3])
    inputs = kr.Input((1,), dtype="string")
    x = kr.layers.Flatten()(kr.layers.Embedding(8, 4)(lookup(inputs)))
    model = kr.Model(inputs, kr.layers.Dense(3)(kr.layers.Dense(16, activation="relu")(x)))
    model.save("m.keras")
    np.savez("d.npz", x=WORDS, y=np.arange(len(WORDS)) % 3)
    return model


def run(capsys, *args):
    assert main.main(list(args)) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_they_are_pruned_shrunk_and_compared(model, capsys):
    run(capsys, "prune", "m.keras", "-o", "n.keras", "--pattern", "channels", "--sparsity", "0.5", "--json")
    run(capsys, "shrink", "n.keras", "-o", "s.keras", "--data", "d.npz", "--json")
    pair = run(capsys, "compare", "n.keras", "s.keras", "--data", "d.npz", "--json")["models"]
    assert pair[0]["value"] == pair[1]["value"]
    assert pair[1]["weights"] < pair[0]["weights"] == tf_lap.cost(model).weights
    assert min(entry["milliseconds"] for entry in pair) > 0


def test_they_are_swept_and_repaired(model, capsys):
    result = run(capsys, "sweep", "m.keras", "--data", "d.npz", "--json")
    answers = np.argmax(model(tf.constant(WORDS)), -1)
    assert result["sensitivity"]["dense"] == pytest.approx(np.mean(answers == np.arange(len(WORDS)) % 3))
    run(capsys, "prune", "m.keras", "-o", "r.keras", "--sparsity", "0.5", "--repair", "--data", "d.npz", "--json")


@pytest.mark.parametrize("kr", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_what_is_behind_a_layer_that_splits_text_is_exported_as_the_error_says(kr, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    split = kr.layers.TextVectorization(output_sequence_length=3)
    split.adapt(WORDS)
    inputs = kr.Input((1,), dtype="string")
    table, last = kr.layers.Embedding(8, 4), kr.layers.Dense(3)
    kr.Model(inputs, last(table(split(inputs)))).save("m.keras")
    np.savez("d.npz", x=WORDS)
    assert main.main(["export", "m.keras", "-o", "m.tflite", "--data", "d.npz", "--batch-size", "1"]) == 1
    assert "cut off the layer that splits text, and export what reads the numbers" in capsys.readouterr().err
    behind = kr.Input((3,), dtype="int64")
    assert tf_lap.export_tflite(kr.Model(behind, last(table(behind))), "behind.tflite", verbose=0).file_bytes > 0
