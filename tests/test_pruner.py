import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lap

layers = keras.layers


def chain(*widths, **arguments):
    hidden = [layers.Dense(width, name=f"dense_{i}", **arguments) for i, width in enumerate(widths[1:])]
    return keras.Sequential([keras.Input(widths[:1]), *hidden])


def kernels(model):
    return {layer.name: layer.kernel.numpy() for layer in model.layers}


def lookahead_mask(weights, i, keep):
    """Equation (5) of the paper on a chain of matrices, and the `keep` largest."""
    score = np.abs(weights[i]).astype(np.float64)
    if i > 0:
        score *= np.linalg.norm(weights[i - 1], axis=0)[:, None]
    if i + 1 < len(weights):
        score *= np.linalg.norm(weights[i + 1], axis=1)
    return score >= np.sort(score, axis=None)[-keep]


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
    pruner = tf_lap.Pruner(model, order=order)
    pruner.update(0.75)
    for mask, expected in zip(pruner.masks.values(), masks, strict=True):
        np.testing.assert_array_equal(mask, expected)


def test_prune_leaves_surviving_weights_untouched_and_returns_the_report():
    model = chain(12, 20, 5)
    before = kernels(model)
    report = tf_lap.prune(model, 0.9)
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
    class FromTheEnd:
        looks, norm_order = False, 2

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
    pruner = tf_lap.Pruner(model)
    pruner.update(0.5)
    np.testing.assert_array_equal(pruner.masks["shared"], score >= np.sort(score, axis=None)[-18])


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("traced", [False, True])
def test_a_custom_training_loop_keeps_exact_counts(frozen, traced):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 12)).astype(np.float32), rng.integers(0, 5, 32)
    model, optimizer = chain(12, 20, 5), keras.optimizers.Adam(0.01)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruner = tf_lap.Pruner(model)
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


@pytest.mark.parametrize(
    ("filters", "pruned"),
    [
        ("dense_[01]", ["dense_0", "dense_1"]),
        (["0$", "2$"], ["dense_0", "dense_2"]),
        (lambda layer: layer.units > 10, ["dense_0", "dense_1"]),
        (None, ["dense_0", "dense_1", "dense_2"]),
    ],
)
def test_filters_say_what_to_prune(filters, pruned):
    model = chain(12, 20, 20, 5)
    report = tf_lap.prune(model, 0.5, filters=filters)
    assert [layer.path for layer in report.pruned] == pruned
    assert {layer.skipped for layer in report.layers} - {None} <= {"left out by filters"}
    assert sum(np.any(kernel == 0) for kernel in kernels(model).values()) == len(pruned)


def test_a_frozen_kernel_is_skipped_with_that_reason_and_still_seen():
    model = chain(12, 20, 20, 5)
    model.layers[1].trainable = False
    weights = list(kernels(model).values())
    pruner = tf_lap.Pruner(model)
    pruner.update(0.5)
    assert list(pruner.masks) == ["dense_0", "dense_2"]
    assert pruner.report().layers[1].skipped == "frozen: its kernel is not trainable (trainable=False)"
    np.testing.assert_array_equal(pruner.masks["dense_0"], lookahead_mask(weights, 0, 120))


def test_given_neighbours_take_the_place_of_the_graphs():
    model = chain(6, 8, 8, 8)
    _, own, last = (w.astype(np.float64) for w in kernels(model).values())
    score = np.abs(own) * np.sqrt(np.sum(last**2, axis=1) + np.sum(own**2, axis=1))
    pruner = tf_lap.Pruner(model, neighbors={"dense_1": ([], ["dense_2", "dense_1"])})
    pruner.update(0.5)
    np.testing.assert_array_equal(pruner.masks["dense_1"], score >= np.sort(score, axis=None)[-32])
    report = {layer.path: layer for layer in pruner.report().layers}
    assert (report["dense_1"].previous, report["dense_1"].following) == ((), ("dense_2", "dense_1"))
    assert report["dense_1"].boundaries == ("given by the user",)


def test_given_neighbours_may_lie_behind_a_flatten():
    inputs = keras.Input((2, 2, 3))
    x = layers.Flatten()(layers.Conv2D(4, 1, name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(5, name="dense")(x))
    same = {"conv": ([], ["dense"]), "dense": (["conv"], [])}
    masks = []
    for neighbors in (None, same):
        pruner = tf_lap.Pruner(keras.models.clone_model(model), neighbors=neighbors)
        pruner.model.set_weights(model.get_weights())
        pruner.update(0.5)
        masks.append(pruner.masks)
    for path in ("conv", "dense"):
        np.testing.assert_array_equal(masks[0][path], masks[1][path])


@pytest.mark.parametrize(
    ("neighbors", "error", "message"),
    [
        ({"nowhere": ([], [])}, ValueError, "neighbors: 'nowhere' matches no layer"),
        ({"dense_0": ([], ["dense_7"])}, ValueError, "'dense_7' is no kernel's path"),
        ({"dense_0": ([], ["dense_0"])}, ValueError, "has 12 inputs, which do not fit the layer's 20 channels"),
        ({"dense_0": "dense_1"}, TypeError, "expected two lists of layer paths"),
        ({"dense_0": 5}, TypeError, "expected two lists of layer paths"),
        (["dense_0"], TypeError, "expected a mapping from layer paths"),
    ],
)
def test_neighbours_that_do_not_fit_are_errors(neighbors, error, message):
    with pytest.raises(error, match=message):
        tf_lap.Pruner(chain(12, 20, 5), neighbors=neighbors)


def nan_model():
    model = chain(12, 20, 5)
    kernel = model.layers[1].kernel.numpy()
    kernel[3, 2] = np.nan
    model.layers[1].kernel.assign(kernel)
    return model


def infinite_model():
    model = chain(12, 20, 5)
    model.layers[0].kernel.assign(np.full((12, 20), np.inf))
    return model


def huge_model():
    model = chain(12, 20, 5)
    model.layers[0].kernel.assign(np.full((12, 20), 1e30))
    return model


def broken_norm():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense"), layers.BatchNormalization(name="bn")])
    model.get_layer("bn").moving_variance.assign(-np.ones(4))
    return model


class Plain(keras.layers.Layer):
    pass


BAD = [
    (lambda: keras.Sequential([layers.Dense(3)]), {}, ValueError, r"is not built.*model.build\(input_shape\)"),
    (lambda: layers.Dense(3), {}, TypeError, "expected a keras.Model or a tf_keras.Model, got Dense"),
    (lambda: "model.keras", {}, TypeError, "expected a keras.Model or a tf_keras.Model, got str"),
    (lambda: keras.Sequential([keras.Input((4,)), layers.ReLU()]), {}, ValueError, "has no layer with a kernel"),
    (lambda: chain(4, 3, trainable=False), {}, ValueError, "has no layer left to prune: 'dense_0': frozen"),
    (nan_model, {}, ValueError, "the kernel of layer 'dense_1' holds NaN or infinity"),
    (nan_model, {"score": "magnitude"}, ValueError, "the kernel of layer 'dense_1' holds NaN or infinity"),
    (infinite_model, {}, ValueError, "the kernel of layer 'dense_0' holds NaN or infinity"),
    (huge_model, {}, ValueError, r"'dense_0' holds weights as large as 1e\+30"),
    (broken_norm, {}, ValueError, "energies around layer 'dense' are not finite: a normalization layer"),
    (lambda: chain(4, 3), {"sparsity": 1.0}, ValueError, r"sparsity=1.0: .*lies in \[0, 1\)"),
    (lambda: chain(4, 3), {"sparsity": 90}, ValueError, "sparsity=90"),
    (lambda: chain(4, 3), {"sparsity": "high"}, TypeError, "sparsity='high'"),
    (lambda: chain(4, 3), {"sparsity": None}, TypeError, "sparsity=None"),
    (lambda: chain(4, 3), {"sparsity": np.array([0.5, 0.6])}, TypeError, "expected one number"),
    (lambda: chain(4, 3), {"sparsity": {"conv": 0.5}}, ValueError, "'conv' matches no layer.*'dense_0'"),
    (lambda: chain(4, 3), {"filters": "conv"}, ValueError, "filters: 'conv' matches no layer.*'dense_0'"),
    (lambda: chain(4, 3), {"filters": ["dense", "conv"]}, ValueError, "filters: 'conv' matches no layer"),
    (lambda: chain(4, 3), {"filters": []}, ValueError, "filters is an empty list"),
    (lambda: chain(4, 3), {"filters": lambda layer: False}, ValueError, "accepts no layer"),
    (lambda: chain(4, 3), {"filters": 3}, TypeError, "filters=3: expected a regular expression"),
    (lambda: chain(4, 3), {"filters": "("}, ValueError, "is not a regular expression"),
    (lambda: chain(4, 3), {"score": "best"}, ValueError, "score='best' is not known: use one of"),
    (lambda: chain(4, 3), {"score": Plain()}, TypeError, "cannot be used"),
    (lambda: chain(4, 3), {"pattern": "3:7"}, ValueError, "pattern='3:7' is not known in this release"),
    (lambda: chain(4, 3), {"order": "random"}, ValueError, "order='random' is not known"),
    (lambda: chain(4, 3), {"order": "forward", "allocation": "global"}, ValueError, "chooses all at once"),
]


@pytest.mark.parametrize(("build", "arguments", "error", "message"), BAD)
def test_bad_input_is_named_before_anything_changes(build, arguments, error, message):
    model = build()
    before = model.get_weights() if hasattr(model, "get_weights") else []
    with pytest.raises(error, match=message):
        tf_lap.prune(model, **{"sparsity": 0.5, **arguments})
    for weights, expected in zip(model.get_weights() if before else [], before, strict=True):
        np.testing.assert_array_equal(weights, expected)


def test_a_mapping_that_matches_nothing_is_found_by_the_callback_before_training():
    model = chain(4, 3)
    model.compile("sgd", "mse", jit_compile=False)
    schedule = tf_lap.LookaheadPruningSchedule({"conv": 0.5}, end_step=10)
    with pytest.raises(ValueError, match="'conv' matches no layer"):
        model.fit(np.zeros((4, 4)), np.zeros((4, 3)), callbacks=[tf_lap.LAPCallback(schedule)], verbose=0)


def test_a_quantized_layer_is_skipped_with_its_reason():
    model = chain(4, 8, 3)
    model.layers[0].quantize("int8")
    report = tf_lap.prune(model, 0.5)
    assert [layer.path for layer in report.pruned] == ["dense_1"]
    (skipped,) = (layer for layer in report.layers if layer.skipped)
    assert skipped.path == "dense_0"
    assert "not a floating-point variable" in skipped.skipped


@pytest.mark.parametrize("factor", [0.0, 1e-25])
def test_a_neighbour_whose_norms_are_all_zero_counts_as_one(factor):
    model = chain(12, 20, 15, 5)
    model.layers[2].kernel.assign(model.layers[2].kernel * factor)
    weights = list(kernels(model).values())
    pruner = tf_lap.Pruner(model)
    pruner.update(0.5)
    weights[2] = np.ones((15, 1))
    np.testing.assert_array_equal(pruner.masks["dense_1"], lookahead_mask(weights, 1, 150))


@pytest.mark.parametrize("score", ["lookahead", "magnitude", "random"])
def test_pruning_again_at_the_same_or_a_lower_sparsity_changes_nothing(score):
    model = chain(12, 20, 16, 5)
    tf_lap.prune(model, 0.95, score=score)
    before = kernels(model)
    for sparsity in (0.95, 0.5):
        report = tf_lap.prune(model, sparsity)
        for name, kernel in kernels(model).items():
            np.testing.assert_array_equal(kernel, before[name])
    assert report.layers[0].kept == 120
    assert report.layers[0].zero == 120 - 12
    assert "note dense_0: 108 of the kept weights are zero all the same" in str(report)


def test_live_weights_between_dead_channels_rank_by_magnitude_above_zeros():
    model = chain(2, 4, 3)
    model.layers[0].kernel.assign([[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 3.0, 0.0]])
    model.layers[1].kernel.assign(np.repeat([[1.0], [1.0], [0.0], [0.0]], 3, axis=1))
    pruner = tf_lap.Pruner(model)
    pruner.update(0.75)
    np.testing.assert_array_equal(pruner.masks["dense_0"], [[0, 0, 0, 1], [0, 0, 1, 0]])


def test_layers_that_a_mapping_does_not_name_are_reported_so():
    report = tf_lap.prune(chain(12, 20, 5), {"dense_0": 0.5})
    assert report.sparsity == 0.5
    assert report.layers[1].skipped == "the mapping of sparsities does not name it"


def test_a_mapping_may_name_skipped_layers_but_not_only_those():
    model = chain(12, 20, 5)
    model.layers[0].trainable = False
    assert tf_lap.prune(model, {"dense": 0.5}).kept == 50
    with pytest.raises(ValueError, match="names only layers that are not pruned: 'dense_0': frozen"):
        tf_lap.prune(model, {"dense_0": 0.5})


def test_pruned_weights_that_something_wrote_are_reported():
    model = chain(12, 20, 5)
    pruner = tf_lap.Pruner(model)
    pruner.update(0.5)
    model.layers[0].kernel.assign(np.ones((12, 20)))
    assert pruner.report().layers[0].revived == 120
    assert "warning dense_0: 120 pruned weights are not zero; something wrote them" in str(pruner.report())
    pruner.apply()
    assert pruner.report().layers[0].revived == 0


def test_traced_updates_choose_the_same_masks_as_plain_ones():
    plain, traced = (tf_lap.Pruner(chain(12, 20, 5)) for _ in range(2))
    traced.model.set_weights(plain.model.get_weights())
    for _ in range(12):
        traced.update(0.1)
    for pruner in (plain, traced):
        pruner.update(0.1)
        pruner.update(0.8)
    for mask, other in zip(plain.masks.values(), traced.masks.values(), strict=True):
        np.testing.assert_array_equal(mask, other)


def test_scores_of_another_shape_are_an_error():
    class Flat:
        looks, norm_order = False, 2

        def score(self, kernel, weights, incoming, outgoing):
            return tf.reshape(weights, [-1])

    with pytest.raises(ValueError, match=r"gives scores of shape \(20,\) for the kernel of layer 'dense_0'"):
        tf_lap.prune(chain(4, 5), 0.5, score=Flat())
    with pytest.raises(TypeError, match="seed='x': expected an integer"):
        tf_lap.scores.Random("x")
