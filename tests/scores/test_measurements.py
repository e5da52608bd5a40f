"""Scores that are measured over data: against plain NumPy, and against the Hessian itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from chains import chain, kernels, lookahead_mask

import tf_lap
from tf_lap.graph.resolver import resolve
from tf_lap.scores import measurements as probe

layers = keras.layers


def relu_chain(*widths, flavour=keras):
    dense = flavour.layers.Dense
    hidden = [dense(width, activation="relu", name=f"dense_{i}") for i, width in enumerate(widths[1:-1])]
    return flavour.Sequential([flavour.Input(widths[:1]), *hidden, dense(widths[-1], name=f"dense_{len(hidden)}")])


def data(shape, samples=40):
    return np.random.default_rng(0).standard_normal((samples, *shape)).astype(np.float32)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("order", ["simultaneous", "forward", "backward"])
def test_activity_is_lap_act_of_the_authors(flavour, order):
    model = relu_chain(6, 12, 10, 4, flavour=pytest.importorskip(flavour))
    rng = np.random.default_rng(1)
    for layer in model.layers:
        layer.bias.assign(rng.standard_normal(layer.bias.shape))
    x = data((6,))
    weights, h = [], x.astype(np.float64)
    for layer in model.layers:
        kernel = layer.kernel.numpy().astype(np.float64)
        h = h @ kernel + layer.bias.numpy()
        rate = np.mean(h > 0, axis=0) if layer is not model.layers[-1] else np.ones(4)
        h = np.maximum(h, 0)
        weights.append(kernel * np.sqrt(rate))
    seen, masks = [w.copy() for w in weights], {}
    turn = reversed(range(3)) if order == "backward" else range(3)
    for i in turn:
        masks[i] = lookahead_mask(seen, i, round(weights[i].size * 0.4))
        if order != "simultaneous":
            seen[i] = weights[i] * masks[i]
    pruner = tf_lap.Pruner(model, score="lookahead_activation", data=x, order=order)
    pruner.update(0.6)
    for i, mask in enumerate(pruner.masks.values()):
        np.testing.assert_array_equal(mask, masks[i])


def test_activity_of_convolutions_is_averaged_over_positions_behind_normalizations_sums_and_operators():
    inputs = keras.Input((5, 5, 3))
    x = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", name="b")(layers.ReLU(name="first")(x)))
    joined = keras.ops.relu(layers.Add()([x, y]))
    shared = layers.Dense(4, activation="relu", name="shared")
    z = shared(shared(joined))
    model = keras.Model(inputs, layers.Dense(2, name="last")(layers.GlobalAveragePooling2D()(z)))
    x = data((5, 5, 3))
    recipe = resolve(model)
    found = dict(
        zip([k.path for k in recipe.kernels], probe.activity(model, recipe, [[x[:30]], [x[30:]]]), strict=True)
    )

    def rate(tensor):
        active = np.mean(np.array(keras.Model(inputs, tensor)(x)) > 0, axis=0)
        return np.mean(np.sqrt(active), axis=(0, 1))

    np.testing.assert_allclose(found["a"], rate(model.get_layer("first").output), rtol=1e-5)
    np.testing.assert_allclose(found["b"], rate(joined), rtol=1e-5)
    both = [rate(shared._inbound_nodes[i].outputs[0]) for i in range(2)]
    np.testing.assert_allclose(found["shared"], np.mean(both, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(found["last"], [1, 1])
    assert "call" not in vars(model.get_layer("first"))


def activities(model, x):
    recipe = resolve(model)
    return dict(zip([k.path for k in recipe.kernels], probe.activity(model, recipe, [[x]]), strict=True))


def test_operators_of_tf_keras_are_told_apart_and_left_as_they_were():
    legacy = pytest.importorskip("tf_keras")
    inputs = legacy.Input((6,))
    a, b = legacy.layers.Dense(5, name="a")(inputs), legacy.layers.Dense(5, name="b")(inputs)
    x = legacy.layers.Dense(5, name="c")(a + b)
    x = legacy.layers.Dense(4, name="d")(tf.nn.relu(features=x) * 0.5)
    model = legacy.Model(inputs, x)
    x = data((6,))
    before = model(x).numpy()
    found = activities(model, x)
    np.testing.assert_array_equal(model(x), before)
    for name in ("a", "b", "d"):
        np.testing.assert_array_equal(found[name], np.ones(len(found[name])))
    hidden = legacy.Model(inputs, model.get_layer("c").output)(x).numpy()
    np.testing.assert_allclose(found["c"], np.sqrt(np.mean(hidden > 0, axis=0)), rtol=1e-5)
    tf_lap.prune(model, 0.5, score="obd", data=x)
    after = model(x).numpy()
    tf_lap.prune(model, 0.5, score="lookahead_activation", data=x)
    assert np.abs(model(x) - after).max() < np.abs(after).max()


def test_each_call_of_a_shared_activation_counts_for_its_own_kernel():
    inputs, relu = keras.Input((6,)), layers.ReLU()
    wide = layers.Dense(7, name="wide", bias_initializer=keras.initializers.Constant(100.0))
    x = relu(layers.Dense(4, name="low", bias_initializer=keras.initializers.Constant(-1e4))(relu(wide(inputs))))
    found = activities(keras.Model(inputs, layers.Dense(2, name="last")(x)), data((6,)))
    np.testing.assert_array_equal(found["wide"], np.ones(7))
    np.testing.assert_array_equal(found["low"], np.zeros(4))


@pytest.mark.parametrize("behind", ["linear", "leaky", "none"])
def test_what_is_no_activation_and_what_is_one(behind):
    inputs = keras.Input((6,))
    activation = layers.LeakyReLU() if behind == "leaky" else None
    x = layers.Dense(5, name="a", activation=activation)(inputs)
    x = layers.Activation("linear")(x) if behind == "linear" else x
    found = activities(keras.Model(inputs, layers.Dense(2)(x)), data((6,)))
    assert np.all(found["a"].numpy() == 1) == (behind != "leaky")


def joined():
    inputs = keras.Input((6,))
    x = layers.Concatenate()([layers.Dense(4, name="a")(inputs), layers.Dense(7, name="b")(inputs)])
    return keras.Model(inputs, layers.Dense(2)(layers.ReLU()(x)))


def subclassed():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dense(5, name="a"), layers.Dense(2, name="b")

        def call(self, x):
            return self.b(keras.ops.relu(self.a(x)))

    model = Network()
    model(np.ones((1, 6), np.float32))
    return model


@pytest.mark.parametrize("make", [joined, subclassed])
def test_what_cannot_be_measured_counts_as_always_active_and_is_told(make):
    model = make()
    with pytest.warns(UserWarning, match="units of layer .* are active cannot be measured"):
        found = activities(model, data((6,)))
    np.testing.assert_array_equal(found["a"], np.ones(found["a"].shape))


@pytest.mark.filterwarnings("ignore:model .* can be pruned")
def test_states_and_policies_stay_while_measuring():
    inputs = keras.Input((5, 4), batch_size=10)
    recurrent = layers.LSTM(4, stateful=True)
    hidden = layers.Dense(8, activation="relu", dtype="mixed_float16", name="half")(recurrent(inputs))
    model = keras.Model(inputs, layers.Dense(3, dtype="float32")(hidden))
    x = data((5, 4), 10)
    for score in ("lookahead_activation", "obd"):
        before = [np.array(state) for state in recurrent.states]
        tf_lap.prune(model, 0.5, score=score, data=x)
        for old, new in zip(before, recurrent.states, strict=True):
            np.testing.assert_array_equal(old, np.array(new))
        assert model.get_layer("half").compute_dtype == "float16"


def test_several_steps_measure_as_often(monkeypatch):
    seen, curvature = [], probe.curvature
    monkeypatch.setattr(probe, "curvature", lambda *args: seen.append(1) or curvature(*args))
    tf_lap.prune(relu_chain(6, 12, 4), 0.8, score="obd", data=data((6,)), steps=3)
    assert len(seen) == 3


def hessian_diagonal(forward, weights, x):
    """By definition, twice differentiated, of the sum over samples of the cross-entropy, in float64."""
    variables = [tf.Variable(w.astype(np.float64)) for w in weights]
    found = []
    for i, variable in enumerate(variables):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                logits = forward(variables, tf.constant(x, tf.float64))
                # Which class is the true one does not matter to the curvature of a piecewise linear network.
                loss = -tf.reduce_sum(tf.nn.log_softmax(logits)[:, 0])
            slope = tf.reshape(inner.gradient(loss, variables)[i], [-1])
        rows = outer.jacobian(slope, variable)
        found.append(np.diag(tf.reshape(rows, (variable.shape.num_elements(), -1))).reshape(variable.shape))
    return found


def close(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.max(theirs))


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("probabilities", [False, True])
def test_the_curvature_of_dense_layers_is_the_hessians_diagonal(flavour, probabilities):
    model = relu_chain(5, 7, 6, 3, flavour=pytest.importorskip(flavour))
    if probabilities:
        model.layers[-1].activation = pytest.importorskip(flavour).activations.softmax
    x = data((5,), 9)

    def forward(variables, h):
        first, second, third = variables
        return tf.nn.relu(tf.nn.relu(h @ first) @ second) @ third

    expected = hessian_diagonal(forward, list(kernels(model).values()), x)
    close(probe.curvature(model, resolve(model), range(3), [[x[:5]], [x[5:]]]).values(), expected)


@pytest.mark.parametrize(("strides", "padding"), [(1, "same"), (2, "same"), (2, "valid")])
def test_the_curvature_of_convolutions_and_of_dense_layers_on_positions_too(strides, padding):
    inputs = keras.Input((7, 6, 2))
    options = {"padding": padding, "use_bias": False, "activation": "relu"}
    x = layers.Conv2D(3, 3, strides=strides, name="conv", **options)(inputs)
    x = layers.Dense(4, activation="relu", use_bias=False, name="positions")(x)
    shared = layers.Dense(4, use_bias=False, name="shared")
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3, use_bias=False, name="head")(shared(layers.ReLU()(shared(x)))))
    x = data((7, 6, 2), 4)

    def forward(variables, h):
        conv, positions, twice, head = variables
        h = tf.nn.relu(tf.nn.conv2d(h, conv, strides, padding.upper()))
        h = tf.reduce_mean(tf.nn.relu(h @ positions), axis=[1, 2])
        return tf.nn.relu(h @ twice) @ twice @ head

    recipe = resolve(model)
    found = probe.curvature(model, recipe, range(4), [[x]])
    expected = hessian_diagonal(forward, [kernel.variable.numpy() for kernel in recipe.kernels], x)
    # The Hessian of a shared layer has a term of the product of its uses, which the Gauss-Newton matrix leaves out.
    close([found[i] for i in (0, 1, 3)], [expected[i] for i in (0, 1, 3)])
    close([found[2]], [gauss_newton_diagonal(model, shared.kernel.value, x)])


def gauss_newton_diagonal(model, variable, x):
    """One sample and one class after another."""
    total = np.zeros(variable.shape)
    for row in x:
        with tf.GradientTape(persistent=True) as tape:
            log_p = tf.unstack(tf.nn.log_softmax(model(row[np.newaxis]))[0])
        total += sum(np.exp(each) * np.square(tape.gradient(each, variable)) for each in log_p)
    return total


def test_obd_and_its_product_with_lookahead_rank_as_their_formulas():
    model = relu_chain(6, 12, 10, 4)
    x = data((6,))
    h = probe.curvature(model, resolve(model), range(3), [[x]])
    weights = [w.astype(np.float64) for w in kernels(model).values()]
    obd = [w**2 * np.array(h[i]) / 2 for i, w in enumerate(weights)]
    for score, expected in (
        ("obd", [s >= np.sort(s, axis=None)[-round(0.4 * s.size)] for s in obd]),
        ("obd_lookahead", [lookahead_mask(list(map(np.sqrt, obd)), i, round(0.4 * s.size)) for i, s in enumerate(obd)]),
    ):
        model = relu_chain(6, 12, 10, 4)
        for layer, w in zip(model.layers, weights, strict=True):
            layer.kernel.assign(w)
        pruner = tf_lap.Pruner(model, score=score, data=x)
        pruner.update(0.6)
        for mask, wanted in zip(pruner.masks.values(), expected, strict=True):
            np.testing.assert_array_equal(mask, wanted)


@pytest.mark.parametrize("score", ["lookahead_activation", "obd", "obd_lookahead"])
def test_a_fit_measures_at_each_update(score, monkeypatch):
    model = relu_chain(16, 24, 24, 10)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    x, y = data((16,), 96), np.random.default_rng(0).integers(0, 10, 96)
    schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=10, frequency=3)
    callback = tf_lap.LAPCallback(schedule, score=score, data=tf.data.Dataset.from_tensor_slices((x, y)).batch(30))
    measured, kind = [], type(tf_lap.scores.get(score))
    gains = kind.gains

    def watched(self, *args):
        measured.append(gains(self, *args))
        return measured[-1]

    monkeypatch.setattr(kind, "gains", watched)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[callback])
    assert callback.report.sparsity == pytest.approx(0.9, abs=0.002)
    assert len(measured) == 5
    assert np.abs(measured[0][0] - measured[-1][0]).max() > 0


@pytest.mark.parametrize("score", ["lookahead_activation", "obd_lookahead", tf_lap.scores.OBD()])
def test_data_must_be_given_where_it_is_needed_and_only_there(score):
    with pytest.raises(ValueError, match="is measured over data: pass data="):
        tf_lap.prune(chain(4, 5), 0.5, score=score)
    with pytest.raises(ValueError, match=r"data: input .* has shape \(None, 4\), samples have \(1, 3\)"):
        tf_lap.prune(chain(4, 5), 0.5, score=score, data=np.ones((9, 3)))
    with pytest.raises(ValueError, match="data is given, and score="):
        tf_lap.prune(chain(4, 5), 0.5, data=np.ones((9, 4)))


def test_kernels_and_outputs_whose_curvature_is_not_known_are_named():
    inputs = keras.Input((6, 3))
    x = layers.Conv1D(4, 3, name="conv")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    before = model.get_weights()
    x = data((6, 3), 5)
    with pytest.raises(ValueError, match=r"the curvature of layer 'conv' \(Conv1D\) is not known: Dense and Conv2D"):
        tf_lap.prune(model, 0.5, score="obd", data=x)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    tf_lap.prune(model, 0.5, score="obd_lookahead", data=x, filters="dense")
    report = tf_lap.prune(model, 0.5, score="obd", data=x, filters="dense")
    assert [layer.path for layer in report.pruned] == [model.layers[-1].name]
    several = keras.Model(inputs, [model.output, layers.Dense(2)(model.layers[-2].output)])
    with pytest.raises(ValueError, match=r"puts out 2 tensors of shapes .* needs one"):
        tf_lap.prune(several, 0.5, score="obd", data=x, filters="dense")
    for units, activation in ((1, "sigmoid"), (1, None), (3, "sigmoid")):
        binary = keras.Sequential([keras.Input((4,)), layers.Dense(units, activation=activation)])
        with pytest.raises(ValueError, match="two classes or more, logits or their softmax"):
            tf_lap.prune(binary, 0.5, score="obd", data=np.ones((3, 4)))


def test_a_kernel_that_is_never_called_is_ranked_by_magnitude():
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = layers.Dense(3, name="used"), layers.Dense(5, name="unused")
            self.unused.build((None, 4))

        def call(self, x):
            return self.used(x)

    model = Network()
    model(np.ones((1, 4), np.float32))
    kernel = model.unused.kernel.numpy()
    tf_lap.prune(model, 0.5, score="obd", data=data((4,)))
    np.testing.assert_array_equal(
        model.unused.kernel.numpy() != 0, np.abs(kernel) >= np.sort(np.abs(kernel), None)[-10]
    )


def test_an_endless_dataset_ends(monkeypatch):
    monkeypatch.setattr("tf_lap.pruning.options._MEASURED", 50)
    endless = tf.data.Dataset.from_tensor_slices(data((4,), 8)).repeat()
    tf_lap.prune(relu_chain(4, 5, 3), 0.5, score="obd", data=endless)


def test_whatever_measuring_raises_leaves_nothing_on_the_model():
    model = relu_chain(16, 24, 10)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    x, y = data((16,), 96), np.zeros(96)
    calls = []

    def fails():
        raise RuntimeError("out of memory")

    class Failing(tf_lap.scores.OBD):
        def gains(self, *args):
            calls.append(1)
            return super().gains(*args) if len(calls) < 3 else fails()

    schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=3, frequency=1)
    with pytest.raises(RuntimeError, match="out of memory"):
        model.fit(x, y, verbose=0, callbacks=[tf_lap.LAPCallback(schedule, score=Failing(), data=x)])
    assert all(layer.kernel.constraint is None for layer in model.layers)


def test_what_is_not_finite_changes_nothing():
    model = relu_chain(4, 5, 3)
    model.layers[0].bias.assign([np.inf] * 5)
    before = model.layers[0].kernel.numpy()
    with pytest.raises(ValueError, match="measured over data around layer 'dense_0' is NaN or infinite"):
        tf_lap.prune(model, 0.5, score="obd", data=data((4,)))
    np.testing.assert_array_equal(model.layers[0].kernel.numpy(), before)
