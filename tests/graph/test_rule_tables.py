"""Each name in the tables: it is in the library, can be built or called, and has the rule of its table."""

import re

import keras
import pytest
import tensorflow as tf

import tf_lap
from tf_lap import compat
from tf_lap.graph import registry
from tf_lap.graph import rule_tables as tables

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")
tables.install_tf_keras()
ops = keras.ops
NEWEST = keras.__version__.startswith("3.15")

# How an operation is called where it takes more than a tensor of shape (None, 4, 4, 8).
CALLS = {
    "Add": lambda x: x + x,
    "ArraySplit": lambda x: ops.array_split(x, 3, axis=-1),
    "AveragePool": lambda x: ops.average_pool(x, 2),
    "Cast": lambda x: ops.cast(x, "float16"),
    "Clip": lambda x: ops.clip(x, 0.0, 1.0),
    "Concatenate": lambda x: ops.concatenate([x, x]),
    "DepthToSpace": lambda x: ops.depth_to_space(x, 2),
    "Divide": lambda x: ops.divide(x, 2.0),
    "ExpandDims": lambda x: ops.expand_dims(x, 1),
    "FullLike": lambda x: ops.full_like(x, 2.0),
    "GetItem": lambda x: x[..., :4],
    "MaxPool": lambda x: ops.max_pool(x, 2),
    "Maximum": lambda x: ops.maximum(x, x),
    "Minimum": lambda x: ops.minimum(x, x),
    "Moveaxis": lambda x: ops.moveaxis(x, 1, 2),
    "Multiply": lambda x: x * x,
    "Pad": lambda x: ops.pad(x, 1),
    "Power": lambda x: x**2,
    "Repeat": lambda x: ops.repeat(x, 2, axis=-1),
    "ReLU": lambda x: keras.activations.relu(x),
    "Reshape": lambda x: ops.reshape(x, (-1, 128)),
    "SaturateCast": lambda x: ops.saturate_cast(x, "float16"),
    "Slice": lambda x: ops.slice(x, (0, 0, 0, 0), (1, 1, 1, 1)),
    "SpaceToDepth": lambda x: ops.space_to_depth(x, 2),
    "Split": lambda x: ops.split(x, 2, axis=-1),
    "Stack": lambda x: ops.stack([x, x]),
    "Subtract": lambda x: x - x,
    "Swapaxes": lambda x: ops.swapaxes(x, 1, 2),
    "Threshold": lambda x: ops.threshold(x, 0.5, 0.0),
    "TrueDivide": lambda x: x / 2.0,
    "Unstack": lambda x: ops.unstack(x, axis=1),
    "Where": lambda x: ops.where(x > 0, x, x),
}
FUNCTION_CALLS = {
    "__operators__.add": lambda x: x + x,
    "__operators__.getitem": lambda x: x[..., :4],
    "cast": lambda x: tf.cast(x, "float16"),
    "clip_by_value": lambda x: tf.clip_by_value(x, 0.0, 1.0),
    "concat": lambda x: tf.concat([x, x], -1),
    "ensure_shape": lambda x: tf.ensure_shape(x, (None, 4, 4, 8)),
    "expand_dims": lambda x: tf.expand_dims(x, 1),
    "image.resize": lambda x: tf.image.resize(x, (8, 8)),
    "math.add": lambda x: tf.math.add(x, x),
    "math.add_n": lambda x: tf.math.add_n([x, x]),
    "math.maximum": lambda x: tf.math.maximum(x, x),
    "math.minimum": lambda x: tf.math.minimum(x, x),
    "math.multiply": lambda x: x * x,
    "math.pow": lambda x: x**2,
    "math.subtract": lambda x: x - x,
    "math.truediv": lambda x: x / 2.0,
    "nn.avg_pool": lambda x: tf.nn.avg_pool(x, 2, 2, "VALID"),
    "nn.avg_pool1d": lambda x: tf.nn.avg_pool1d(x[:, 0], 2, 2, "VALID"),
    "nn.avg_pool2d": lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"),
    "nn.avg_pool3d": lambda x: tf.nn.avg_pool3d(x[:, None], 1, 1, "VALID"),
    "nn.bias_add": lambda x: tf.nn.bias_add(x, tf.zeros(8)),
    "nn.depth_to_space": lambda x: tf.nn.depth_to_space(x, 2),
    "nn.dropout": lambda x: tf.nn.dropout(x, 0.5),
    "nn.max_pool1d": lambda x: tf.nn.max_pool1d(x[:, 0], 2, 2, "VALID"),
    "nn.max_pool2d": lambda x: tf.nn.max_pool(x, 2, 2, "VALID"),
    "nn.max_pool3d": lambda x: tf.nn.max_pool3d(x[:, None], 1, 1, "VALID"),
    "nn.space_to_depth": lambda x: tf.nn.space_to_depth(x, 2),
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]),
    "repeat": lambda x: tf.repeat(x, 2, axis=-1),
    "reverse": lambda x: tf.reverse(x, [-1]),
    "reshape": lambda x: tf.reshape(x, (-1, 128)),
    "slice": lambda x: tf.slice(x, (0, 0, 0, 0), (1, 1, 1, 1)),
    "split": lambda x: tf.split(x, 2, -1),
    "stack": lambda x: tf.stack([x, x]),
    "unstack": lambda x: tf.unstack(x, axis=1),
    "where": lambda x: tf.where(x > 0, x, x),
}
OPERATIONS = [
    (compat.numpy_ops, tables._NUMPY_OPS),
    (compat.nn_ops, tables._NN_OPS),
    (compat.activation_ops, tables._RELU_OPS),
    (compat.core_ops, tables._CORE_OPS),
    (compat.math_ops, tables._MATH_OPS),
    (compat.linalg_ops, tables._LINALG_OPS),
]


def list_entries(table):
    return [(name, rule) for rule, names in table.items() for name in names.split()]


def require_name(namespace, name):
    """What a module has under a name. Skips the test if it has nothing; the newest release has every name."""
    if not hasattr(namespace, name):
        assert not NEWEST, f"{name} is in no release"
        pytest.skip(f"{name} is not in keras {keras.__version__}")
    return getattr(namespace, name)


@pytest.mark.parametrize(
    ("namespace", "name", "rule"), [(module, *entry) for module, table in OPERATIONS for entry in list_entries(table)]
)
def test_each_operation_of_keras_3_is_matched(namespace, name, rule):
    cls = require_name(namespace, name)
    function = CALLS.get(name) or getattr(ops, re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    out, *_ = keras.tree.flatten(function(keras.Input((4, 4, 8))))
    operation = out._keras_history.operation
    assert type(operation) is cls
    assert registry.find_rule(operation).flow is rule


@pytest.mark.parametrize(("name", "rule"), list_entries(tables._FUNCTIONS))
def test_each_function_of_tensorflow_is_matched(name, rule):
    function = FUNCTION_CALLS.get(name)
    if function is None:
        function = tf
        for part in name.split("."):
            function = getattr(function, part)
    out, *_ = tf.nest.flatten(function(tf_keras.Input((4, 4, 8))))
    layer = out._keras_history.layer
    assert compat.function_name(layer) == name
    assert registry.find_rule(layer).flow is rule


@pytest.mark.parametrize(("name", "rule"), list_entries(tables._LAYERS) + list_entries(tables._KERNELS))
def test_each_layer_is_in_a_library_and_matched(name, rule):
    """That each can be built, and passes energy or is a boundary, is in test_every_layer."""
    libraries = [library for library in (keras, tf_keras) if hasattr(library.layers, name)]
    if not libraries:
        require_name(keras.layers, name)
    for library in libraries:
        registered = registry.RULES[getattr(library.layers, name)]
        assert rule in (registered, getattr(registered, "flow", None))


@pytest.mark.parametrize("name", tables._ACTIVATION_LAYERS.split())
def test_each_activation_layer_is_matched(name):
    for library in (keras, tf_keras):
        if hasattr(library.layers, name):
            layer = getattr(library.layers, name)(*(("relu",) if name == "Activation" else ()))
            assert tables.is_activation(layer)


@pytest.mark.parametrize("name", tables._ACTIVATION_OPS.split())
def test_each_activation_operation_is_matched(name):
    assert issubclass(require_name(compat.nn_ops, name), keras.Operation)
    function = CALLS.get(name) or getattr(ops, re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    assert tables.is_activation(function(keras.Input((4, 4, 8)))._keras_history.operation)


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_each_activation_as_a_function_is_followed(library):
    functions = {
        name: function
        for name, function in vars(library.activations).items()
        if callable(function) and name not in ("get", "serialize", "deserialize", "threshold")
    }
    assert "relu" in functions
    for name, function in functions.items():
        inputs = library.Input((6,))
        hidden = library.layers.Dense(8, name="a")(inputs)
        try:
            hidden = function(hidden)
        except ValueError:  # some take no symbolic tensors
            assert name in ("hard_silu", "hard_swish", "mish", "sparsemax")
            continue
        model = library.Model(inputs, library.layers.Dense(4, name="b")(hidden))
        neighbors = tf_lap.neighbors(model)["a"]
        if name == "glu":  # halves its channels
            assert "Glu 'glu' has no channel rule" in neighbors.boundaries[-1]
        else:
            assert neighbors.following == ("b",), name


@pytest.mark.parametrize("name", tables._ACTIVATION_FUNCTIONS.split())
def test_each_activation_function_is_matched(name):
    group, function = name.split(".")
    layer = getattr(getattr(tf, group), function)(tf_keras.Input((8,)))._keras_history.layer
    assert compat.function_name(layer) == name
    assert tables.is_activation(layer)
    assert registry.find_rule(layer) is not None


def test_names_that_mean_one_function_are_one():
    x = tf_keras.Input((8,))
    for function in (tf.nn.sigmoid, tf.nn.swish, tf.nn.tanh, tf.nn.softplus, tf.nn.l2_normalize, tf.abs):
        out = function(x)
        assert registry.find_rule(out._keras_history.layer) is not None
