"""Chains of Dense layers with ReLU between them, and data to measure them over."""

import keras
import numpy as np


def relu_chain(*widths, flavour=keras):
    dense = flavour.layers.Dense
    hidden = [dense(width, activation="relu", name=f"dense_{i}") for i, width in enumerate(widths[1:-1])]
    return flavour.Sequential([flavour.Input(widths[:1]), *hidden, dense(widths[-1], name=f"dense_{len(hidden)}")])


def data(shape, samples=40):
    return np.random.default_rng(0).standard_normal((samples, *shape)).astype(np.float32)
