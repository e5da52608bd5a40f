"""The cost of a model as text that fits a width, and as HTML."""

import keras
import pytest
from keras import layers

import tf_lap


def cost_of_stack(depth):
    stack = [layers.Dense(4 + i, activation="relu", name=f"dense_{i}") for i in range(depth)]
    return tf_lap.cost(keras.Sequential([keras.Input((4,)), *stack, layers.ReLU(name="last")]))


def test_a_short_model_is_shown_with_all_that_multiplies():
    report = cost_of_stack(2)
    assert report.render(80).splitlines() == [
        "layer         class  output  weights  non-zero  MACs",
        "----------------------------------------------------",
        "dense_0       Dense  4            20        16    16",
        "dense_1       Dense  5            25        20    20",
        "----------------------------------------------------",
        "all 3 layers                      45        36    36",
        "(left out: 1 layers: render(all=True))",
        "weights: of all kinds, 45 of them trainable; 180 bytes (180 of float32)",
        "MACs: multiply-accumulates of kernels and of products of tensors, for one",
        "    sample; 36 of weights that are not zero",
        "largest activation: 20 bytes, dense_1 (1, 5) float32",
    ]
    assert "last" in report.render(80, all=True)


@pytest.mark.parametrize("width", [40, 50, 80, 200])
def test_lines_fit_the_width(width):
    for report in (cost_of_stack(2), cost_of_stack(40)):
        assert max(map(len, report.render(width).splitlines())) <= width


def test_a_long_model_is_folded_to_what_multiplies_most():
    report = cost_of_stack(40)
    lines = report.render(80).splitlines()
    assert "... 28 more, those that multiply most:" in lines
    assert sum(line.startswith("dense_") for line in lines) == 20
    assert "21 layers: render(all=True)" in report.render(80)
    assert sum(line.startswith("dense_") for line in report.render(80, all=True).splitlines()) == 40


def test_columns_are_left_out_where_there_is_no_room():
    text = cost_of_stack(2).render(40)
    assert "columns class" in text


@pytest.mark.parametrize(("width", "error"), [(20, ValueError), ("80", TypeError)])
def test_a_width_that_is_none_is_refused(width, error):
    with pytest.raises(error, match="width="):
        cost_of_stack(2).render(width)


def test_a_common_prefix_is_cut():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(3, name="b")], name="inner")
    model = keras.Sequential([keras.Input((4,)), inner])
    lines = tf_lap.cost(model).render(80).splitlines()
    assert lines[0] == "~ is inner"
    assert lines[3].startswith("~/a ")


def test_a_notebook_shows_a_table_and_all_layers_below():
    html = cost_of_stack(40)._repr_html_()
    assert html.count("<table>") == 2
    assert "all 41 layers" in html
    assert cost_of_stack(2)._repr_html_().count("<tr>") == 4 + 4
