"""A report of a small model, shared by the tests of what it holds and of how it reads."""

import keras

import tf_lap

layers = keras.layers


def report_of_small_model():
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.DepthwiseConv2D(3, name="depthwise")(layers.Conv2D(4, 3, name="conv")(inputs))
    x = layers.SeparableConv2D(6, 3, name="separable")(x)
    x = layers.Dense(10, name="head")(layers.GlobalAveragePooling2D()(x))
    return tf_lap.prune(keras.Model(inputs, x), 0.5, allocation="uniform", filters="conv|separable")
