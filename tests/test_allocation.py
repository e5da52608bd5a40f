import keras
import numpy as np
import pytest

import tf_lap
from tf_lap.allocation import Global, Uniform, assign_sparsities, get, keep_count


@pytest.mark.parametrize(
    ("size", "sparsity", "kept"),
    [(10, 0.75, 2), (6, 0.75, 2), (2, 0.75, 1), (10, 0.99, 1), (1, 0.5, 1), (7, 0.0, 7), (3, 0.5, 2), (5, 0.5, 2)],
)
def test_counts_round_half_to_even_and_leave_one(size, sparsity, kept):
    assert keep_count(size, sparsity) == kept


def test_a_path_wins_over_an_expression_and_the_first_expression_over_the_next():
    paths = ["conv", "conv_1", "head/dense", "dense"]
    assert assign_sparsities({"conv": 0.1, "^conv": 0.2, "dense": 0.3, "head": 0.4}, paths) == {
        "conv": 0.1,
        "conv_1": 0.2,
        "head/dense": 0.4,
        "dense": 0.3,
    }


def test_an_expression_that_matches_nothing_lists_the_paths():
    with pytest.raises(ValueError, match=r"sparsity: 'lstm' matches no layer.*'conv', 'dense'"):
        assign_sparsities({"lstm": 0.5}, ["conv", "dense"])
    with pytest.raises(ValueError, match="'conv\\(' is not a regular expression"):
        assign_sparsities({"conv(": 0.5}, ["conv"])


def chain(*widths):
    layers = [keras.layers.Dense(width, name=f"dense_{i}") for i, width in enumerate(widths[1:])]
    return keras.Sequential([keras.Input(widths[:1]), *layers])


def test_a_mapping_prunes_each_layer_to_its_own_sparsity():
    model = chain(10, 20, 20, 5)
    report = tf_lap.prune(model, {"dense_0": 0.5, "dense_[12]": 0.9})
    assert [layer.kept for layer in report.layers] == [100, 40, 10]
    assert [np.count_nonzero(layer.kernel) for layer in model.layers] == [100, 40, 10]


def test_layers_that_a_mapping_does_not_name_stay_whole():
    model = chain(10, 20, 5)
    before = model.layers[1].kernel.numpy()
    tf_lap.prune(model, {"dense_0": 0.5})
    np.testing.assert_array_equal(model.layers[1].kernel, before)


def scores_of(model, score):
    """Those of a chain's kernels, in NumPy."""
    weights = [layer.kernel.numpy().astype(np.float64) for layer in model.layers]
    scores = [np.abs(w) for w in weights]
    if score == "lookahead":
        for i, w in enumerate(weights):
            before = np.linalg.norm(weights[i - 1], axis=0) if i else np.ones(len(w))
            after = np.linalg.norm(weights[i + 1], axis=1) if i + 1 < len(weights) else np.ones(w.shape[1])
            scores[i] = np.abs(w) * before[:, None] * after
    return scores


@pytest.mark.parametrize(("score", "order"), [("magnitude", 2), ("lookahead", 4)])
def test_global_ranks_all_kernels_by_normalised_scores(score, order):
    model = chain(10, 20, 20, 5)
    scores = scores_of(model, score)
    ranked = np.concatenate([(s / np.linalg.norm(s.ravel(), ord=order)).ravel() for s in scores])
    keep = round(ranked.size * 0.3)
    expected = ranked >= np.sort(ranked)[-keep]
    pruner = tf_lap.Pruner(model, score=score, allocation="global")
    pruner.update(0.7)
    np.testing.assert_array_equal(np.concatenate([m.numpy().ravel() for m in pruner.masks.values()]), expected)


def test_global_leaves_every_kernel_at_least_one_weight():
    model = chain(10, 20, 20, 5)
    model.layers[1].kernel.assign(model.layers[1].kernel * 1e-12)
    report = tf_lap.prune(model, 0.995, score="magnitude", allocation="global")
    assert report.kept == round(700 * (1 - 0.995))
    assert min(layer.kept for layer in report.layers) >= 1


def test_global_empties_no_kernel_whose_scores_are_zero():
    model = chain(4, 4, 4, 4)
    model.layers[1].kernel.assign(np.zeros((4, 4)))
    pruner = tf_lap.Pruner(model, allocation="global")
    for sparsity in (0.3, 0.6, 0.9):
        pruner.update(sparsity)
        assert min(layer.kept for layer in pruner.report().layers) >= 1


def test_global_takes_one_sparsity():
    with pytest.raises(ValueError, match="takes one sparsity, not a mapping of some"):
        tf_lap.prune(chain(4, 4, 4), {"dense_0": 0.5}, allocation="global")
    with pytest.raises(ValueError, match=r"divides one sparsity among all kernels, got \[0.5, 0.6\]"):
        tf_lap.prune(chain(4, 4, 4), {"dense_0": 0.5, "dense_1": 0.6}, allocation="global")


def test_it_is_given_by_name_or_object():
    assert get("uniform") == Uniform()
    assert get("global") == Global.from_config(Global().get_config())
    with pytest.raises(
        ValueError,
        match=r"allocation='erdos' is not known: use one of \['auto', 'erk', 'global', 'lamp', .*'uniform'\]",
    ):
        get("erdos")
    with pytest.raises(TypeError, match="it is a class, not an object"):
        get(Uniform)
    with pytest.raises(TypeError, match="its class is float"):
        get(0.5)


@pytest.mark.parametrize("score", ["magnitude", "lookahead"])
def test_lamp_is_the_papers_formula_on_any_score(score):
    model = chain(10, 20, 20, 5)
    scores = scores_of(model, score)
    lamp = [np.array([[u**2 / np.sum(s[s >= u] ** 2) for u in row] for row in s]) for s in scores]
    cut = np.sort(np.concatenate([scores.ravel() for scores in lamp]))[-round(700 * 0.1)]
    pruner = tf_lap.Pruner(model, score=score, allocation="lamp")
    pruner.update(0.9)
    for mask, adaptive in zip(pruner.masks.values(), lamp, strict=True):
        np.testing.assert_array_equal(mask, adaptive >= cut)


def test_lamp_leaves_every_kernel_one_weight_and_keeps_exact_counts_among_equal_ones():
    model = chain(10, 20, 20, 5)
    for layer, scale in zip(model.layers, (1e-15, 1.0, 1e15), strict=True):
        layer.kernel.assign(np.full(layer.kernel.shape, scale))
    pruner = tf_lap.Pruner(model, score="magnitude", allocation="lamp")
    pruner.update(0.9)
    counts = [np.count_nonzero(mask) for mask in pruner.masks.values()]
    assert sum(counts) == 70
    assert min(counts) > 1
    pruner.update(0.999)
    assert [np.count_nonzero(mask) for mask in pruner.masks.values()] == [1, 1, 1]
    for mask in pruner.masks.values():
        assert mask.numpy().ravel()[0]  # ties from the lowest index


def test_erk_keeps_in_proportion_to_the_sum_over_the_product_of_a_shape():
    inputs = keras.Input((8, 8, 16))
    x = keras.layers.Conv2D(32, 3, name="conv")(inputs)
    x = keras.layers.Conv2D(64, 3, name="wide")(x)
    model = keras.Model(inputs, keras.layers.Dense(10, name="dense")(keras.layers.GlobalAveragePooling2D()(x)))
    report = tf_lap.prune(model, 0.8, allocation="erk")
    shapes = [layer.shape for layer in report.layers]
    sizes = [np.prod(shape) for shape in shapes]
    raw = [sum(shape) for shape in shapes]
    factor = 0.2 * sum(sizes) / sum(raw)
    # The Dense layer would keep more than it has: it stays whole, and the others share the rest.
    assert raw[2] * factor > sizes[2]
    factor = (0.2 * sum(sizes) - sizes[2]) / sum(raw[:2])
    assert [layer.kept for layer in report.layers] == [round(raw[0] * factor), round(raw[1] * factor), sizes[2]]
    assert report.sparsity == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.777, 0.9, 0.999])
def test_erk_keeps_exactly_what_is_asked(sparsity):
    model = chain(10, *[20] * 12, 1)
    report = tf_lap.prune(model, sparsity, allocation="erk")
    assert report.kept == max(13, round(report.weights * (1 - sparsity)))
    assert min(layer.kept for layer in report.layers) >= 1


def test_erk_does_not_go_with_a_pattern_of_one_sparsity():
    with pytest.raises(ValueError, match="gives every kernel the same sparsity, and allocation='erk'"):
        tf_lap.Pruner(chain(10, 20, 5), pattern="2:4", allocation="erk")


def test_erk_of_nothing_and_of_a_mapping():
    assert tf_lap.prune(chain(10, 20, 5), 0.0, allocation="erk").sparsity == 0
    with pytest.raises(ValueError, match="allocation='erk' divides one sparsity among all kernels"):
        tf_lap.prune(chain(10, 20, 5), {"dense_0": 0.5, "dense_1": 0.6}, allocation="erk")
