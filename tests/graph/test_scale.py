"""Powers of two that keep squares within float32's range."""

import dataclasses

import numpy as np
import pytest
from chains import chain

from tf_lap.graph.resolver import resolve
from tf_lap.graph.scale import Scale


def build_scale(*exponents):
    model = chain(4, *[4] * len(exponents))
    for layer, exponent in zip(model.layers, exponents, strict=True):
        layer.kernel.assign(np.full((4, 4), 1.5 * 2.0**exponent))
    return Scale.of(resolve(model))


def test_ordinary_weights_are_measured_as_they_are():
    scale = build_scale(-20, 0, 20)
    assert scale.exponents == (0, 0, 0)
    assert [scale.unit(i) for i in range(3)] == [scale.factor(i) for i in range(3)] == [1, 1, 1]
    assert scale.end() == 1


@pytest.mark.parametrize("exponents", [(-60, 0, 3), (-100, -100, -90), (40, 0, -40), (90, 90, 90)])
def test_what_is_measured_with_it_is_near_one_and_in_proportion(exponents):
    scale = build_scale(*exponents)
    largest = max(e if abs(e) > 20 else 0 for e in exponents)
    for i, exponent in enumerate(exponents):
        assert 2**-20 <= 2.0**exponent * scale.unit(i) <= 2**20
        # The square of the weight as it is measured, put on the common scale, is its true square over that scale's.
        measured = (2.0**exponent * scale.unit(i)) ** 2 * scale.factor(i)
        assert measured == 2.0 ** max(2 * (exponent - largest), -100) or 2 * (exponent - largest) < -100
    assert scale.end() == 2.0 ** max(-100, min(100, -2 * largest))


def test_zeros_and_what_is_not_finite_have_no_scale():
    model = chain(4, 4, 4, 4)
    for layer, value in zip(model.layers, (0.0, np.nan, np.inf), strict=True):
        layer.kernel.assign(np.full((4, 4), value))
    assert Scale.of(resolve(model)).exponents == (0, 0, 0)


def test_it_is_left_where_squares_come_near_the_ends_of_the_range():
    scale = build_scale(0)
    assert not scale.is_left_by([16.0], [16])
    assert not scale.is_left_by([16.0 * 2.0**-40], [16])
    for total in (0.0, 16 * 2.0**-42, 16 * 2.0**42, np.inf, np.nan):
        assert scale.is_left_by([total], [16])


def test_a_kernel_without_a_use_has_no_part_in_the_common_scale():
    recipe = resolve(chain(4, 4, 4))
    recipe.kernels[0].variable.assign(np.full((4, 4), 2.0**90))
    unused = dataclasses.replace(recipe.kernels[0], uses=0)
    scale = Scale.of(dataclasses.replace(recipe, kernels=(unused, recipe.kernels[1])))
    assert [scale.unit(0), scale.factor(0)] == [2.0**-90, 1]
    assert [scale.unit(1), scale.factor(1), scale.end()] == [1, 1, 1]
