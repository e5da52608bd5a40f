import keras
import pytest
import tf_keras

import tf_lap
from tests.helpers.residual import residual

layers = keras.layers


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_a_residual_stream_and_a_depthwise_kernel_go_with_what_they_meet(library):
    groups = tf_lap.channel_groups(residual(library.layers, library))
    assert {name: (g.width, g.producers, g.readers) for name, g in groups.items()} == {
        "stem": (8, ("stem", "project"), ("expand", "head")),
        "expand": (12, ("expand", "depthwise"), ("project",)),
        "head": (4, ("head",), ()),
    }
    assert not groups["stem"].blocked
    assert not groups["expand"].blocked
    assert len(groups["head"].blocked) == 1
    assert "network output" in groups["head"].blocked[0]


def test_a_concatenation_goes_by_its_parts_and_a_flatten_by_blocks():
    inputs = keras.Input((4, 4, 3))
    parts = [layers.Conv2D(width, 1, name=name)(inputs) for width, name in ((2, "first"), (5, "second"))]
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(layers.Concatenate()(parts))))
    groups = tf_lap.channel_groups(model)
    assert [(name, group.width, group.multiple) for name, group in groups.items()] == [
        ("first", 2, 1),
        ("second", 5, 1),
        ("head", 3, 1),
    ]
    # Each channel is 16 inputs of the head.
    tf_lap.prune(model, {"first": 0.5, "second": 0.0}, pattern="channels")
    rows = model.get_layer("head").kernel.numpy().any(axis=1).reshape(16, 7)
    assert rows[:, :2].any(axis=0).sum() == 1
    assert rows[:, 2:].all()


def test_a_head_of_attention_and_a_group_of_a_convolution_are_one_channel():
    inputs = keras.Input((5, 8))
    attended = layers.MultiHeadAttention(4, 2, name="attention")(inputs, inputs)
    x = layers.Conv1D(6, 1, name="wide")(attended)
    x = layers.Conv1D(9, 1, groups=3, name="grouped")(x)
    groups = tf_lap.channel_groups(keras.Model(inputs, layers.Dense(2)(x)))
    assert (groups["attention/query"].width, groups["attention/query"].multiple) == (4, 2)
    assert (groups["wide"].width, groups["wide"].multiple) == (3, 2)
    assert groups["wide"].producers == ("wide", "grouped")


def test_a_layer_of_one_channel_says_why_it_stays():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, name="one"), layers.Dense(2, name="head")])
    assert tf_lap.channel_groups(model)["one"].blocked == ("it has one channel, and one always stays",)


def test_groups_of_one_kernel_have_names_of_their_own():
    inputs = keras.Input((6,))
    both = layers.Dense(4, name="both")(inputs)
    left, right = keras.ops.split(both, 2, axis=-1)
    added = layers.Add()([left, layers.Dense(2, name="other")(inputs)])
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Concatenate()([added, right])))
    # The halves go by pairs, because a split is into equal parts; so both halves meet the other kernel.
    assert [(name, g.width) for name, g in tf_lap.channel_groups(model).items()] == [("both", 2), ("head", 3)]
    joined = layers.Concatenate()([both, layers.Dense(2, name="last")(inputs)])
    added = layers.Add()([joined, layers.Dense(6, name="sum")(inputs)])
    groups = tf_lap.channel_groups(keras.Model(inputs, layers.Dense(3, name="head")(added)))
    assert [(name, group.producers) for name, group in groups.items()] == [
        ("both", ("both", "sum")),
        ("last", ("last", "sum")),
        ("head", ("head",)),
    ]
