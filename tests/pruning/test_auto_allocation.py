"""What the allocation "auto" stands for: `LAMP` wherever one sparsity is for all kernels together, else `Uniform`."""

import json
import pickle

import keras
import numpy as np
import pytest
from chains import chain, kernels

import tf_lap
from tf_lap.allocation import LAMP, Auto, Uniform, deserialize, get, keep_count, serialize

SIZES = (240, 320, 80)


def model():
    return chain(12, 20, 16, 5)


def kept(network, sparsity, **choices):
    return [layer.kept for layer in tf_lap.prune(network, sparsity, **choices).pruned]


def masks(network, sparsity, **choices):
    pruner = tf_lap.Pruner(network, **choices)
    pruner.update(sparsity)
    return [mask.numpy() for mask in pruner.masks.values()]


def assert_same_masks(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_is_the_default_and_has_a_configuration():
    assert tf_lap.Pruner(model()).allocation == Auto() == get("auto") == deserialize(serialize(Auto()))
    callback = pickle.loads(pickle.dumps(tf_lap.LAPCallback(0.9)))
    assert callback._options.allocation == Auto()
    assert Auto().resolve(by_kernel=False) == LAMP()
    assert Auto().resolve(by_kernel=True) == Uniform()


@pytest.mark.parametrize("score", ["lookahead", "magnitude"])
@pytest.mark.parametrize("pattern", ["unstructured", "block:1x4"])
def test_one_sparsity_is_that_of_all_kernels_together(score, pattern):
    network = model()
    choices = {"score": score, "pattern": pattern}
    assert_same_masks(masks(network, 0.9, **choices), masks(model_like(network), 0.9, allocation="lamp", **choices))
    counts = [np.count_nonzero(kernel) for kernel in kernels(network).values()]
    assert sum(counts) == 64 == keep_count(sum(SIZES), 0.9)
    assert counts != [keep_count(size, 0.9) for size in SIZES]


def model_like(network):
    """Another model, of the weights that the first one has by now."""
    copy = model()
    copy.set_weights(network.get_weights())
    return copy


@pytest.mark.parametrize(
    ("sparsity", "choices"),
    [
        (0.5, {"pattern": "2:4"}),
        (0.9, {"order": "forward"}),
        (0.9, {"order": "backward"}),
        ({".*": 0.9}, {}),
        ({"dense_0": 0.9, "dense_[12]": 0.5}, {}),
        ({"dense_1": 0.9}, {}),
    ],
    ids=str,
)
def test_kernels_with_sparsities_of_their_own_have_them(sparsity, choices):
    network = model()
    copy = model_like(network)
    assert kept(network, sparsity, **choices) == kept(copy, sparsity, allocation="uniform", **choices)
    assert_same_masks(kernels(network).values(), kernels(copy).values())


def test_a_single_kernel_has_the_sparsity():
    assert kept(model(), 0.9, filters="dense_1") == [32]
    assert kept(keras.Sequential([keras.Input((12,)), keras.layers.Dense(10)]), 0.9) == [12]


def test_numbers_and_mappings_may_follow_each_other_and_nothing_comes_back():
    network = model()
    pruner = tf_lap.Pruner(network)
    before = {path: np.ones(mask.shape, bool) for path, mask in pruner.masks.items()}
    for sparsity, total in ((0.3, 448), ({"dense_0": 0.6, "dense_1": 0.5}, None), (0.7, 192), (0.95, 32)):
        pruner.update(sparsity)
        after = {path: mask.numpy() for path, mask in pruner.masks.items()}
        assert all(np.all(before[path] | ~after[path]) for path in after)
        assert total is None or sum(map(np.count_nonzero, after.values())) == total
        before = after


def test_a_kernel_that_an_earlier_mapping_named_keeps_what_it_has():
    words = keras.Input((3,), dtype="int32")
    x = keras.layers.Embedding(12, 4, name="words")(words)
    x = keras.layers.Dense(8, name="hidden")(x)
    network = keras.Model(words, keras.layers.Dense(2, name="out")(x))
    pruner = tf_lap.Pruner(network)
    pruner.update({"words": 0.5})
    pruner.update(0.75)
    assert [layer.kept for layer in pruner.report().pruned] == [24, 8, 4]


def test_a_fit_ends_with_exactly_the_sparsity_in_both_kinds_of_keras():
    tf_keras = pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")
    for kind in (keras, tf_keras):
        layers = kind.layers
        network = kind.Sequential([layers.Input((12,)), layers.Dense(20, activation="relu"), layers.Dense(5)])
        network.compile("sgd", "mse")
        schedule = tf_lap.LookaheadPruningSchedule(0.9, begin_step=0, end_step=8, frequency=2)
        callback = tf_lap.LAPCallback(schedule)
        network.fit(np.ones((40, 12)), np.ones((40, 5)), batch_size=4, verbose=0, callbacks=[callback])
        counts = [np.count_nonzero(w) for w in network.get_weights() if w.ndim == 2]
        assert sum(counts) == 34
        assert callback.report.kept == 34


def test_the_report_says_what_it_was_and_why():
    network = model()
    report = tf_lap.prune(network, 0.5)
    assert 'allocation "auto": "lamp", which ranks all kernels together' in report.render(100).splitlines()
    assert json.loads(json.dumps(report.to_dict()))["allocation_note"] == report.allocation_note
    report = tf_lap.prune(network, {"dense_0": 0.9, "dense_1": 0.8})
    assert 'allocation "auto": "uniform", because kernels have sparsities of their own' in report.render(100)
    for choices in ({"allocation": "lamp"}, {"allocation": "uniform"}, {"filters": "dense_0"}):
        assert tf_lap.prune(model(), 0.5, **choices).allocation_note == ""


def test_masks_that_are_restored_have_the_note_of_what_they_were_chosen_for():
    pruner, other = tf_lap.Pruner(model()), tf_lap.Pruner(model())
    pruner.update({"dense_0": 0.9, "dense_1": 0.8})
    other.restore({path: mask.numpy() for path, mask in pruner.masks.items()}, {"dense_0": 0.9, "dense_1": 0.8})
    assert other.report().allocation_note == pruner.report().allocation_note != ""
