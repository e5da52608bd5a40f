"""The models of keras.applications: their energies against a sweep in NumPy, their graphs walked to the ends."""

import gc

import keras
import numpy as np
import numpy_sweep
import pytest
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

import tf_lap
from tf_lap.graph import registry

pytestmark = pytest.mark.slow  # they build the networks of keras.applications

COMPARED = [
    "ResNet50",
    "MobileNetV2",
    "DenseNet121",
    "EfficientNetB0",
    "InceptionV3",
    "Xception",
    "NASNetMobile",
    "ConvNeXtTiny",
    "VGG16",
]
SMALLEST = [
    *COMPARED,
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "MobileNet",
    "MobileNetV3Large",
    "MobileNetV3Small",
    "ResNet50V2",
]
# These have the graph of ConvNeXtSmall, and wider layers.
WIDER = ["ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtXLarge"]
LARGER = sorted(name for name in dir(keras.applications) if name[0].isupper() and name not in SMALLEST + WIDER)


def with_top(names):
    return [pytest.param((name, True), id=f"{name}-top") for name in names]


def without_top(names):
    return [pytest.param((name, False), id=f"{name}-headless") for name in names]


# The larger of a family repeat its blocks between the same two ends.
WITH_AND_WITHOUT_TOP = with_top(SMALLEST) + without_top(SMALLEST)


def build(name, include_top):
    keras.utils.set_random_seed(0)
    options = {"classes": 10} if include_top else {}
    if name.startswith("VGG"):
        options["input_shape"] = (64, 64, 3)  # still four positions for Flatten, and no kernel of 103 million weights
    return getattr(keras.applications, name)(weights=None, include_top=include_top, **options)


@pytest.fixture(scope="module", autouse=True)
def quick_garbage_collection():
    gc.freeze()  # what TensorFlow made on import is not looked through again after each model
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")  # so a model is built once for all tests that ask for it
def model(request):
    model = build(*request.param)
    yield model
    del model
    keras.backend.clear_session()  # collects the garbage, too


def assert_same_energies(got, expected):
    assert set(got) == set(expected)
    for path, (incoming, outgoing) in expected.items():
        assert got[path].incoming.shape == incoming.shape, path
        assert got[path].outgoing.shape == outgoing.shape, path
        np.testing.assert_allclose(got[path].incoming, incoming, rtol=1e-4, err_msg=f"{path}, incoming")
        np.testing.assert_allclose(got[path].outgoing, outgoing, rtol=1e-4, err_msg=f"{path}, outgoing")


@pytest.mark.parametrize("model", with_top(COMPARED), indirect=True)
def test_energies_agree_with_the_definition_in_numpy(model):
    numpy_sweep.randomise(model, seed=1)
    assert_same_energies(tf_lap.channel_energies(model), numpy_sweep.sweep(model))


@pytest.mark.slow
@pytest.mark.parametrize("model", WITH_AND_WITHOUT_TOP + with_top(LARGER), indirect=True)
def test_only_the_network_itself_bounds_what_a_kernel_sees(model):
    separable, depthwise = keras.layers.SeparableConv2D, keras.layers.DepthwiseConv2D
    kernels = (keras.layers.Dense, keras.layers.Conv2D, separable, depthwise)
    layers = {path: layer for path, layer in numpy_sweep.layers_of(model).items() if isinstance(layer, kernels)}
    halves = {f"{path}/depthwise_kernel" for path, layer in layers.items() if isinstance(layer, separable)}
    neighbors = tf_lap.neighbors(model)
    assert set(neighbors) == {*layers, *halves}
    for path, around in neighbors.items():
        assert {*around.previous, *around.following} <= set(neighbors), path
        assert all(reason.startswith(("network input", "network output")) for reason in around.boundaries), path
        assert around.previous or any(reason.startswith("network input") for reason in around.boundaries), path
        assert around.following or any(reason.startswith("network output") for reason in around.boundaries), path


@pytest.mark.parametrize("model", with_top(["InceptionResNetV2"]), indirect=True)
def test_the_scaled_residual_of_inception_resnet_v2_is_followed(model):
    # The last blocks do: they hold each way of scaling but that of block35, and trace three times as fast.
    blocks = keras.Model(model.get_layer("block17_18_ac").output, model.output)
    scaled = {layer.name: layer.scale for layer in blocks.layers if isinstance(layer, CustomScaleLayer)}
    assert set(scaled.values()) == {0.1, 0.2, 1.0}
    numpy_sweep.randomise(blocks, seed=1)
    followed = tf_lap.channel_energies(blocks)
    assert_same_energies(followed, numpy_sweep.sweep(blocks))

    calls = set()
    rules = dict(registry.RULES)
    try:

        @tf_lap.register_rule(CustomScaleLayer)
        def rule(layer, x, branch):
            calls.add(layer.name)
            return x + layer.scale**2 * branch

        registered = tf_lap.channel_energies(blocks)
    finally:
        registry.RULES.clear()
        registry.RULES.update(rules)
    assert calls == set(scaled)
    for path, energies in followed.items():
        np.testing.assert_allclose(registered[path].incoming, energies.incoming, rtol=1e-6, err_msg=path)
        np.testing.assert_allclose(registered[path].outgoing, energies.outgoing, rtol=1e-6, err_msg=path)
