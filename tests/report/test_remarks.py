import keras
import pytest

import tf_lap
from tf_lap.report import LayerReport, PruningReport
from tf_lap.report.remarks import Remark, layer_remarks, model_remarks, percent

pytestmark = pytest.mark.filterwarnings("ignore:model .* can be pruned")  # models of many kinds of layers

layers = keras.layers
FROZEN = "frozen: the layer, or a model around it, is not trained (trainable=False)"


def said(*listed):
    return layer_remarks(PruningReport(tuple(listed), 10**6, 0, {}, score_sides=()), str)


def kernel(path, **others):
    return LayerReport(path, "Dense", (10, 10), 100, 10, **others)


def test_what_holds_for_one_layer_is_one_sentence_and_for_several_one_with_their_names():
    assert said(kernel("a", zero=3)) == [Remark("note a: 3 of the kept weights are zero all the same")]
    assert said(kernel("a", zero=3), kernel("b"), kernel("c", zero=4)) == [
        Remark("note, 2 kernels: 7 of the kept weights are zero all the same", ("a (3)", "c (4)"))
    ]
    assert said(kernel("a", revived=1200)) == [
        Remark("warning a: 1,200 pruned weights are not zero; something wrote them")
    ]
    assert said(kernel("a", revived=3), kernel("b", revived=4)) == [
        Remark("warning, 2 kernels: 7 pruned weights are not zero; something wrote them", ("a (3)", "b (4)"))
    ]
    assert said(kernel("a", note="it is so"), kernel("b", note="it is so"), kernel("c", note="otherwise")) == [
        Remark("note, 2 kernels: it is so", ("a", "b")),
        Remark("note c: otherwise"),
    ]


def test_boundaries_of_one_reason_are_one_remark():
    reason = "{} '{}' has no channel rule; tf_lap.register_rule can add one"
    lstm, attention = reason.format("LSTM", "memory"), reason.format("MultiHeadAttention", "encoder/attend")
    assert said(kernel("a", boundaries=(lstm,)), kernel("b", boundaries=(lstm,))) == [Remark(f"boundary: {lstm}")]
    assert said(kernel("a", boundaries=(lstm, attention)), kernel("b", boundaries=("network input 'x'",))) == [
        Remark(
            "boundary, 2 times: has no channel rule; tf_lap.register_rule can add one",
            ("LSTM 'memory'", "MultiHeadAttention 'encoder/attend'"),
        ),
        Remark("boundary: network input 'x'"),
    ]
    assert said(kernel("a", boundaries=("network input 'x'", "network input 'y'", "given by the user"))) == [
        Remark("boundary, 2 times: network input", ("'x'", "'y'")),
        Remark("boundary: given by the user"),
    ]


def test_reshapes_of_a_model_that_mix_channels_alike_are_one_remark():
    image = keras.Input((4, 4, 6))
    x = image
    for i in range(3):
        x = layers.Reshape((4, 4, 6), name=f"mixed_{i}")(layers.Permute((3, 1, 2))(layers.Conv2D(6, 1)(x)))
    report = tf_lap.prune(keras.Model(image, layers.Conv2D(2, 1)(x)), 0.5)
    (mixed,) = [remark for remark in layer_remarks(report, str) if "mixes channels" in remark.text]
    assert mixed.text.startswith("boundary, 3 times: reshapes (None, 6, 4, 4) with channels on axis 1 to")
    assert mixed.names == ("Reshape 'mixed_0'", "Reshape 'mixed_1'", "Reshape 'mixed_2'")


def test_the_whole_model_is_said_with_what_was_left_whole_the_most_first():
    words = keras.Input((5,), dtype="int32")
    x = layers.LSTM(6, trainable=False, name="memory")(layers.Embedding(100, 8, name="words")(words))
    report = tf_lap.prune(keras.Model(words, layers.Dense(5, name="head")(x)), 0.5)
    assert model_remarks(report, str.upper) == [
        Remark("whole model: 3.18% of 1,195 weights are zero; the pruned kernels hold 2.51% of the weights"),
        Remark("skipped 800 weights (66.95%) in WORDS: pruned only where filters or a mapping names it"),
        Remark(
            "skipped 336 weights (28.12%) in 2 matrices: " + FROZEN,
            ("MEMORY/KERNEL", "MEMORY/RECURRENT_KERNEL"),
        ),
        Remark("skipped 29 weights (2.43%): biases, normalization and other vectors"),
    ]


@pytest.mark.parametrize(
    ("part", "total", "text"),
    [
        (0, 0, "0.00%"),
        (0, 5, "0.00%"),
        (5, 5, "100.00%"),
        (1, 3, "33.33%"),
        (1, 10**6, "<0.01%"),
        (10**6 - 1, 10**6, ">99.99%"),
        (9999, 10**4, "99.99%"),
    ],
)
def test_only_all_is_a_hundred_percent(part, total, text):
    assert percent(part, total) == text
