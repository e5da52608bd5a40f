"""A masked model and its smaller copy do the same; every masked channel is gone."""

import keras
import numpy as np
import pytest
import tf_keras
from helpers.shrunk import assert_agree, draw, mask_channels, masked_and_shrunk, randomize

from tf_lap import ShrinkReport, prune, shrink
from tf_lap.warn import PruningWarning

KERASES = pytest.mark.parametrize("kr", [keras, tf_keras], ids=["keras3", "tf_keras"])


def shape(model, name, variable="kernel"):
    return tuple(getattr(model.get_layer(name), variable).shape)


def chain(kr, **options):
    """Dense layers where channel 1 of the first is masked, though its bias is not zero."""
    model = kr.Sequential(
        [
            kr.Input((4,)),
            kr.layers.Dense(3, activation="sigmoid", name="first", **options),
            kr.layers.BatchNormalization(name="norm"),
            kr.layers.Dense(2, name="last", **options),
        ]
    )
    randomize(model)
    return model


def zero(layer, *, rows=(), columns=()):
    kernel = np.array(layer.get_weights()[0])
    kernel[..., list(rows), :] = 0
    kernel[..., list(columns)] = 0
    layer.set_weights([kernel, *layer.get_weights()[1:]])


@KERASES
def test_a_channel_that_nobody_reads_goes_whatever_it_is(kr):
    model = chain(kr)
    zero(model.get_layer("last"), rows=[1])
    small, report = shrink(model, return_report=True)
    assert shape(small, "first") == (4, 2)
    assert shape(small, "norm", "gamma") == shape(small, "norm", "moving_mean") == (2,)
    assert shape(small, "last") == (2, 2)
    assert isinstance(small, kr.Sequential)
    assert_agree(model, small)
    assert isinstance(report, ShrinkReport)
    assert report.layers[0].outputs == (3, 2)
    assert report.folded == 0


@KERASES
@pytest.mark.parametrize("use_bias", [True, False])
def test_a_constant_channel_goes_into_the_bias(kr, use_bias):
    model = chain(kr, use_bias=use_bias)
    zero(model.get_layer("first"), columns=[1])
    small, report = shrink(model, return_report=True)
    assert shape(small, "first") == (4, 2)
    assert report.folded == 1
    assert "1 constant input" in str(report)
    assert_agree(model, small)


@KERASES
def test_a_constant_stays_where_zeros_are_padded(kr):
    model = kr.Sequential(
        [
            kr.Input((6, 6, 2)),
            kr.layers.Conv2D(3, 1, activation="sigmoid", name="first"),
            kr.layers.Conv2D(2, 3, padding="same", name="last"),
        ]
    )
    randomize(model)
    zero(model.get_layer("first"), columns=[1])
    with pytest.warns(PruningWarning, match=r"equal copy\. 1 constant channel stays: .* pads with zeros"):
        small, report = shrink(model, return_report=True)
    assert shape(small, "first") == (1, 1, 2, 3)
    (reason,) = report.held
    assert "pads with zeros" in reason
    assert reason.split("'")[1] == "last"
    assert "1 constant channel stays" in str(report)
    model.get_layer("first").set_weights([model.get_layer("first").get_weights()[0], np.array([1.0, -99.0, 1.0])])
    small = shrink(model)  # the sigmoid is zero now
    assert shape(small, "first") == (1, 1, 2, 2)
    assert_agree(model, small)


@KERASES
def test_a_constant_that_is_not_the_same_everywhere_goes_through_a_flatten(kr):
    model = kr.Sequential(
        [
            kr.Input((5, 5, 2)),
            kr.layers.Conv2D(3, 1, activation="sigmoid", name="first"),
            kr.layers.ZeroPadding2D(1),
            kr.layers.Flatten(),
            kr.layers.Dense(2, name="last"),
        ]
    )
    randomize(model)
    zero(model.get_layer("first"), columns=[1])
    small = shrink(model)
    assert shape(small, "last") == (7 * 7 * 2, 2)
    assert_agree(model, small)


@KERASES
def test_dead_branches_go_as_far_as_they_reach(kr):
    inputs = kr.Input((4,))
    dead = kr.layers.Dense(5, activation="relu", name="deep")(inputs)
    dead = kr.layers.Dense(6, activation="relu", name="branch")(dead)
    alive = kr.layers.Dense(6, name="alive")(inputs)
    joined = kr.layers.Concatenate()([alive, dead])
    model = kr.Model(inputs, kr.layers.Dense(2, name="last")(joined))
    zero(model.get_layer("last"), rows=range(6, 12))
    small = shrink(model)
    assert shape(small, "branch") == (1, 1)
    assert shape(small, "deep") == (4, 1)
    assert shape(small, "alive") == (4, 6)
    assert_agree(model, small)


@KERASES
def test_nothing_to_remove_gives_an_equal_copy(kr):
    model = chain(kr)
    with pytest.warns(PruningWarning, match=r"nothing to remove.*equal copy"):
        small = shrink(model)
    assert small is not model
    assert [tuple(v.shape) for v in small.weights] == [tuple(v.shape) for v in model.weights]
    assert_agree(model, small)


@KERASES
def test_unstructured_sparsity_may_leave_dead_channels(kr):
    inputs = kr.Input((16,))
    x = kr.layers.Dense(64, activation="relu")(inputs)
    model = kr.Model(inputs, kr.layers.Dense(4)(kr.layers.Dense(64, activation="relu")(x)))
    randomize(model)
    prune(model, 0.97)
    small, report = shrink(model, return_report=True)
    assert report.weights[1] < report.weights[0]
    assert_agree(model, small)


@KERASES
def test_convolutions_norms_and_merges(kr):
    layers = kr.layers
    inputs = kr.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.PReLU()(layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x))
    x = layers.Add()([x, layers.Conv2D(16, 1)(y)])
    x = layers.Concatenate()([x, layers.Conv2D(8, 3, padding="same", activation="relu")(x)])
    x = layers.Conv2D(24, 3, groups=4)(x)
    x = layers.SeparableConv2D(10, 3, activation="relu")(x)
    x = layers.Conv2DTranspose(12, 3, strides=2)(layers.MaxPooling2D()(x))
    x = layers.Dense(20, activation="relu")(layers.Flatten()(x))
    gate = layers.Multiply()([layers.Dense(20)(x), layers.Dense(20, activation="sigmoid")(x)])
    model = kr.Model(inputs, {"main": layers.Dense(5)(gate), "side": layers.Dense(2)(x)})
    _, report = masked_and_shrunk(model)
    assert len(report.changed) == len(report.layers)


@KERASES
def test_sequences(kr):
    layers = kr.layers
    inputs = kr.Input((9, 8))
    x = layers.LSTM(12, return_sequences=True)(inputs)
    x = layers.Bidirectional(layers.GRU(6, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(10, activation="tanh"))(x)
    x = layers.Add()([x, layers.MultiHeadAttention(4, 3)(x, x)])
    x = layers.Conv2D(4, 3)(layers.Reshape((9, 12, 1))(layers.Dense(12)(x)))
    model = kr.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    masked_and_shrunk(model, 0.5)


@KERASES
def test_nested_and_shared(kr):
    layers = kr.layers
    block_input = kr.Input((8,))
    block = layers.BatchNormalization()(layers.Dense(8, activation="relu")(block_input))
    block = kr.Model(block_input, layers.Add()([block, block_input]), name="block")
    activate = kr.Sequential([kr.Input((8,)), layers.ReLU(), layers.Dropout(0.5)], name="activate")
    norm = layers.BatchNormalization(name="norm")
    inputs = kr.Input((4,))
    left, right = layers.Dense(8)(inputs), layers.Dense(8)(inputs)
    left, right = norm(block(block(left))), norm(block(right))
    head = layers.Dense(3, name="head")
    other = activate(layers.Dense(8)(inputs))
    model = kr.Model(inputs, [head(left), head(right), layers.Dense(2)(activate(layers.Dense(8)(other)))])
    small, _ = masked_and_shrunk(model)
    assert small.get_layer("block").inputs[0].shape[-1] < 8


@KERASES
def test_a_model_at_each_time_step(kr):
    layers = kr.layers

    def make_frame(channels):
        parts = [layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(6)]
        return layers.TimeDistributed(kr.Sequential([kr.Input((8, 8, channels)), *parts]))

    masked_and_shrunk(kr.Sequential([kr.Input((5, 8, 8, 3)), make_frame(3), layers.LSTM(8), layers.Dense(2)]), 0.5)
    inputs = kr.Input((5, 8, 8, 3))
    hidden = make_frame(8)(layers.TimeDistributed(layers.Conv2D(8, 1))(inputs))
    masked_and_shrunk(kr.Model(inputs, layers.Dense(2)(layers.GRU(4)(hidden))), 0.5)


@KERASES
def test_channels_first_layers_are_cut_on_their_axis(kr):
    layers = kr.layers
    inputs = kr.Input((3, 6))
    x = layers.BatchNormalization(axis=1)(layers.Permute((2, 1))(layers.Dense(8)(inputs)))
    model = kr.Model(inputs, layers.Dense(2)(layers.Permute((2, 1))(x)))
    masked_and_shrunk(model, 0.5)


@KERASES
def test_mixed_precision_is_compared_in_float32(kr):
    layers = kr.layers
    policy = "mixed_bfloat16"
    model = kr.Sequential(
        [
            kr.Input((6,)),
            layers.Dense(16, activation="sigmoid", dtype=policy),
            layers.Dense(16, activation="relu", dtype=policy),
            layers.Dense(2, dtype="float32"),
        ]
    )
    randomize(model)
    assert mask_channels(model, 0.5)
    small, report = shrink(model, return_report=True)
    assert report.difference < 1e-5
    zero(model.layers[0], columns=[np.flatnonzero(model.layers[0].get_weights()[0].any(axis=0))[0]])
    _, report = shrink(model, return_report=True)
    assert report.folded
    assert report.difference < 1e-4
    assert [layer.compute_dtype for layer in small.layers] == [layer.compute_dtype for layer in model.layers]


@KERASES
def test_a_subclassed_model_becomes_functional_where_that_is_wanted(kr):
    class Net(kr.Model):
        def __init__(self):
            super().__init__(name="net")
            self.first = kr.layers.Dense(6, activation="relu", name="first")
            self.last = kr.layers.Dense(2, name="last")

        def call(self, x):
            return self.last(self.first(x) * 2.0)

    model = Net()
    model.compile("adam", "mse")
    model.fit(draw(8, 4), draw(8, 2), verbose=0)
    zero(model.last, rows=[1, 3])
    with pytest.raises(TypeError, match=r"subclassed model.*functional=True"):
        shrink(model)
    small = shrink(model, functional=True)
    assert shape(small, "first") == (4, 4)
    np.testing.assert_allclose(small(draw(3, 4)), model(draw(3, 4)), atol=1e-5)
    assert int(small.optimizer.iterations) == 1
    small.fit(draw(8, 4), draw(8, 2), verbose=0)


@KERASES
def test_data_is_what_is_compared(kr):
    model = chain(kr)
    zero(model.get_layer("last"), rows=[0])
    assert shape(shrink(model, data=draw(5, 4)), "first") == (4, 2)
    with pytest.raises(ValueError, match="data: input"):
        shrink(model, data=draw(5, 3))


@KERASES
def test_wrong_models_are_refused(kr):
    with pytest.raises(TypeError, match=r"expected a keras\.Model"):
        shrink(kr.layers.Dense(2))
    with pytest.raises(ValueError, match="not built"):
        shrink(kr.Sequential([kr.layers.Dense(2)]))


def test_wrappers_come_off_first():
    from tensorflow_model_optimization.sparsity import keras as sparsity

    model = sparsity.prune_low_magnitude(chain(tf_keras))
    with pytest.raises(ValueError, match="strip_pruning"):
        shrink(model)


@KERASES
def test_the_report_is_printed(kr, capsys):
    model = chain(kr)
    zero(model.get_layer("last"), rows=[1])
    _, report = shrink(model, verbose=1, return_report=True)
    text = capsys.readouterr().out
    assert text.strip() == str(report)
    assert "3 -> 2" in text
    assert "outputs equal to" in text
    assert report.to_dict()["weights"] == [*report.weights] or report.to_dict()["weights"] == report.weights
    assert "ShrinkReport" in repr(report)
