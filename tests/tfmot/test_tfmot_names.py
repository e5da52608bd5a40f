"""What a pipeline written for tfmot says by name: outputs in losses and metrics, layers, weights in files."""

import numpy as np
import pytest
from wrapped import at_once, both, compiled, data, fit, layers, perceptron, sparsity, tf_keras

import tf_lap

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")


def two_heads():
    inputs = tf_keras.Input((16,))
    x = layers.Dense(24, activation="relu", name="body")(inputs)
    return tf_keras.Model(inputs, [layers.Dense(1, name="cls")(x), layers.Dense(2, name="box")(x)])


@pytest.mark.slow
@both
def test_losses_metrics_and_targets_given_by_output_name(wrap):
    model = wrap(two_heads(), pruning_schedule=at_once(0.5))
    names = ["prune_low_magnitude_cls", "prune_low_magnitude_box"]
    assert model.output_names == names
    losses, metrics = dict(zip(names, ("mse", "mae"), strict=True)), {names[0]: "mae"}
    model.compile("adam", loss=losses, metrics=metrics, loss_weights={names[0]: 1.0, names[1]: 0.5})
    targets = {names[0]: np.zeros((96, 1)), names[1]: np.zeros((96, 2))}
    history = model.fit(data()[0], targets, verbose=0, callbacks=[sparsity.UpdatePruningStep()]).history
    assert list(history) == ["loss", f"{names[0]}_loss", f"{names[1]}_loss", f"{names[0]}_mae"]
    # As by tfmot, the stripped model has the names of the layers inside.
    stripped = sparsity.strip_pruning(model)
    assert stripped.output_names == ["cls", "box"]
    stripped.compile("adam", {"cls": "mse", "box": "mae"})
    stripped.fit(data()[0], {"cls": np.zeros((96, 1)), "box": np.zeros((96, 2))}, verbose=0)


@both
def test_a_wrapped_layer_is_found_by_the_name_that_tfmot_gives_it(wrap):
    model = wrap(perceptron(), at_once())
    assert model.get_layer("prune_low_magnitude_head").layer.name == "head"
    assert wrap(layers.Dense(3, name="alone")).name == "prune_low_magnitude_alone"


def test_a_name_that_is_given_stays_and_is_saved():
    wrapper = tf_lap.PrunableLayer(layers.Dense(3, name="head"), name="pruned")
    assert wrapper.name == "pruned"
    assert tf_lap.PrunableLayer.from_config(wrapper.get_config()).name == "pruned"


@pytest.mark.slow
@both
@pytest.mark.parametrize("by_name", [False, True])
def test_weights_saved_from_tfmots_wrappers_load(wrap, by_name, tmp_path):
    theirs = compiled(sparsity.prune_low_magnitude(perceptron(), at_once()))
    fit(theirs)
    theirs.save_weights(tmp_path / "weights.h5")
    model = wrap(perceptron(), at_once())
    model.load_weights(tmp_path / "weights.h5", by_name=by_name)
    for loaded, saved in zip(model.layers, theirs.layers, strict=True):
        np.testing.assert_array_equal(loaded.layer.kernel, saved.layer.kernel)
        np.testing.assert_array_equal(loaded.pruning_vars[0][1], saved.pruning_vars[0][1])
        assert loaded.pruning_step == saved.pruning_step == 12


def test_a_model_saved_under_other_names_loads_with_them(tmp_path):
    # Earlier releases of tf_lap named wrappers after their class; losses by output name are in the file.
    inputs = tf_keras.Input((16,))
    heads = [
        tf_lap.PrunableLayer(layers.Dense(size, name=name), at_once(), name=f"prunable_layer_{name}")(inputs)
        for name, size in (("cls", 1), ("box", 2))
    ]
    model = tf_keras.Model(inputs, heads)
    model.compile("adam", {"prunable_layer_cls": "mse", "prunable_layer_box": "mae"})
    model.save(tmp_path / "model.keras")
    again = tf_keras.models.load_model(tmp_path / "model.keras")
    assert again.output_names == ["prunable_layer_cls", "prunable_layer_box"]
    targets = {"prunable_layer_cls": np.zeros((96, 1)), "prunable_layer_box": np.zeros((96, 2))}
    again.fit(data()[0], targets, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
