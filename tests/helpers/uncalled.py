"""A model with a layer that its call leaves out."""

import keras
import numpy as np


class HalfUsed(keras.Model):
    """Calls its Dense layer "used", of 3 units, and never its Dense layer "unused", of 5."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = keras.layers.Dense(3, name="used"), keras.layers.Dense(5, name="unused")
        self.unused.build((None, 4))

    def call(self, x):
        return self.used(x)


def half_used():
    """Such a model, built for samples of 4 numbers."""
    model = HalfUsed()
    model(np.ones((1, 4), np.float32))
    return model
