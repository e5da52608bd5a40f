"""A small perceptron, its training, and what must hold of it after pruning; shared by the tests that train."""

import warnings

import keras
import numpy as np

import tf_lap
from tf_lap import compat
from tf_lap.pruning.constraints import MaskConstraint
from tf_lap.warn import PruningWarning

SIZES = {"first": 16 * 24, "second": 24 * 24, "head": 24 * 10}
STEPS = 12  # 6 batches in each of 2 epochs


def data(samples=96):
    rng = np.random.default_rng(0)
    return rng.standard_normal((samples, 16)).astype(np.float32), rng.integers(0, 10, samples)


def network(constraint=None):
    return keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Dense(24, activation="relu", name="first", kernel_constraint=constraint),
            keras.layers.Dense(24, activation="relu", name="second"),
            keras.layers.Dense(10, name="head", dtype="float32"),
        ]
    )


def compiled(model=None, optimizer=None, **arguments):
    """Compiled with momentum, which moves weights that get no gradient, and is traced in half of Adam's time."""
    model, optimizer = model or network(), optimizer or keras.optimizers.SGD(0.05, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **{"jit_compile": False, **arguments})
    return model


def fit(model, callbacks, epochs=2, **arguments):
    x, y = data()
    return model.fit(x, y, batch_size=16, epochs=epochs, callbacks=callbacks, verbose=0, **arguments)


def quietly(model, callbacks, **arguments):
    """Fits, and raises what would be a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return fit(model, callbacks, **arguments)


def polynomial(sparsity=0.9, end_step=10, frequency=3):
    return tf_lap.LookaheadPruningSchedule(sparsity, end_step=end_step, frequency=frequency)


def assert_exact(model, sparsity=0.9):
    """All kernels together have the sparsity, and none is empty."""
    kept = [np.count_nonzero(model.get_layer(name).kernel) for name in SIZES]
    assert sum(kept) == round(sum(SIZES.values()) * (1 - sparsity))
    assert min(kept) > 0


def assert_nothing_left(model):
    for variable in model.trainable_variables:
        assert not isinstance(variable.constraint, MaskConstraint)


def adam_with(**arguments):
    return lambda: keras.optimizers.Adam(0.01, **arguments)


class Recorder(keras.callbacks.Callback):
    """The zeros of the first layer after each batch, and how far the others have moved."""

    def __init__(self):
        super().__init__()
        self.kernels = []

    def on_train_batch_end(self, batch, logs=None):
        self.kernels.append(self.model.get_layer("first").kernel.numpy())


class Interrupt(compat.Callback):
    """Stops the fit of either Keras after so many steps, as a key would."""

    def __init__(self, at):
        super().__init__()
        self.at, self.seen = at, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.at:
            raise KeyboardInterrupt


def of_tf_lap(caught):
    """Those of some recorded warnings that are ours: some releases of Keras warn in the same fits."""
    return [warning for warning in caught if issubclass(warning.category, PruningWarning)]
