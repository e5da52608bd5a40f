"""A copy that does something else is not returned; the error names the layer where the two part."""

import keras
import numpy as np
import pytest
import tf_keras
from helpers.shrunk import draw_inputs, mask_channels, randomize

from tf_lap import ShrinkError, compat, shrink
from tf_lap.shrinking import verification

KERASES = pytest.mark.parametrize("kr", [keras, tf_keras], ids=["keras3", "tf_keras"])


@KERASES
@pytest.mark.parametrize("name", ["first", "norm", "last"])
def test_the_layer_is_named_where_they_part(kr, name, monkeypatch):
    model = kr.Sequential(
        [
            kr.Input((5, 5, 3)),
            kr.layers.Conv2D(6, 3, name="first"),
            kr.layers.BatchNormalization(name="norm"),
            kr.layers.ReLU(),
            kr.layers.Flatten(),
            kr.layers.Dense(2, name="last"),
        ]
    )
    randomize(model)
    assert mask_channels(model, 0.4)

    def spoil(rebuilt):
        variable = next(new for old, new in rebuilt.layers if old.name == name).trainable_weights[0]
        compat.assign(variable, compat.host_array(variable) + 1)

    monkeypatch.setattr(compat.Rebuilt, "finish", spoil)
    with pytest.raises(ShrinkError, match=rf"differs by .*0\.0001 is tolerated. They part at \w+ '{name}'"):
        shrink(model)


@KERASES
def test_weights_of_half_precision_are_compared_as_they_are(kr):
    model = kr.Sequential([kr.Input((6,)), *(kr.layers.Dense(size, dtype="bfloat16") for size in (16, 16, 2))])
    assert mask_channels(model, 0.5)
    small, report = shrink(model, return_report=True)
    assert report.changed
    assert 0 <= report.difference < verification.HALF_TOLERANCE
    assert np.asarray(small(draw_inputs(model))).dtype == "bfloat16"


@KERASES
def test_inputs_that_cannot_be_drawn_are_asked_for(kr):
    inputs = kr.Input((3,), dtype="bfloat16")
    model = kr.Model(inputs, kr.layers.Dense(2, dtype="bfloat16")(inputs))
    with pytest.raises(ValueError, match="for which none can be drawn: pass data"):
        shrink(model)


def test_the_measure_is_relative_to_the_largest_number():
    assert verification.measure(np.array([0.0, 4.0]), np.array([1.0, 4.0])) == 0.25
    assert verification.measure(np.zeros(2), np.zeros(2)) == 0
    assert verification.measure(np.zeros(2), np.ones(2)) == np.inf
    assert verification.measure(np.zeros(2), np.zeros(3)) == np.inf
    assert verification.measure(np.array([1, 2]), np.array([1, 2])) == 0
    assert verification.measure(np.array([1, 2]), np.array([1, 3])) == np.inf
    assert verification.measure(np.array([np.nan, 1.0]), np.array([np.nan, 1.0])) == 0
    assert verification.measure(np.array([np.nan, 1.0]), np.array([2.0, 1.0])) == np.inf
    assert verification.measure(np.array([-np.inf, 2.0]), np.array([-np.inf, 1.0])) == 0.5
    assert verification.measure(np.array([2.0, 2.0]), np.array([np.nan, 2.0])) == np.inf
