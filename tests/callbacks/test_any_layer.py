"""Recurrent, attention and separable networks from the fit to the TFLite file: exact counts, and zeros that stay."""

import dataclasses
import zipfile
from typing import Any

import keras
import numpy as np
import pytest
from exported import INTERPRETERS, answers, inputs_of

import tf_lap
from tf_lap.report import PruningReport

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")

FLAVOURS = {"keras": keras, "tf_keras": tf_keras}
SPARSITY = 0.7


def lstm(flavour):
    layers = flavour.layers
    inputs = flavour.Input((5, 6))
    x = layers.LSTM(8, unroll=True, name="memory")(layers.Dense(7, name="first")(inputs))
    return flavour.Model(inputs, layers.Dense(4, name="head")(x))


def gru(flavour):
    layers = flavour.layers
    inputs = flavour.Input((5, 6))
    x = layers.GRU(8, return_sequences=True, name="lower")(inputs)
    return flavour.Model(inputs, layers.Dense(4, name="head")(layers.GRU(7, name="upper")(x)))


def encoder(flavour):
    layers = flavour.layers
    inputs = flavour.Input((5, 6))
    x = layers.Dense(8, name="first")(inputs)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4, name="attention")(x, x)])
    x = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.Dense(8, name="narrow")(layers.Dense(16, activation="relu", name="widen")(x))])
    return flavour.Model(inputs, layers.Dense(4, name="head")(layers.GlobalAveragePooling1D()(x)))


def separable(flavour):
    layers = flavour.layers
    inputs = flavour.Input((8, 8, 3))
    x = layers.SeparableConv2D(8, 3, activation="relu", name="separable")(layers.Conv2D(6, 1, name="first")(inputs))
    x = layers.Conv2D(8, 1, name="pointwise")(layers.DepthwiseConv2D(3, name="depthwise")(x))
    return flavour.Model(inputs, layers.Dense(4, name="head")(layers.GlobalAveragePooling2D()(x)))


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, which of its kernels are pruned, and what is passed besides."""

    build: Any
    pruned: tuple[str, ...]
    filters: Any = None
    batch_size: int | None = None


ATTENTION = tuple(f"attention/{name}" for name in ("query", "key", "value", "attention_output"))
NOT_DEPTHWISE = ("first", "separable", "pointwise", "head")
DEPTHWISE = ("separable/depthwise_kernel", "depthwise")
CASES = {
    "lstm": Case(lstm, ("first", "memory/kernel", "memory/recurrent_kernel", "head")),
    "gru": Case(
        gru,
        ("lower/kernel", "lower/recurrent_kernel", "upper/kernel", "upper/recurrent_kernel", "head"),
        batch_size=1,
    ),
    "encoder": Case(encoder, ("first", *ATTENTION, "widen", "narrow", "head")),
    "separable": Case(separable, NOT_DEPTHWISE),
    "separable, depthwise named": Case(separable, (*NOT_DEPTHWISE, *DEPTHWISE), filters=".*"),
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network, the callback that pruned it in a fit, and report and weights after that fit."""

    model: Any
    callback: tf_lap.LAPCallback
    report: PruningReport
    weights: list[np.ndarray]
    case: Case


def fit(model, callbacks):
    x = inputs_of(model, 48)
    y = np.random.default_rng(1).integers(0, 4, 48)
    model.fit(x, y, batch_size=16, epochs=4, callbacks=callbacks, verbose=0)


@pytest.fixture(scope="module", params=FLAVOURS)
def flavour(request):
    return FLAVOURS[request.param]


# The others show the same of layers that a fast test in graph/ covers.
FAST = ("lstm", "encoder")


@pytest.fixture(scope="module", params=[c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in CASES])
def trained(request, flavour):
    case = CASES[request.param]
    flavour.utils.set_random_seed(3)
    model = case.build(flavour)
    loss = flavour.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    schedule = tf_lap.LookaheadPruningSchedule(SPARSITY, begin_step=0, end_step=8, frequency=2)
    callback = tf_lap.LAPCallback(schedule, filters=case.filters, allocation="uniform")
    fit(model, [callback])
    return Trained(model, callback, callback.report, model.get_weights(), case)


def live(weights):
    """Where weight matrices are not zero."""
    return [weight != 0 for weight in weights if weight.ndim > 1]


def test_each_kernel_keeps_exactly_its_share(trained):
    pruned = {layer.path: layer for layer in trained.report.pruned}
    assert set(pruned) == set(trained.case.pruned)
    for layer in pruned.values():
        assert layer.kept == max(1, round(layer.weights * (1 - SPARSITY)))
        assert layer.zeros == layer.weights - layer.kept
    in_matrices = sum(weight.size - np.count_nonzero(weight) for weight in trained.weights if weight.ndim > 1)
    assert in_matrices == trained.report.zeros


def test_depthwise_kernels_are_left_whole_until_they_are_named(trained):
    if trained.case.build is separable:
        left_whole = {layer.path for layer in trained.report.skipped}
        assert left_whole == set(DEPTHWISE) - set(trained.case.pruned)


def test_kernels_between_others_are_looked_at_from_both_sides(trained):
    ends = {trained.case.pruned[0], "head"}
    assert {layer.path for layer in trained.report.pruned if len(layer.sides) < 2} == ends


def test_zeros_stay_while_the_callback_is_at_work(trained):
    fit(trained.model, [trained.callback])
    for before, now in zip(live(trained.weights), live(trained.model.get_weights()), strict=True):
        np.testing.assert_array_equal(before, now)
    moved = zip(trained.weights, trained.model.get_weights(), strict=True)
    assert any(np.any(before != now) for before, now in moved)


def test_it_is_saved_and_loaded_as_plain_keras(trained, flavour, tmp_path):
    path = tmp_path / "model.keras"
    trained.model.save(path)
    with zipfile.ZipFile(path) as file:
        assert b"tf_lap" not in file.read("config.json")
    again = flavour.models.load_model(path)
    x = inputs_of(trained.model, 4)
    np.testing.assert_array_equal(again.predict_on_batch(x), trained.model.predict_on_batch(x))
    for loaded, saved in zip(again.get_weights(), trained.model.get_weights(), strict=True):
        np.testing.assert_array_equal(loaded, saved)


@pytest.mark.slow
def test_its_file_answers_as_it_does(trained, tmp_path):
    path = tmp_path / "model.tflite"
    x = inputs_of(trained.model, 4)
    report = tf_lap.export_tflite(
        trained.model, path, representative_dataset=x, batch_size=trained.case.batch_size, sparse=False
    )
    assert report.relative_difference < report.tolerance
    expected = trained.model.predict_on_batch(x)
    for interpreter in INTERPRETERS.values():
        np.testing.assert_allclose(answers(path.read_bytes(), x, interpreter), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_masks_are_the_same_on_both(case):
    model, twin = (case.build(flavour) for flavour in FLAVOURS.values())
    twin.set_weights(model.get_weights())
    for each in (model, twin):
        tf_lap.prune(each, SPARSITY, filters=case.filters, allocation="uniform")
    for mask, other in zip(live(model.get_weights()), live(twin.get_weights()), strict=True):
        np.testing.assert_array_equal(mask, other)
