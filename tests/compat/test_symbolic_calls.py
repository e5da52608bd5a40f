"""Calls that work when a model runs, and that Keras makes no node of on symbolic tensors."""

import threading

import keras
import numpy as np
import pytest
from keras.src.backend.common.variables import Variable
from keras.src.ops.node import Node

import tf_lap
from tf_lap.compat.keras3.symbolic_calls import admit_more_calls

layers, ops = keras.layers, keras.ops


class Attention(layers.Layer):
    """Attention to earlier positions, whose mask takes the number of positions."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.kernels = [layers.Dense(4, name=name) for name in ("query", "key", "value")]

    def build(self, shape):
        for kernel in self.kernels:
            kernel.build(shape)

    def call(self, x):
        query, key, value = (kernel(x) for kernel in self.kernels)
        places = ops.arange(ops.shape(x)[1])
        is_later = places[:, None] < places[None, :]
        scores = ops.where(is_later, -1e9, ops.einsum("btd,bsd->bts", query, key))
        return ops.einsum("bts,bsd->btd", ops.softmax(scores), value), None

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype), None


class CachedAttention(layers.MultiHeadAttention):
    """An argument more than the layer that it inherits `compute_output_spec` from."""

    def call(self, query, value, cache=None):
        assert cache is None
        return super().call(query, value), cache


class Table(layers.Layer):
    """Puts out a table, whatever it reads."""

    def build(self, shape):
        self.table = self.add_weight(name="table", shape=(1, 1, shape[-1]))

    def call(self, x):
        return ops.square(self.table)

    def compute_output_shape(self, shape):
        return (1, 1, shape[-1])


class Block(layers.Layer):
    """Calls a layer, and then a function of a scale and what the layer returns."""

    def __init__(self, layer, function=lambda scale, outputs: outputs, **kwargs):
        super().__init__(**kwargs)
        self.layer, self.function = layer, function

    def build(self, shape):
        self.layer.build(shape)
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="random_normal")

    def call(self, x):
        return self.function(self.scale, self.layer(x))


def build(block, shape=(None, 4)):
    inputs = keras.Input(shape)
    x = block(layers.Dense(4, name="before")(inputs))
    return keras.Model(inputs, layers.Dense(3, name="behind")(x))


def around(model, path):
    neighbors = tf_lap.neighbors(model)[path]
    return neighbors.previous, neighbors.following


def test_a_call_that_reckons_with_sizes_is_followed_where_they_are_open():
    model = build(Block(Attention(name="attention"), lambda scale, outputs: outputs[0], name="block"))
    assert around(model, "block/attention/query") == (("before",), ("block/attention/key",))
    assert around(model, "block/attention/value") == (("before",), ("behind",))
    assert around(model, "behind") == (("block/attention/value",), ())


def test_an_argument_that_an_inherited_specification_does_not_know_is_followed():
    class Caller(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.attention = CachedAttention(2, 3, name="attention")

        def build(self, shape):
            self.attention.build(shape, shape)

        def call(self, x):
            return self.attention(x, x, cache=None)[0]

        def compute_output_shape(self, shape):
            return shape

    model = build(Caller(name="caller"))
    assert around(model, "caller/attention/value") == (("before",), ("caller/attention/attention_output",))


def test_a_dense_layer_whose_call_is_run_by_another_layer_is_a_kernel():
    class Direct(Block):
        def call(self, x):
            return self.layer.call(x)

    model = build(Direct(layers.Dense(4, name="inner"), name="block"))
    assert around(model, "block/inner") == (("before",), ("behind",))


def test_a_variable_may_be_the_left_operand():
    block = Block(layers.Dense(4, name="inner"), lambda scale, x: scale * x + (1.0 - scale), name="block")
    model = build(block)
    put = (block.layer.kernel.numpy() ** 2).sum(0) * block.scale.numpy() ** 2
    np.testing.assert_allclose(tf_lap.channel_energies(model)["behind"].incoming, put, rtol=1e-5)


def test_a_constant_that_a_layer_puts_out_carries_no_channels():
    inputs = keras.Input((None, 4))
    x = layers.Dense(4, name="before")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="behind")(layers.Add()([x, Table(name="table")(x)])))
    neighbors = tf_lap.neighbors(model)
    assert neighbors["behind"].previous == ("before",)
    assert neighbors["before"].following == ("behind",)
    assert all(reason.startswith("network ") for path in neighbors for reason in neighbors[path].boundaries)


def test_a_kernel_that_is_called_on_constants_alone_says_so():
    class OnConstants(Block):
        def call(self, x):
            return x + self.layer(ops.ones((1, 1, 4)))

    model = build(OnConstants(layers.Dense(4, name="inner"), name="block"))
    (reason,) = tf_lap.neighbors(model)["block/inner"].boundaries
    assert reason == "OnConstants 'block' calls it on constants alone, or not at all"


def test_the_error_is_that_of_the_call_with_sizes():
    class Stubborn(Block):
        def call(self, x):
            if ops.shape(x)[1] is None:
                raise ValueError("not known")
            raise ValueError("known, and refused")

        def compute_output_shape(self, shape):
            return shape

    model = build(Stubborn(layers.Dense(4, name="inner"), name="block"))
    assert any("known, and refused" in reason for reason in tf_lap.neighbors(model)["before"].boundaries)


@pytest.mark.parametrize("fails", [False, True])
def test_keras_is_left_as_it_was(fails):
    originals = Node.__init__, keras.Layer.symbolic_call, Variable.__mul__

    def function(scale, x):
        if fails:
            raise ValueError("refused")
        return scale * x

    block = Block(layers.Dense(4), function, name="block")
    if fails:
        block.compute_output_shape = lambda shape: shape
    tf_lap.neighbors(build(block))
    assert originals == (Node.__init__, keras.Layer.symbolic_call, Variable.__mul__)


def test_keras_is_left_as_it_was_by_two_threads():
    originals = Node.__init__, keras.Layer.symbolic_call, Variable.__mul__
    has_begun, may_end = threading.Event(), threading.Event()

    def begin_first():
        with admit_more_calls():
            has_begun.set()
            may_end.wait(timeout=0.2)

    first = threading.Thread(target=begin_first)
    first.start()
    assert has_begun.wait(timeout=10)
    with admit_more_calls():  # waits for the other one
        may_end.set()
        first.join()
    assert originals == (Node.__init__, keras.Layer.symbolic_call, Variable.__mul__)
