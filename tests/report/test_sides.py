"""On which sides lookahead sees neighbours, as a report counts it."""

import keras
import pytest

import tf_lap
from tf_lap.report import LayerReport, PruningReport
from tf_lap.report.remarks import Remark, layer_remarks

layers = keras.layers


def kernel(path, previous=(), following=(), **others):
    return LayerReport(path, "Dense", (10, 10), 100, 10, previous, following, **others)


def said(*listed, score_sides=("before", "after")):
    report = PruningReport(tuple(listed), 10**6, 0, {}, score_sides)
    return [remark for remark in layer_remarks(report, str) if "lookahead" in remark.text]


def dense_chain(length):
    return keras.Sequential([keras.Input((8,)), *(layers.Dense(8, name=f"d{i}") for i in range(length))])


def test_kernels_are_counted_by_the_sides_on_which_they_have_neighbours():
    both, end, alone = kernel("b", ("a",), ("c",)), kernel("c", ("b",)), kernel("d")
    assert [layer.sides for layer in (both, end, alone)] == [("before", "after"), ("before",), ()]
    assert said(both) == [Remark("lookahead on both sides: 1 of 1 kernel")]
    assert said(end, both, alone, kernel("a", (), ("b",))) == [
        Remark(
            "lookahead on both sides: 1 of 4 kernels; one side: 2; no side: 1",
            ("d (none)", "c (only before)", "a (only after)"),
        )
    ]


def test_kernels_that_are_not_pruned_are_neighbours_and_not_counted():
    assert said(kernel("a", (), ("b",), skipped="frozen"), kernel("b", ("a",), ("c",)))[0].text.endswith(
        "1 of 1 kernel"
    )
    assert said(kernel("a", skipped="frozen")) == []


@pytest.mark.parametrize(
    ("score", "sides"),
    [
        ("lookahead", "both sides: 3 of 5 kernels; one side: 2"),
        (tf_lap.scores.Lookahead(look="back"), "both sides: 0 of 5 kernels; one side: 4; no side: 1"),
        (tf_lap.scores.Lookahead(look="ahead"), "both sides: 0 of 5 kernels; one side: 4; no side: 1"),
        ("magnitude", None),
        ("random", None),
        (tf_lap.scores.Lookahead(distance=0), None),
    ],
)
def test_only_the_sides_that_the_score_looks_at_count(score, sides):
    text = tf_lap.prune(dense_chain(5), 0.5, score=score).render(80)
    assert "lookahead" not in text if sides is None else f"lookahead on {sides}\n" in text


def test_given_neighbours_count_as_those_of_the_graph_do():
    report = tf_lap.prune(dense_chain(3), 0.5, neighbors={"d1": ([], ["d2"])})
    assert {layer.path: layer.sides for layer in report.layers} == {
        "d0": ("after",),
        "d1": ("after",),
        "d2": ("before",),
    }
    assert [layer["sides"] for layer in report.to_dict()["layers"]] == [["after"], ["after"], ["before"]]


def test_a_long_list_is_cut_in_the_text_and_folded_in_a_notebook():
    inputs = keras.Input((8,))
    ends = [layers.Dense(2, name=f"end_{i}")(layers.Dense(8, name=f"start_{i}")(inputs)) for i in range(4)]
    report = tf_lap.prune(keras.Model(inputs, ends), 0.5)
    heading = "lookahead on both sides: 0 of 8 kernels; one side: 8"
    lines = report.render(80).splitlines()
    assert lines[lines.index(heading) + 1].endswith(" and 5 more")
    assert all(f"end_{i} (only before)" in report.render(80, all=True) for i in range(4))
    assert f"<details><summary>{heading}</summary>" in report._repr_html_()


def test_attention_and_recurrent_layers_are_seen_on_both_sides():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4, name="attention")(layers.Dense(8)(inputs), layers.Dense(8)(inputs))
    x = layers.Dense(3)(layers.LSTM(4, name="memory")(x))
    report = tf_lap.prune(keras.Model(inputs, x), 0.5)
    assert {layer.path: layer.sides for layer in report.layers if "/" in layer.path} == {
        **dict.fromkeys((f"attention/{name}" for name in ("query", "key", "value")), ("before", "after")),
        "attention/attention_output": ("before", "after"),
        "memory/kernel": ("before", "after"),
        "memory/recurrent_kernel": ("before", "after"),
    }
