"""Multiply-accumulates against TensorFlow's own count of operations, and against figures worked out by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import layers
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import tf_lap

COUNTED = {"MatMul", "BatchMatMul", "BatchMatMulV2", "Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput"}


def profiled(model, batch_size=1):
    """Half the floating-point operations that TensorFlow's profiler finds in a model's graph."""
    specs = [tf.TensorSpec((batch_size, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs]
    function = tf.function(lambda *inputs: model(inputs[0] if len(inputs) == 1 else list(inputs), training=False))
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(*specs))
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation()).with_empty_output().build()
    pending, flops = [profiler.profile(frozen.graph, options=options, cmd="op")], 0
    while pending:
        node = pending.pop()
        pending += node.children
        if node.name in COUNTED:  # its total holds those of the operations below it in the list
            flops += node.total_float_ops - sum(child.total_float_ops for child in node.children)
    return flops / 2


def convolutional(keras):
    layers = keras.layers
    x = inputs = keras.Input((15, 13, 4))
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = layers.SeparableConv2D(10, 3, strides=2, padding="same")(x)
    x = layers.Conv2DTranspose(5, 3, strides=2, padding="same")(x)
    x = layers.Conv2D(4, (3, 1), dilation_rate=2, padding="same")(x)
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(7)(x)))


@pytest.mark.parametrize("flavour", [keras, tf_keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_convolutions_take_what_the_profiler_counts(flavour, batch_size):
    model = convolutional(flavour)
    report = tf_lap.cost(model, batch_size)
    assert report.macs == profiled(model, batch_size)
    assert not report.uncounted


@pytest.mark.parametrize("flavour", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_nested_and_shared_layers_count_each_use_and_their_weights_once(flavour):
    layers = flavour.layers
    block = flavour.Sequential(
        [flavour.Input((8, 8, 3)), layers.Conv2D(3, 3, padding="same", name="inner")], name="block"
    )
    dense = layers.Dense(5, name="shared")
    first, second = flavour.Input((8, 8, 3)), flavour.Input((8, 8, 3))
    outputs = [dense(layers.GlobalAveragePooling2D()(block(block(x)))) for x in (first, second)]
    model = flavour.Model([first, second], layers.Add()(outputs))
    report = tf_lap.cost(model)
    by_path = {layer.path: layer for layer in report.layers}
    assert by_path["block/inner"].macs == 4 * 64 * 81
    assert by_path["block/inner"].uses == 4
    assert by_path["block/inner"].weights == 84
    assert (by_path["shared"].macs, by_path["shared"].weights) == (2 * 15, 20)
    assert report.macs == profiled(model)
    assert report.weights == model.count_params()


@pytest.mark.parametrize("flavour", [keras, tf_keras], ids=["keras", "tf_keras"])
@pytest.mark.parametrize(("name", "gates"), [("SimpleRNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_recurrent_kernels_count_at_each_step(flavour, name, gates):
    layers = flavour.layers
    inputs = flavour.Input((7, 5))
    x = getattr(layers, name)(6, return_sequences=True)(inputs)
    x = layers.Bidirectional(getattr(layers, name)(3))(x)
    model = flavour.Model(inputs, x)
    first, second = 7 * gates * 6 * (5 + 6), 2 * 7 * gates * 3 * (6 + 3)
    assert tf_lap.cost(model, 2).macs == 2 * (first + second)


def test_stacked_cells_and_convolutional_cells_count_at_each_step():
    cells = layers.StackedRNNCells([layers.LSTMCell(4), layers.LSTMCell(3)])
    model = keras.Sequential([keras.Input((6, 5)), layers.RNN(cells)])
    assert tf_lap.cost(model).macs == 6 * 4 * (4 * (5 + 4) + 3 * (4 + 3))
    model = keras.Sequential([keras.Input((6, 8, 8, 2)), layers.ConvLSTM2D(3, 3, padding="same")])
    assert tf_lap.cost(model).macs == 6 * 64 * 9 * 4 * 3 * (2 + 3)


@pytest.mark.parametrize("flavour", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_the_layer_in_a_time_distributed_one_counts_at_each_step(flavour):
    layers = flavour.layers
    block = flavour.Sequential([flavour.Input((8, 8, 2)), layers.Conv2D(3, 3), layers.GlobalAveragePooling2D()])
    model = flavour.Sequential([flavour.Input((5, 8, 8, 2)), layers.TimeDistributed(block), layers.Dense(4)])
    report = tf_lap.cost(model)
    assert report.macs == 5 * (36 * 54 + 12)
    assert report.weights == model.count_params()


@pytest.mark.parametrize("flavour", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_attention_counts_its_kernels_and_its_products(flavour):
    layers = flavour.layers
    query, value = flavour.Input((9, 12)), flavour.Input((7, 10))
    attended = layers.MultiHeadAttention(3, 4, value_dim=5)(query, value)
    model = flavour.Model([query, value], attended)
    kernels = 9 * 12 * 12 + 7 * 10 * (12 + 15) + 9 * 15 * 12
    products = 3 * 9 * 7 * (4 + 5)
    assert tf_lap.cost(model, 2).macs == 2 * (kernels + products)


@pytest.mark.parametrize("flavour", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_attention_without_kernels_counts_its_products(flavour):
    query, value = flavour.Input((9, 12)), flavour.Input((7, 12))
    for name in ("Attention", "AdditiveAttention"):
        attended = getattr(flavour.layers, name)()([query, value])
        assert tf_lap.cost(flavour.Model([query, value], attended)).macs == 2 * 9 * 7 * 12


def test_grouped_attention_and_equations():
    query = keras.Input((9, 12))
    model = keras.Model(query, layers.GroupQueryAttention(4, 6, 2)(query, query))
    kernels = 9 * 12 * 4 * (6 + 2 + 2 + 6)
    assert tf_lap.cost(model).macs == kernels + 2 * 6 * 9 * 9 * 4
    inputs = keras.Input((5, 6, 8))
    by_head = layers.EinsumDense("abcd,cde->abce", (None, 6, 3))(inputs)
    assert tf_lap.cost(keras.Model(inputs, by_head)).macs == 5 * 6 * 8 * 3


def test_a_transposed_convolution_counts_at_each_position_that_it_reads():
    model = keras.Sequential([keras.Input((6, 6, 5)), layers.Conv2DTranspose(5, 3, strides=2, padding="valid")])
    assert tf_lap.cost(model).macs == 36 * 225


def test_a_grouped_convolution_counts_the_weights_it_has():
    model = keras.Sequential([keras.Input((8, 8, 6)), layers.Conv2D(9, 3, groups=3, padding="same")])
    assert tf_lap.cost(model).macs == 64 * 9 * 2 * 9


@pytest.mark.parametrize("flavour", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_a_table_that_is_looked_up_multiplies_nothing(flavour):
    layers = flavour.layers
    inputs = flavour.Input((9,), dtype="int32")
    model = flavour.Model(inputs, layers.Dense(2)(layers.Embedding(50, 4)(inputs)))
    report = tf_lap.cost(model)
    assert (report.macs, report.weights) == (9 * 8, 210)


def test_a_tied_table_multiplies_on_its_way_back():
    inputs = keras.Input((9,), dtype="int32")
    embedding = layers.ReversibleEmbedding(50, 4)
    model = keras.Model(inputs, embedding(embedding(inputs), reverse=True))
    assert tf_lap.cost(model).macs == 9 * 200


def test_a_table_for_the_way_back_that_nothing_uses_multiplies_nothing():
    inputs = keras.Input((9,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(2)(layers.ReversibleEmbedding(50, 4, tie_weights=False)(inputs)))
    report = tf_lap.cost(model)
    assert (report.macs, report.weights) == (9 * 8, 410)
    assert not report.uncounted


def test_positions_that_a_reshape_puts_into_the_batch_axis_count():
    inputs = keras.Input((6, 4))
    rows = keras.ops.reshape(inputs, (-1, 4))
    model = keras.Model(inputs, keras.ops.reshape(layers.Dense(3)(rows), (-1, 6, 3)))
    assert tf_lap.cost(model, 2).macs == 2 * 6 * 12


class Windows(layers.Layer):
    """Reckons with the sizes of its tensors, and multiplies by a matrix of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(5, name="inner")

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 3), name="matrix")
        self.inner.build((None, None, 3))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 5)

    def call(self, inputs):
        batch, positions, width = inputs.shape
        rows = keras.ops.matmul(keras.ops.reshape(inputs, (batch * positions, width)), self.matrix)
        return self.inner(keras.ops.reshape(rows, (batch, positions, 3)))


def test_a_custom_layer_is_followed_with_its_sizes():
    inputs = keras.Input((6, 4))
    report = tf_lap.cost(keras.Model(inputs, Windows(name="windows")(inputs)), 2)
    assert report.macs == 2 * 6 * (12 + 15)
    assert {layer.path: layer.weights for layer in report.layers if layer.weights} == {
        "windows": 12,
        "windows/inner": 20,
    }
    assert not report.uncounted


def test_weights_that_are_zero_do_not_count_among_those_that_are_not():
    model = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.Conv2D(10, 3, padding="same"), layers.Flatten(), layers.Dense(2)]
    )
    tf_lap.prune(model, 0.75, allocation="uniform")
    report = tf_lap.cost(model)
    assert report.nonzero == sum(np.count_nonzero(weight) for weight in model.get_weights())
    assert report.nonzero_macs == 64 * 90 + 320
    assert report.macs == 64 * 360 + 1280


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("MobileNetV2", 300e6, 301e6),  # Sandler et al., table 4: 300M
        ("ResNet50", 3.8e9, 4.1e9),  # He et al., table 1: 3.8e9, without the shortcuts
        ("VGG16", 15.4e9, 15.5e9),
        ("EfficientNetB0", 0.38e9, 0.40e9),  # Tan and Le, table 2: 0.39B
        ("ConvNeXtTiny", 4.4e9, 4.5e9),  # Liu et al., table 1: 4.5G
    ],
)
def test_models_of_keras_take_what_their_papers_say(name, least, most):
    report = tf_lap.cost(getattr(keras.applications, name)(weights=None))
    assert least < report.macs < most
    assert not report.uncounted
