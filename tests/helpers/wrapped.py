"""Small tf_keras models, and both ways of wrapping them, for the tests of tf_lap.tfmot."""

import numpy as np
import pytest

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")

# Before tfmot, which sets an environment variable for good: ours puts it back.
import tf_lap.tfmot  # noqa: E402  isort: skip
import tensorflow_model_optimization as tfmot  # noqa: E402  isort: skip

sparsity = tfmot.sparsity.keras
layers = tf_keras.layers

WRAPPINGS = {"tfmot": sparsity.prune_low_magnitude, "tf_lap": tf_lap.tfmot.prune_lookahead}
both = pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)

SIZES = (16 * 24, 24 * 24, 24 * 10)


def perceptron(**head):
    return tf_keras.Sequential(
        [
            layers.Input((16,)),
            layers.Dense(24, activation="relu", name="first"),
            layers.Dense(24, activation="relu", name="second"),
            layers.Dense(10, name="head", **head),
        ]
    )


def decay(final=0.9, begin=0, end=10, frequency=2):
    return sparsity.PolynomialDecay(0.0, final, begin, end, frequency=frequency)


def at_once(final=0.9):
    """Prunes at the first step, and never again."""
    return sparsity.ConstantSparsity(final, 1, frequency=1_000_000)


def data(features=16, classes=10):
    rng = np.random.default_rng(0)
    return rng.standard_normal((96, features)).astype(np.float32), rng.integers(0, classes, 96)


def compiled(model, optimizer=None, **arguments):
    """Compiled with momentum, which moves weights that get no gradient, and is traced in half of Adam's time."""
    optimizer = optimizer or tf_keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer, tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True), **arguments)
    return model


def fit(model, callbacks=(), epochs=2, **arguments):
    steps = [] if callbacks is None else [sparsity.UpdatePruningStep(), *callbacks]
    return model.fit(*data(), batch_size=16, epochs=epochs, callbacks=steps, verbose=0, **arguments)


def wrappers(model):
    return [layer for layer in model.layers if hasattr(layer, "pruning_vars")]


def masks(model):
    """The masks of all wrappers, by the name of the layer inside."""
    return {layer.layer.name: mask.numpy() for layer in wrappers(model) for _, mask, _ in layer.pruning_vars}


def kept(model):
    """How many weights of each kernel are not zero."""
    return [int(np.count_nonzero(layer.kernel.numpy())) for layer in model.layers if hasattr(layer, "kernel")]


def exactly(fraction):
    return [max(1, round(size * (1 - fraction))) for size in SIZES]


def reference(model, fraction=0.9):
    """The masks that tf_lap.prune would choose, by path."""
    clone = tf_keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    pruner = tf_lap.Pruner(clone, allocation="uniform")
    pruner.update(fraction)
    return {path: mask.numpy() for path, mask in pruner.masks.items()}


def still():
    return tf_keras.optimizers.SGD(0.0)


def all_masks(model):
    found = {}
    for layer in model.layers:
        if isinstance(layer, tf_keras.Model):
            found |= {f"{layer.name}/{name}": mask for name, mask in all_masks(layer).items()}
    return found | masks(model)


def assert_masks(model, expected):
    found = all_masks(model)
    assert found.keys() == expected.keys()
    for path, mask in expected.items():
        np.testing.assert_array_equal(found[path], mask, err_msg=path)


def assert_pruned_as_by_prune(model, eager):
    expected = reference(model)
    wrapped = compiled(tf_lap.prune_lookahead(model, at_once()), still(), run_eagerly=eager)
    fit(wrapped)
    assert_masks(wrapped, expected)
    return wrapped


class Subclassed(tf_keras.Model):
    """Two wrapped layers in a model that keeps no graph."""

    def __init__(self):
        super().__init__()
        self.hidden = tf_lap.PrunableLayer(layers.Dense(24, name="hidden"), at_once())
        self.head = tf_lap.PrunableLayer(layers.Dense(10, name="head"), at_once())

    def call(self, x):
        return self.head(self.hidden(x))
