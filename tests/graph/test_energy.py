import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lap
from tf_lap.graph.energy import measure_kernels, sweep
from tf_lap.graph.resolver import resolve
from tf_lap.pruning.traced_update import TracedUpdater

layers = keras.layers

# What would run Python, or copy to the host, or read a file, inside the graph.
HOST_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "NumpyFunction", "Print", "PrintV2", "HostConst", "_HostCast"}


def randomize(model, seed=0):
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        drawn = rng.standard_normal(variable.shape)
        variable.assign(np.abs(drawn) + 0.2 if "variance" in variable.name else drawn)
    return model


def build_small_convolutional():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(32, 3, name="conv")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.SeparableConv2D(32, 3, padding="same", depth_multiplier=2, name="separable")(x)
    y = layers.Conv2D(32, 1, groups=4, name="grouped")(x)
    x = layers.Dense(5, name="dense")(layers.Flatten()(layers.ReLU()(x + y)))
    return randomize(keras.Model(inputs, x))


def trace_functions(model):
    """What a pruner runs from its second update on: variables to kernel energies, and those to all energies."""
    traced = TracedUpdater(tf_lap.Pruner(model)._engine.updater)
    measure = traced.traced_measure.get_concrete_function({})
    kernel_energies, _ = measure()
    return measure, traced.traced_around.get_concrete_function(kernel_energies, {})


def list_operation_types(function):
    graph = function.graph
    inner = [node.op for f in graph.as_graph_def().library.function for node in f.node_def]
    return {op.type for op in graph.get_operations()} | set(inner)


def test_the_sweep_is_one_graph_without_host_code_or_baked_in_weights():
    model = build_small_convolutional()
    measure, all_energies = trace_functions(model)
    for function in (measure, all_energies):
        kinds = list_operation_types(function)
        assert "Mul" in kinds or "Square" in kinds
        assert not kinds & HOST_OPS
        assert not {kind for kind in kinds if "Py" in kind or "Host" in kind or "File" in kind}
        # Constants are scalars, or integers such as numbers of channels: no weight went through NumPy into the graph.
        operations = function.graph.get_operations()
        constants = [op for op in operations if op.type == "Const" and op.outputs[0].dtype.is_floating]
        assert max(op.outputs[0].shape.num_elements() for op in constants) <= 8
    kernels = [v for v in model.trainable_variables if v.name in ("kernel", "pointwise_kernel")]
    assert len(kernels) == 4
    assert {v.value.ref() for v in kernels} <= {v.ref() for v in measure.variables}
    between = [v for v in model.variables if v.name in ("gamma", "moving_variance", "depthwise_kernel")]
    assert len(between) == 3
    assert {v.value.ref() for v in between} <= {v.ref() for v in all_energies.variables}
    # Both directions are in the one graph.
    assert len(all_energies.structured_outputs[0][1]) == 5


def test_the_traced_sweep_sees_new_weights():
    model = build_small_convolutional()
    traced = TracedUpdater(tf_lap.Pruner(model)._engine.updater)
    traced.energies_around(traced.measure({})[0], {})
    randomize(model, seed=1)
    (incoming, outgoing), _ = traced.energies_around(traced.measure({})[0], {})
    assert traced.traced_measure.experimental_get_tracing_count() == 1
    assert traced.traced_around.experimental_get_tracing_count() == 1
    fresh = tf_lap.channel_energies(model)
    for path, back, ahead in zip(fresh, incoming, outgoing, strict=True):
        np.testing.assert_allclose(back[0], fresh[path].incoming, rtol=1e-6)
        np.testing.assert_allclose(ahead[0], fresh[path].outgoing, rtol=1e-6)


def test_the_sweep_compiles_with_xla():
    recipe = resolve(build_small_convolutional())

    def energies():
        return sweep(recipe, measure_kernels(recipe))

    compiled = tf.function(energies, jit_compile=True, autograph=False)
    assert "HloModule" in compiled.experimental_get_compiler_ir()(stage="hlo")
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), energies(), compiled())


def test_energies_of_a_chain_are_the_squared_norms_of_its_neighbours():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5), layers.ReLU(), layers.Dense(6), layers.Dense(3)])
    first, second, third = (layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel"))
    energies = list(tf_lap.channel_energies(model).values())
    np.testing.assert_array_equal(energies[0].incoming, np.ones(4))
    np.testing.assert_allclose(energies[0].outgoing, np.sum(second**2, axis=1), rtol=1e-6)
    np.testing.assert_allclose(energies[1].incoming, np.sum(first**2, axis=0), rtol=1e-6)
    np.testing.assert_allclose(energies[1].outgoing, np.sum(third**2, axis=1), rtol=1e-6)
    np.testing.assert_array_equal(energies[2].outgoing, np.ones(3))
    assert energies[1].incoming.dtype == np.float32


def test_a_separable_convolution_is_a_depthwise_one_and_a_pointwise_one():
    together = keras.Sequential([keras.Input((9, 9, 3)), layers.Conv2D(4, 3, name="a")])
    together.add(layers.SeparableConv2D(6, 3, depth_multiplier=2, name="b"))
    together.add(layers.Conv2D(2, 1, name="c"))
    apart = keras.Sequential([keras.Input((9, 9, 3)), layers.Conv2D(4, 3, name="a")])
    apart.add(layers.DepthwiseConv2D(3, depth_multiplier=2))
    apart.add(layers.Conv2D(6, 1, name="b"))
    apart.add(layers.Conv2D(2, 1, name="c"))
    randomize(together)
    a, b, c = (together.get_layer(name) for name in "abc")
    apart.get_layer("a").kernel.assign(a.kernel)
    apart.layers[1].kernel.assign(b.depthwise_kernel)
    apart.get_layer("b").kernel.assign(b.pointwise_kernel)
    apart.get_layer("c").kernel.assign(c.kernel)
    followed, expected = tf_lap.channel_energies(together), tf_lap.channel_energies(apart)
    for path in "abc":
        np.testing.assert_allclose(followed[path].incoming, expected[path].incoming, rtol=1e-6)
        np.testing.assert_allclose(followed[path].outgoing, expected[path].outgoing, rtol=1e-6)


def test_a_depth_multiplier_repeats_each_channel_in_a_row():
    model = keras.Sequential([keras.Input((4, 2)), layers.Dense(3, name="before")])
    model.add(layers.DepthwiseConv1D(2, depth_multiplier=2, name="depthwise"))
    model.add(layers.Dense(5, name="after"))
    randomize(model)
    put = np.sum(model.get_layer("before").kernel.numpy() ** 2, axis=0)
    taps = np.sum(model.get_layer("depthwise").kernel.numpy() ** 2, axis=0)
    read = np.sum(model.get_layer("after").kernel.numpy() ** 2, axis=1)
    energies = tf_lap.channel_energies(model)
    np.testing.assert_allclose(energies["after"].incoming, (put[:, None] * taps).ravel(), rtol=1e-5)
    np.testing.assert_allclose(energies["before"].outgoing, np.sum(read.reshape(3, 2) * taps, axis=1), rtol=1e-5)


@pytest.mark.parametrize("flatten", ["channels_first", "channels_last"])
def test_channels_first_flattens_in_its_exact_order(flatten):
    first = keras.Input((3, 6, 5))
    x = layers.Conv2D(4, 3, data_format="channels_first", name="conv")(first)
    x = layers.BatchNormalization(axis=1, name="bn")(x)
    x = layers.MaxPooling2D(1, data_format="channels_first")(x)
    x = layers.Flatten(data_format=flatten)(x)
    model = randomize(keras.Model(first, layers.Dense(7, name="dense")(x)))
    assert tf_lap.neighbors(model)["dense"].previous == ("conv",)
    bn, conv, dense = (model.get_layer(name) for name in ("bn", "conv", "dense"))
    scale = bn.gamma.numpy() ** 2 / (bn.moving_variance.numpy() + bn.epsilon)
    put = np.sum(conv.kernel.numpy() ** 2, axis=(0, 1, 2)) * scale
    read = np.sum(dense.kernel.numpy() ** 2, axis=1)
    positions = 4 * 3
    if flatten == "channels_first":  # Keras transposes to channels last before it flattens
        incoming, outgoing = np.tile(put, positions), read.reshape(positions, 4).sum(axis=0)
    else:
        incoming, outgoing = np.repeat(put, positions), read.reshape(4, positions).sum(axis=1)
    energies = tf_lap.channel_energies(model)
    np.testing.assert_allclose(energies["dense"].incoming, incoming, rtol=1e-5)
    np.testing.assert_allclose(energies["conv"].outgoing, outgoing * scale, rtol=1e-5)


def test_a_shared_layer_has_energies_for_each_use():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    model = keras.Model(inputs, layers.Dense(2, name="last")(shared(layers.ReLU()(shared(inputs)))))
    kernel, last = shared.kernel.numpy(), model.get_layer("last").kernel.numpy()
    energies = tf_lap.channel_energies(model)["shared"]
    assert energies.incoming.shape == energies.outgoing.shape == (2, 4)
    np.testing.assert_allclose(energies.incoming, [np.ones(4), np.sum(kernel**2, axis=0)], rtol=1e-6)
    np.testing.assert_allclose(energies.outgoing, [np.sum(kernel**2, axis=1), np.sum(last**2, axis=1)], rtol=1e-6)


CONVOLUTIONS = [
    (layers.Dense(6), (4,)),
    (layers.Dense(6), (9, 4)),
    (layers.Conv1D(6, 3), (9, 4)),
    (layers.Conv1D(6, 3, groups=2), (9, 4)),
    (layers.Conv2D(6, (2, 3)), (9, 9, 4)),
    (layers.Conv2D(6, (2, 3), groups=2), (9, 9, 4)),
    (layers.Conv3D(6, 2), (5, 5, 5, 4)),
    (layers.Conv1DTranspose(6, 3), (9, 4)),
    (layers.Conv2DTranspose(6, (2, 3)), (9, 9, 4)),
    (layers.Conv3DTranspose(6, 2), (5, 5, 5, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=lambda v: getattr(v, "name", None))
def test_energies_and_scores_are_of_the_channels_that_the_layer_itself_connects(layer, shape):
    """Which weights connect which channels is found out by running the layer on one channel at a time."""
    (kernel,) = resolve(randomize(keras.Sequential([keras.Input(shape), layer]))).kernels
    layer.bias.assign(np.zeros(6))
    middle = tuple(size // 2 for size in shape[:-1])
    energy = np.zeros((4, 6))  # what input channel j, alone at one position, puts into output channel k
    for j in range(4):
        x = np.zeros((1, *shape), np.float32)
        x[(0, *middle, j)] = 1.0
        energy[j] = np.sum(np.square(layer(x)), axis=tuple(range(len(shape))))
    read, put = kernel.layout.energies(kernel.variable.value)
    np.testing.assert_allclose(read, energy.sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(put, energy.sum(axis=0), rtol=1e-4)
    incoming, outgoing = np.arange(1.0, 5.0, dtype=np.float32), np.arange(1.0, 7.0, dtype=np.float32)
    gain = kernel.layout.outer(tf.constant(incoming), tf.constant(outgoing))
    weighed = np.sum(np.square(kernel.variable.numpy()) * gain.numpy())
    np.testing.assert_allclose(weighed, np.sum(energy * np.outer(incoming, outgoing)), rtol=1e-4)
