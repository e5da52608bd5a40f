"""Random networks of all kinds of couplings: masked by hand and shrunk, they put out the same."""

import random

import keras
import pytest
import tf_keras
from helpers.shrunk import masked_and_shrunk, randomize, shrunk, zero_channels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}
SIZE = 8


class Drawn:
    """A graph of images in the making; the layers are drawn by a generator of their own."""

    def __init__(self, kr, seed):
        self.layers, self.models, self.random = kr.layers, kr, random.Random(seed)
        self.inputs = [kr.Input((SIZE, SIZE, 3)), kr.Input((SIZE, SIZE, 4))][: self.random.choice([1, 1, 2])]
        self.tensors = [self.conv(tensor) for tensor in self.inputs]
        self.blocks = {}

    def width(self):
        return self.random.choice([2, 4, 6, 8])

    def conv(self, x, width=None, size=1):
        width = width or self.width()
        bias, activation = self.random.random() < 0.7, self.random.choice([None, "relu", "sigmoid"])
        return self.layers.Conv2D(width, size, padding="same", use_bias=bias, activation=activation)(x)

    def pick(self):
        return self.random.choice(self.tensors)

    def plain(self):
        return self.conv(self.pick(), size=3)

    def norm(self):
        x = self.layers.BatchNormalization()(self.pick())
        return self.random.choice([self.layers.ReLU(), self.layers.PReLU(shared_axes=[1, 2]), self.layers.PReLU()])(x)

    def residual(self):
        x = self.pick()
        return self.layers.Add()([x, self.conv(x, x.shape[-1], 3)])

    def operators(self):
        x = self.pick()
        return x * 0.5 - self.conv(self.pick(), x.shape[-1])

    def dense_block(self):
        x, y = self.pick(), self.pick()
        return self.layers.Concatenate()([x, self.conv(x), y])

    def gate(self):
        x = self.pick()
        return self.layers.Multiply()([x, self.conv(x, x.shape[-1])])

    def squeeze(self):
        x = self.pick()
        y = self.layers.GlobalAveragePooling2D(keepdims=True)(x)
        y = self.layers.Dense(x.shape[-1], activation="sigmoid")(self.layers.Dense(3, activation="relu")(y))
        return self.layers.Multiply()([x, y])

    def depthwise(self):
        multiplier = self.random.choice([1, 2])
        return self.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=multiplier)(self.pick())

    def separable(self):
        return self.layers.SeparableConv2D(self.width(), 3, padding="same")(self.pick())

    def grouped(self):
        x = self.conv(self.pick(), 6)
        return self.layers.Conv2D(self.random.choice([3, 6]), 3, padding="same", groups=3)(x)

    def transposed(self):
        x = self.layers.MaxPooling2D()(self.pick())
        return self.layers.Conv2DTranspose(self.width(), 2, strides=2)(x)

    def nested(self):
        """A model in the model, which is called again where one of this width is there already."""
        x = self.pick()
        width = x.shape[-1]
        if width not in self.blocks:
            entering = self.models.Input((SIZE, SIZE, width))
            y = self.layers.BatchNormalization()(self.conv(entering, width, 3))
            self.blocks[width] = self.models.Model(entering, self.layers.Add()([entering, y]))
        return self.blocks[width](x)

    def shared(self):
        layer = self.layers.Conv2D(4, 1)
        x = self.pick()
        return self.layers.Maximum()([layer(x), layer(self.conv(x, x.shape[-1]))])

    def reshaped(self):
        x = self.conv(self.pick(), 8)
        reshaped = self.layers.Reshape((SIZE * SIZE, 8))(x)
        return self.layers.Reshape((SIZE, SIZE, 4))(self.layers.Dense(4)(reshaped))

    def attention(self):
        x = self.layers.Reshape((SIZE * SIZE, -1))(self.conv(self.pick(), 6))
        x = self.layers.Add()([x, self.layers.MultiHeadAttention(3, 2)(x, x)])
        return self.layers.Reshape((SIZE, SIZE, 6))(x)

    def head(self):
        x = self.pick()
        if self.random.random() < 0.5:
            x = self.layers.Flatten()(self.layers.AveragePooling2D(2)(x))
        else:
            x = self.layers.GlobalMaxPooling2D()(x)
        return self.layers.Dense(3)(self.layers.Dense(5, activation="relu")(x))

    def finish(self):
        outputs = [self.head() for _ in range(self.random.choice([1, 2, 3]))]
        last = self.layers.GlobalAveragePooling2D()(self.tensors[-1])
        return self.models.Model(self.inputs, [*outputs, self.layers.Dense(2)(last)])


KINDS = (
    *("plain", "norm", "residual", "operators", "dense_block", "gate", "squeeze", "depthwise", "separable", "grouped"),
    *("transposed", "nested", "shared", "reshaped", "attention"),
)
GRAPHS = {"kinds": st.lists(st.sampled_from(KINDS), min_size=2, max_size=8), "seed": st.integers(0, 10_000)}


def build(kr, kinds, seed):
    drawn = Drawn(kr, seed)
    for kind in kinds:
        drawn.tensors.append(getattr(drawn, kind)())
    return drawn.finish()


def check(kr, kinds, seed):
    masked_and_shrunk(build(kr, kinds, seed), random.Random(seed).choice([0.2, 0.5, 0.8]), seed)


def check_zeros(kr, kinds, seed):
    model = build(kr, kinds, seed)
    randomize(model, seed)
    zero_channels(model, random.Random(seed).choice([0.1, 0.3, 0.6]), seed)
    shrunk(model)


@settings(max_examples=15, **SETTINGS)
@given(**GRAPHS)
def test_drawn_graphs(kinds, seed):
    check(keras, kinds, seed)


@settings(max_examples=8, **SETTINGS)
@given(**GRAPHS)
def test_drawn_graphs_of_tf_keras(kinds, seed):
    check(tf_keras, kinds, seed)


@settings(max_examples=12, **SETTINGS)
@given(**GRAPHS, is_legacy=st.booleans())
def test_zeros_that_follow_no_coupling(kinds, seed, is_legacy):
    check_zeros(tf_keras if is_legacy else keras, kinds, seed)


@pytest.mark.parametrize("kr", [keras, tf_keras])
@pytest.mark.parametrize(("kinds", "seed"), [(["residual", "grouped"], 85), (["plain", "grouped"], 84)])
def test_a_dead_group_has_no_share_in_what_stays(kr, kinds, seed):
    """A convolution by groups reads a constant, and nothing reads what that group puts out."""
    check_zeros(kr, kinds, seed)


def test_what_stays_so_that_no_tensor_is_empty_may_be_read_by_what_comes_alive_later():
    """The first channel of a residual stream of constants, behind which a whole head puts out constants too."""
    check_zeros(keras, ["dense_block", "attention", "norm", "nested", "gate", "operators"], 65259)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check, check_zeros])
@settings(max_examples=30, **SETTINGS)
@given(**GRAPHS, is_legacy=st.booleans())
def test_many_drawn_graphs(check, kinds, seed, is_legacy):
    check(tf_keras if is_legacy else keras, kinds, seed)
