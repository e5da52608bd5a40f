import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from chains import chain, kernels, lookahead_mask

import tf_lap

layers = keras.layers


@pytest.mark.parametrize("order", ["simultaneous", "forward", "backward"])
def test_orders_see_the_neighbours_that_were_pruned_before(order):
    model = chain(12, 20, 20, 15, 5)
    weights = [w.astype(np.float64) for w in kernels(model).values()]
    turn = range(4) if order != "backward" else reversed(range(4))
    seen, masks = [w.copy() for w in weights], [None] * 4
    for i in turn:
        masks[i] = lookahead_mask(seen, i, round(weights[i].size * 0.25))
        if order != "simultaneous":
            seen[i] = weights[i] * masks[i]
    pruner = tf_lap.Pruner(model, order=order, allocation="uniform")
    pruner.update(0.75)
    for mask, expected in zip(pruner.masks.values(), masks, strict=True):
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("order", ["simultaneous", "forward", "backward"])
def test_in_several_steps_each_has_new_scores(order):
    model = chain(12, 20, 20, 15, 5)
    weights = [w.astype(np.float64) for w in kernels(model).values()]
    alive = [np.ones(w.shape, bool) for w in weights]
    for part in (1, 2, 3):
        seen = [w * mask for w, mask in zip(weights, alive, strict=True)]
        for i in range(4) if order != "backward" else reversed(range(4)):
            alive[i] = alive[i] & lookahead_mask(seen, i, round(weights[i].size * (1 - 0.9) ** (part / 3)))
            if order != "simultaneous":
                seen[i] = weights[i] * alive[i]
    tf_lap.prune(model, 0.9, order=order, steps=3, allocation="uniform")
    for kernel, mask in zip(kernels(model).values(), alive, strict=True):
        np.testing.assert_array_equal(kernel != 0, mask)
    for steps in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"steps={steps}: expected a whole number of at least 1"):
            tf_lap.prune(model, 0.9, steps=steps, allocation="uniform")


def test_prune_leaves_surviving_weights_untouched_and_returns_the_report():
    model = chain(12, 20, 5)
    before = kernels(model)
    report = tf_lap.prune(model, 0.9, allocation="uniform")
    for name, kernel in kernels(model).items():
        kept = kernel != 0
        assert np.count_nonzero(kept) == round(kernel.size * 0.1)
        np.testing.assert_array_equal(kernel[kept], before[name][kept])
    assert report.kept == 34
    assert report.sparsity == pytest.approx(0.9)


def test_pruned_weights_never_come_back():
    model = chain(12, 20, 5)
    pruner = tf_lap.Pruner(model)
    rng = np.random.default_rng(0)
    previous = {path: np.ones(mask.shape, bool) for path, mask in pruner.masks.items()}
    for sparsity in (0.2, 0.5, 0.5, 0.3, 0.9, 0.0):
        for layer in model.layers:
            layer.kernel.assign(rng.standard_normal(layer.kernel.shape))
        pruner.update(sparsity)
        for path, mask in pruner.masks.items():
            assert not np.any(mask.numpy() & ~previous[path])
            np.testing.assert_array_equal(model.get_layer(path).kernel.numpy() != 0, mask)
            previous[path] = mask.numpy()
    assert pruner.sparsity == pytest.approx(0.9, abs=1e-3)


def test_random_scores_are_the_same_for_the_same_seed():
    def mask(seed):
        pruner = tf_lap.Pruner(chain(12, 20, 5), score=tf_lap.scores.Random(seed))
        pruner.update(0.5)
        return pruner.masks["dense_0"].numpy()

    np.testing.assert_array_equal(mask(1), mask(1))
    assert np.any(mask(1) != mask(2))


def test_a_score_of_ones_own_is_used():
    class FromTheEnd(tf_lap.scores.Score):
        distance = 0

        def score(self, kernel, weights, incoming, outgoing):
            return tf.reshape(tf.range(float(kernel.layout.size)), kernel.layout.shape)

    pruner = tf_lap.Pruner(chain(4, 5), score=FromTheEnd())
    pruner.update(0.75)
    np.testing.assert_array_equal(pruner.masks["dense_0"].numpy().ravel(), np.arange(20) >= 15)


def test_choices_round_trip_through_their_configs():
    for score in (tf_lap.scores.Lookahead(), tf_lap.scores.Magnitude(), tf_lap.scores.Random(7)):
        assert type(score).from_config(score.get_config()) == score


def test_a_shared_layer_adds_the_squares_of_its_uses():
    inputs = keras.Input((6,))
    shared = layers.Dense(6, name="shared")
    model = keras.Model(inputs, layers.Dense(2, name="last")(shared(shared(inputs))))
    w, last = shared.kernel.numpy().astype(np.float64), model.get_layer("last").kernel.numpy()
    first = np.outer(np.ones(6), np.linalg.norm(w, axis=1))
    second = np.outer(np.linalg.norm(w, axis=0), np.linalg.norm(last, axis=1))
    score = np.abs(w) * np.sqrt(first**2 + second**2)
    pruner = tf_lap.Pruner(model, allocation="uniform")
    pruner.update(0.5)
    np.testing.assert_array_equal(pruner.masks["shared"], score >= np.sort(score, axis=None)[-18])


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("traced", [False, True])
def test_a_custom_training_loop_keeps_exact_counts(frozen, traced):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 12)).astype(np.float32), rng.integers(0, 5, 32)
    model, optimizer = chain(12, 20, 5), keras.optimizers.Adam(0.01)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruner = tf_lap.Pruner(model, allocation="uniform")
    if frozen:
        pruner.freeze()

    def step():
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        if not frozen:
            pruner.apply()

    optimizer.build(model.trainable_variables)
    train = tf.function(step) if traced else step
    for sparsity in (0.5, 0.8, 0.9):
        pruner.update(sparsity)
        for _ in range(3):
            train()
            for name, kernel in kernels(model).items():
                assert np.count_nonzero(kernel) == round(kernel.size * (1 - sparsity)), name
    pruner.release()
    assert model.layers[0].kernel.constraint is None


def test_two_pruners_cannot_hold_the_same_kernels():
    model = chain(12, 20, 5)
    first, second = tf_lap.Pruner(model, filters="dense_1"), tf_lap.Pruner(model)
    first.freeze()
    with pytest.raises(ValueError, match="kernel of layer 'dense_1' is held by the masks of another Pruner"):
        second.freeze()
    assert model.layers[0].kernel.constraint is None
    first.release()
    second.freeze()
    second.release()


def test_a_frozen_kernel_is_skipped_with_that_reason_and_still_seen():
    model = chain(12, 20, 20, 5)
    model.layers[1].trainable = False
    weights = list(kernels(model).values())
    pruner = tf_lap.Pruner(model, allocation="uniform")
    pruner.update(0.5)
    assert list(pruner.masks) == ["dense_0", "dense_2"]
    assert (
        pruner.report().layers[1].skipped == "frozen: the layer, or a model around it, is not trained (trainable=False)"
    )
    np.testing.assert_array_equal(pruner.masks["dense_0"], lookahead_mask(weights, 0, 120))


@pytest.mark.filterwarnings("ignore:model .* can be pruned")
def test_a_quantized_layer_is_skipped_with_its_reason():
    model = chain(4, 8, 3)
    model.layers[0].quantize("int8")
    report = tf_lap.prune(model, 0.5)
    assert [layer.path for layer in report.pruned] == ["dense_1"]
    (skipped,) = (layer for layer in report.layers if layer.skipped)
    assert skipped.path == "dense_0"
    assert "not a floating-point variable" in skipped.skipped


def test_a_neighbour_whose_norms_are_all_zero_counts_as_one():
    model = chain(12, 20, 15, 5)
    model.layers[2].kernel.assign(model.layers[2].kernel * 0.0)
    weights = list(kernels(model).values())
    pruner = tf_lap.Pruner(model, allocation="uniform")
    pruner.update(0.5)
    weights[2] = np.ones((15, 1))
    np.testing.assert_array_equal(pruner.masks["dense_1"], lookahead_mask(weights, 1, 150))


@pytest.mark.parametrize("score", ["lookahead", "magnitude", "random"])
def test_pruning_again_at_the_same_or_a_lower_sparsity_changes_nothing(score):
    model = chain(12, 20, 16, 5)
    tf_lap.prune(model, 0.95, score=score, allocation="uniform")
    before = kernels(model)
    assert tf_lap.prune(model, 0.95, allocation="uniform").layers[0].kept == 12
    with pytest.warns(UserWarning, match="more zeros already than is asked now: 'dense_0' 95.0%, asked 50.0%"):
        report = tf_lap.prune(model, 0.5, allocation="uniform")
    for name, kernel in kernels(model).items():
        np.testing.assert_array_equal(kernel, before[name])
    assert report.layers[0].kept == 12
    assert report.sparsity == pytest.approx(0.95, abs=0.01)


def test_live_weights_between_dead_channels_rank_by_magnitude_above_zeros():
    model = chain(2, 4, 3)
    model.layers[0].kernel.assign([[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 3.0, 0.0]])
    model.layers[1].kernel.assign(np.repeat([[1.0], [1.0], [0.0], [0.0]], 3, axis=1))
    pruner = tf_lap.Pruner(model, allocation="uniform")
    pruner.update(0.75)
    np.testing.assert_array_equal(pruner.masks["dense_0"], [[0, 0, 0, 1], [0, 0, 1, 0]])


@pytest.mark.parametrize(
    "choices", [{"allocation": "erk"}, {"allocation": "global"}, {"pattern": "block:1x4"}, {"pattern": "2:4"}], ids=str
)
def test_zeros_that_the_same_choices_put_there_are_no_more_than_asked(choices):
    model = chain(12, 20, 16, 5)
    tf_lap.prune(model, 0.5, **choices)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tf_lap.prune(model, 0.5, **choices)
    with pytest.warns(UserWarning, match="more zeros already than is asked now"):
        tf_lap.Pruner(model, **choices).update(0.2)


def test_kept_weights_that_something_zeroed_are_reported():
    model = chain(12, 20, 5)
    pruner = tf_lap.Pruner(model, allocation="uniform")
    pruner.update(0.5)
    model.layers[0].kernel.assign(np.zeros((12, 20)))
    assert pruner.report().layers[0].zero == 120
    assert pruner.report().layers[0].sparsity == 1.0
    assert pruner.sparsity == pruner.report().sparsity == pytest.approx((240 + 50) / 340)


def test_what_is_restored_is_reported_as_pruned_unless_a_mapping_left_it_out():
    for sparsity, skipped in (
        (0.5, [None, None]),
        ({"dense_0": 0.5}, [None, "the mapping of sparsities does not name it"]),
    ):
        first, second = (tf_lap.Pruner(chain(2, 8, 3), pattern="2:4") for _ in range(2))
        first.update(sparsity)
        second.restore({path: mask.numpy() for path, mask in first.masks.items()}, sparsity)
        assert [layer.kept for layer in second.report().layers] == [layer.kept for layer in first.report().layers]
        assert [layer.skipped for layer in second.report().layers] == skipped


@pytest.mark.filterwarnings("ignore:model .* has more zeros already")
def test_zeros_of_weights_that_are_not_sound_are_not_taken_for_pruned_ones():
    model = chain(12, 20, 5)
    sound = model.get_weights()
    model.layers[0].kernel.assign(np.zeros((12, 20)))
    model.layers[1].kernel.assign(np.where(np.eye(20, 5) > 0, np.nan, 0.0))
    pruner = tf_lap.Pruner(model, allocation="uniform")
    with pytest.raises(ValueError, match="kernel of layer 'dense_1' holds NaN"):
        pruner.update(0.5)
    model.set_weights(sound)
    pruner.update(0.5)
    assert [layer.kept for layer in pruner.report().layers] == [120, 50]


def test_layers_that_a_mapping_does_not_name_are_reported_so():
    report = tf_lap.prune(chain(12, 20, 5), {"dense_0": 0.5})
    assert report.sparsity == 0.5
    assert report.layers[1].skipped == "the mapping of sparsities does not name it"


def test_pruned_weights_that_something_wrote_are_reported():
    model = chain(12, 20, 5)
    pruner = tf_lap.Pruner(model, allocation="uniform")
    pruner.update(0.5)
    model.layers[0].kernel.assign(np.ones((12, 20)))
    assert pruner.report().layers[0].revived == 120
    assert "warning dense_0: 120 pruned weights are not zero; something wrote them" in str(pruner.report())
    pruner.apply()
    assert pruner.report().layers[0].revived == 0


def test_scores_of_another_shape_are_an_error():
    class Flat(tf_lap.scores.Score):
        distance = 0

        def score(self, kernel, weights, incoming, outgoing):
            return tf.reshape(weights, [-1])

    with pytest.raises(ValueError, match=r"gives scores of shape \(20,\) for the kernel of layer 'dense_0'"):
        tf_lap.prune(chain(4, 5), 0.5, score=Flat())
    with pytest.raises(TypeError, match="seed='x': expected an integer"):
        tf_lap.scores.Random("x")


def test_kernels_that_a_mapping_does_not_name_are_no_matter_of_their_zeros():
    model = chain(12, 20, 16, 5)
    tf_lap.prune(model, {"dense_0": 0.5, "dense_1": 0.9})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tf_lap.prune(model, {"dense_2": 0.5})
