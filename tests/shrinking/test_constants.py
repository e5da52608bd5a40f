"""Which channels are constant, and which of them can go."""

import keras
import numpy as np
import pytest
import tf_keras
from helpers.shrunk import assert_agree, draw, randomize

from tf_lap import shrink
from tf_lap.warn import PruningWarning

KERASES = pytest.mark.parametrize("kr", [keras, tf_keras], ids=["keras3", "tf_keras"])


def set_columns(layer, columns, value=0.0):
    kernel, *others = (np.array(weight) for weight in layer.get_weights())
    kernel[..., columns] = value
    layer.set_weights([kernel, *others])


def widths(model, *names):
    return [int(model.get_layer(name).kernel.shape[-1]) for name in names]


@KERASES
def test_a_scale_of_zero_makes_a_constant(kr):
    model = kr.Sequential(
        [
            kr.Input((4, 4, 3)),
            kr.layers.Conv2D(5, 3, name="first"),
            kr.layers.BatchNormalization(name="norm"),
            kr.layers.Conv2D(2, 2, name="last"),
        ]
    )
    randomize(model)
    norm = model.get_layer("norm")
    norm.gamma.assign([1.0, 0.0, 1.0, 0.0, 1.0])
    small, report = shrink(model, return_report=True)
    assert widths(small, "first") == [3]
    assert report.folded == 2
    assert_agree(model, small)


@KERASES
def test_constants_make_constants(kr):
    model = kr.Sequential(
        [kr.Input((4,)), *(kr.layers.Dense(5, activation="tanh", name=name) for name in "ab"), kr.layers.Dense(1)]
    )
    randomize(model)
    set_columns(model.get_layer("a"), [0, 1])
    kernel, bias = (np.array(weight) for weight in model.get_layer("b").get_weights())
    kernel[2:, 4] = 0  # the last channel of b reads constants alone
    model.get_layer("b").set_weights([kernel, bias])
    small = shrink(model)
    assert widths(small, "a", "b") == [3, 4]
    assert_agree(model, small)


@KERASES
def test_a_layer_that_reads_a_constant_once_and_something_else_another_time(kr):
    inputs = kr.Input((4,))
    left, right = kr.layers.Dense(3, name="left"), kr.layers.Dense(3, name="right")
    head = kr.layers.Dense(2, name="head")
    model = kr.Model(inputs, [head(left(inputs)), head(right(inputs))])
    randomize(model)
    set_columns(left, [1])
    with pytest.warns(PruningWarning, match="equal copy"):
        assert widths(shrink(model), "left") == [3]
    set_columns(right, [1])  # another constant, which one bias cannot hold
    with pytest.warns(PruningWarning, match="equal copy"):
        assert widths(shrink(model), "left") == [3]
    right.set_weights([right.get_weights()[0], left.get_weights()[1]])
    small = shrink(model)
    assert widths(small, "left", "right") == [2, 2]
    assert_agree(model, small)


@KERASES
def test_what_takes_all_channels_together_keeps_them(kr):
    inputs = kr.Input((6,))
    hidden = kr.layers.Dense(5, name="first")(inputs)
    normed = kr.layers.LayerNormalization()(hidden)
    model = kr.Model(inputs, kr.layers.Dense(2)(kr.layers.Dense(4, activation="softmax", name="second")(normed)))
    randomize(model)
    set_columns(model.get_layer("first"), [1])
    set_columns(model.get_layer("second"), [1])
    with pytest.warns(PruningWarning, match="equal copy"):
        assert widths(shrink(model), "first", "second") == [5, 4]


@KERASES
def test_a_constant_may_be_zero_where_zeros_are_padded(kr):
    model = kr.Sequential(
        [
            kr.Input((6, 6, 3)),
            kr.layers.Conv2D(5, 3, padding="same", use_bias=False, activation="relu", name="first"),
            kr.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise"),
            kr.layers.Conv2D(4, 3, padding="same", name="last"),
            kr.layers.GlobalAveragePooling2D(),
            kr.layers.Dense(1),
        ]
    )
    set_columns(model.get_layer("first"), [0, 3])
    small, report = shrink(model, return_report=True)
    assert widths(small, "first") == [3]
    assert not report.held
    assert_agree(model, small)


@KERASES
def test_a_residual_kernel_reads_what_it_adds_to(kr):
    inputs = kr.Input((4,))
    stream = kr.layers.Dense(3, name="stream")(inputs)
    stream = kr.layers.Add()([stream, kr.layers.Dense(3, name="branch")(stream)])
    model = kr.Model(inputs, kr.layers.Dense(2, name="last")(stream))
    kernel, bias = model.get_layer("last").get_weights()
    kernel[1] = 0  # the branch alone reads channel 1
    model.get_layer("last").set_weights([kernel, bias])
    with pytest.warns(PruningWarning, match="equal copy"):
        assert widths(shrink(model), "stream") == [3]
    kernel, bias = model.get_layer("branch").get_weights()
    kernel[1, [0, 2]] = 0  # it makes channel 1 alone of it
    model.get_layer("branch").set_weights([kernel, bias])
    small = shrink(model)
    assert widths(small, "stream", "branch") == [2, 2]
    assert_agree(model, small)


@KERASES
def test_a_recurrent_unit_that_nobody_reads(kr):
    model = kr.Sequential([kr.Input((5, 3)), kr.layers.LSTM(4, name="cell"), kr.layers.Dense(2, name="last")])
    randomize(model)
    kernel, recurrent, bias = (np.array(weight) for weight in model.get_layer("cell").get_weights())
    recurrent[2, [column for column in range(16) if column % 4 != 2]] = 0  # unit 2 is read by its own gates alone
    model.get_layer("cell").set_weights([kernel, recurrent, bias])
    last = model.get_layer("last")
    last.set_weights([last.get_weights()[0] * np.array([[1], [1], [0], [1]]), last.get_weights()[1]])
    small = shrink(model)
    assert small.get_layer("cell").units == 3
    assert_agree(model, small)


def test_channels_of_a_heads_values_that_nobody_reads_take_the_head_along():
    inputs = keras.Input((5, 6))
    heads = keras.layers.MultiHeadAttention(3, 2, name="heads")
    model = keras.Model(inputs, keras.layers.Dense(2)(heads(inputs, inputs)))
    randomize(model)
    kernel = next(v for v in heads.weights if "attention_output" in v.path and v.name == "kernel")
    values = np.array(kernel)
    values[1] = 0
    kernel.assign(values)
    small = shrink(model)
    assert small.get_layer("heads").num_heads == 2
    assert_agree(model, small)


def test_a_channel_that_attention_multiplies_is_read():
    inputs = keras.Input((5, 6))
    query, value = keras.layers.Dense(4, name="query")(inputs), keras.layers.Dense(4, name="value")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="last")(keras.layers.Attention()([query, value])))
    kernel, bias = model.get_layer("last").get_weights()
    kernel[1] = 0
    model.get_layer("last").set_weights([kernel, bias])
    with pytest.warns(PruningWarning, match="equal copy"):
        assert widths(shrink(model), "query", "value") == [4, 4]


def test_tied_variables_are_named():
    layers = tf_keras.layers
    model = tf_keras.Sequential([tf_keras.Input((4,)), *(layers.Dense(4, name=name) for name in "ab"), layers.Dense(2)])
    model.get_layer("b").kernel = model.get_layer("a").kernel
    with pytest.warns(PruningWarning) as warned:
        small = shrink(model)
    assert any("several layers share 1 variable " in str(warning.message) for warning in warned)
    np.testing.assert_allclose(small(draw(2, 4)), model(draw(2, 4)), rtol=1e-5)
