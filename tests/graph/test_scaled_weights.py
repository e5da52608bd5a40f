"""Weights measured piece by piece: their energies are those of the whole kernel."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lap.graph import scaled_weights
from tf_lap.graph.layouts import Layout
from tf_lap.graph.scaled_weights import ScaledWeights


@pytest.mark.parametrize(
    "layout", [Layout((3, 3, 8, 6)), Layout((5, 6, 8), True), Layout((3, 2, 12), groups=4), Layout((700, 300))], ids=str
)
@pytest.mark.parametrize("piece", [64, 1 << 17])
def test_energies_of_a_kernel_are_those_of_its_layout(layout, piece, monkeypatch):
    monkeypatch.setattr(scaled_weights, "_PIECE", piece)
    weights = np.random.default_rng(0).standard_normal(layout.shape).astype(np.float32)
    gain = np.random.default_rng(1).random(layout.shape).astype(np.float32)
    energies = ScaledWeights(weights, 2.0, gain).energies(layout)
    for array, expected in zip(energies, layout.energies(tf.constant(2 * weights * gain)), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5)
