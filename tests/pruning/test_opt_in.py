"""Kernels that are pruned only where filters or a mapping of sparsities names them."""

import keras
import numpy as np
import pytest
import tf_keras

import tf_lap
from tf_lap.pruning.options import OPT_IN

BOTH = pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])


def reader(library=keras):
    """Words to two classes: 48 weights in the embedding, 32 in `hidden`, 16 in `out`."""
    inputs = library.Input((3,), dtype="int32")
    x = library.layers.Embedding(12, 4, name="words")(inputs)
    x = library.layers.Dense(8, activation="relu", name="hidden")(library.layers.GlobalAveragePooling1D()(x))
    return library.Model(inputs, library.layers.Dense(2, name="out")(x))


def zeros(model):
    return {layer.name: int(np.sum(np.asarray(layer.get_weights()[0]) == 0)) for layer in model.layers if layer.weights}


@BOTH
@pytest.mark.parametrize("key", ["words", "wor.s", ".*"])
def test_a_key_that_is_the_path_or_matches_all_of_it_prunes(library, key):
    model = reader(library)
    report = tf_lap.prune(model, {"hidden": 0.75, "out": 0.5, key: 0.5})
    assert zeros(model) == {"words": 24, "hidden": 24, "out": 8}
    assert [layer.path for layer in report.pruned] == ["words", "hidden", "out"]


@pytest.mark.filterwarnings("ignore:model .* can be pruned")
@pytest.mark.parametrize("sparsity", [0.5, {"hidden": 0.5, "out": 0.5, "word": 0.5}, {"hidden": 0.5, "o": 0.5}])
def test_a_number_and_an_expression_found_inside_the_path_leave_it_whole(sparsity):
    model = reader()
    report = tf_lap.prune(model, sparsity, allocation="uniform")
    assert zeros(model) == {"words": 0, "hidden": 16, "out": 8}
    assert {layer.path: layer.skipped for layer in report.skipped}["words"] == OPT_IN


def test_the_first_key_that_names_it_counts():
    model = reader()
    tf_lap.prune(model, {"word": 0.9, "w.*": 0.25, ".*": 0.5})
    assert zeros(model) == {"words": 12, "hidden": 16, "out": 8}


def test_names_of_opt_in_kernels_alone_are_enough():
    model = reader()
    tf_lap.prune(model, {"words": 0.5})
    assert zeros(model) == {"words": 24, "hidden": 0, "out": 0}
    with pytest.raises(ValueError, match=f"names only layers that are not pruned: 'words': {OPT_IN}"):
        tf_lap.prune(reader(), {"word": 0.5})


def test_a_model_of_opt_in_kernels_alone_is_pruned_by_names():
    inputs = keras.Input((3,), dtype="int32")
    outputs = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(12, 4, name="words")(inputs))
    model = keras.Model(inputs, outputs)
    assert tf_lap.Pruner(model).sparsity == 0.0
    with pytest.raises(ValueError, match=f"names only layers that are not pruned: 'words': {OPT_IN}"):
        tf_lap.prune(model, 0.5)
    assert tf_lap.prune(model, {"words": 0.5}).sparsity == 0.5


def test_filters_choose_before_a_mapping_does():
    model = reader()
    report = tf_lap.prune(model, {".*": 0.5}, filters=["hidden", "out"])
    assert zeros(model) == {"words": 0, "hidden": 16, "out": 8}
    assert {layer.path: layer.skipped for layer in report.skipped}["words"] == "left out by filters"
    tf_lap.prune(model, 0.5, filters=["hidden", "words"], allocation="uniform")
    assert zeros(model)["words"] == 24


@pytest.mark.filterwarnings("ignore:model .* can be pruned")
def test_a_function_as_filter_never_names_it():
    model = reader()
    tf_lap.prune(model, 0.5, filters=lambda layer: True, allocation="uniform")
    assert zeros(model) == {"words": 0, "hidden": 16, "out": 8}
    tf_lap.prune(model, {".*": 0.5}, filters=lambda layer: True)
    assert zeros(model)["words"] == 24


@pytest.mark.parametrize("order", ["simultaneous", "forward", "backward"])
def test_a_pruner_takes_it_in_when_a_mapping_names_it(order):
    model = reader()
    pruner = tf_lap.Pruner(model, order=order, allocation="uniform")
    pruner.update(0.5)
    masks = {path: mask.numpy() for path, mask in pruner.masks.items()}
    pruner.update({"words": 0.25})
    assert zeros(model) == {"words": 12, "hidden": 16, "out": 8}
    assert list(pruner.masks) == ["words", "hidden", "out"]
    assert all(np.array_equal(masks[path], pruner.masks[path]) for path in masks)
    pruner.update(0.75)  # a number speaks of the others alone
    assert zeros(model) == {"words": 12, "hidden": 24, "out": 12}
    assert [layer.path for layer in pruner.report().pruned] == ["words", "hidden", "out"]


def test_a_check_takes_nothing_in():
    model = reader()
    pruner = tf_lap.Pruner(model)
    pruner.check({"words": 0.5})
    pruner.check_final({"words": 0.5})
    assert list(pruner.masks) == ["hidden", "out"]
    with pytest.raises(ValueError, match=r"sparsity\['words'\]=1"):
        pruner.check({"words": 1})


def test_what_fails_takes_nothing_in():
    model = reader()
    pruner = tf_lap.Pruner(model)
    with pytest.raises(ValueError, match="the masks are of another model"):
        pruner.restore({**pruner.masks, "words": np.ones((2, 2), bool)})
    model.get_layer("out").kernel.assign(np.full((8, 2), np.nan))
    with pytest.raises(ValueError, match="'out' holds NaN"):
        pruner.update({"words": 0.5})
    assert list(pruner.masks) == ["hidden", "out"]


def test_masks_that_were_frozen_before_hold_it_too():
    model = reader()
    pruner = tf_lap.Pruner(model, allocation="uniform")
    pruner.update(0.5)
    pruner.freeze()
    pruner.update({"words": 0.5})
    model.compile("sgd", "mse")
    model.fit(np.arange(36).reshape(12, 3) % 12, np.ones((12, 2)), epochs=2, verbose=0)
    assert zeros(model) == {"words": 24, "hidden": 16, "out": 8}
    pruner.release()
    assert model.get_layer("words").embeddings.constraint is None


def test_zeros_that_were_in_it_stay():
    model = reader()
    table = model.get_layer("words").embeddings
    pruner = tf_lap.Pruner(model)
    pruner.update(0.5)
    table.assign(np.where(np.arange(48).reshape(12, 4) < 4, 0.0, table.numpy()))  # a row for padding
    pruner.update({"words": 0.0})
    assert not np.any(pruner.masks["words"][0])


def test_masks_are_restored_and_adopted_with_it():
    model = reader()
    pruner = tf_lap.Pruner(model)
    pruner.update({".*": 0.5})
    masks = {path: mask.numpy() for path, mask in pruner.masks.items()}
    restored, adopting = tf_lap.Pruner(reader()), tf_lap.Pruner(model)
    restored.restore(masks)
    assert zeros(restored.model) == zeros(model)
    adopting.adopt(pruner)
    assert all(np.array_equal(masks[path], adopting.masks[path]) for path in masks)


def cross_entropy(library):
    return library.losses.SparseCategoricalCrossentropy(from_logits=True)


def alternate(step):
    return step % 2 == 0, {"words": 0.5, "hidden": 0.75, "out": 0.5}


@BOTH
@pytest.mark.parametrize(
    "schedule", [{"words": 0.5, "hidden": 0.75, "out": 0.5}, alternate], ids=["mapping", "function"]
)
def test_a_callback_prunes_it_where_the_mapping_names_it(library, schedule):
    model = reader(library)
    model.compile("adam", cross_entropy(library))
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 12, (32, 3)), rng.integers(0, 2, 32)
    callback = tf_lap.LAPCallback(schedule)
    for _ in range(2):  # in a second fit it goes on where it was
        model.fit(x, y, batch_size=8, epochs=3, callbacks=[callback], verbose=0)
        assert zeros(model) == {"words": 24, "hidden": 24, "out": 8}
    assert [layer.path for layer in callback.report.pruned] == ["words", "hidden", "out"]


def add_it_later(step):
    """A schedule that names it from step 4 on."""
    return True, {"words": 0.5, "hidden": 0.5} if step >= 4 else {"hidden": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [{"words": 0.5, "hidden": 0.5}, add_it_later], ids=["mapping", "function"])
@pytest.mark.parametrize("is_whole", [False, True])
def test_a_killed_training_goes_on_with_its_zeros(tmp_path, schedule, is_whole):
    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    model = reader()
    model.compile("adam", cross_entropy(keras))
    x, y = np.arange(96).reshape(32, 3) % 12, np.arange(32) % 2

    def fit(*others):
        if is_whole:  # weights and masks
            callbacks = [tf_lap.LAPCallback(schedule), *others, tf_lap.BackupAndRestore(tmp_path)]
        else:
            callbacks = [tf_lap.LAPCallback(schedule, backup_dir=tmp_path), *others]
        model.fit(x, y, batch_size=8, epochs=4, callbacks=callbacks, verbose=0)

    with pytest.raises(KeyboardInterrupt):
        fit(Kill())
    fit()
    assert zeros(model) == {"words": 24, "hidden": 16, "out": 0}


@BOTH
def test_depthwise_kernels_are_named_by_their_paths(library):
    inputs = library.Input((6, 6, 4))
    x = library.layers.DepthwiseConv2D(3, name="depthwise")(inputs)
    x = library.layers.SeparableConv2D(5, 3, name="separable")(x)
    model = library.Model(inputs, x)
    report = tf_lap.prune(model, {"depthwise": 0.5, "separable": 0.25, "separable/depthwise_kernel": 0.75})
    kept = {layer.path: layer.kept for layer in report.pruned}
    assert kept == {"depthwise": 18, "separable": 15, "separable/depthwise_kernel": 9}
