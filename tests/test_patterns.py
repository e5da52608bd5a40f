"""Blocks and N:M against a plain loop over the kernel's definition: outputs by inputs, one tap at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from chains import chain, kernels
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pattern_loops import as_rows, blocks_of, groups_of
from perceptrons import compiled, fit, network, polynomial

import tf_lap
from tf_lap import patterns
from tf_lap.graph.layouts import Layout
from tf_lap.patterns import Blocks, NOfM, Ranked, Unstructured, n_of_m
from tf_lap.topk.sort_keys import make_sort_keys
from tf_lap.topk.traced_select import keep_largest

layers = keras.layers


def mask_of(pattern, scores, layout, keep, weights=None, live=None):
    weights = np.ones_like(scores) if weights is None else weights
    live = np.ones(scores.shape, bool) if live is None else live
    more = tf.constant(keep > pattern.least(layout))
    pooled = pattern.pool(Ranked(tf.constant(scores), tf.constant(weights), tf.constant(live)), layout)
    ranked = pattern.protect(pooled, layout, more)
    (chosen,), _ = keep_largest([make_sort_keys(*ranked)], tf.constant([keep]))
    return pattern.expand(chosen, tf.constant(live), layout).numpy()


SHAPES = [(8, 12), (7, 5), (3, 5, 6), (2, 2, 9, 4), (1, 2, 2, 6, 3), (3, 2), (1, 1)]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("height", "width"), [(1, 4), (4, 1), (2, 2), (3, 4)])
def test_the_blocks_of_the_largest_norms_stay_whole(shape, swapped, height, width):
    scores = np.random.default_rng(0).random(shape).astype(np.float32)
    layout, pattern = Layout(shape, swapped), Blocks(height, width)
    norms = blocks_of(scores, swapped, height, width)
    assert pattern.units(layout) == len(norms)
    keep = max(1, round(0.4 * len(norms)))
    largest = sorted(norms, key=norms.get, reverse=True)[:keep]
    expected = np.zeros(shape, bool)
    for tap, output, inputs in largest:
        as_rows(expected, swapped)[tap, output : output + height, inputs : inputs + width] = True
    np.testing.assert_array_equal(mask_of(pattern, scores, layout, keep), expected)


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1.0, 1e30])
def test_norms_of_blocks_keep_their_order_where_squares_leave_the_range_of_float32(scale):
    scores = (np.array([[3, 5, 1], [4, 0, 1], [0, 0, 4]]) * scale).astype(np.float32)
    # By outputs: norms 5, 5 and 4.24: of the two equal ones the first stays.
    mask = mask_of(Blocks(1, 3), scores, Layout((3, 3)), 1)
    np.testing.assert_array_equal(mask, [[True, False, False]] * 3)
    assert not mask_of(Blocks(1, 3), scores, Layout((3, 3)), 2)[:, 2].any()


def test_an_infinite_score_keeps_its_block():
    scores = np.array([[1, np.inf], [5, 0]], np.float32)
    np.testing.assert_array_equal(mask_of(Blocks(1, 2), scores, Layout((2, 2)), 1), [[False, True]] * 2)


def test_blocks_without_a_score_go_by_magnitude_and_dead_ones_never_come_back():
    scores, weights = np.zeros((4, 4), np.float32), np.arange(16, dtype=np.float32).reshape(4, 4)
    live = np.ones((4, 4), bool)
    live[:, 3] = live[0, 2] = False
    mask = mask_of(Blocks(1, 4), scores, Layout((4, 4)), 2, weights, live)
    expected = np.zeros((4, 4), bool)
    expected[:, 1] = expected[1:, 2] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (1, 2), (4, 20), (2, 5000)])
def test_n_of_every_m_inputs_stay(shape, swapped, n, m):
    scores = np.random.default_rng(0).integers(1, 5, shape).astype(np.float32)  # ties among them
    layout, pattern = Layout(shape, swapped), NOfM(n, m)
    expected = np.zeros(shape, bool)
    for group in groups_of(scores, swapped, m):
        for position in sorted(group, key=lambda p: -as_rows(scores, swapped)[p])[:n]:
            as_rows(expected, swapped)[position] = True
    assert pattern.least(layout) == np.count_nonzero(expected)
    assert pattern.units(layout) == layout.size
    np.testing.assert_array_equal(mask_of(pattern, scores, layout, pattern.least(layout)), expected)


@settings(max_examples=60, deadline=None)
@given(st.data())
@example(None)
def test_groups_of_any_width_are_ranked_alike(data):
    """The two ways to rank within a group, few and many members, agree with a stable sort."""
    m = data.draw(st.integers(2, 24)) if data else 17
    n = data.draw(st.integers(1, m - 1)) if data else 1
    order = data.draw(arrays(np.int32, (3, m, 2), elements=st.integers(0, 4))) if data else np.ones((3, m, 2), np.int32)
    ranks = np.argsort(np.argsort(-order, axis=1, kind="stable"), axis=1, kind="stable")
    np.testing.assert_array_equal(n_of_m._mark_highest(tf.constant(order), n, 1), ranks < n)


def test_on_the_way_to_the_pattern_no_group_loses_more_and_counts_are_exact():
    model = chain(10, 12, 6)
    pruner = tf_lap.Pruner(model, pattern="2:4")
    least = {"dense_0": 12 * 6, "dense_1": 6 * 6}
    for sparsity in (0.1, 0.3, 0.35, 0.5):
        pruner.update(sparsity)
        for path, mask in pruner.masks.items():
            kept = max(least[path], round(mask.numpy().size * (1 - sparsity)))
            assert np.count_nonzero(mask) == kept
            for group in groups_of(mask.numpy(), False, 4):
                stay = sum(as_rows(mask.numpy(), False)[p] for p in group)
                assert stay >= min(2, len(group))
                if sparsity == 0.5:
                    assert stay == min(2, len(group))


def test_groups_that_are_sparser_already_stay_so():
    model = chain(8, 3)
    pruner = tf_lap.Pruner(model, pattern="2:4", score="magnitude")
    sparse = np.ones((8, 3), bool)
    sparse[1:4, 0] = False
    pruner.restore({"dense_0": sparse})
    pruner.update(0.25)
    assert np.count_nonzero(pruner.masks["dense_0"]) == 18
    pruner.update(0.5)
    assert [np.count_nonzero(pruner.masks["dense_0"][:, k]) for k in range(3)] == [3, 4, 4]


def test_infinite_scores_of_ones_own_do_not_break_groups():
    scores = np.array([[np.inf, 0.1], [np.inf, 0.1], [np.inf, 1], [0.1, 1]], np.float32)
    mask = mask_of(NOfM(2, 4), scores, Layout((4, 2)), 4)
    np.testing.assert_array_equal(mask, [[True, False], [True, False], [False, True], [False, True]])


def test_pooled_blocks_are_ranked_by_their_norms_and_no_kernel_loses_all():
    rng = np.random.default_rng(0)
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(5, name="b")(layers.Dense(8, name="a")(inputs)))
    for name, scale in (("a", 1.0), ("b", 1e-4)):
        kernel = model.get_layer(name).kernel
        kernel.assign(scale * rng.standard_normal(kernel.shape))
    # The largest weight of a kernel is not in its largest block.
    model.get_layer("a").kernel.assign(np.tile([[1.0], [0.01], [0.01], [0.01], [0.9], [0.9], [0.9], [0.9]], (1, 8)))
    pruner = tf_lap.Pruner(model, score="magnitude", allocation="global", pattern="block:1x4")
    pruner.update(0.6)
    assert not pruner.masks["a"][:4].numpy().any()
    assert pruner.masks["a"][4:].numpy().any()
    assert pruner.masks["b"].numpy().any()
    counts = [np.count_nonzero(mask) for mask in pruner.masks.values()]
    assert sum(counts) == 4 * round(26 * 0.4)


@pytest.mark.parametrize("pattern", ["block:1x4", "2:4", "block:2x2"])
@pytest.mark.parametrize("order", ["simultaneous", "forward", "backward"])
def test_scores_are_those_of_lookahead_in_every_order(pattern, order):
    model = chain(12, 8, 8, 4)
    chosen = patterns.get(pattern)
    weights = [w.astype(np.float64) for w in kernels(model).values()]
    pruner = tf_lap.Pruner(model, pattern=pattern, order=order, allocation="uniform")
    pruner.update(0.5)
    kernels_in_order = reversed(range(3)) if order == "backward" else range(3)
    pruned, masks = [w.copy() for w in weights], [None] * 3
    for i in kernels_in_order:
        back = np.linalg.norm(pruned[i - 1], axis=0) if i else np.ones(12)
        ahead = np.linalg.norm(pruned[i + 1], axis=1) if i < 2 else np.ones(4)
        scores = (np.abs(weights[i]) * np.outer(back, ahead)).astype(np.float32)
        layout = Layout(scores.shape)
        masks[i] = mask_of(chosen, scores, layout, max(chosen.least(layout), chosen.units(layout) // 2))
        if order != "simultaneous":
            pruned[i] = weights[i] * masks[i]
    for mask, expected in zip(pruner.masks.values(), masks, strict=True):
        np.testing.assert_array_equal(mask, expected)


def several_kinds():
    inputs = keras.Input((8, 8, 6))
    x = layers.Conv2D(8, 3, padding="same", name="conv")(inputs)
    x = layers.Conv2D(8, 3, padding="same", groups=2, name="grouped")(x)
    x = layers.Conv2DTranspose(6, 2, name="transposed")(x)
    x = layers.SeparableConv2D(8, 2, name="separable")(x)
    x = layers.Reshape((-1, 8))(x)
    x = layers.Conv1D(4, 3, name="conv1d")(x)
    return keras.Model(inputs, layers.Dense(5, name="dense")(x))


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("pattern", ["block:1x4", "block:2x3", "2:4"])
def test_every_kind_of_kernel_has_exact_counts_in_the_pattern(pattern, allocation):
    model, chosen = several_kinds(), patterns.get(pattern)
    pruner = tf_lap.Pruner(model, pattern=pattern, allocation=allocation)
    for sparsity in (0.25, 0.5):
        pruner.update(sparsity)
    kept = {}
    kernels = [kernel for kernel in pruner._recipe.kernels if not kernel.is_opt_in]
    for kernel in kernels:
        mask, layout = pruner.masks[kernel.path].numpy(), kernel.layout
        weights = kernel.variable.numpy()
        assert not np.any(weights[~mask])
        if pattern == "2:4":
            kept[kernel.path] = np.count_nonzero(mask)
        else:
            norms = blocks_of(mask, layout.swapped, chosen.outputs, chosen.inputs)
            sizes = blocks_of(np.ones_like(mask), layout.swapped, chosen.outputs, chosen.inputs)
            assert set(norms.values()) <= {0.0, *sizes.values()}
            assert all(norm in (0, sizes[at]) for at, norm in norms.items())
            kept[kernel.path] = np.count_nonzero(list(norms.values()))
    layouts = {kernel.path: kernel.layout for kernel in kernels}
    units = {path: chosen.units(layout) for path, layout in layouts.items()}
    least = {path: chosen.least(layout) for path, layout in layouts.items()}
    if allocation == "global":
        assert sum(kept.values()) == max(sum(least.values()), round(sum(units.values()) * 0.5))
    else:
        assert kept == {path: max(least[path], round(units[path] * 0.5)) for path in units}


def test_under_xla_patterns_choose_the_same():
    scores = tf.random.stateless_uniform((9, 7, 10), seed=(0, 0))
    layout = Layout((9, 7, 10))
    for pattern in (Blocks(1, 4), Blocks(2, 3), NOfM(2, 4), NOfM(3, 20)):
        ranked = Ranked(scores, scores, tf.ones_like(scores, tf.bool))

        def rank(pattern=pattern, ranked=ranked):
            units = pattern.protect(pattern.pool(ranked, layout), layout, tf.constant(True))
            return (*units, pattern.expand(units.scores > 0.5, ranked.live, layout))

        for compiled_value, value in zip(tf.function(rank, jit_compile=True)(), rank(), strict=True):
            np.testing.assert_allclose(tf.cast(compiled_value, tf.float32), tf.cast(value, tf.float32), rtol=1e-6)


def test_names_stand_for_objects_and_round_trip():
    assert patterns.get("unstructured") == Unstructured()
    assert patterns.get("2:4") == NOfM(2, 4)
    assert patterns.get("block:1x4") == Blocks(outputs=1, inputs=4)
    for pattern in (Unstructured(), NOfM(2, 4), Blocks(1, 4)):
        assert type(pattern).from_config(pattern.get_config()) == pattern
        assert patterns.get(pattern) is pattern


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("4:2", ValueError, "drops nothing"),
        ("2:2", ValueError, "drops nothing"),
        ("0:4", ValueError, "n=0: expected a whole number of at least 1"),
        ("block:1x0", ValueError, "inputs=0"),
        ("block:1x1", ValueError, "use pattern='unstructured'"),
        ("block", ValueError, "'block:RxC' such as"),
        ("blocks:1x4", ValueError, "is not known"),
        (object(), TypeError, "its class is object"),
        (4, TypeError, "pattern=4 cannot be used"),
        (NOfM, TypeError, "it is a class"),
    ],
)
def test_what_is_no_pattern_is_named(pattern, error, message):
    with pytest.raises(error, match=message):
        tf_lap.Pruner(chain(4, 5), pattern=pattern)
    with pytest.raises(error, match=message):
        tf_lap.LAPCallback(polynomial(), pattern=pattern)


def test_numbers_of_another_kind_are_refused():
    for make in (lambda: Blocks(1.0, 4), lambda: NOfM(True, 4)):
        with pytest.raises(TypeError, match="expected a whole number"):
            make()


@pytest.mark.parametrize(("sparsity", "message"), [(0.9, "ends at 0.5"), (0.3, "before the pattern is reached")])
def test_a_sparsity_that_the_pattern_does_not_have_is_refused_before_anything_changes(sparsity, message):
    model = compiled(network())
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        tf_lap.prune(model, sparsity, pattern="2:4")
    with pytest.raises(ValueError, match=message):
        tf_lap.prune(model, {"second": sparsity}, pattern="2:4")
    with pytest.raises(ValueError, match=message):
        fit(model, [tf_lap.LAPCallback(polynomial(sparsity), pattern="2:4")])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_mapping_leaves_other_kernels_whole():
    report = tf_lap.prune(network(), {"second": 0.5}, pattern="2:4")
    assert [layer.path for layer in report.pruned] == ["second"]
    assert report.sparsity == 0.5


@pytest.mark.parametrize(
    ("shape", "swapped", "kept", "reason"),
    [
        ((3, 3, 1, 8), False, 72, "2:4 drops nothing where an output has 1 input at each tap"),
        ((2, 8), False, 16, "2:4 drops nothing where an output has 2 inputs"),
        ((3, 3, 8, 3), True, 144, "2:4 drops 33% at most where an output has 3 inputs at each tap"),
        ((5, 8), False, 24, "2:4 drops 40% at most where an output has 5 inputs"),
        ((5, 8), False, 25, None),
        ((4, 8), False, 16, None),
        ((7, 8), False, 32, "2:4 drops 43% at most where an output has 7 inputs"),
        ((400, 8), False, 1600, None),
    ],
)
def test_why_a_kernel_keeps_more_than_half_is_said(shape, swapped, kept, reason):
    layout = Layout(shape, swapped)
    assert patterns.limit(NOfM(2, 4), layout, kept) == reason
    assert (patterns.limit(NOfM(2, 4), layout, kept) is None) or kept > layout.size / 2
    assert patterns.limit(Unstructured(), layout, kept) is None
    assert patterns.limit(Blocks(1, 4), layout, kept) is None
