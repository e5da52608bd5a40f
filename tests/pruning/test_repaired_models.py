"""Repair of every kind of model: what is fitted, and what is left alone with a reason."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from observed import record_outputs
from repaired import array, check_least_squares, copy_of, prune_and_repair, samples

import tf_lap

layers = keras.layers
F64 = {"dtype": "float64"}


def as_float64(*arrays):
    return [x.astype(np.float64) for x in arrays]


def find_left(report):
    return {path: reason for reason, paths in report.left_by_reason().items() for path in paths}


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_a_shared_layer_is_fitted_to_all_its_calls(flavour):
    flavour = pytest.importorskip(flavour)
    inputs, others = flavour.Input((6,), dtype="float64"), flavour.Input((6,), dtype="float64")
    shared = flavour.layers.Dense(7, "relu", name="a", **F64)
    x = flavour.layers.Concatenate(**F64)([shared(inputs), shared(others)])
    model = flavour.Model([inputs, others], flavour.layers.Dense(3, name="b", **F64)(x))
    x, y = samples((6,)), samples((6,), shift=-1.0) * 2
    dense, report = prune_and_repair(model, [x, y], ["weights", "bias"])
    assert len(report.repaired) == 2
    assert report.samples == 40
    check_least_squares(model, dense, as_float64(x, y), ["a", "b"], has_shift=True)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_nested_models_are_repaired_layer_after_layer(flavour):
    flavour = pytest.importorskip(flavour)
    dense = flavour.layers.Dense
    inner = flavour.Sequential([flavour.Input((7,), dtype="float64"), dense(6, "relu", name="a", **F64)], name="inner")
    stack = [dense(7, "relu", name="first", **F64), inner, dense(3, name="last", **F64)]
    model = flavour.Sequential([flavour.Input((6,), dtype="float64"), *stack])
    x = samples((6,))
    before, report = prune_and_repair(model, x, ["weights", "bias"])
    assert [layer.path for layer in report.layers] == ["first", "inner/a", "last"]
    check_least_squares(model, before, as_float64(x), ["first", "inner/a", "last"], has_shift=True)


class Perceptron(keras.Model):
    """Its layers are made in another order than they are called in, and one is called in training alone."""

    def __init__(self):
        super().__init__()
        self.last, self.first = layers.Dense(3, name="last", **F64), layers.Dense(7, "relu", name="first", **F64)
        self.auxiliary = layers.Dense(5, name="auxiliary", **F64)

    def call(self, x, training=False):
        x = self.first(x)
        if training:
            self.add_loss(keras.ops.mean(self.auxiliary(x)))
        return self.last(x)


def test_subclassed_models_are_repaired_in_the_order_of_their_calls():
    x = samples((6,))
    models = [Perceptron(), Perceptron()]
    for model in models:
        model(x, training=True)
    model, dense = models
    dense.set_weights(model.get_weights())
    report = tf_lap.prune(model, 0.5, score="magnitude", repair="weights", data=x).repair
    assert [layer.path for layer in report.repaired] == ["first", "last"]
    check_least_squares(model, dense, as_float64(x), ["first", "last"], has_shift=False)
    assert set(find_left(report)) <= {"auxiliary"}
    kernel = array(model.auxiliary.kernel)
    np.testing.assert_array_equal(kernel, array(dense.auxiliary.kernel) * (kernel != 0))


def test_data_with_nan_for_a_subclassed_model():
    model = Perceptron()
    x = samples((6,))
    model(x, training=True)
    before = model.get_weights()
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"data: .*NaN|cannot be repaired over this data: .* hold NaN"):
        tf_lap.prune(model, 0.5, repair=True, data=x)
    for weights, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, value)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_several_inputs_are_given_by_name_and_in_datasets(flavour):
    flavour = pytest.importorskip(flavour)

    def build():
        inputs = {name: flavour.Input((6,), name=name) for name in ("left", "right")}
        x = flavour.layers.Concatenate()(list(inputs.values()))
        return flavour.Model(inputs, flavour.layers.Dense(4, name="a")(x))

    x = {"left": samples((6,)), "right": samples((6,), shift=2.0)}
    forms = {
        "mapping": x,
        "dataset": tf.data.Dataset.from_tensor_slices((x, np.zeros(40))).batch(16),
        "function": lambda: ({name: value[i : i + 1] for name, value in x.items()} for i in range(40)),
    }
    model, kernels = build(), {}
    weights = model.get_weights()
    for form, data in forms.items():
        model.set_weights(weights)
        assert tf_lap.prune(model, 0.5, repair=True, data=data).repair.samples == 40
        kernels[form] = array(model.get_layer("a").kernel)
    np.testing.assert_allclose(kernels["dataset"], kernels["mapping"], atol=1e-5)
    np.testing.assert_allclose(kernels["function"], kernels["mapping"], atol=1e-5)


@pytest.mark.parametrize("has_data", [True, False])
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_frozen_kernels_are_left(flavour, has_data):
    flavour = pytest.importorskip(flavour)
    model = flavour.Sequential([flavour.Input((8,)), *(flavour.layers.Dense(8, name=name) for name in "abc")])
    x = samples((8,)) if has_data else None
    model.get_layer("b").trainable = False
    dense, report = prune_and_repair(model, x, True)
    assert "b" not in [layer.path for layer in report.layers]
    np.testing.assert_array_equal(array(model.get_layer("b").kernel), array(dense.get_layer("b").kernel))
    tf_lap.prune(dense, 0.5)
    model = copy_of(dense)
    model.get_layer("c").trainable = False
    before = array(model.get_layer("c").kernel)
    whole = copy_of(dense)
    for layer in whole.layers:
        layer.kernel.assign(np.where(array(layer.kernel) == 0, 0.1, array(layer.kernel)))
    report = tf_lap.repair(model, x, dense=whole)
    assert find_left(report)["c"] == "it is frozen (trainable=False)"
    np.testing.assert_array_equal(array(model.get_layer("c").kernel), before)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_mixed_precision_is_repaired_in_float32(flavour, policy):
    flavour = pytest.importorskip(flavour)

    def build(dtype):
        stack = [
            flavour.layers.Dense(12, "relu", name="a", dtype=dtype),
            flavour.layers.BatchNormalization(dtype=dtype),
        ]
        return flavour.Sequential([flavour.Input((8,)), *stack, flavour.layers.Dense(4, name="b", dtype="float32")])

    mixed, single = build(policy), build("float32")
    single.set_weights(mixed.get_weights())
    x = samples((8,))
    for model in (mixed, single):
        tf_lap.prune(model, 0.6, repair=True, data=x)
    for variable, expected in zip(mixed.weights, single.weights, strict=True):
        np.testing.assert_allclose(array(variable), array(expected), rtol=1e-5, atol=1e-6)
    assert mixed.layers[0].compute_dtype == policy.removeprefix("mixed_")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_half_precision_are_repaired_without_data_and_refused_with_it(dtype):
    stack = [layers.Dense(12, name="a", dtype=dtype), layers.Dense(4, name="b", dtype=dtype)]
    model = keras.Sequential([keras.Input((8,), dtype=dtype), *stack])
    before = [array(variable) for variable in model.weights]
    with pytest.raises(ValueError, match=r"has weights in .*float16, and the model is run in float32 here"):
        tf_lap.prune(model, 0.5, repair=True, data=samples((8,)))
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(array(variable), value)
    dense, report = prune_and_repair(model, None, True)
    assert [layer.path for layer in report.repaired] == ["b"]
    first, second, pruned = (array(v).astype(np.float64) for v in (before[0], before[2], model.get_layer("b").kernel))
    masked = second * (pruned != 0)
    lost = [np.square(first @ (second - kernel)).sum() for kernel in (masked, pruned)]
    assert lost[1] < lost[0]
    assert dense.get_layer("b").kernel.dtype == model.get_layer("b").kernel.dtype == dtype


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_recurrent_kernels_are_left_with_the_reason(flavour):
    flavour = pytest.importorskip(flavour)
    stack = [flavour.layers.GRU(6, return_sequences=True, name="a"), flavour.layers.LSTM(5, name="b")]
    model = flavour.Sequential([flavour.Input((4, 8)), *stack, flavour.layers.Dense(3, name="c")])
    dense, report = prune_and_repair(model, samples((4, 8)), True)
    assert [layer.path for layer in report.repaired] == ["a/kernel", "b/kernel", "c"]
    left = find_left(report)
    assert left == {
        "a/recurrent_kernel": "the rows that a GRU multiplies it with are no input of the layer",
        "b/recurrent_kernel": "the rows that a LSTM multiplies it with are no input of the layer",
    }
    for layer, before in zip(model.layers[:2], dense.layers[:2], strict=True):
        kernel = array(layer.cell.recurrent_kernel)
        np.testing.assert_array_equal(kernel, array(before.cell.recurrent_kernel) * (kernel != 0))
        np.testing.assert_array_equal(array(layer.cell.bias), array(before.cell.bias))
    assert "left as they were: a/recurrent_kernel" in report.render()
    printed = " ".join(str(tf_lap.prune(model, 0.7, repair=True, data=samples((4, 8)))).split())
    assert "not repaired: the rows that a GRU multiplies it with are no input of the layer" in printed


def test_embeddings_and_transposed_convolutions_are_left():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, name="words")(inputs)
    x = layers.Conv1DTranspose(6, 3, name="up")(x)
    model = keras.Model(inputs, layers.Dense(3, name="c")(x))
    words = np.random.default_rng(0).integers(0, 20, (40, 6))
    dense, report = prune_and_repair(model, words, True, {"words": 0.5, "up": 0.5, "c": 0.5})
    assert [layer.path for layer in report.repaired] == ["c"]
    assert find_left(report).keys() == {"words", "up"}
    for path, name in (("words", "embeddings"), ("up", "kernel")):
        now, before = (array(getattr(m.get_layer(path), name)) for m in (model, dense))
        np.testing.assert_array_equal(now, before * (now != 0))


def test_an_embedding_that_turns_features_back_into_words_is_left():
    class Tied(layers.Layer):
        def __init__(self, embedding, **options):
            super().__init__(**options)
            self.embedding = embedding

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.embedding.embeddings))

    inputs, embedding = keras.Input((6,), dtype="int32"), layers.Embedding(20, 8, name="words")
    x = layers.Dense(8, name="a")(embedding(inputs))
    model = keras.Model(inputs, Tied(embedding)(x))
    words = np.random.default_rng(0).integers(0, 20, (40, 6))
    before = array(embedding.embeddings)
    report = tf_lap.prune(model, {"words": 0.5, "a": 0.5}, repair=True, data=words).repair
    assert [layer.path for layer in report.repaired] == ["a"]
    assert find_left(report).keys() == {"words"}
    now = array(embedding.embeddings)
    np.testing.assert_array_equal(now, before * (now != 0))


@pytest.mark.parametrize("has_data", [True, False])
def test_a_kernel_that_two_layers_share_is_left(has_data):
    class Tied(layers.Dense):
        def __init__(self, other, **options):
            super().__init__(other.units, use_bias=False, **options)
            self.other = [other]

        def build(self, shape):
            self._kernel, self.bias, self.built = self.other[0]._kernel, None, True

    inputs, first = keras.Input((8,)), layers.Dense(8, name="a")
    x = Tied(first, name="b")(layers.ReLU()(first(inputs)))
    model = keras.Model(inputs, layers.Dense(3, name="c")(x))
    before = array(first.kernel)
    report = tf_lap.prune(model, 0.5, repair=True, data=samples((8,)) if has_data else None).repair
    assert find_left(report) == {"a": "another layer has it too"}
    assert [layer.path for layer in report.repaired] == ["c"]
    now = array(first.kernel)
    np.testing.assert_array_equal(now, before * (now != 0))


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_time_distributed_layers(flavour):
    flavour = pytest.importorskip(flavour)
    inputs = flavour.Input((5, 8), dtype="float64")
    inner = flavour.layers.Dense(6, "relu", name="inner", **F64)
    x = flavour.layers.TimeDistributed(inner, name="a", **F64)(inputs)
    model = flavour.Model(inputs, flavour.layers.Dense(3, name="b", **F64)(x))
    x = samples((5, 8))
    kernel = array(inner.kernel)
    dense, report = prune_and_repair(model, x, "weights")
    (first, last) = report.layers
    assert last.path == "b"
    check_least_squares(model, dense, as_float64(x), [first.path, "b"], has_shift=False)
    assert (array(inner.kernel) != kernel * (array(inner.kernel) != 0)).any()


def test_a_fixed_batch_and_states_stay():
    model = keras.Sequential(
        [keras.Input((5, 8), batch_size=10), layers.LSTM(6, stateful=True, name="a"), layers.Dense(3, name="b")]
    )
    x = samples((5, 8))
    model(x[:10])
    states = [array(state) for state in model.layers[0].states]
    dense = model.get_weights()
    batches = [x[i : i + 10] for i in range(0, 40, 10)]
    report = tf_lap.prune(model, 0.5, repair=True, data=lambda: batches).repair
    assert report.samples == 40
    assert [layer.path for layer in report.repaired] == ["a/kernel", "b"]
    for state, value in zip(model.layers[0].states, states, strict=True):
        np.testing.assert_array_equal(array(state), value)
    assert (array(model.layers[1].bias) != dense[-1]).any()


def test_the_batch_in_which_samples_come_makes_no_difference():
    x, kernels = samples((8,), 70), []
    for count in (7, 35):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((8,)), layers.Dense(9, "relu", name="a"), layers.Dense(4, name="b")])
        dataset = tf.data.Dataset.from_tensor_slices(x).batch(count)
        prune_and_repair(model, dataset, True)
        kernels.append(array(model.get_layer("b").kernel))
    np.testing.assert_allclose(kernels[0], kernels[1], rtol=1e-4, atol=1e-5)


def test_means_alone_are_those_of_the_whole_network():
    """Layer after layer: in biases, and, where a convolution has none, in the mean that is subtracted behind it."""
    stack = [
        layers.Conv2D(6, 3, name="a", use_bias=False),
        layers.BatchNormalization(name="n"),
        layers.ReLU(),
        layers.Conv2D(5, 2, activation="relu", name="b"),
        layers.Flatten(),
        layers.Dense(3, name="c"),
    ]
    model = keras.Sequential([keras.Input((6, 5, 4)), *stack])
    x = samples((6, 5, 4))
    dense, report = prune_and_repair(model, x, "bias")
    assert report.methods == ("bias",)
    for path in "abc":
        kernel, before = (array(m.get_layer(path).kernel) for m in (model, dense))
        np.testing.assert_array_equal(kernel, before * (kernel != 0))
    assert (array(model.get_layer("n").moving_mean) != 0).any()
    np.testing.assert_array_equal(array(model.get_layer("n").moving_variance), np.ones(6))
    for name in "nbc":  # a mean behind the normalization, then before the activation
        now, before = (record_outputs(m, m.get_layer(name), [[x]])[0] for m in (model, dense))
        axes = tuple(range(now.ndim - 1))
        np.testing.assert_allclose(now.mean(axes), before.mean(axes), rtol=1e-3, atol=1e-4)
    assert all(layer.after < layer.before for layer in report.layers)
