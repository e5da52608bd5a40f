import json

import keras
import numpy as np
import pytest

import tf_lap
from tf_lap.report import LayerReport, PruningReport

layers = keras.layers


@pytest.fixture
def report():
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.DepthwiseConv2D(3, name="depthwise")(layers.Conv2D(4, 3, name="conv")(inputs))
    x = layers.SeparableConv2D(6, 3, name="separable")(x)
    x = layers.Dense(10, name="head")(layers.GlobalAveragePooling2D()(x))
    return tf_lap.prune(keras.Model(inputs, x), 0.5, filters="conv|separable")


def test_it_lists_every_layer_with_a_kernel(report):
    rows = {layer.path: (layer.shape, layer.weights, layer.kept, layer.skipped) for layer in report.layers}
    assert rows == {
        "conv": ((3, 3, 3, 4), 108, 54, None),
        "separable": ((1, 1, 4, 6), 24, 12, None),
        "head": ((6, 10), 60, 60, "left out by filters"),
        "depthwise": ((3, 3, 4, 1), 36, 36, "the weights of a DepthwiseConv2D act on one channel each"),
        "separable/depthwise_kernel": (
            (3, 3, 4, 1), 36, 36, "the weights of a SeparableConv2D act on one channel each",
        ),
    }  # fmt: skip
    assert (report.weights, report.kept, report.sparsity) == (132, 66, 0.5)
    assert report.layers[1].previous == ("conv",)
    assert report.layers[1].following == ("head",)


def test_its_text_is_an_aligned_table(report):
    lines = str(report).splitlines()
    header = lines[0]
    assert header.split() == ["layer", "class", "kernel", "weights", "kept", "sparsity", "before", "after"]
    assert set(lines[1]) == {"-"}
    kept = header.index("kept") + len("kept")
    for line, cell in zip(lines[2:7], ["54", "12", "skipped", "skipped", "skipped"], strict=True):
        assert line[:kept].endswith(" " + cell)
    assert lines[8].split() == ["total", "132", "66", "50.00%"]
    assert "skipped head: left out by filters" in lines
    assert "boundary: network input 'image'" in lines


def test_it_becomes_plain_data(report):
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["sparsity"] == 0.5
    assert plain["layers"][0] == {
        "path": "conv",
        "layer_class": "Conv2D",
        "shape": [3, 3, 3, 4],
        "weights": 108,
        "kept": 54,
        "previous": [],
        "following": ["separable"],
        "boundaries": ["network input 'image'"],
        "skipped": None,
        "revived": 0,
        "zero": 0,
        "note": None,
        "zeros": 54,
        "sparsity": 0.5,
    }
    biases = 4 + 4 + 6 + 10
    assert plain["left_whole"] == {
        "left out by filters": 60,
        "the weights of a DepthwiseConv2D act on one channel each": 36,
        "the weights of a SeparableConv2D act on one channel each": 36,
        "biases, normalization and other vectors": biases,
    }
    assert plain["model_weights"] == 132 + 60 + 36 + 36 + biases
    assert plain["zeros"] == 66
    assert plain["model_zeros"] == 66 + biases
    assert plain["model_sparsity"] == plain["model_zeros"] / plain["model_weights"]


def test_many_neighbours_are_counted_in_the_table_and_named_in_the_data():
    layer = LayerReport("a", "Dense", (2, 2), 4, 1, previous=tuple("bcdef"))
    report = PruningReport((layer,), 4, 3, {})
    assert "b, c +3" in str(report)
    assert report.to_dict()["layers"][0]["previous"] == list("bcdef")


def test_prune_prints_it_when_verbose(capsys):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5)])
    report = tf_lap.prune(model, 0.5, verbose=1)
    assert capsys.readouterr().out == f"{report}\n"
    tf_lap.prune(model, 0.5)
    assert capsys.readouterr().out == ""
    assert np.count_nonzero(model.layers[0].kernel) == 10
