"""Small trainings of either Keras that are killed and started again, and what must be the same afterwards."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from perceptrons import Interrupt, assert_nothing_left, data, polynomial

import tf_lap
from tf_lap.compat import fits

BOTH = pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
EPOCHS, STEPS = 3, 6


@pytest.fixture(scope="module")
def generators():
    """Random numbers of tf_keras are from generators, which a snapshot holds."""
    tf_keras.backend.experimental.enable_tf_random_generator()
    yield
    tf_keras.backend.experimental.disable_tf_random_generator()


def network(library, policy=None):
    library.utils.set_random_seed(7)
    layers = library.layers
    return library.Sequential(
        [
            layers.Input((16,)),
            layers.Dense(24, activation="relu", name="first", dtype=policy),
            layers.BatchNormalization(name="normalization"),
            layers.Dropout(0.3, name="dropout"),
            layers.Dense(24, activation="relu", name="second", dtype=policy),
            layers.Dense(10, name="head", dtype="float32"),
        ]
    )


def prepared(library, optimizer=None, steps_per_execution=1, policy=None, run_eagerly=True):
    model = network(library, policy)
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = optimizer(library) if optimizer else library.optimizers.Adam(0.01)
    # Eagerly where it does not matter: tracing takes longer than these trainings.
    eagerly = run_eagerly and steps_per_execution == 1
    arguments = {"jit_compile": False, "run_eagerly": eagerly, "steps_per_execution": steps_per_execution}
    model.compile(optimizer, loss, **arguments)
    return model


def source(kind):
    x, y = data()
    if kind == "arrays":
        return {"x": x, "y": y, "batch_size": 16}
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(96, seed=1).batch(16)
    if kind == "dataset":
        return {"x": batches}
    if kind == "repeated":
        return {"x": batches.repeat(), "steps_per_epoch": STEPS}
    rng = np.random.default_rng(0)
    return {"x": ((x[rows], y[rows]) for rows in rng.integers(0, 96, (1000, 16))), "steps_per_epoch": STEPS}


def pruning():
    return tf_lap.LAPCallback(polynomial(end_step=15, frequency=7))


def train(model, callbacks, kind="arrays", epochs=EPOCHS, **arguments):
    return model.fit(
        **source(kind), epochs=epochs, callbacks=callbacks, verbose=0, shuffle=kind == "arrays", **arguments
    )


def state(model):
    sections = fits.variables(model)
    sections.pop("keras.random", None)
    return [variable.numpy() for held in sections.values() for _, replicas in held for variable in replicas]


def assert_same_state(model, expected):
    for mine, other in zip(state(model), state(expected), strict=True):
        assert mine.dtype == other.dtype
        assert mine.tobytes() == other.tobytes()


def assert_resumes(tmp_path, make, callbacks, at, kind="arrays", save_freq="epoch", first=True):
    """Compares an undisturbed training with one that is interrupted in step `at`, counted from 1, and started again."""
    undisturbed = make()
    alone = callbacks()
    train(undisturbed, alone, kind)
    for interrupts in ([Interrupt(at)], []):
        model, again = make(), callbacks()
        backup = tf_lap.BackupAndRestore(tmp_path, save_freq=save_freq)
        listed = [backup, *again] if first else [*again, backup]
        if interrupts:
            with pytest.raises(KeyboardInterrupt):
                train(model, [*listed, *interrupts], kind)
        else:
            train(model, listed, kind)
    assert not tmp_path.exists()
    assert_same_state(model, undisturbed)
    return alone, again


def assert_nothing_left_on(model):
    assert all(getattr(layer, "kernel_constraint", None) is None for layer in model.layers)
    if isinstance(model, keras.Model):
        assert_nothing_left(keras.Sequential([layer for layer in model.layers if hasattr(layer, "kernel")]))


OPTIMIZERS = {
    "averages": lambda library: library.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8),
    "schedule": lambda library: library.optimizers.SGD(
        library.optimizers.schedules.ExponentialDecay(0.1, 2, 0.9), momentum=0.9
    ),
    "accumulated": lambda _: keras.optimizers.Adam(0.01, gradient_accumulation_steps=4),
    "scaled": lambda library: (library.optimizers if library is keras else library.mixed_precision).LossScaleOptimizer(
        library.optimizers.Adam(0.01), initial_scale=2.0**10
    ),
    "legacy": lambda _: tf_keras.optimizers.legacy.Adam(0.01),
}


def interrupted(tmp_path, model=None, callbacks=(), **arguments):
    with pytest.raises(KeyboardInterrupt):
        train(model or prepared(keras), [*callbacks, tf_lap.BackupAndRestore(tmp_path, **arguments), Interrupt(14)])
