import keras
import pytest
from reported import report_of_small_model

import tf_lap
from tf_lap.report import VECTORS, LayerReport, PruningReport
from tf_lap.tabular import common_prefix

pytestmark = pytest.mark.filterwarnings("ignore:model .* can be pruned")  # models of many kinds of layers

layers = keras.layers


def words_of(text):
    return " ".join(text.split())


def report_of_layers(*layer_reports, model=(10**6, 1000)):
    left = {}
    for layer in layer_reports:
        if layer.skipped:
            left[layer.skipped] = left.get(layer.skipped, 0) + layer.weights
    in_vectors = model[0] - sum(layer.weights for layer in layer_reports)
    return PruningReport(tuple(layer_reports), *model, {**left, VECTORS: in_vectors})


def kernel(path, weights=100, kept=10, **others):
    return LayerReport(path, "Dense", (weights, 1), weights, kept, **others)


@pytest.fixture(scope="module")
def mobilenet():
    return tf_lap.prune(keras.applications.MobileNetV2(weights=None), 0.9, allocation="uniform")


@pytest.fixture
def report():
    return report_of_small_model()


def test_its_text_is_an_aligned_table_and_what_the_whole_model_has(report):
    lines = report.render(width=120).splitlines()
    heading = lines[0]
    assert heading.split() == ["layer", "class", "kernel", "weights", "kept", "sparsity", "before", "after"]
    assert set(lines[1]) == set(lines[4]) == {"-"}
    kept = heading.index("kept") + len("kept")
    for line, cell in zip(lines[2:4], ["54", "12"], strict=True):
        assert line[:kept].endswith(" " + cell)
    assert lines[5].split() == ["2", "pruned", "kernels", "132", "66", "50.00%"]
    assert lines[6:] == [
        "lookahead on both sides: 1 of 2 kernels; one side: 1",
        "    conv (only after)",
        "boundary: network input 'image'",
        "boundary: network output 'head'",
        "whole model: 31.25% of 288 weights are zero; the pruned kernels hold 45.83% of the weights",
        "skipped 96 weights (33.33%) in 2 matrices: left out by filters",
        "    depthwise, head",
        "skipped 36 weights (12.50%) in separable/depthwise_kernel: pruned only where filters or a mapping names it",
        "skipped 24 weights (8.33%): biases, normalization and other vectors",
    ]


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("width", [40, 57, 80, 120, 300])
def test_no_line_of_mobilenet_is_wider_than_asked_and_no_reason_stands_twice(mobilenet, width, everything):
    text = mobilenet.render(width, all=everything)
    assert max(map(len, text.splitlines())) <= width
    for reason in [*mobilenet.left_whole, *(reason for layer in mobilenet.layers for reason in layer.boundaries)]:
        assert words_of(text).count(reason) == 1
    assert "skipped 64,224 weights (1.81%) in 17 matrices: pruned only where filters or a" in words_of(text)
    assert "whole model: 87.60% of 3,538,984 weights are zero; the pruned kernels hold 96.23%" in words_of(text)


def test_mobilenet_is_folded_to_its_ends_and_largest_kernels(mobilenet):
    lines = mobilenet.render(80).splitlines()
    assert len(lines) < 35
    shown = [line.split()[0] for line in lines if line.endswith("%")]
    assert shown[:2] == ["Conv1", "expanded_conv_project"]
    assert shown[-3:] == ["Conv_1", "predictions", "36"]
    largest = lines[lines.index("... 24 more, the largest of them:") + 1 :][:3]
    assert {line.split()[2] for line in largest} == {"153,600"}
    assert "21 kernels: render(all=True)" in words_of("\n".join(lines))


def test_all_shows_each_kernel_once_and_each_skipped_path(mobilenet):
    text = mobilenet.render(80, all=True)
    names = [line.split()[0] for line in text.splitlines() if line.endswith("%")]
    for layer in mobilenet.pruned:
        assert names.count(layer.path) == 1
    assert all(layer.path in text for layer in mobilenet.skipped)
    assert "more" not in text.split()


def test_the_extremes_of_sparsity_are_shown_where_they_differ():
    sparse = [kernel(f"layer_{i}", weights=1000, kept=1000 - 10 * i) for i in range(1, 41)]
    lines = report_of_layers(*sparse).render(80).splitlines()
    most = lines.index("... the most sparse of them:")
    least = lines.index("... the least sparse of them:")
    assert [line.split()[0] for line in lines[most + 1 : least]] == ["layer_34", "layer_35", "layer_36"]
    assert [line.split()[0] for line in lines[least + 1 : least + 4]] == ["layer_9", "layer_10", "layer_11"]
    alike = [kernel(f"layer_{i}", weights=1000 + i, kept=100) for i in range(40)]
    assert "most sparse" not in report_of_layers(*alike).render(80)


def test_a_short_model_is_not_folded():
    text = report_of_layers(*(kernel(f"layer_{i}") for i in range(30))).render(80)
    assert "..." not in text
    assert all(f"layer_{i} " in text for i in range(30))


def test_a_narrow_table_does_without_columns_and_says_which(report):
    def heading(width):
        return report.render(width).splitlines()[0].split()

    assert heading(45) == ["layer", "weights", "kept", "sparsity"]
    assert "(left out: columns class, kernel, before, after: render(width=...))" in words_of(report.render(45))
    assert heading(55) == ["layer", "kernel", "weights", "kept", "sparsity"]
    assert heading(75) == ["layer", "kernel", "weights", "kept", "sparsity", "before", "after"]
    assert "(left out: column class: render(width=...))" in report.render(75)
    assert "left out:" not in report.render(100)
    long = report_of_layers(kernel("some/" + "very_" * 20 + "long_name", weights=10**9), model=(2 * 10**9, 10**9))
    assert long.render(40).splitlines()[0].split() == ["layer", "weights", "sparsity"]
    assert "(left out: columns class, kernel, kept, before, after: render(width=...))" in words_of(long.render(40))
    assert "some/v...g_name " in long.render(40)
    assert max(map(len, long.render(40).splitlines())) == 40


def test_the_terminal_tells_the_width(mobilenet, monkeypatch):
    for columns, width in (("66", 66), ("200", 200), ("7", 40)):
        monkeypatch.setenv("COLUMNS", columns)
        assert str(mobilenet) == mobilenet.render() == mobilenet.render(width)
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr("sys.__stdout__", None)
    assert str(mobilenet) == mobilenet.render(80)


@pytest.mark.parametrize(("width", "error"), [(39, ValueError), (0, ValueError), (80.5, TypeError), (True, TypeError)])
def test_a_width_that_holds_no_table_is_refused(width, error):
    with pytest.raises(error, match="40 or more"):
        report_of_layers(kernel("a")).render(width)


def test_a_prefix_that_most_paths_have_is_cut_and_said():
    inner = [kernel(f"models/encoder/dense_{i}", previous=(f"models/encoder/dense_{i - 1}",)) for i in range(1, 4)]
    lines = report_of_layers(*inner, kernel("head", previous=("models/encoder/dense_3",))).render(80).splitlines()
    assert lines[0] == "~ is models/encoder"
    assert [line.split()[0] for line in lines[3:7]] == ["~/dense_1", "~/dense_2", "~/dense_3", "head"]
    assert [line.split()[6] for line in lines[3:7]] == ["~/dense_0", "~/dense_1", "~/dense_2", "~/dense_3"]


@pytest.mark.parametrize(
    ("paths", "prefix"),
    [
        (["a/x", "a/y"], "a"),
        (["model/block/x", "model/block/y", "model/z"], "model/block"),
        (["model/block/x", "model/y", "model/z", "model/w"], "model"),
        (["encoder/x", "b", "c"], ""),
        (["encoder/x"], ""),
        (["dense", "dense_1"], ""),
        ([], ""),
    ],
)
def test_which_prefix_is_cut(paths, prefix):
    assert common_prefix(paths) == prefix


@pytest.mark.filterwarnings("ignore:model .* can be pruned")
def test_transfer_learning_shows_the_head_and_groups_the_frozen_base():
    base = keras.Sequential([keras.Input((8,)), *(layers.Dense(8, name=f"d{i}") for i in range(5))], name="base")
    base.trainable = False
    model = keras.Sequential([keras.Input((8,)), base, layers.Dense(2, name="head")])
    lines = tf_lap.prune(model, 0.5).render(140).splitlines()
    assert lines[0] == "~ is base"
    assert lines[3].split() == ["head", "Dense", "8x2", "16", "8", "50.00%", "~/d4", "-"]
    place = [line.startswith("skipped 320 weights (84.66%) in 5 matrices: frozen") for line in lines].index(True)
    assert lines[place + 1] == "    ~/d0, ~/d1, ~/d2 and 2 more"


def test_many_neighbours_are_counted_in_the_table_and_named_in_the_data():
    report = report_of_layers(kernel("a", previous=tuple("bcdef")))
    assert "b, c +3" in report.render(80)
    assert report.to_dict()["layers"][0]["previous"] == list("bcdef")


def test_shares_that_are_nearly_all_or_nearly_none_are_not_rounded_to_it():
    text = report_of_layers(
        kernel("a", weights=10**6, kept=1), kernel("b", weights=10**6, kept=10**6 - 1), model=(10**7, 1)
    ).render(80)
    assert ">99.99%" in text
    assert words_of(text).count("<0.01%") == 2
