"""Every layer class of both Kerases, alone between two Dense layers, and with every mask that its call takes."""

import inspect

import keras
import pytest
from helpers.every_layer import (
    ALL,
    NOT_BUILT,
    STEPS,
    build_model,
    call_layer,
    choose_shape,
    finish_model,
    list_classes,
    make_layer,
    shares_specifications,
)

import tf_lap
from tf_lap.report.coverage import OPT_IN


def assert_resolves_or_gives_reasons(model, prune=False):
    """Each kernel has other kernels on either side, or a reason why there is none."""
    around = tf_lap.neighbors(model)
    assert {"first", "last"} & set(around)
    for path, neighbors in around.items():
        assert neighbors.boundaries or (neighbors.previous and neighbors.following), path
        assert all(reason.strip() for reason in neighbors.boundaries)
    assert set(tf_lap.channel_energies(model)) == set(around)
    assert set(around) <= {layer.path for layer in tf_lap.Pruner(model).report().layers}
    if prune:  # pruning takes most of the time, and does not depend on the graph
        report = tf_lap.prune(model, 0.5)
        opt_in = {layer.path for layer in report.skipped if layer.skipped == OPT_IN}
        assert {layer.path for layer in report.pruned} | opt_in == set(around)


@pytest.mark.parametrize(("library", "name"), ALL)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:keras")
def test_every_layer_class_resolves_or_is_a_boundary_with_a_reason(library, name):
    if (library.__name__, name) in NOT_BUILT:
        with pytest.raises((TypeError, ValueError, NotImplementedError)):
            build_model(library, name)
        return
    if (library.__name__, name) == ("tf_keras", "SpectralNormalization") and not shares_specifications():
        pytest.skip("tf_keras makes its input specification with tf.keras, which is Keras 3 in this process")
    assert_resolves_or_gives_reasons(build_model(library, name))


def test_classes_that_are_not_built_exist():
    existing = {(library.__name__, name) for library, name in list_classes()}
    newest = keras.__version__.startswith("3.15")
    assert not {case for case in NOT_BUILT if case not in existing and (newest or case[0] == "tf_keras")}


# The masks that calls take, by the argument's name: their shapes behind the batch.
MASKS = {
    "mask": lambda shape: shape[:1],
    "query_mask": lambda shape: shape[:1],
    "key_mask": lambda shape: shape[:1],
    "value_mask": lambda shape: shape[:1],
    "attention_mask": lambda shape: (shape[0], shape[0]),
}
# Masks that the library itself refuses. A test fails if it accepts one.
REFUSED = {
    ("tf_keras", "ConvLSTM1D", "of Masking"): "it takes a mask of steps, and Masking masks positions",
    ("tf_keras", "ConvLSTM2D", "of Masking"): "it takes a mask of steps, and Masking masks positions",
    ("tf_keras", "ConvLSTM3D", "of Masking"): "it takes a mask of steps, and Masking masks positions",
    ("tf_keras", "GroupNormalization", "of Masking"): "it takes a mask of its input's shape",
    ("tf_keras", "GroupNormalization", "of an embedding"): "it takes a mask of its input's shape",
    ("tf_keras", "Softmax", "of Masking"): "it takes a mask of its input's shape",
    ("tf_keras", "Softmax", "of an embedding"): "it takes a mask of its input's shape",
}
ATTENTION = ("MultiHeadAttention", "GroupQueryAttention")


def list_masked():
    """Each class that takes a mask, each mask that it takes, and each way to pass the mask."""
    for library, name in list_classes():
        cls = getattr(library.layers, name)
        if (library.__name__, name) in NOT_BUILT:
            continue
        for parameter in inspect.signature(cls.call).parameters:
            if parameter in MASKS:
                yield library, name, parameter, "by name"
                # The `__call__` of tf_keras's recurrent layers has another signature than their `call`.
                if "args" in inspect.signature(cls.__call__).parameters:
                    yield library, name, parameter, "positionally"
                if parameter == "mask" or parameter == "query_mask":
                    yield library, name, parameter, "of Masking"
                    if choose_shape(name) == STEPS:
                        yield library, name, parameter, "of an embedding"


MASKED = [pytest.param(*case, id=f"{case[0].__name__}.{case[1]}, {case[2]} {case[3]}") for case in list_masked()]


def build_masked_model(library, name, parameter, how):
    layers, shape, layer = library.layers, choose_shape(name), make_layer(library, name)
    if how == "of an embedding":
        inputs = library.Input(shape[:1], dtype="int32")
        x = layers.Embedding(9, 8, mask_zero=True)(inputs)
        return finish_model(library, inputs, call_layer(layer, name, layers.Dense(8, name="first")(x)))
    inputs = library.Input(shape)
    if how == "of Masking":
        x = layers.Dense(shape[-1], name="first")(layers.Masking()(inputs))
        return finish_model(library, inputs, call_layer(layer, name, x))
    x = layers.Dense(shape[-1], name="first")(inputs)
    wide = shape if name in ("Softmax", "GroupNormalization") else MASKS[parameter](shape)
    mask = library.Input(wide, dtype="float32" if name == "Softmax" else "bool")
    argument = [mask, mask] if name in ("Attention", "AdditiveAttention") else mask
    if how == "by name":
        return finish_model(library, [inputs, mask], call_layer(layer, name, x, **{parameter: argument}))
    order = list(inspect.signature(layer.call).parameters)
    before = order[2 if name in ATTENTION else 1 : order.index(parameter)]
    values = {"key": x, "query_mask": mask, "key_mask": mask, "value_mask": mask}
    return finish_model(library, [inputs, mask], call_layer(layer, name, x, *map(values.get, before), argument))


@pytest.mark.parametrize(("library", "name", "parameter", "how"), MASKED)
@pytest.mark.filterwarnings("ignore::UserWarning:keras", "ignore:model .* can be pruned")
def test_a_mask_is_no_signal(library, name, parameter, how):
    if (library.__name__, name, how) in REFUSED:
        with pytest.raises((TypeError, ValueError)):
            build_masked_model(library, name, parameter, how)
        return
    assert_resolves_or_gives_reasons(build_masked_model(library, name, parameter, how), prune=how == "of an embedding")


def test_masks_that_are_refused_are_tried():
    assert not set(REFUSED) - {(library.__name__, name, how) for library, name, _, how in list_masked()}
