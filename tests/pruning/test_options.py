"""What users pass: filters, neighbours, and mistakes."""

import functools

import keras
import numpy as np
import pytest
from chains import chain, kernels

import tf_lap

layers = keras.layers


@pytest.mark.parametrize(
    ("filters", "pruned"),
    [
        ("dense_[01]", ["dense_0", "dense_1"]),
        (["0$", "2$"], ["dense_0", "dense_2"]),
        (lambda layer: layer.units > 10, ["dense_0", "dense_1"]),
        (None, ["dense_0", "dense_1", "dense_2"]),
    ],
)
def test_filters_say_what_to_prune(filters, pruned):
    model = chain(12, 20, 20, 5)
    report = tf_lap.prune(model, 0.5, filters=filters)
    assert [layer.path for layer in report.pruned] == pruned
    assert {layer.skipped for layer in report.layers} - {None} <= {"left out by filters"}
    assert sum(np.any(kernel == 0) for kernel in kernels(model).values()) == len(pruned)


def test_given_neighbours_take_the_place_of_the_graphs():
    model = chain(6, 8, 8, 8)
    _, own, last = (w.astype(np.float64) for w in kernels(model).values())
    score = np.abs(own) * np.sqrt(np.sum(last**2, axis=1) + np.sum(own**2, axis=1))
    pruner = tf_lap.Pruner(model, neighbors={"dense_1": ([], ["dense_2", "dense_1"])}, allocation="uniform")
    pruner.update(0.5)
    np.testing.assert_array_equal(pruner.masks["dense_1"], score >= np.sort(score, axis=None)[-32])
    report = {layer.path: layer for layer in pruner.report().layers}
    assert (report["dense_1"].previous, report["dense_1"].following) == ((), ("dense_2", "dense_1"))
    assert report["dense_1"].boundaries == ("given by the user",)


def test_given_neighbours_of_a_shared_layer_hold_for_all_its_uses():
    inputs = keras.Input((6,))
    shared = layers.Dense(6, name="shared")
    model = keras.Model(inputs, layers.Dense(2, name="last")(shared(shared(inputs))))
    own, last = shared.kernel.numpy(), model.get_layer("last").kernel.numpy()
    score = np.abs(own) * np.linalg.norm(last, axis=1)
    pruner = tf_lap.Pruner(model, neighbors={"shared": ([], ["last"])}, allocation="uniform")
    pruner.update(0.5)
    np.testing.assert_array_equal(pruner.masks["shared"], score >= np.sort(score, axis=None)[-18])


def test_given_neighbours_may_lie_behind_a_flatten():
    inputs = keras.Input((2, 2, 3))
    x = layers.Flatten()(layers.Conv2D(4, 1, name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(5, name="dense")(x))
    same = {"conv": ([], ["dense"]), "dense": (["conv"], [])}
    masks = []
    for neighbors in (None, same):
        pruner = tf_lap.Pruner(keras.models.clone_model(model), neighbors=neighbors)
        pruner.model.set_weights(model.get_weights())
        pruner.update(0.5)
        masks.append(pruner.masks)
    for path in ("conv", "dense"):
        np.testing.assert_array_equal(masks[0][path], masks[1][path])


@pytest.mark.parametrize(
    ("neighbors", "error", "message"),
    [
        ({"nowhere": ([], [])}, ValueError, "neighbors: 'nowhere' matches no layer"),
        ({"dense_0": ([], ["dense_7"])}, ValueError, "'dense_7' is no kernel's path"),
        ({"dense_0": ([], ["dense_0"])}, ValueError, "has 12 inputs, which do not fit the layer's 20 channels"),
        ({"dense_0": "dense_1"}, TypeError, "expected two lists of layer paths"),
        ({"dense_0": 5}, TypeError, "expected two lists of layer paths"),
        (["dense_0"], TypeError, "expected a mapping from layer paths"),
    ],
)
def test_neighbours_that_do_not_fit_are_errors(neighbors, error, message):
    with pytest.raises(error, match=message):
        tf_lap.Pruner(chain(12, 20, 5), neighbors=neighbors)


def nan_model():
    model = chain(12, 20, 5)
    kernel = model.layers[1].kernel.numpy()
    kernel[3, 2] = np.nan
    model.layers[1].kernel.assign(kernel)
    return model


def infinite_model():
    model = chain(12, 20, 5)
    model.layers[0].kernel.assign(np.full((12, 20), np.inf))
    return model


def broken_norm(weight="moving_variance", value=-1.0):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense"), layers.BatchNormalization(name="bn")])
    getattr(model.get_layer("bn"), weight).assign(np.full(4, value))
    return model


class Plain(keras.layers.Layer):
    pass


BAD = [
    (lambda: keras.Sequential([layers.Dense(3)]), {}, ValueError, r"is not built.*model.build\(input_shape\)"),
    (lambda: layers.Dense(3), {}, TypeError, "expected a keras.Model or a tf_keras.Model, got Dense"),
    (lambda: "model.keras", {}, TypeError, "expected a keras.Model or a tf_keras.Model, got str"),
    (lambda: keras.Sequential([keras.Input((4,)), layers.ReLU()]), {}, ValueError, "has no layer with a kernel"),
    (lambda: chain(4, 3, trainable=False), {}, ValueError, "has no layer left to prune: 'dense_0': frozen"),
    (nan_model, {}, ValueError, "the kernel of layer 'dense_1' holds NaN or infinity"),
    (nan_model, {"score": "magnitude"}, ValueError, "the kernel of layer 'dense_1' holds NaN or infinity"),
    (infinite_model, {}, ValueError, "the kernel of layer 'dense_0' holds NaN or infinity"),
    (broken_norm, {}, ValueError, "energies around layer 'dense' are not finite: a normalization layer"),
    *[
        (functools.partial(broken_norm, weight, value), choices, ValueError, r"restore sound weights .*layer 'bn'\)")
        for weight, value in (("beta", np.nan), ("moving_mean", np.inf), ("moving_variance", np.inf))
        for choices in ({}, {"order": "forward"}, {"score": "magnitude"})
    ],
    (lambda: chain(4, 3), {"sparsity": 1.0}, ValueError, r"sparsity=1.0: .*lies in \[0, 1\)"),
    (lambda: chain(4, 3), {"sparsity": 90}, ValueError, "sparsity=90"),
    (lambda: chain(4, 3), {"sparsity": "high"}, TypeError, "sparsity='high'"),
    (lambda: chain(4, 3), {"sparsity": None}, TypeError, "sparsity=None"),
    (lambda: chain(4, 3), {"sparsity": np.array([0.5, 0.6])}, TypeError, "expected one number"),
    (lambda: chain(4, 3), {"sparsity": {"conv": 0.5}}, ValueError, "'conv' matches no layer.*'dense_0'"),
    (lambda: chain(4, 3), {"filters": "conv"}, ValueError, "filters: 'conv' matches no layer.*'dense_0'"),
    (lambda: chain(4, 3), {"filters": ["dense", "conv"]}, ValueError, "filters: 'conv' matches no layer"),
    (lambda: chain(4, 3), {"filters": []}, ValueError, "filters is an empty list"),
    (lambda: chain(4, 3), {"filters": lambda layer: False}, ValueError, "accepts no layer"),
    (lambda: chain(4, 3), {"filters": 3}, TypeError, "filters=3: expected a regular expression"),
    (lambda: chain(4, 3), {"filters": "("}, ValueError, "is not a regular expression"),
    (lambda: chain(4, 3), {"score": "best"}, ValueError, "score='best' is not known: use one of"),
    (lambda: chain(4, 3), {"score": Plain()}, TypeError, "cannot be used"),
    (lambda: chain(4, 3), {"pattern": "3:2"}, ValueError, "the pattern 3:2 drops nothing"),
    (lambda: chain(4, 3), {"order": "random"}, ValueError, "order='random' is not known"),
    (lambda: chain(4, 3), {"order": "forward", "allocation": "global"}, ValueError, "chooses all at once"),
]


@pytest.mark.parametrize(("build", "arguments", "error", "message"), BAD)
def test_bad_input_is_named_before_anything_changes(build, arguments, error, message):
    model = build()
    before = model.get_weights() if hasattr(model, "get_weights") else []
    with pytest.raises(error, match=message):
        tf_lap.prune(model, **{"sparsity": 0.5, **arguments})
    for weights, expected in zip(model.get_weights() if before else [], before, strict=True):
        np.testing.assert_array_equal(weights, expected)


def test_a_mapping_that_matches_nothing_is_found_by_the_callback_before_training():
    model = chain(4, 3)
    model.compile("sgd", "mse", jit_compile=False)
    schedule = tf_lap.LookaheadPruningSchedule({"conv": 0.5}, end_step=10)
    with pytest.raises(ValueError, match="'conv' matches no layer"):
        model.fit(np.zeros((4, 4)), np.zeros((4, 3)), callbacks=[tf_lap.LAPCallback(schedule)], verbose=0)


@pytest.mark.filterwarnings("ignore:model .* can be pruned")
def test_a_mapping_may_name_skipped_layers_but_not_only_those():
    model = chain(12, 20, 5)
    model.layers[0].trainable = False
    assert tf_lap.prune(model, {"dense": 0.5}).kept == 50
    with pytest.raises(ValueError, match="names only layers that are not pruned: 'dense_0': frozen"):
        tf_lap.prune(model, {"dense_0": 0.5})
