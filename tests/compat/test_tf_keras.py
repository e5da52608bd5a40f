"""tf_keras models are served by the same code, with the same masks bit for bit."""

import itertools
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from replicas import two_replicas

import tf_lap
from tf_lap.pruning.constraints import MaskConstraint

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")
layers = tf_keras.layers
SIZES = {"first": 16 * 24, "second": 24 * 24, "head": 24 * 10}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2", "DenseNet121"])
def test_masks_are_those_of_keras_3_bit_for_bit(name):
    ours = getattr(keras.applications, name)(weights=None, classes=10)
    theirs = getattr(tf_keras.applications, name)(weights=None, classes=10)
    theirs.set_weights(ours.get_weights())
    first, second = tf_lap.Pruner(ours), tf_lap.Pruner(theirs)
    for pruner in (first, second):
        pruner.update(0.9)
    # Layers are in the same order; some of DenseNet's have other names.
    for (path, mask), other in zip(first.masks.items(), second.masks.values(), strict=True):
        np.testing.assert_array_equal(mask, other, err_msg=path)
    for weights, expected in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, expected)


FAMILIES = ["ConvNeXtTiny", "EfficientNetB0", "EfficientNetV2B0", "InceptionResNetV2", "MobileNetV3Small", "RegNetX002"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_applications_have_no_boundary_but_their_ends(name):
    found = tf_lap.neighbors(getattr(tf_keras.applications, name)(weights=None))
    reasons = {reason for around in found.values() for reason in around.boundaries}
    assert {reason.partition(" '")[0] for reason in reasons} == {"network input", "network output"}


def test_operators_between_tensors_are_followed():
    inputs = tf_keras.Input((6, 6, 3))
    a, b = layers.Conv2D(4, 1, name="a")(inputs), layers.Conv2D(4, 1, name="b")(inputs)
    x = tf.nn.relu(a + b) * 2.0 - a * b
    x = tf.concat([x, 3.0 * a], axis=-1)
    x = tf.reduce_mean(x / 4.0, axis=[1, 2])
    model = tf_keras.Model(inputs, layers.Dense(2, name="out")(tf.reshape(x, (-1, 8))))
    assert tf_lap.neighbors(model)["out"].boundaries == ("network output 'out'",)
    put = {n: np.sum(model.get_layer(n).kernel.numpy() ** 2, axis=(0, 1, 2)) for n in "ab"}
    incoming = tf_lap.channel_energies(model)["out"].incoming
    first = (put["a"] + put["b"]) * 4 + put["a"] + put["b"]
    np.testing.assert_allclose(incoming, np.concatenate([first, 9 * put["a"]]) / 16, rtol=1e-5)


def test_a_function_without_a_rule_is_a_boundary_with_its_name():
    inputs = tf_keras.Input((6,))
    x = tf.cumsum(layers.Dense(4, name="first")(inputs), axis=-1)
    model = tf_keras.Model(inputs, layers.Dense(2, name="last")(x))
    assert "tf.math.cumsum has no channel rule" in tf_lap.neighbors(model)["last"].boundaries[0]


def test_nested_shared_separable_and_depthwise_layers():
    tower = tf_keras.Sequential([layers.Input((8, 8, 4)), layers.SeparableConv2D(4, 3, padding="same", name="s")])
    tower = tf_keras.Sequential([*tower.layers, layers.DepthwiseConv2D(3, padding="same", name="d")], name="tower")
    inputs = tf_keras.Input((8, 8, 4))
    x = tower(tower(inputs))
    model = tf_keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))
    report = tf_lap.prune(model, 0.5)
    paths = {layer.path: layer.skipped is None for layer in report.layers}
    assert paths == {"tower/s": True, "head": True, "tower/s/depthwise_kernel": False, "tower/d": False}
    assert tf_lap.neighbors(model)["tower/s"].previous == ("tower/s",)
    assert tf_lap.channel_energies(model)["tower/s"].incoming.shape == (2, 4)


def network(constraint=None):
    return tf_keras.Sequential(
        [
            layers.Input((16,)),
            layers.Dense(24, activation="relu", name="first", kernel_constraint=constraint),
            layers.Dense(24, activation="relu", name="second"),
            layers.Dense(10, name="head", dtype="float32"),
        ]
    )


def compiled(model=None, optimizer="adam", **arguments):
    model = model or network()
    model.compile(optimizer, tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True), **arguments)
    return model


def fit(model, callbacks, epochs=2, **arguments):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((96, 16)).astype(np.float32), rng.integers(0, 10, 96)
    return model.fit(x, y, batch_size=16, epochs=epochs, callbacks=callbacks, verbose=0, **arguments)


def polynomial(sparsity=0.9, end_step=10, frequency=3):
    return tf_lap.LookaheadPruningSchedule(sparsity, end_step=end_step, frequency=frequency)


def assert_exact(model, sparsity=0.9):
    kept = {name: np.count_nonzero(model.get_layer(name).kernel.numpy()) for name in SIZES}
    assert kept == {name: max(1, round(size * (1 - sparsity))) for name, size in SIZES.items()}


def assert_nothing_left(model):
    for layer in model.layers:
        assert not isinstance(layer.kernel.constraint, MaskConstraint)


SETTINGS = {
    "plain": {},
    "jit": {"jit_compile": True},
    "run_eagerly": {"run_eagerly": True},
    "steps_per_execution": {"steps_per_execution": 4},
    "momentum": {"optimizer": lambda: tf_keras.optimizers.SGD(0.1, momentum=0.9)},
    "legacy optimizer": {"optimizer": lambda: tf_keras.optimizers.legacy.Adam(0.01)},
    "ema": {"optimizer": lambda: tf_keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)},
    "loss scaling": {"optimizer": lambda: tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.Adam(0.01))},
}


@pytest.mark.slow
@pytest.mark.parametrize("score", ["lookahead", "magnitude"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_counts_are_exact_in_every_training_setting(setting, score):
    arguments = dict(SETTINGS[setting])
    model = compiled(optimizer=arguments.pop("optimizer", lambda: "adam")(), **arguments)
    callback = tf_lap.LAPCallback(polynomial(), score=score)
    history = fit(model, [callback])
    assert_exact(model)
    assert_nothing_left(model)
    assert callback.step == 12
    assert history.history["sparsity"][-1] == callback.report.sparsity


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_counts_are_exact_in_mixed_precision(policy):
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        model = compiled(network())
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    recorder = Recorder()
    fit(model, [tf_lap.LAPCallback(polynomial()), recorder])
    assert_exact(model)
    for earlier, later in itertools.pairwise(recorder.kernels):
        assert not np.any(later[earlier == 0])


class Recorder(tf_keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.kernels = []

    def on_train_batch_end(self, batch, logs=None):
        self.kernels.append(self.model.get_layer("first").kernel.numpy())


def test_a_model_that_was_fitted_before_is_pruned_inside_its_step_too():
    model = compiled(optimizer=tf_keras.optimizers.SGD(0.1))
    fit(model, [])
    recorder = Recorder()
    fit(model, [tf_lap.LAPCallback(tf_lap.LookaheadPruningSchedule(0.9, decay="one_shot")), recorder])
    assert [np.count_nonzero(kernel) for kernel in recorder.kernels] == [38] * 12
    fit(model, [])
    assert np.count_nonzero(model.get_layer("first").kernel.numpy()) > 100


def test_a_users_constraint_is_kept_and_composed():
    model = compiled(network(tf_keras.constraints.MaxNorm(0.05)), optimizer=tf_keras.optimizers.SGD(1.0))
    fit(model, [tf_lap.LAPCallback(polynomial())])
    assert_exact(model)
    assert isinstance(model.get_layer("first").kernel.constraint, tf_keras.constraints.MaxNorm)
    assert np.all(np.linalg.norm(model.get_layer("first").kernel.numpy(), axis=0) <= 0.05 + 1e-6)


def test_fine_tuning_preserves_zeros():
    model = compiled(optimizer=tf_keras.optimizers.SGD(0.1, momentum=0.9))
    tf_lap.prune(model, 0.9)
    fit(model, [tf_lap.PreserveSparsity()])
    assert_exact(model)
    assert_nothing_left(model)


def test_two_replicas_prune_alike():
    strategy = two_replicas()
    with strategy.scope():
        model = compiled(network())
    recorder = Recorder()
    fit(model, [tf_lap.LAPCallback(polynomial()), recorder])
    assert_exact(model)
    first, second = (v.numpy() for v in model.get_layer("first").kernel.values)
    np.testing.assert_array_equal(first, second)
    for earlier, later in itertools.pairwise(recorder.kernels):
        assert not np.any(later[earlier == 0])


def test_two_callbacks_in_one_fit_are_an_error():
    with pytest.raises(ValueError, match="two LAPCallbacks in one fit"):
        fit(compiled(), [tf_lap.LAPCallback(polynomial()), tf_lap.LAPCallback(polynomial())])


def test_an_unbuilt_model_is_an_error():
    with pytest.raises(ValueError, match="is not built"):
        tf_lap.prune(tf_keras.Sequential([layers.Dense(3)]), 0.5)


class Subclassed(tf_keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(5, name="first"), layers.Dense(3, name="second")

    def call(self, x):
        return self.second(self.first(x))


def test_a_subclassed_model_is_followed_through_its_call():
    called, built = Subclassed(), Subclassed()
    called(np.zeros((2, 4), np.float32))
    built.build((None, 4))
    for model in (called, built):
        found = tf_lap.neighbors(model)
        assert found["first"].following == ("second",)
        assert found["second"].previous == ("first",)
        assert not any(layer._inbound_nodes for layer in (model.first, model.second))


class Several(Subclassed):
    def call(self, inputs, training=False, mask=None):
        return self.second(tf.nn.relu(self.first(inputs["a"]) + self.first(inputs["b"])))


def test_a_subclassed_model_of_several_inputs_is_followed():
    model = Several()
    model({"a": np.zeros((2, 4), np.float32), "b": np.zeros((2, 4), np.float32)}, training=True)
    assert tf_lap.neighbors(model)["second"].previous == ("first",)
    assert tf_lap.channel_energies(model)["first"].incoming.shape == (2, 4)


class Opaque(Subclassed):
    def call(self, x):
        return self.second(self.first(x if x.numpy().sum() > 1 else -x))


def test_what_the_message_about_a_model_that_cannot_be_followed_names_helps():
    model = Opaque()
    model.run_eagerly = True
    model(np.ones((2, 4), np.float32))
    with pytest.warns(UserWarning, match="the call of Opaque 'opaque.*' cannot be followed"):
        report = tf_lap.prune(model, 0.5)
    assert [layer.kept for layer in report.layers] == [10, 8]
    (reason,) = report.layers[0].boundaries
    assert "write it with layers and functions of tf on tensors, without NumPy and without Python conditions" in reason
    assert "build it with the functional API, or say with neighbors={path: (before, after)} what follows what" in reason
    assert tf_lap.neighbors(rewritten(Subclassed()))["second"].previous == ("first",)
    inputs = tf_keras.Input((4,))
    functional = tf_keras.Model(inputs, model.second(model.first(inputs)))
    assert tf_lap.neighbors(functional)["second"].previous == ("first",)
    with pytest.warns(UserWarning, match="cannot be followed"):
        told = tf_lap.prune(model, 0.5, neighbors={"first": ((), ("second",)), "second": (("first",), ())})
    assert [(layer.previous, layer.following) for layer in told.layers] == [((), ("second",)), (("first",), ())]


def rewritten(model):
    model(np.ones((2, 4), np.float32))
    return model


class OpaqueLayer(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(3, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x) if isinstance(x, tf.Tensor) else x.numpy()

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3)


class Following(OpaqueLayer):
    def call(self, x):
        return self.inner(x)


def test_what_the_message_about_a_layer_that_cannot_be_followed_names_helps():
    def model(layer):
        inputs = tf_keras.Input((4,))
        return tf_keras.Model(inputs, layers.Dense(2, name="last")(layer(layers.Dense(3, name="first")(inputs))))

    opaque = model(OpaqueLayer(name="opaque"))
    (reason,) = (r for r in tf_lap.neighbors(opaque)["last"].boundaries if "opaque" in r)
    assert (
        "without Python conditions on a tensor's value, or give OpaqueLayer a rule with tf_lap.register_rule" in reason
    )
    assert tf_lap.neighbors(model(Following(name="opaque")))["last"].previous == ("opaque/inner",)

    @tf_lap.register_rule(OpaqueLayer)
    def rule(layer, x):
        return tf.ones([3]) * tf.reduce_sum(x)

    found = tf_lap.neighbors(model(OpaqueLayer(name="opaque")))
    assert found["last"].previous == ("first",)
    assert found["opaque/inner"].boundaries == ("OpaqueLayer 'opaque' has one rule for all that is inside it",)


# Arguments that are tensors and carry no channels: a shape, a bound, a rate, a mask.
SETTINGS_OF_CALLS = {
    "reshape by tf.shape": lambda h: tf.reshape(h, [tf.shape(h)[0], 16, 8]),
    "reshape by a stack": lambda h: tf.reshape(h, tf.stack([tf.shape(h)[0], tf.shape(h)[1] * 4, 8])),
    "clipped at its maximum": lambda h: tf.clip_by_value(h, 0.0, tf.reduce_max(h)),
    "clipped, by name": lambda h: tf.clip_by_value(clip_value_max=tf.reduce_max(h), clip_value_min=0.0, t=h),
    "a rate": lambda h: tf.nn.dropout(h, tf.reduce_mean(h) * 0.0),
    "a slope": lambda h: tf.nn.leaky_relu(h, alpha=0.2),
    "where": lambda h: tf.where(h > 0, h, 0.0),
    "a mask": lambda h: h * tf.cast(tf.reduce_any(h > 0, axis=-1, keepdims=True), tf.float32),
    "zeros of its shape": lambda h: tf.maximum(h, tf.zeros_like(h)),
    "a bound in proportion": lambda h: tf.clip_by_value(h, 0.0, tf.cast(tf.shape(h)[1], tf.float32)),
}


class Applied(layers.Layer):
    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x, mask=None):
        return self.function(x)


@pytest.mark.parametrize("wrapped", [lambda f: f, layers.Lambda, Applied], ids=["bare", "Lambda", "layer"])
@pytest.mark.parametrize("setting", SETTINGS_OF_CALLS)
def test_arguments_without_channels_are_no_signals(setting, wrapped):
    inputs = tf_keras.Input((4, 4, 3))
    h = wrapped(SETTINGS_OF_CALLS[setting])(layers.Conv2D(8, 1, name="a")(inputs))
    model = tf_keras.Model(inputs, layers.Dense(4, name="b")(h))
    found = tf_lap.neighbors(model)
    assert found["a"].following == ("b",)
    assert all(reason.startswith("network") for n in found.values() for reason in n.boundaries)
    put = np.sum(model.get_layer("a").kernel.numpy() ** 2, axis=(0, 1, 2))
    np.testing.assert_allclose(tf_lap.channel_energies(model)["b"].incoming, put, rtol=1e-5)


def test_a_kernel_that_makes_a_bound_alone_ends_there():
    inputs = tf_keras.Input((4,))
    h, bound = layers.Dense(3, name="a")(inputs), layers.Dense(3, name="bound")(inputs)
    model = tf_keras.Model(inputs, layers.Dense(2, name="b")(tf.clip_by_value(h, 0.0, tf.nn.relu(bound))))
    found = tf_lap.neighbors(model)
    assert found["b"].previous == ("a",)
    assert "Dense 'bound': what it puts out serves as a mask, a bound or a shape only" in found["bound"].boundaries
    np.testing.assert_array_equal(tf_lap.channel_energies(model)["bound"].outgoing, np.ones(3))


def test_a_loss_that_is_added_is_an_end():
    inputs = tf_keras.Input((4,))
    h = layers.Dense(3, name="a")(inputs)
    model = tf_keras.Model(inputs, layers.Dense(2, name="b")(inputs))
    model.add_loss(tf.reduce_mean(h))
    assert tf_lap.neighbors(model)["b"].following == ()
    tf_lap.prune(model, 0.5)


LOAD = """
import sys, json, numpy as np, tf_keras
model = tf_keras.models.load_model(sys.argv[1])
assert "tf_lap" not in sys.modules
print(json.dumps([int(np.count_nonzero(layer.kernel.numpy())) for layer in model.layers]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.keras", "model.h5", "model"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_saved_model_loads_in_a_fresh_process_with_plain_tf_keras(tmp_path, file):
    model = compiled()
    fit(model, [tf_lap.LAPCallback(polynomial())])
    model.save(tmp_path / file)
    command = [sys.executable, "-c", LOAD, str(tmp_path / file)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(run.stdout.splitlines()[-1]) == [38, 58, 24]


HYGIENE = """
import os, sys
import tensorflow as tf
import keras
import tf_lap
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
tf_lap.prune(model, 0.5)
assert "TF_USE_LEGACY_KERAS" not in os.environ
print(sorted(name for name in ("tf_keras", "tensorflow_model_optimization") if name in sys.modules))
"""


def test_importing_and_pruning_import_neither_tfmot_nor_tf_keras():
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    command = [sys.executable, "-c", HYGIENE]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.splitlines()[-1] == "[]"
