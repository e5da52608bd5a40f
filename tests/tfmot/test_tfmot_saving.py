"""A wrapped model that is saved and loaded has its schedule, step and masks, and its training goes on."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from wrapped import compiled, data, decay, layers, masks, sparsity, tf_keras, wrappers

import tf_lap

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]

SCHEDULES = {
    "tfmot's": decay(0.9, 0, 10, frequency=2),
    "ours": tf_lap.LookaheadPruningSchedule(0.9, end_step=10, frequency=2, decay="geometric"),
}
FILES = ["model.h5", "model.keras", "model"]
# What is written of a schedule is its configuration, in each kind of file: tfmot's own is tried in one of them.
WHOLE = [pytest.param(SCHEDULES["ours"], file, id=file) for file in FILES]
WHOLE += [pytest.param(SCHEDULES["tfmot's"], "model.keras", id="model.keras, tfmot's schedule")]


def nested():
    inner = tf_keras.Sequential(
        [layers.Input((16,)), layers.Dense(24, name="a"), layers.Dense(24, name="b")], name="in"
    )
    inputs = tf_keras.Input((16,))
    return tf_keras.Model(inputs, layers.Dense(10, name="c")(inner(inputs) + 1.0))


def wrapped(schedule):
    tf_keras.utils.set_random_seed(3)
    return compiled(tf_lap.prune_lookahead(nested(), schedule), tf_keras.optimizers.Adam(0.01))


def train(model):
    steps = sparsity.UpdatePruningStep()
    model.fit(*data(), batch_size=16, shuffle=False, callbacks=[steps], verbose=0)


def state(model):
    found = {}
    for layer in model.layers:
        if isinstance(layer, tf_keras.Model):
            found |= state(layer)
    for wrapper in wrappers(model):
        found[wrapper.layer.name] = (
            masks(model)[wrapper.layer.name],
            wrapper.layer.kernel.numpy(),
            wrapper.pruning_step.numpy(),
        )
    return found


def assert_same(model, expected):
    found = state(model)
    assert found.keys() == expected.keys()
    for name, (mask, kernel, step) in expected.items():
        np.testing.assert_array_equal(found[name][0], mask, err_msg=name)
        np.testing.assert_allclose(found[name][1], kernel, rtol=1e-5, atol=1e-7, err_msg=name)
        assert found[name][2] == step


def assert_goes_on(again, model):
    assert_same(again, state(model))
    for each in (model, again):
        train(each)
    assert_same(again, state(model))
    assert {int(step) for _, _, step in state(again).values()} == {12}
    assert [int(mask.sum()) for mask, _, _ in state(again).values()] == [38, 58, 24]


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "file"), WHOLE)
def test_whole_models(tmp_path, schedule, file):
    model = wrapped(schedule)
    if file == "model":  # tf_keras loses what Adam remembers in a SavedModel, with or without wrappers
        compiled(model, tf_keras.optimizers.SGD(0.1))
    train(model)
    model.save(tmp_path / file)
    with sparsity.prune_scope():
        again = tf_keras.models.load_model(tmp_path / file)
    assert all(type(each) is tf_lap.PrunableLayer for each in wrappers(again))
    (wrapper,) = wrappers(again)
    assert wrapper.pruning_schedule.get_config() == schedule.get_config()
    assert_goes_on(again, model)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["weights.h5", "model.weights.h5", "weights"])
def test_weights_alone(tmp_path, file):
    # Weights alone have no state of the optimizer: plain gradient descent has none.
    model, again = wrapped(decay()), wrapped(decay())
    for each in (model, again):
        compiled(each, tf_keras.optimizers.SGD(0.1))
    train(model)
    model.save_weights(tmp_path / file)
    again.load_weights(tmp_path / file)
    assert_goes_on(again, model)


@pytest.mark.slow
def test_checkpoints(tmp_path):
    model, again = wrapped(decay()), wrapped(decay())
    train(model)
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=again, optimizer=again.optimizer).restore(path)
    assert_goes_on(again, model)


def test_clones_and_configurations():
    model = wrapped(decay())
    again = type(model).from_config(model.get_config())
    assert [type(each) for each in wrappers(again)] == [tf_lap.PrunableLayer]
    assert wrappers(again)[0].pruning_schedule.get_config() == decay().get_config()
    assert len(wrappers(tf_keras.models.clone_model(model))) == 1


@pytest.mark.parametrize("file", FILES)
def test_tfmots_own_wrapper_takes_and_keeps_our_schedule(tmp_path, file):
    schedule = SCHEDULES["ours"]
    dense = tf_keras.Sequential([layers.Input((16,)), layers.Dense(24), layers.Dense(10)])
    model = compiled(sparsity.prune_low_magnitude(dense, schedule))
    train(model)
    model.save(tmp_path / file)
    with sparsity.prune_scope():
        again = tf_keras.models.load_model(tmp_path / file)
    found = wrappers(again)[-1].pruning_schedule
    assert found == schedule
    train(again)
    assert {int(each.pruning_step) for each in wrappers(again)} == {12}


@pytest.mark.slow
def test_the_stripped_model_loads_with_plain_tf_keras(tmp_path):
    model = wrapped(decay())
    train(model)
    train(model)
    sparsity.strip_pruning(model).save(tmp_path / "model.keras")
    code = (
        "import sys, numpy as np, tf_keras; model = tf_keras.models.load_model(sys.argv[1]); "
        "assert not {'tf_lap', 'tensorflow_model_optimization'} & set(sys.modules); "
        "print(np.count_nonzero(model.get_layer('c').kernel))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.keras")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "24"


LOAD = """
import sys
import tensorflow_model_optimization as tfmot
import tf_keras
import tf_lap
for path in sys.argv[1:]:
    model = tf_keras.models.load_model(path)
    wrapper = model.layers[-1]
    print(type(wrapper) is tf_lap.PrunableLayer, type(wrapper.pruning_schedule).__name__, int(wrapper.pruning_step))
"""


@pytest.mark.slow
def test_a_fresh_process_loads_what_was_saved(tmp_path):
    model = wrapped(SCHEDULES["ours"])
    train(model)
    paths = [str(tmp_path / file) for file in FILES]
    for path in paths:
        model.save(path)
    run = subprocess.run([sys.executable, "-c", LOAD, *paths], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-3:] == ["True LookaheadPruningSchedule 6"] * 3
