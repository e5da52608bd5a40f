"""What exporting does with each kind of model, through `compat.exporting`."""

import warnings

import keras
import numpy as np
import pytest
from exported import convolutions, export, inputs_of, perceptron, without_litert

import tf_lap

layers = keras.layers
F32, F16, DYNAMIC, INT8 = None, "float16", "dynamic_range", "int8"


@pytest.mark.slow
def test_several_inputs_and_outputs_are_told_apart_by_name(tmp_path):
    zeta, alpha = keras.Input((4,), name="zeta"), keras.Input((6,), name="alpha")
    number = keras.Input((5,), dtype="int32", name="mid")
    embedded = layers.Flatten()(layers.Embedding(2, 3)(number))
    x = layers.Concatenate()([layers.Dense(3)(zeta), layers.Dense(4)(alpha), embedded])
    two, five = layers.Dense(5, name="b")(x), layers.Dense(5, name="a")(x)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((20, 4)), rng.standard_normal((20, 6)), rng.integers(0, 2, (20, 5))]
    keys = {"z": zeta, "a": alpha, "m": number}
    forms = [arrays, dict(zip(("zeta", "alpha", "mid"), arrays, strict=True)), dict(zip(keys, arrays, strict=True))]
    models = [keras.Model([zeta, alpha, number], [two, five]), keras.Model(keys, {"x": two, "w": five})]
    nested = keras.Model({"p": [zeta, alpha], "q": number}, five)
    assert tf_lap.export_tflite(nested, tmp_path / "m.tflite").relative_difference < 1e-5
    for model, data in ((models[0], forms[0]), (models[0], forms[1]), (models[1], forms[1]), (models[1], forms[2])):
        report = tf_lap.export_tflite(
            model, tmp_path / "m.tflite", quantization="int8", representative_dataset=data, sparse=False
        )
        assert report.relative_difference < 0.1


def test_a_subclassed_model_is_exported(tmp_path):
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = layers.Dense(32, activation="relu"), layers.Dense(4)

        def call(self, x):
            return self.second(self.first(x))

    model = Network()
    x = np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32)
    model(x)
    for quantization in (None, "int8"):
        report = tf_lap.export_tflite(model, tmp_path / "m.tflite", quantization=quantization, representative_dataset=x)
        assert report.relative_difference < (0.1 if quantization else 1e-5)
    tf_lap.export_tflite(model, tmp_path / "m.tflite")
    for data in ([x, x], {"x": x}):
        with pytest.raises(ValueError, match="wrap it into a Functional model"):
            tf_lap.export_tflite(model, tmp_path / "m.tflite", representative_dataset=data)


def test_open_dimensions_and_a_fixed_batch_are_filled(tmp_path):
    inputs = keras.Input((None, None, 3))
    tf_lap.export_tflite(keras.Model(inputs, layers.Conv2D(4, 3)(inputs)), tmp_path / "open.tflite")
    legacy = pytest.importorskip("tf_keras")
    inputs = legacy.Input((5,), batch_size=3)
    model = legacy.Model(inputs, legacy.layers.Dense(2)(inputs))
    data = np.ones((10, 5), np.float32)
    report = tf_lap.export_tflite(model, tmp_path / "m.tflite", quantization="int8", representative_dataset=data)
    assert report.relative_difference < 0.1


@pytest.mark.parametrize(
    ("flavour", "policy"),
    [
        ("keras", "mixed_float16"),
        ("tf_keras", "mixed_bfloat16"),
        pytest.param("keras", "mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("tf_keras", "mixed_float16", marks=pytest.mark.slow),
    ],
)
def test_mixed_precision_is_exported_in_float32_and_left_as_it_was(tmp_path, flavour, policy):
    flavour = pytest.importorskip(flavour)
    flavour.mixed_precision.set_global_policy(policy)
    try:
        model = convolutions(flavour)
    finally:
        flavour.mixed_precision.set_global_policy("float32")
    x = inputs_of(model, 4)
    policies = [layer.compute_dtype for layer in model.layers]
    assert policy.removeprefix("mixed_") in policies
    before = np.asarray(model(x)).astype(np.float32)
    tf_lap.prune(model, 0.9)
    half = np.asarray(model(x)).astype(np.float32)
    assert np.abs(before - half).max() > 0
    for quantization in (None, "int8"):
        export(model, tmp_path / "m.tflite", quantization=quantization)
    np.testing.assert_array_equal(np.asarray(model(x)).astype(np.float32), half)
    assert [layer.compute_dtype for layer in model.layers] == policies


def test_weights_in_half_precision_are_refused_with_the_remedy(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="float16", name="half")])
    with pytest.raises(ValueError, match=r"layer 'half' has weights in float16.*set_weights"):
        tf_lap.export_tflite(model, tmp_path / "m.tflite")


def test_tfmots_wrappers_are_stripped(tmp_path):
    legacy = pytest.importorskip("tf_keras")
    schedule = tf_lap.LookaheadPruningSchedule(0.9, decay="constant")
    model = tf_lap.prune_lookahead(perceptron(legacy), pruning_schedule=schedule)
    import tensorflow_model_optimization as tfmot

    model.compile("sgd", "mse")
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    model.fit(inputs_of(model, 320), np.zeros((320, 8)), verbose=0, epochs=11, callbacks=callbacks)
    wrapped = model.predict_on_batch(inputs_of(model, 4))
    report = tf_lap.export_tflite(model, tmp_path / "model.tflite")
    assert report.sparse
    assert {round(tensor.sparsity, 2) for tensor in report.tensors} == {0.9}
    assert all(isinstance(layer, tf_lap.PrunableLayer) for layer in model.layers)
    np.testing.assert_array_equal(model.predict_on_batch(inputs_of(model, 4)), wrapped)


def test_no_warning_reaches_the_user(tmp_path, monkeypatch):
    without_litert(monkeypatch)
    a, b = keras.Input((4,)), keras.Input((4,))
    models = [perceptron(), keras.Model([a, b], layers.Dense(3)(a + b)), keras.Model([a], layers.Dense(3)(a))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for model in models:
            data = [np.ones((9, *tensor.shape[1:]), np.float32) for tensor in model.inputs]
            tf_lap.export_tflite(model, tmp_path / "m.tflite", quantization="int8", representative_dataset=data)
    hidden = (DeprecationWarning, PendingDeprecationWarning, ResourceWarning)
    assert [str(warning.message) for warning in caught if not issubclass(warning.category, hidden)] == []


def test_a_policy_that_cannot_be_set_leaves_the_others_as_they_were(tmp_path):
    class Stubborn(layers.Dense):
        @property
        def dtype_policy(self):
            return self._dtype_policy

        @dtype_policy.setter
        def dtype_policy(self, value):
            raise RuntimeError("not mine")

    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="mixed_float16"), layers.Dense(3)])
    model.layers[1].__class__ = Stubborn
    model.layers[1]._dtype_policy = keras.dtype_policies.get("mixed_float16")
    with pytest.raises(RuntimeError, match="not mine"):
        tf_lap.export_tflite(model, tmp_path / "m.tflite")
    assert [layer.compute_dtype for layer in model.layers] == ["float16", "float16"]
