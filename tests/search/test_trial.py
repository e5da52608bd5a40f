"""A model that is pruned and evaluated is put back as it was, whatever happens."""

import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from searched import build_model, kept_fraction, kernels, libraries, state

import tf_lap
from tf_lap.compat import fits
from tf_lap.search.trial import Trial, read_value
from tf_lap.warn import PruningWarning

ARGUMENTS = {"score": "magnitude"}


def moved(library, **arguments):
    """A model as it may be in the middle of a training: none of its variables is zero."""
    model = build_model(library, **arguments)
    moved_variables = fits.variables(model)  # builds the optimizer
    model.make_train_function()
    rng = np.random.default_rng(0)
    for _, replicas in itertools.chain.from_iterable(moved_variables.values()):
        for variable in replicas:
            variable.assign(tf.cast(100 * rng.random(variable.shape) + 1, variable.dtype))
    return model


@pytest.mark.parametrize("library", libraries(), ids=lambda library: library.__name__)
def test_a_model_in_training_is_put_back_bit_for_bit(library):
    model = moved(library)
    before = state(model)
    assert any(name.startswith("optimizer") for name in before[0])
    with Trial(model, kept_fraction) as trial:
        assert trial.measure_dense() == 1.0
        value, report = trial.measure_pruned(0.75, ARGUMENTS)
        assert value == pytest.approx(1 - report.sparsity)
        assert state(model) == before
    assert state(model) == before


@pytest.mark.slow
@pytest.mark.parametrize("library", libraries(), ids=lambda library: library.__name__)
def test_an_evaluation_that_trains_is_put_back_too(library):
    model = moved(library)
    x, y = np.ones((8, 12), np.float32), np.zeros(8, int)
    before = state(model)[0]

    def train(model):
        model.fit(x, y, verbose=0)
        assert state(model)[0] != before
        return 1

    with Trial(model, train) as trial:
        trial.measure_pruned(0.5, ARGUMENTS)
        assert state(model)[0] == before


def test_moving_averages_of_an_optimizer_are_put_back():
    model = moved(keras, optimizer=keras.optimizers.SGD(0.1, use_ema=True))
    before = state(model)
    with Trial(model, kept_fraction) as trial:
        trial.measure_pruned(0.9, ARGUMENTS)
    assert state(model) == before


@pytest.mark.parametrize("library", libraries(), ids=lambda library: library.__name__)
def test_an_optimizer_that_is_not_built_stays_so(library):
    model = build_model(library)
    before = state(model)
    with Trial(model, kept_fraction) as trial:
        trial.measure_pruned(0.9, ARGUMENTS)
    assert state(model) == before
    assert not any("first" in getattr(v, "path", v.name) for v in model.optimizer.variables)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError], ids=lambda error: error.__name__)
def test_a_key_and_an_error_leave_the_model_as_it_was(error):
    model = moved(keras)
    before = state(model)

    def stop(model):
        assert kept_fraction(model) < 0.6
        raise error

    with pytest.raises(error), Trial(model, stop) as trial:
        trial.measure_pruned(0.5, ARGUMENTS)
    assert state(model) == before


def test_a_key_in_the_middle_of_pruning_leaves_the_model_as_it_was(monkeypatch):
    model = moved(keras)
    before = state(model)

    def stop(pruner):
        assert kept_fraction(model) < 0.6
        raise KeyboardInterrupt

    monkeypatch.setattr(tf_lap.Pruner, "report", stop)
    with pytest.raises(KeyboardInterrupt), Trial(model, kept_fraction) as trial:
        trial.measure_pruned(0.5, ARGUMENTS)
    assert state(model) == before


@pytest.mark.slow
def test_training_after_it_is_as_if_nothing_had_been():
    models = []
    for measures in (False, True):
        keras.utils.set_random_seed(5)
        model = build_model()
        model.fit(np.ones((8, 12), np.float32), np.zeros(8, int), shuffle=False, verbose=0)
        if measures:
            with Trial(model, kept_fraction) as trial:
                for sparsity in (0.5, 0.9):
                    trial.measure_pruned(sparsity, ARGUMENTS)
        model.fit(np.ones((8, 12), np.float32), np.zeros(8, int), shuffle=False, verbose=0)
        models.append(model)
    for left, right in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_weights_that_are_not_numbers_come_back_too():
    model = build_model()
    bias = model.get_layer("head").bias
    bias.assign([np.nan, -0.0, np.inf, *range(7)])
    before = state(model)
    with Trial(model, kept_fraction) as trial:
        trial.measure_pruned(0.5, ARGUMENTS)
        bias.assign(tf.zeros(10))
    assert state(model) == before


def test_a_model_with_a_training_step_of_its_own():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.head = keras.layers.Dense(8, name="first"), keras.layers.Dense(4, name="head")
            self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False, name="steps")

        def call(self, x):
            return self.head(self.first(x))

        def train_step(self, data):
            self.steps.assign_add(1)
            return super().train_step(data)

    model = Own()
    model.compile("adam", "mse", jit_compile=False)
    x, y = np.ones((4, 6), np.float32), np.ones((4, 4), np.float32)
    model.fit(x, y, verbose=0)
    before = [v.numpy() for v in model.variables]

    def train(model):
        model.fit(x, y, verbose=0)
        assert float(model.steps) == 2
        return float(np.mean(model.first.kernel.numpy() == 0))

    with Trial(model, train) as trial:
        assert trial.measure_pruned(0.5, ARGUMENTS)[0] < 0.5  # trained away
    for variable, array in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), array)


def test_mirrored_variables_are_put_back():
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    with tf.distribute.MirroredStrategy(devices, tf.distribute.HierarchicalCopyAllReduce()).scope():
        model = build_model(compiled=False)
    before = kernels(model)
    with Trial(model, kept_fraction) as trial:
        assert trial.measure_pruned(0.5, ARGUMENTS)[0] < 0.6
    after = kernels(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_one_warning_for_all_prunings():
    layers = keras.layers
    embedding = [keras.Input((4,), dtype="int32"), layers.Embedding(500, 8), layers.Flatten()]
    model = keras.Sequential([*embedding, layers.Dense(8, name="first"), layers.Dense(2)])
    with warnings.catch_warnings(record=True) as caught, Trial(model, lambda model: 1) as trial:
        warnings.simplefilter("always", PruningWarning)
        trial.measure_pruned(0.5, ARGUMENTS)
        trial.measure_pruned(0.6, ARGUMENTS)
    assert ["can be pruned" in str(warning.message) for warning in caught] == [True]


@pytest.mark.parametrize("returned", [0.5, 1, np.float32(0.5), np.array(0.5), tf.constant(0.5), np.int64(3)])
def test_numbers_of_every_kind(returned):
    assert read_value(returned) == float(returned)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([0.25, 0.97], r"returned a list of 2, \[0.25, 0.97\]: return the entry that counts, such as model.evaluate"),
        ((1.0,), "returned a tuple of 1"),
        (np.array([0.5]), r"returned an array of shape \(1,\): return the entry that counts"),
        ({"loss": 1, "accuracy": 0.9}, "returned a mapping of 'loss', 'accuracy': return the entry"),
        (None, "returned None: expected one number.*; does its last line begin with return?"),
        (True, "returned True: expected one number"),
        ("0.9", "returned '0.9': expected one number"),
    ],
)
def test_what_is_no_number(returned, message):
    with pytest.raises(TypeError, match=message):
        read_value(returned)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_dense_value_that_is_not_finite(value):
    with (
        pytest.raises(ValueError, match=r"evaluate returned .* for the model as it is"),
        Trial(build_model(), lambda model: value) as trial,
    ):
        trial.measure_dense()


def test_an_evaluation_that_is_no_function():
    with pytest.raises(TypeError, match=r"evaluate=0\.9: expected a function of the model"):
        Trial(build_model(), 0.9)
