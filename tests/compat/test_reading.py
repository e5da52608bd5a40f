"""A model of either Keras is read once, into a description that asks Keras nothing more."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tf_lap import compat
from tf_lap.graph.registry import find_rule
from tf_lap.graph.rule_tables import install_tf_keras, is_transparent

install_tf_keras()
KERASES = pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])


def read(model):
    return compat.read_model(model, lambda layer: find_rule(layer) is not None, is_transparent)


def names_of(graph):
    return [call.layer.name for call in graph.calls]


@KERASES
def test_calls_are_in_topological_order_and_their_tensors_are_the_same_objects(library):
    inputs = library.Input((4,), name="image")
    a = library.layers.Dense(3, name="a")(inputs)
    b = library.layers.Dense(3, name="b")(a)
    model = library.Model(inputs, library.layers.Add(name="sum")([a, b]))
    graph = read(model).graph
    assert names_of(graph) == ["a", "b", "sum"]
    first, second, total = graph.calls
    assert first.inputs == graph.inputs
    assert second.inputs == first.outputs
    assert total.inputs == (*first.outputs, *second.outputs)
    assert graph.outputs == total.outputs
    assert first.outputs[0].shape == (None, 3)
    assert [tensor.producer for tensor in (*graph.inputs, *graph.outputs)] == ["image", "sum"]
    assert not any(tensor.is_boolean for tensor in graph.outputs)


@KERASES
def test_tensors_inside_arguments_are_described_too(library):
    inputs, mask = library.Input((4, 5)), library.Input((4,), dtype="bool")
    out = library.layers.Softmax(axis=1, name="soft")(inputs, mask=mask[:, :, None])
    (*_, soft) = read(library.Model([inputs, mask], out)).graph.calls
    assert soft.layer.name == "soft"
    values = list(soft.arguments.values())
    assert values[0] is soft.inputs[0]
    assert soft.arguments["mask"] is soft.tensors["mask"][0]
    assert soft.arguments["mask"].is_boolean


def test_defaults_come_after_what_was_passed_and_variable_arguments_one_by_one():
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, keras.ops.einsum("bij,bij->bi", inputs, inputs + 1.0))
    call = read(model).graph.calls[-1]
    assert list(call.arguments) == ["operands[0]", "operands[1]"]
    assert call.is_operation


def test_a_function_of_tensorflow_has_its_name():
    inputs = tf_keras.Input((4,))
    (call,) = read(tf_keras.Model(inputs, tf.cumsum(inputs, axis=1))).graph.calls
    assert call.function == "math.cumsum"
    assert call.inside is None


@KERASES
def test_a_nested_model_that_is_called_twice_is_read_once(library):
    tower = library.Sequential([library.Input((4,)), library.layers.Dense(4, name="inner")], name="tower")
    inputs = library.Input((4,))
    model = library.Model(inputs, tower(tower(inputs)))
    first, second = read(model).graph.calls
    assert first.inside.graph is second.inside.graph
    assert second.inside.entering == first.outputs
    assert names_of(first.inside.graph) == ["inner"]


def test_what_is_known_is_not_looked_into():
    class Known(keras.layers.Layer):
        def call(self, x):
            raise AssertionError("it was run")

        def compute_output_shape(self, shape):
            return shape

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Known()(inputs))
    description = compat.read_model(model, lambda layer: isinstance(layer, Known), is_transparent)
    assert description.graph.calls[0].inside is None
    unreadable = read(model).graph.calls[0].inside
    assert isinstance(unreadable, compat.Unreadable)
    assert isinstance(unreadable.error, AssertionError)
    assert "AssertionError: it was run" in unreadable.reason


@KERASES
def test_a_time_step_is_a_call_of_the_inner_layer_without_the_time_axis(library):
    inputs = library.Input((7, 4))
    model = library.Model(inputs, library.layers.TimeDistributed(library.layers.Dense(3, name="inner"))(inputs))
    step = read(model).graph.calls[0].inside
    assert isinstance(step, compat.TimeStep)
    assert step.call.layer.name == "inner"
    assert (step.call.inputs[0].shape, step.call.outputs[0].shape) == ((None, 4), (None, 3))


@KERASES
def test_reading_leaves_no_trace_on_the_model(library):
    class Block(library.layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.dense = library.layers.Dense(4, name="dense")

        def call(self, x):
            return x + self.dense(x)

    block, inputs = Block(), library.Input((4,))
    model = library.Model(inputs, block(inputs))
    x = np.ones((2, 4), np.float32)
    before, nodes = np.asarray(model(x)), [len(layer._inbound_nodes) for layer in (block, block.dense)]
    inside = read(model).graph.calls[0].inside
    assert names_of(inside.graph)[0] == "dense"
    assert [len(layer._inbound_nodes) for layer in (block, block.dense)] == nodes
    np.testing.assert_array_equal(model(x), before)


@KERASES
def test_each_layer_is_listed_once_with_the_path_to_it_and_its_own_weights(library):
    inner = library.layers.Dense(4, name="inner")
    tower = library.Sequential([library.Input((4,)), inner], name="tower")
    inputs = library.Input((4,))
    model = library.Model(inputs, inner(tower(inputs)))
    entries = [entry for entry in read(model).layers if entry.layer in (tower, inner)]
    assert [entry.path for entry in entries] == ["tower", "tower/inner"]
    assert [outer.path for outer in entries[1].lineage()] == ["tower/inner", "tower"]
    assert [len(entry.weights) for entry in entries] == [0, 2]
