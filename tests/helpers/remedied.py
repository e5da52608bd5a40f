"""A small perceptron that messages and their remedies are tried on."""

import keras

import tf_lap


def perceptron():
    names = {f"dense_{i}": units for i, units in enumerate((16, 12, 4))}
    dense = [keras.layers.Dense(units, name=name) for name, units in names.items()]
    return keras.Sequential([keras.Input((8,), name="features"), *dense])


def prune(model, **arguments):
    return tf_lap.prune(model, **{"sparsity": 0.5, **arguments})
