"""Small models and values of them, shared by the tests of what sparsity costs."""

import importlib

import keras
import numpy as np

import tf_lap
from tf_lap.compat import fits

WIDTHS = (24, 16, 10)


def build_model(library=keras, compiled=True, optimizer="adam"):
    """A perceptron with dropout and batch normalization."""
    layers = library.layers
    model = library.Sequential(
        [
            library.Input((12,)) if library is keras else layers.Input((12,)),
            layers.Dense(24, activation="relu", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, name="dropout"),
            layers.Dense(16, activation="relu", name="second"),
            layers.Dense(10, name="head"),
        ]
    )
    if compiled:
        loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    return model


def libraries():
    return [keras, importlib.import_module("tf_keras")]


def kernels(model):
    return {layer.name: layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")}


def kept_fraction(model):
    """The fraction of weights that are not zero, as a value that falls steadily with the sparsity."""
    arrays = list(kernels(model).values())
    return sum(map(np.count_nonzero, arrays)) / sum(array.size for array in arrays)


def kept_norm(model):
    """The norm of the kernels: the more of it is left, the better."""
    return float(np.sqrt(sum(np.sum(array.astype(np.float64) ** 2) for array in kernels(model).values())))


def find(model, evaluate=kept_fraction, max_drop=0.3, **arguments):
    """`find_sparsity` with fewer combinations, unless others are given."""
    options = {"scores": "magnitude", "allocations": "uniform", "tolerance": 0.01, "verbose": 0, **arguments}
    return tf_lap.find_sparsity(model, evaluate, max_drop, **options)


def never(model):
    """A value that must not be asked for."""
    raise AssertionError("evaluated")


def state(model):
    """All variables that a fit moves, bit for bit, and what else must stay as it was."""
    sections = fits.variables(model, build_optimizers=False)
    bits = {
        f"{section} {i}": np.asarray(variable).tobytes()
        for section, variables in sections.items()
        for i, (_, replicas) in enumerate(variables)
        for variable in replicas
    }
    identities = [id(getattr(model, "train_function", None)), id(getattr(model, "optimizer", None))]
    trainable = [layer.trainable for layer in model.layers]
    return bits, identities, trainable, [id(getattr(v, "constraint", None)) for v in model.trainable_variables]
