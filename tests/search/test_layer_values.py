"""`sensitivity` measures each layer by itself and all together, and shows it."""

import json
import sys

import keras
import numpy as np
import pytest
from searched import build_model, kept_fraction, kernels, libraries, never, state

import tf_lap
from tf_lap.search.sensitivity_report import LayerSensitivity, SensitivityReport
from tf_lap.search.values import format_value

SIZES = {"first": 288, "second": 384, "head": 160}


def measure(model, evaluate=kept_fraction, **arguments):
    return tf_lap.sensitivity(
        model, evaluate, **{"score": "magnitude", "allocation": "uniform", "verbose": 0, **arguments}
    )


def weigh(model):
    """A value to which the layers matter differently."""
    weights = {"first": 0.1, "second": 0.6, "head": 0.3}
    return sum(weights[name] * np.mean(kernel != 0) for name, kernel in kernels(model).items())


def make_report(count, prefix="block"):
    layers = [LayerSensitivity(f"{prefix}_{i}", "Dense", (9, 9), 81, (0.9, 0.9 - i / 100)) for i in range(count)]
    return SensitivityReport(0.95, (0.5, 0.9), tuple(layers), (0.8, 0.2), True, "lookahead, uniform, unstructured")


@pytest.mark.parametrize("library", libraries(), ids=lambda library: library.__name__)
def test_each_layer_is_pruned_by_itself_and_all_together(library):
    model = build_model(library)
    before = state(model)
    report = measure(model, sparsities=(0.75, 0.5))
    assert state(model) == before
    assert report.dense == 1.0
    assert report.sparsities == (0.5, 0.75)
    assert [(layer.path, layer.weights) for layer in report.layers] == list(SIZES.items())
    for layer in report.layers:
        expected = [1 - fraction * layer.weights / sum(SIZES.values()) for fraction in report.sparsities]
        assert layer.values == pytest.approx(expected)
    assert report.together == pytest.approx((0.5, 0.25))


def test_it_measures_the_very_model_that_prune_makes():
    model, models = build_model(), []
    measure(
        model, lambda model: models.append(kernels(model)) or 1, sparsities=[0.8], score="lookahead", allocation="auto"
    )
    weights = model.get_weights()
    for i, path in enumerate([*SIZES, None], start=1):
        model.set_weights(weights)
        tf_lap.prune(model, 0.8 if path is None else {path: 0.8})
        for name, kernel in kernels(model).items():
            np.testing.assert_array_equal(kernel, models[i][name])


def test_the_layers_in_the_order_of_sensitivity():
    report = measure(build_model(), weigh)
    assert [layer.path for layer in report.by_sensitivity] == ["second", "head", "first"]
    lower = measure(build_model(), lambda model: -weigh(model), higher_is_better=False)
    assert [layer.path for layer in lower.by_sensitivity] == ["second", "head", "first"]
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["layers"][1]["drop"] == pytest.approx(0.6 * np.mean(report.sparsities), abs=0.01)


def test_a_layer_whose_value_is_nan_is_the_most_sensitive():
    report = measure(build_model(), lambda model: float("nan") if np.mean(kernels(model)["head"] == 0) > 0.8 else 1.0)
    assert report.by_sensitivity[0].path == "head"
    assert "nan" in report.render(80)
    report.plot()


def test_what_is_chosen_goes_to_prune():
    model = build_model()
    report = measure(model, pattern="2:4", allocation="global", filters="second|head", whole_model=False)
    assert report.sparsities == (0.5,)
    assert [layer.path for layer in report.layers] == ["second", "head"]
    assert report.together is None
    assert "all layers together" not in report.render(80)
    pooled = measure(model, allocation="lamp", sparsities=[0.9], score=tf_lap.scores.Lookahead(distance=2))
    assert pooled.choices == "Lookahead(distance=2), lamp, unstructured"
    assert pooled.together == pytest.approx((0.1,), abs=0.01)
    over_data = measure(model, score="lookahead_activation", data=np.ones((4, 12), np.float32), sparsities=[0.5])
    assert over_data.together == pytest.approx((0.5,))


def test_repair_is_passed_on_and_put_back():
    model, x = build_model(), np.random.default_rng(0).standard_normal((64, 12)).astype(np.float32)
    before, dense = state(model), model.predict(x, verbose=0)

    def distance(model):
        return float(np.mean((model.predict(x, verbose=0) - dense) ** 2))

    choices = {"higher_is_better": False, "sparsities": [0.5]}
    plain, repaired = (measure(model, distance, **choices, **more) for more in ({}, {"repair": "weights", "data": x}))
    assert state(model)[0] == before[0]
    assert repaired.together[0] < plain.together[0]
    # Of the last layer the distance is what a repair makes as small as it can be.
    assert repaired.layers[-1].values[0] < plain.layers[-1].values[0]


def test_lines_say_how_far_it_is(capsys):
    measure(build_model(), sparsities=[0.5, 0.75], verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sensitivity: dense 1.0000; 4 rows at sparsities 0.5, 0.75"
    assert lines[1].startswith("1 of 4")
    assert lines[1].endswith(": first  0.8269 0.7404")
    assert lines[4] == "4 of 4: all layers together  0.5000 0.2500"


def test_its_text_is_a_table():
    lines = measure(build_model(), weigh, sparsities=[0.5, 0.75]).render(100).splitlines()
    assert lines[0].startswith("dense 1.0000 (higher is better); magnitude, uniform, unstructured")
    assert [line.split() for line in lines[1:]] == [
        ["layer", "weights", "50%", "75%"],
        ["-" * len(lines[2])],
        ["first", "288", "0.9500", "0.9250"],
        ["second", "384", "0.7000", "0.5500"],
        ["head", "160", "0.8500", "0.7750"],
        ["-" * len(lines[2])],
        ["all", "layers", "together", "832", "0.5000", "0.2500"],
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_large_model_is_folded_and_no_line_is_wider_than_asked(width):
    report = make_report(60, "encoder/a_long_name_of_a_layer/block")
    text = report.render(width)
    assert max(map(len, text.splitlines())) <= width
    assert max(map(len, report.render(width, all=True).splitlines())) <= width
    shown = [line for line in text.splitlines() if line.startswith("~")]
    assert "the most sensitive layers:" in text
    assert "... 36 more; the least sensitive:" in text
    rows = [line.split()[0] for line in shown if "is encoder" not in line]
    assert len(rows) == 24
    assert rows[0].endswith("_59")
    assert "36 layers: render(all=True)" in " ".join(text.split())
    assert len(report.render(width, all=True).splitlines()) > 60


def test_sparsities_that_find_no_room_are_left_out():
    fractions = tuple(i / 20 for i in range(1, 20))
    layer = LayerSensitivity("dense", "Dense", (9, 9), 81, fractions)
    report = SensitivityReport(0.95, fractions, (layer,), None, True, "magnitude, uniform, unstructured")
    text = report.render(60)
    (heading,) = [line for line in text.splitlines() if line.startswith("layer")]
    assert heading.split()[-1] == "95%"
    assert "(left out: columns weights, 5%" in text
    assert "render(width=...)" in text


def test_html_is_escaped_and_folded():
    page = make_report(40, "<b>")._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;_39" in page
    assert page.count("<table>") == 3
    assert make_report(4)._repr_html_().count("<table>") == 1
    assert repr(make_report(4)) == "<SensitivityReport: 4 layers at 2 sparsities, dense 0.95>"


@pytest.mark.parametrize(("name", "first"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a", b"\x89PNG")])
def test_a_picture_is_drawn(name, first, tmp_path):
    report = make_report(9)
    figure = report.plot(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(first)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [*(f"block_{i}" for i in range(8, 2, -1)), "3 other layers", "all layers together", "not pruned"]
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["50%", "90%"]
    assert axes.get_yscale() == "linear"


def test_losses_that_explode_are_drawn_on_a_log_scale():
    layers = (LayerSensitivity("dense", "Dense", (9, 9), 81, (0.3, 1e6)),)
    report = SensitivityReport(0.25, (0.5, 0.9), layers, None, False, "magnitude, uniform, unstructured")
    assert report.plot().axes[0].get_yscale() == "log"
    assert "1e+06" in report.render(80)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "tf_lap.notebook_figure", raising=False)
    with pytest.raises(ImportError, match=r'matplotlib is needed to draw: pip install "tf_lap\[plot\]"'):
        make_report(3).plot()


@pytest.mark.parametrize(
    ("value", "dense", "text"),
    [
        (0.5, 0.9712, "0.5000"),
        (81.25, 97.0, "81.25"),
        (1e7, 0.1, "1e+07"),
        (1.0, 1.0, "1.0000"),
        (0.0, 0.0, "0.0000"),
        (-0.5, -2, "-0.500"),
    ],
)
def test_values_have_as_many_digits_as_the_dense_one(value, dense, text):
    assert format_value(value, dense) == text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sparsities": 0.5}, TypeError, "sparsities=0.5: expected several fractions"),
        ({"sparsities": []}, ValueError, "sparsities is empty"),
        ({"sparsities": [0.5, 1.0]}, ValueError, "sparsities=1.0: a sparsity is the fraction of zeros"),
        ({"sparsities": [0.6], "pattern": "2:4"}, ValueError, "pattern 2:4 ends at 0.5"),
        ({"filters": "loud"}, ValueError, "matches no layer"),
        ({"score": "loud"}, ValueError, "score='loud' is not known"),
        ({"allocation": "loud"}, ValueError, "allocation='loud' is not known"),
        ({"order": "loud"}, ValueError, "order='loud' is not known"),
        ({"data": np.ones((4, 12), np.float32)}, ValueError, "data is given, and nothing here needs it"),
        ({"evaluate": None}, TypeError, "evaluate=None: expected a function"),
    ],
)
def test_mistakes_are_said_before_the_first_evaluation(arguments, error, message):
    with pytest.raises(error, match=message):
        measure(build_model(compiled=False), **{"evaluate": never, **arguments})


def test_what_is_no_model():
    with pytest.raises(TypeError, match=r"expected a keras\.Model"):
        measure("model", never)
    with pytest.raises(ValueError, match="is not built"):
        measure(keras.Sequential([keras.layers.Dense(2)]), never)


def test_a_key_leaves_the_model_as_it_was():
    model = build_model()
    before = state(model)

    def stop(model):
        if kept_fraction(model) < 0.9:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        measure(model, stop)
    assert state(model) == before
