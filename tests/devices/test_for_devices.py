"""A copy of a model that XNNPACK can run sparse: the same where it can be, with a warning where not."""

import warnings

import keras
import numpy as np
import pytest
import tf_keras
from mobile import WIDTH, make_mobile, randomize

import tf_lap
from tf_lap.warn import PruningWarning

FLAVOURS = pytest.mark.parametrize("flavour", [keras, tf_keras], ids=["keras", "tf_keras"])


def image(size=32):
    return np.random.default_rng(1).standard_normal((2, size, size, 3)).astype(np.float32)


def halve(flavour, kernel, padding, name="half"):
    """A depthwise convolution of stride 2, padded by a layer or by itself."""

    def apply(x):
        if padding != "same":
            x = flavour.layers.ZeroPadding2D(padding, name=f"{name}_zeros")(x)
        mode = "same" if padding == "same" else "valid"
        return flavour.layers.DepthwiseConv2D(kernel, strides=2, padding=mode, name=name)(x)

    return apply


def make_gate(flavour, keepdims, middle):
    """Squeeze and excite: channels are scaled by what is computed from their means."""

    def apply(x):
        scale = flavour.layers.GlobalAveragePooling2D(keepdims=keepdims, name="squeeze")(x)
        for layer in middle(flavour.layers):
            scale = layer(scale)
        return flavour.layers.Multiply(name="excite")([x, scale])

    return apply


def dense_gate(layers):
    return [layers.Dense(WIDTH, activation="sigmoid", name="gate"), layers.Reshape((1, 1, WIDTH))]


def convolution_gate(layers):
    return [layers.Reshape((1, 1, WIDTH)), layers.Conv2D(WIDTH, 1, activation="sigmoid", name="gate")]


EXACT = {
    "zeros_below": lambda flavour: halve(flavour, 3, ((0, 1), (0, 1))),
    "same": lambda flavour: halve(flavour, 3, "same"),
    "dense_gate": lambda flavour: make_gate(flavour, False, dense_gate),
    "convolution_gate": lambda flavour: make_gate(flavour, False, convolution_gate),
}


@FLAVOURS
@pytest.mark.parametrize("case", EXACT)
def test_what_can_be_the_same_is(flavour, case):
    model = make_mobile(flavour, between=EXACT[case](flavour))
    phone = tf_lap.for_devices(model)
    np.testing.assert_allclose(phone(image()), model(image()), atol=1e-5)
    assert tf_lap.device_report(phone).qualifies
    assert {type(layer).__module__.split(".")[0] for layer in phone.layers} == {flavour.__name__}


def test_numbers_that_scale_a_gate_get_four_axes():
    def gate(x):
        scale = keras.layers.Conv2D(WIDTH, 1, name="gate")(keras.layers.GlobalAveragePooling2D(keepdims=True)(x))
        return keras.layers.Multiply()([x, keras.layers.ReLU(6.0)(scale + 3.0) * (1 / 6)])

    model = make_mobile(keras, between=gate)
    assert "a constant of 0 axes" in tf_lap.device_report(model).layers[0].reason
    phone = tf_lap.for_devices(model)
    np.testing.assert_allclose(phone(image()), model(image()), atol=1e-5)
    assert tf_lap.device_report(phone).qualifies


@FLAVOURS
def test_a_head_of_convolutions_becomes_dense(flavour):
    body = make_mobile(flavour, classes=None)
    layers = flavour.layers
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(body.get_layer("pointwise_1").output)
    x = layers.Conv2D(8, 1, activation="relu", name="wide")(x)
    x = layers.Conv2D(3, 1, name="logits")(layers.Dropout(0.5)(x))
    model = flavour.Model(body.inputs, layers.Softmax()(layers.Flatten()(x)))
    randomize(model)
    phone = tf_lap.for_devices(model)
    assert type(phone.get_layer("wide")).__name__ == "Dense"
    np.testing.assert_allclose(phone(image()), model(image()), atol=1e-5)
    assert tf_lap.device_report(phone).qualifies


@FLAVOURS
@pytest.mark.parametrize("stem", ["same", "late"])
def test_a_stem_is_padded_on_every_side_with_a_warning(flavour, stem):
    model = make_mobile(flavour, stem=stem)
    with pytest.warns(PruningWarning, match=r"(?s)'stem' pads 1 on every side.*Fine-tune"):
        phone = tf_lap.for_devices(model)
    assert tf_lap.device_report(phone).qualifies
    # It is the model on an image that is moved by one pixel, but for the border.
    moved = np.zeros((2, 33, 33, 3), np.float32)
    moved[:, 1:, 1:] = image()
    stems = [flavour.Model(either.inputs, either.get_layer("stem").output) for either in (model, phone)]
    before, after = stems[0](moved[:, :32, :32]), stems[1](image())
    np.testing.assert_allclose(before[:, :-1, :-1], after[:, :-1, :-1], atol=1e-5)


def test_depthwise_5x5_that_pads_unevenly_is_said_to_change():
    model = make_mobile(keras, between=halve(keras, 5, ((1, 2), (1, 2))))
    with pytest.warns(PruningWarning, match="'half' pads 2 on every side"):
        phone = tf_lap.for_devices(model)
    assert tf_lap.device_report(phone).qualifies


def test_a_sequential_model_stays_one_and_the_model_stays_as_it_is():
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((16, 16, 3)), layers.Conv2D(8, 3, strides=2, padding="same", name="stem"),
        layers.Conv2D(8, 1, name="pointwise"), layers.GlobalAveragePooling2D(), layers.Dense(2),
    ])  # fmt: skip
    before = [layer.get_config() for layer in model.layers]
    with pytest.warns(PruningWarning, match="stem"):
        phone = tf_lap.for_devices(model)
    assert isinstance(phone, keras.Sequential)
    assert tf_lap.device_report(phone).qualifies
    assert [layer.get_config() for layer in model.layers] == before


def test_what_qualifies_already_stays_as_it_is(capsys):
    model = make_mobile(keras)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        phone = tf_lap.for_devices(model, verbose=1)
    assert capsys.readouterr().out == "nothing to change\n"
    np.testing.assert_array_equal(phone(image()), model(image()))


def test_the_copy_is_saved_and_loaded_as_any_model(tmp_path):
    phone = tf_lap.for_devices(make_mobile(keras, between=halve(keras, 3, "same")))
    phone.save(tmp_path / "phone.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "phone.keras")(image()), phone(image()), atol=1e-6)


def test_images_of_open_size_and_subclassed_models_are_refused_with_a_remedy():
    inputs = keras.Input((None, None, 3))
    open_model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    with pytest.raises(ValueError, match=r"no fixed size.*keras\.Input\(\(224, 224, 3\)\)"):
        tf_lap.for_devices(open_model)
    with pytest.raises(ValueError, match="no fixed size"):
        tf_lap.device_report(open_model)

    class Subclassed(keras.Model):
        def call(self, x):
            return x

    model = Subclassed()
    model.build((1, 4, 4, 3))
    with pytest.raises(TypeError, match="functional API"):
        tf_lap.for_devices(model)


APPLICATIONS = ("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "EfficientNetB0")


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_networks_of_keras_applications_qualify_after_it(name):
    model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=10)
    assert not tf_lap.device_report(model).qualifies
    with pytest.warns(PruningWarning, match="pads 1 on every side"):
        phone = tf_lap.for_devices(model)
    report = tf_lap.device_report(phone)
    assert all(layer.cluster is not None for layer in report.layers)
    assert report.qualifies
