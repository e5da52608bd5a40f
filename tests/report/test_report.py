import json

import keras
import numpy as np
import pytest
import tf_keras
from reported import report_of_small_model

import tf_lap
from tf_lap.report import VECTORS, LayerReport, PruningReport
from tf_lap.report.coverage import OPT_IN

pytestmark = pytest.mark.filterwarnings("ignore:model .* can be pruned")  # models of many kinds of layers

layers = keras.layers


@pytest.fixture
def report():
    return report_of_small_model()


def test_it_lists_every_layer_with_a_kernel(report):
    rows = {layer.path: (layer.shape, layer.weights, layer.kept, layer.skipped) for layer in report.layers}
    assert rows == {
        "conv": ((3, 3, 3, 4), 108, 54, None),
        "separable": ((1, 1, 4, 6), 24, 12, None),
        "head": ((6, 10), 60, 60, "left out by filters"),
        "depthwise": ((3, 3, 4, 1), 36, 36, "left out by filters"),
        "separable/depthwise_kernel": ((3, 3, 4, 1), 36, 36, OPT_IN),
    }  # fmt: skip
    assert (report.weights, report.kept, report.sparsity) == (132, 66, 0.5)
    separable = next(layer for layer in report.layers if layer.path == "separable")
    assert separable.previous == ("conv",)
    assert separable.following == ("head",)
    assert [layer.path for layer in report.pruned] == ["conv", "separable"]
    assert [layer.path for layer in report.skipped] == ["depthwise", "separable/depthwise_kernel", "head"]
    assert report.skipped_by_reason() == {
        "left out by filters": ["depthwise", "head"],
        OPT_IN: ["separable/depthwise_kernel"],
    }


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
        "sides": ["after"],
    }
    biases = 4 + 4 + 6 + 10
    assert plain["left_whole"] == {
        "left out by filters": 96,
        OPT_IN: 36,
        "biases, normalization and other vectors": biases,
    }
    assert plain["model_weights"] == 132 + 60 + 36 + 36 + biases
    assert plain["zeros"] == 66
    assert plain["model_zeros"] == 66 + biases
    assert plain["model_sparsity"] == plain["model_zeros"] / plain["model_weights"]


def test_its_repr_is_one_line(report):
    assert repr(report) == "<PruningReport: 2 pruned, 3 skipped, sparsity 0.5000, model sparsity 0.3125>"


def test_sparsity_counts_the_zeros_that_are_there_and_kept_the_masks():
    model = keras.Sequential([keras.Input((10,)), layers.Dense(10, name="a"), layers.Dense(10, name="b")])
    pruner = tf_lap.Pruner(model)
    pruner.update(0.9)
    kernel = np.ones((10, 10))
    kernel[0] = 0
    model.get_layer("a").kernel.assign(kernel)
    report = pruner.report()
    first, second = report.layers
    assert (first.kept, second.kept) == (10, 10)
    assert (first.sparsity, second.sparsity) == (0.1, 0.9)
    assert (report.kept, report.zeros, report.sparsity) == (20, 100, 0.5)
    assert first.weights - first.kept - first.revived + first.zero == first.zeros == 10
    assert report.model_sparsity == (100 + 20) / 220


def test_a_skipped_layer_has_its_own_zeros():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, name="a"), layers.Dense(5, name="b")])
    model.get_layer("a").kernel.assign(np.eye(4, 5))
    report = tf_lap.prune(model, 0.5, filters="b")
    assert [(layer.path, layer.sparsity) for layer in report.layers] == [("a", 16 / 20), ("b", 13 / 25)]
    assert report.sparsity == 13 / 25


@pytest.mark.parametrize("kind", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_what_was_left_whole_and_what_was_pruned_are_the_whole_model(kind):
    layers = kind.layers
    tower = kind.Sequential([kind.Input((6,)), layers.Dense(6, name="inner")], name="tower")
    words = kind.Input((5,), dtype="int32")
    x = layers.LSTM(6, return_sequences=True, name="memory")(layers.Embedding(10, 8, name="words")(words))
    x = layers.MultiHeadAttention(2, 3, name="attend")(x, x)
    x = tower(tower(layers.Flatten()(x)[:, :6]))
    model = kind.Model(words, layers.Dense(2, name="head")(x))
    report = tf_lap.prune(model, 0.5)
    attention = [f"attend/{name}" for name in ("query", "key", "value", "attention_output")]
    pruned = ["memory/kernel", "memory/recurrent_kernel", *attention, "tower/inner", "head"]
    assert sorted(layer.path for layer in report.pruned) == sorted(pruned)
    assert report.model_weights == model.count_params() == report.weights + sum(report.left_whole.values())
    assert report.model_zeros == sum(int(np.sum(np.asarray(w) == 0)) for w in model.get_weights())
    biases = 24 + 3 * 6 + 6 + 6 + 2
    assert report.left_whole == {
        OPT_IN: 80,
        VECTORS: biases,
    }


class TwoMatrices(layers.Layer):
    """A layer with two matrices of its own."""

    def build(self, shape):
        self.first = self.add_weight(shape=(shape[-1], 3), name="first")
        self.second = self.add_weight(shape=(3, shape[-1]), name="second")

    def call(self, x):
        return x @ self.first @ self.second


def test_each_matrix_of_a_custom_layer_is_listed_by_its_name():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="a"), TwoMatrices(name="two"), layers.Dense(2)])
    report = tf_lap.prune(model, 0.5)
    assert report.skipped_by_reason() == {"TwoMatrices has no kernel rule": ["two/first", "two/second"]}
    assert report.left_whole["TwoMatrices has no kernel rule"] == 24


def test_a_matrix_that_the_model_itself_holds_is_listed():
    class Scaled(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3, name="dense")

        def build(self, shape):
            self.dense.build(shape)
            self.table = self.add_weight(shape=(3, 3), name="table")

        def call(self, x):
            return keras.ops.matmul(self.dense(x), self.table)

    model = Scaled()
    model.build((None, 4))
    report = tf_lap.prune(model, 0.5)
    assert report.skipped_by_reason() == {"Scaled has no kernel rule": ["table"]}
    assert report.left_whole == {"Scaled has no kernel rule": 9, VECTORS: 3}
    assert report.model_weights == 12 + 3 + 9


class Tied(tf_keras.layers.Dense):
    """A Dense layer with the kernel of another one."""

    def __init__(self, other, **arguments):
        super().__init__(other.units, use_bias=False, **arguments)
        self.other = [other]

    def build(self, shape):
        self.kernel, self.bias, self.built = self.other[0].kernel, None, True


def test_a_kernel_that_two_layers_share_counts_once():
    first = tf_keras.layers.Dense(4, use_bias=False, name="first")
    model = tf_keras.Sequential([tf_keras.Input((4,)), first, Tied(first, name="second")])
    report = tf_lap.prune(model, 0.5, filters="first")
    assert [(layer.path, layer.sparsity) for layer in report.layers] == [("first", 0.5)]
    assert report.model_weights == 16
    assert report.left_whole == {VECTORS: 0}
    assert report.model_sparsity == 0.5


def test_a_kernel_that_the_pattern_cannot_thin_has_the_reason():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, name="gray")(inputs)
    x = layers.Conv2D(8, 3, name="wide")(x)
    report = tf_lap.prune(keras.Model(inputs, x), 0.5, pattern="2:4")
    note = "2:4 drops nothing where an output has 1 input at each tap"
    assert [(layer.kept, layer.note) for layer in report.layers] == [(72, note), (288, None)]
    assert f"note gray: {note}" in str(report)


def test_prune_prints_it_on_lines_of_its_own_when_verbose(capsys):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5)])
    print("3/10", end="")
    report = tf_lap.prune(model, 0.5, verbose=1)
    assert capsys.readouterr().out == f"3/10\n{report}\n"
    tf_lap.prune(model, 0.5)
    assert capsys.readouterr().out == ""
    assert np.count_nonzero(model.layers[0].kernel) == 10


def test_a_report_of_nothing_has_no_sparsity():
    empty = PruningReport((), 0, 0, {})
    assert (empty.sparsity, empty.model_sparsity, empty.weights) == (0, 0, 0)
    assert LayerReport("a", "Dense", (0, 2), 0, 0).sparsity == 0
    assert "0 pruned kernels" in str(empty)
