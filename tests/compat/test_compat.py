import keras
import numpy as np
import pytest
import tf_keras
from replicas import two_replicas

import tf_lap
from tf_lap import compat
from tf_lap.compat import variables
from tf_lap.compat.nodes import private


def test_a_private_attribute_that_vanished_is_named_with_what_to_install():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(RuntimeError, match=r"private attribute `_gone` of Sequential, and keras .* does not have it"):
        private(model, "_gone")


def test_another_backend_of_keras_is_refused(monkeypatch):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"Keras runs on the 'jax' backend.*KERAS_BACKEND=tensorflow"):
        tf_lap.prune(model, 0.5)


both = pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])


def nested(package):
    """A Dense layer, a Sequential of two, and a head."""
    dense = package.layers.Dense
    inner = package.Sequential([package.Input((6,)), dense(5, name="a"), dense(5, name="b")], name="inner")
    return package.Sequential([package.Input((4,)), dense(6, name="first"), inner, dense(3, name="head")])


def kernels(model):
    first, inner, head = model.layers
    return {layer.name: layer.kernel for layer in (first, *inner.layers, head)}


def step(model, package, **arguments):
    """Trains for one step, and returns the names of the kernels that it moved."""
    before = {name: kernel.numpy() for name, kernel in kernels(model).items()}
    model.compile(package.optimizers.SGD(1.0), "mse", **{"jit_compile": False, **arguments})
    inputs = np.random.default_rng(0).standard_normal((8, 4))
    model.fit(inputs, np.ones((8, 3)), batch_size=8, verbose=0)
    return [name for name, kernel in kernels(model).items() if not np.array_equal(before[name], kernel.numpy())]


def freeze_and_thaw(model):
    model.trainable = False
    model.trainable = True
    model.layers[2].trainable = False


FREEZINGS = {
    "nothing": (lambda model: None, ["first", "a", "b", "head"]),
    "a layer": (lambda model: setattr(model.layers[0], "trainable", False), ["a", "b", "head"]),
    "a layer of the nested model": (
        lambda m: setattr(m.layers[1].layers[1], "trainable", False),
        ["first", "a", "head"],
    ),
    "the nested model": (lambda model: setattr(model.layers[1], "trainable", False), ["first", "head"]),
    "the model, thawed again": (freeze_and_thaw, ["first", "a", "b"]),
}


@both
@pytest.mark.parametrize("freezing", FREEZINGS)
def test_trains_says_which_variables_a_step_moves(package, freezing):
    freeze, expected = FREEZINGS[freezing]
    model = nested(package)
    freeze(model)
    trained = compat.trains(model)
    assert [name for name, kernel in kernels(model).items() if trained(kernel)] == expected
    assert step(model, package, run_eagerly=True) == expected


@both
def test_a_layer_thawed_in_a_frozen_model_trains_in_keras_3_alone(package):
    model = nested(package)
    model.layers[1].trainable = False
    model.layers[1].layers[0].trainable = True
    trained = compat.trains(model)
    expected = ["first", "a", "head"] if package is keras else ["first", "head"]
    assert [name for name, kernel in kernels(model).items() if trained(kernel)] == expected
    assert step(model, package) == expected


@both
def test_nothing_trains_in_a_frozen_model_whatever_its_layers_say(package):
    model = nested(package)
    model.trainable = False
    model.layers[0].trainable = True
    assert not any(map(compat.trains(model), model.weights))
    assert compat.trains(model.layers[0])(model.layers[0].kernel)


@both
def test_statistics_and_the_variables_of_another_model_are_not_trained(package):
    model = package.Sequential([package.Input((4,)), package.layers.BatchNormalization(), package.layers.Dense(3)])
    trained = compat.trains(model)
    assert [trained(variable) for variable in model.weights] == [True, True, False, False, True, True]
    assert not trained(nested(package).layers[0].kernel)


@both
def test_trains_sees_through_mixed_precision_and_mirrored_variables(package):
    with two_replicas().scope():
        dense = package.layers.Dense
        options = {"dtype": "mixed_bfloat16"}
        model = package.Sequential([package.Input((4,)), dense(6, **options), dense(3, **options)])
    model.layers[0].trainable = False
    trained = compat.trains(model)
    assert [trained(layer.kernel) for layer in model.layers] == [False, True]
    # What stands behind them is the same variable.
    kernel = model.layers[1].kernel
    assert all(map(trained, variables._of_variable(kernel).bare(kernel)))


def test_in_its_fit_tf_keras_trains_what_was_not_frozen_when_the_model_was_compiled():
    model = nested(tf_keras)
    answers = []

    class Ask(tf_keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            answers.append(compat.trains(self.model)(self.model.layers[0].kernel))

    model.compile("sgd", "mse")
    model.layers[0].trainable = False
    for _ in range(2):
        model.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0, callbacks=[Ask()])
        model.compile("sgd", "mse")
    assert answers == [True, False]


@pytest.mark.parametrize("end", [4, 7])  # Keras before 3.11 tells the first batch of the execution, later ones the last
def test_an_execution_ends_with_its_last_batch_whatever_keras_tells(end):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse", steps_per_execution=4)
    assert compat.last_batch(model, begin=4, end=end) == 7


def test_tf_keras_tells_the_last_batch_of_an_execution_itself():
    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3)])
    model.compile("sgd", "mse", steps_per_execution=4)
    assert compat.last_batch(model, begin=4, end=7) == 7
