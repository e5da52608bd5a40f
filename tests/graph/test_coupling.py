import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.coupled import draw_network, find_meeting
from tf_lap.graph.coupling import UnionFind, find_coupling
from tf_lap.graph.resolver import resolve

layers = keras.layers


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
def test_classes_are_the_channels_that_meet(seed):
    check_classes(seed)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_classes_are_the_channels_that_meet_in_many_networks(seed):
    check_classes(seed)


def check_classes(seed):
    """Channels have one class if and only if a chain of changes, or a group of a convolution, joins them."""
    model, cut, kernels = draw_network(seed)
    recipe = resolve(model)
    coupling = find_coupling(recipe)
    numbers = [[kernel.layer for kernel in recipe.kernels].index(layer) for layer in kernels]
    places = {}  # of what kernels put out and read, and the class of each
    for kernel, number in enumerate(numbers):
        places |= {("put", kernel, i): c for i, c in enumerate(coupling.kernel_outputs[number])}
        places |= {("read", kernel, i): c for i, c in enumerate(coupling.kernel_inputs[number])}
    order = {place: i for i, place in enumerate(places)}
    forest = UnionFind(len(order))

    def join(first, second):
        forest.join(np.array([order[first]]), np.array([order[second]]))

    read_from_input = set()
    for (source, channel), (kernel, other) in find_meeting(cut):
        if source and kernel < len(kernels):
            join(("put", source - 1, channel), ("read", kernel, other))
        elif kernel < len(kernels):
            read_from_input.add(("read", kernel, other))
    for kernel, layer in enumerate(kernels):
        groups = getattr(layer, "groups", 1)
        widths = {"put": layer.kernel.shape[-1], "read": layer.kernel.shape[-2] * groups}
        for side, width in widths.items():
            for channel in range(width if groups > 1 else 0):
                join((side, kernel, channel), ("read", kernel, channel * groups // width * widths["read"] // groups))
    # The channels of the network's input are one class, which is walled, though they never meet.
    compared = [place for place in places if place not in read_from_input]
    brute = forest.find(np.array([order[place] for place in compared])).tolist()
    found = [int(places[place]) for place in compared]
    assert len(set(zip(brute, found, strict=True))) == len(set(brute)) == len(set(found))
    assert all(int(places[place]) in coupling.walls for place in read_from_input)


def test_a_grouped_convolution_goes_by_groups():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="wide")(inputs)
    model = keras.Model(inputs, layers.Conv2D(2, 3)(layers.Conv2D(12, 3, groups=3, name="grouped")(x)))
    recipe = resolve(model)
    coupling = find_coupling(recipe)
    classes = coupling.kernel_outputs[1]
    assert [len(set(group)) for group in classes.reshape(3, 4)] == [1, 1, 1]
    assert len(set(classes)) == 3
    np.testing.assert_array_equal(coupling.kernel_outputs[0].reshape(3, 2)[:, 0], classes.reshape(3, 4)[:, 0])


def test_heads_go_whole():
    inputs = keras.Input((5, 8))
    attended = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    recipe = resolve(keras.Model(inputs, layers.Dense(4)(attended)))
    coupling = find_coupling(recipe)
    heads = {k.path: c for k, c in zip(recipe.kernels, coupling.kernel_outputs, strict=True) if k.path != "dense"}
    query, key, value = (heads[f"attention/{name}"].reshape(2, 3) for name in ("query", "key", "value"))
    assert len(set(query[0])) == 1
    assert query[0, 0] != query[1, 0]
    np.testing.assert_array_equal(query, key)
    np.testing.assert_array_equal(query, value)
    assert not set(query.ravel()) & set(coupling.walls)


def test_units_of_a_recurrent_layer_go_with_their_gates():
    inputs = keras.Input((5, 3))
    recipe = resolve(keras.Model(inputs, layers.Dense(2)(layers.LSTM(4, name="lstm")(inputs))))
    coupling = find_coupling(recipe)
    by_path = {kernel.path: number for number, kernel in enumerate(recipe.kernels)}
    gates = coupling.kernel_outputs[by_path["lstm/kernel"]].reshape(4, 4)
    assert all(len(set(unit)) == 1 for unit in gates.T)
    assert len(set(gates[0])) == 4
    recurrent = by_path["lstm/recurrent_kernel"]
    np.testing.assert_array_equal(coupling.kernel_inputs[recurrent], gates[0])
    np.testing.assert_array_equal(coupling.kernel_outputs[recurrent].reshape(4, 4), gates)


class Rescaled(layers.Layer):
    """A layer with a weight of its own for each channel."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.gamma


WALLS = {
    "a layer normalization": (lambda: layers.LayerNormalization(), "takes all its channels together"),
    "a group normalization": (lambda: layers.GroupNormalization(2), "takes all its channels together"),
    "a softmax": (lambda: layers.Softmax(), "takes all its channels together"),
    "a softmax by name": (lambda: layers.Activation("softmax"), "takes all its channels together"),
    "a slice": (lambda: layers.Lambda(lambda x: x[..., :4]), "split into equal parts"),
    "a custom layer": (Rescaled, "its own code"),
    "a constant": (lambda: layers.Rescaling(list(range(1, 7))), "its constant has the shape"),
    "a mask": (lambda: layers.Masking(), "takes all its channels together"),
}


@pytest.mark.parametrize("wall", WALLS)
def test_a_wall_has_its_reason(wall):
    make, reason = WALLS[wall]
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, layers.Dense(2)(make()(layers.Dense(6, name="before")(inputs))))
    coupling = find_coupling(resolve(model))
    reasons = [coupling.walls.get(number, ()) for number in coupling.kernel_outputs[0]]
    assert len(reasons) == 6
    assert all(any(reason in text for text in texts) for texts in reasons)


def test_halves_of_a_split_go_by_pairs():
    inputs = keras.Input((3,))
    first, second = keras.ops.split(layers.Dense(8, name="both")(inputs), 2, axis=-1)
    gated = layers.Multiply()([first, layers.Activation("sigmoid")(second)])
    coupling = find_coupling(resolve(keras.Model(inputs, layers.Dense(2)(gated))))
    halves = coupling.kernel_outputs[0].reshape(2, 4)
    np.testing.assert_array_equal(halves[0], halves[1])
    assert len(set(halves[0])) == 4
    assert not set(halves[0]) & set(coupling.walls)
    apart = layers.Concatenate()([layers.Dense(2)(first), layers.Dense(2)(second)])
    coupling = find_coupling(resolve(keras.Model(inputs, apart)))
    halves = coupling.kernel_outputs[0].reshape(2, 4)
    np.testing.assert_array_equal(halves[0], halves[1])


def test_a_mask_of_positions_does_not_couple_the_channels_that_it_acts_on():
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(6, 1, name="wide")(inputs)
    mask = layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x)
    coupling = find_coupling(resolve(keras.Model(inputs, layers.Conv2D(2, 1)(layers.Multiply()([x, mask])))))
    assert len(set(coupling.kernel_outputs[0])) == 6
    assert not set(coupling.kernel_outputs[0]) & set(coupling.walls)


def test_what_meets_the_input_cannot_go():
    inputs = keras.Input((4, 4, 3))
    same = layers.Conv2D(3, 3, padding="same", name="same")(inputs)
    coupling = find_coupling(resolve(keras.Model(inputs, layers.Conv2D(2, 1)(layers.Add()([inputs, same])))))
    assert all("network input" in coupling.walls[number][0] for number in coupling.kernel_outputs[0])
