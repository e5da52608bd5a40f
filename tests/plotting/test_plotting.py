"""Each picture has a row or a point for everything that it shows, and no text lies upon another or outside."""

import pickle
import sys

import keras
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import tf_lap
from tf_lap.plotting import graph_chart
from tf_lap.plotting.mask_matrix import average_blocks


def build(depth, name="net"):
    names = [f"layer_{i}_with_a_name_of_some_length" for i in range(depth)]
    layers = [keras.layers.Dense(6, activation="relu", name=name) for name in names]
    return keras.Sequential([keras.Input((6,)), *layers], name=name)


def residual():
    inputs = x = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(x)
    for i in range(2):
        y = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=f"conv_{i}")(x)
        x = keras.layers.Add()([x, y])
    x = keras.layers.Lambda(lambda x: keras.ops.sort(x, axis=-1), name="sorted")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(x))


def texts(figure):
    """The boxes of all texts that are drawn, in pixels, and the figure's own."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    shown = list(figure.texts)
    for axes in figure.axes:
        shown += [*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            labels = zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
            shown += [label for label, place in labels if low <= place <= high]  # others are not drawn
    for legend in figure.legends:
        shown += legend.get_texts()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown if text.get_text()]
    return boxes, figure.bbox


def assert_readable(figure):
    boxes, frame = texts(figure)
    assert boxes
    for i, (text, box) in enumerate(boxes):
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= frame.x1 + 1, text
        assert box.y1 <= frame.y1 + 1, text
        for other, other_box in boxes[i + 1 :]:
            width = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            height = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert width <= 1 or height <= 2, (text, other)


@pytest.mark.parametrize("depth", [1, 3, 200])
def test_rows_of_one_layer_and_of_two_hundred(depth):
    model = build(depth)
    graph = tf_lap.plot_graph(model)
    sparsity = tf_lap.plot_sparsity(tf_lap.prune(model, 0.5, filters=".*", allocation="uniform"))
    for figure in (graph, sparsity):
        assert len(figure.axes[0].get_yticklabels()) == depth
        assert_readable(figure)


def test_sparsity_shows_what_was_left_whole():
    model = build(3)
    report = tf_lap.prune(model, {"layer_1": 0.75, "layer_2": 0.5})
    figure = tf_lap.plot_sparsity(report)
    widths = [bar.get_width() for bar in figure.axes[0].patches[:3]]
    np.testing.assert_allclose(widths, [layer.sparsity for layer in report.layers])
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.0% of 36", "75.0% of 36", "50.0% of 36"]
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "not pruned"
    assert_readable(figure)


def test_sparsity_takes_a_report():
    with pytest.raises(TypeError, match=r"plot_sparsity takes a PruningReport, got Sequential: pass .*\.report\(\)"):
        tf_lap.plot_sparsity(build(1))


def test_the_graph_has_a_ribbon_for_each_pair_of_neighbours_and_marks_boundaries():
    model = residual()
    neighbors = tf_lap.neighbors(model)
    edges = list(graph_chart._find_edges(neighbors, tf_lap.channel_energies(model)))
    rows = list(neighbors)
    assert {(rows[e.target], rows[e.source]) for e in edges} == {
        (path, previous) for path, around in neighbors.items() for previous in around.previous
    }
    energies = tf_lap.channel_energies(model)
    for edge in edges:
        assert edge.incoming == pytest.approx(energies[rows[edge.target]].incoming.sum())
        assert edge.outgoing == pytest.approx(energies[rows[edge.source]].outgoing.sum())
    figure = tf_lap.plot_graph(model)
    assert sum(len(collection.get_paths()) for collection in figure.axes[0].collections) == len(edges)
    marks = [text.get_text() for text in figure.axes[0].texts]
    assert {"i", "o", "1"} <= set(marks)
    assert any("1: boundary: " in text.get_text() for text in figure.texts)
    assert_readable(figure)


def test_widths_grow_with_energies():
    widths = graph_chart._scale(np.array([[1.0, 10.0], [100.0, 0.0]]))
    assert widths[1, 1] < widths[0, 0] < widths[0, 1] < widths[1, 0]
    assert widths[0, 1] - widths[0, 0] == pytest.approx(widths[1, 0] - widths[0, 1])  # on a log scale
    np.testing.assert_array_equal(graph_chart._scale(np.zeros((1, 2))), graph_chart._THIN)


def test_a_ribbon_is_as_wide_at_its_ends_as_it_is_told():
    outline = graph_chart._make_ribbon(graph_chart.Edge(0, 3, 1.0, 1.0), 0.1, 0.3)
    half = len(outline) // 2
    assert np.linalg.norm(outline[0] - outline[-1]) == pytest.approx(0.1)
    assert np.linalg.norm(outline[half - 1] - outline[half]) == pytest.approx(0.3)


def test_a_model_without_kernels_has_no_graph():
    model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    with pytest.raises(ValueError, match="has no kernel that can be pruned"):
        tf_lap.plot_graph(model)


@pytest.mark.parametrize(
    ("layer", "shape", "rows"),
    [
        (keras.layers.Dense(5), (7,), 7),
        (keras.layers.Conv2D(5, 3), (8, 8, 2), 18),
        (keras.layers.Conv2DTranspose(5, 3), (8, 8, 2), 18),
    ],
    ids=["dense", "convolution", "transposed"],
)
def test_masks_are_shown_as_they_are(layer, shape, rows):
    model = keras.Sequential([keras.Input(shape), layer])
    tf_lap.prune(model, 0.6)
    figure = tf_lap.plot_masks(model, layer.name)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    kernel = layer.kernel.numpy()
    if "transpose" in layer.name:
        kernel = kernel.swapaxes(-1, -2)
    np.testing.assert_array_equal(shown, kernel.reshape(rows, 5) != 0)
    assert f"{(kernel == 0).mean():.1%} zeros" in figure.get_suptitle()
    assert_readable(figure)


def test_masks_of_large_kernels_are_shares_of_blocks():
    mask = np.random.default_rng(0).random((1000, 30)) < 0.3
    shares = average_blocks(mask)
    assert shares.shape == (400, 30)
    np.testing.assert_allclose(shares[0], mask[:2].mean(0))
    model = keras.Sequential([keras.Input((900,)), keras.layers.Dense(500, name="a_layer_of_a_rather_long_name" * 3)])
    figure = tf_lap.plot_masks(model, "rather")
    assert figure.axes[0].images[0].get_array().shape == (400, 400)
    assert_readable(figure)


def test_masks_of_a_layer_that_is_not_there():
    model = build(2)
    with pytest.raises(ValueError, match="'nothing' matches no layer"):
        tf_lap.plot_masks(model, "nothing")
    with pytest.raises(ValueError, match="'layer' is found in 2 paths: name one of layer_0"):
        tf_lap.plot_masks(model, "layer")
    with pytest.raises(TypeError, match="expected the path of a layer, such as 'layer_0"):
        tf_lap.plot_masks(model, model.layers[0])


CURVES = {"lookahead": {0.9: [0.95, 0.93], 0.8: [0.97, 0.96]}, "magnitude": {0.8: 0.96, 0.9: [0.9, 0.8]}}


def test_a_tradeoff_shows_means_and_spread():
    figure = tf_lap.plot_tradeoff(CURVES, dense=[0.98, 0.97], value="accuracy")
    first, second = figure.axes[0].containers
    np.testing.assert_allclose(first[0].get_ydata(), [0.965, 0.94])
    (bars,) = first[2]
    np.testing.assert_allclose([path.vertices[:, 1] for path in bars.get_paths()], [[0.96, 0.97], [0.93, 0.95]])
    np.testing.assert_allclose(second[0].get_ydata(), [0.96, 0.85])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["80%", "90%"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lookahead", "magnitude", "not pruned"]
    assert_readable(figure)


def test_a_search_is_a_tradeoff():
    model, x = build(3), np.random.default_rng(0).standard_normal((32, 6)).astype(np.float32)
    expected = model.predict(x, verbose=0).argmax(1)
    result = tf_lap.find_sparsity(
        model,
        lambda pruned: (pruned.predict(x, verbose=0).argmax(1) == expected).mean(),
        0.3,
        allocations="uniform",
        tolerance=0.1,
        verbose=0,
    )
    figure = tf_lap.plot_tradeoff(result)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-3:] == ["worst within the drop", f"found: {result.sparsity:.2%} zeros", "not pruned"]
    shown = sum(len(curve[0].get_xdata()) for curve in figure.axes[0].containers)
    assert shown == len({(entry.combination, entry.sparsity) for entry in result.evaluations})
    assert_readable(figure)


@pytest.mark.parametrize("results", [3, {"a": 0.9}, {}, {"a": {}}, {"a": {0.9: []}}], ids=str)
def test_a_tradeoff_of_nothing(results):
    with pytest.raises((TypeError, ValueError), match="expected a SearchReport, or names with values by sparsity"):
        tf_lap.plot_tradeoff(results)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "tf_lap.notebook_figure", raising=False)
    with pytest.raises(ImportError, match=r'pip install "tf_lap\[plot\]"'):
        tf_lap.plot_graph(build(1))


def test_a_notebook_shows_the_picture_of_a_report():
    """IPython asks an object for `_repr_png_`; of matplotlib's own figures it shows those of pyplot alone."""
    figure = tf_lap.plot_sparsity(tf_lap.prune(build(2), 0.5))
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert pickle.loads(pickle.dumps(figure))._repr_png_().startswith(b"\x89PNG")
