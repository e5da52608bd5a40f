"""The masks that tfmot's wrapper and ours choose: alike without neighbours, by lookahead between them."""

import numpy as np
import pytest
from wrapped import (
    at_once,
    both,
    compiled,
    decay,
    exactly,
    fit,
    kept,
    layers,
    masks,
    perceptron,
    reference,
    sparsity,
    tf_keras,
    tfmot,
    wrappers,
)

import tf_lap


def alike(make, **options):
    """The same model, wrapped by tfmot and by us; alone, a layer is ranked by magnitude in both."""
    first = make()
    second = tf_keras.models.clone_model(first)
    second.set_weights(first.get_weights())
    models = sparsity.prune_low_magnitude(first, **options), tf_lap.prune_lookahead(second, **options)
    for model in models:
        # Without learning, so that both choose from the same weights to the end; eagerly, since tracing takes longer.
        compiled(model, tf_keras.optimizers.SGD(0.0), run_eagerly=True)
        fit(model, epochs=1)
    return models


def one_dense():
    return tf_keras.Sequential([layers.Input((16,)), layers.Dense(10, name="dense")])


def one_convolution():
    shape = layers.Reshape((4, 4, 1), input_shape=(16,))
    return tf_keras.Sequential([shape, layers.Conv2D(10, 4, name="convolution"), layers.Flatten()])


@pytest.mark.parametrize("schedule", [at_once(0.6), decay(0.6, begin=2, end=6)], ids=["constant", "polynomial"])
def test_a_layer_without_neighbours_gets_the_masks_and_thresholds_of_tfmot(schedule):
    theirs, ours = alike(one_dense, pruning_schedule=schedule)
    np.testing.assert_array_equal(masks(ours)["dense"], masks(theirs)["dense"])
    np.testing.assert_allclose(ours.layers[0].pruning_vars[0][2], theirs.layers[0].pruning_vars[0][2])
    assert masks(ours)["dense"].sum() == masks(theirs)["dense"].sum() == 64
    assert ours.layers[0].pruning_step == theirs.layers[0].pruning_step == 6


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["AVG", "MAX"])
@pytest.mark.parametrize("block", [(1, 4), (4, 1), (3, 4), (2, 2)])
def test_blocks_are_those_of_tfmot(block, pooling):
    options = {"block_size": block, "block_pooling_type": pooling}
    theirs, ours = alike(one_dense, pruning_schedule=at_once(0.5), **options)
    np.testing.assert_array_equal(masks(ours)["dense"], masks(theirs)["dense"])
    rows, columns = block
    mask = np.pad(masks(ours)["dense"], [(0, -16 % rows), (0, -10 % columns)], mode="edge")
    blocks = mask.reshape(-(-16 // rows), rows, -(-10 // columns), columns)
    assert np.all(blocks == blocks[:, :1, :, :1])
    assert blocks[:, 0, :, 0].sum() == round(blocks[:, 0, :, 0].size * 0.5)


def test_a_row_of_blocks_keeps_its_shape():
    with pytest.raises(ValueError, match="must be rank 2"):  # tfmot squeezes the single row away
        fit(compiled(sparsity.prune_low_magnitude(one_dense(), at_once(0.5), block_size=(16, 2))))
    model = compiled(tf_lap.prune_lookahead(one_dense(), at_once(0.5), block_size=(16, 2)))
    fit(model, epochs=1)
    assert masks(model)["dense"].sum() == 2 * 32


@both
def test_blocks_want_matrices(wrap):
    with pytest.raises(ValueError, match="2-dimensional weights"):
        wrap(one_convolution(), at_once(), block_size=(1, 4))


@both
def test_an_unknown_pooling_is_an_error(wrap):
    with pytest.raises(ValueError, match="Unsupported pooling type 'SUM'"):
        wrap(one_dense(), at_once(), block_pooling_type="SUM")


@pytest.mark.slow
@pytest.mark.parametrize("make", [one_dense, one_convolution])
@pytest.mark.parametrize("m_by_n", [(2, 4), (1, 4), (3, 8)])
def test_m_zeros_of_n_are_those_of_tfmot(make, m_by_n):
    theirs, ours = alike(make, sparsity_m_by_n=m_by_n)
    for name, mask in masks(theirs).items():
        np.testing.assert_array_equal(masks(ours)[name], mask)
    (wrapper,) = wrappers(ours)
    assert wrapper.pruning_vars[0][2] == 999
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_utils import is_pruned_m_by_n

    assert is_pruned_m_by_n(wrapper.layer.kernel, m_by_n)


@both
def test_m_and_n_must_be_integers(wrap):
    with pytest.raises(ValueError, match="must be a tuple/list of 2 integers"):
        wrap(one_dense(), sparsity_m_by_n=(2.0, 4))


def test_m_zeros_of_n_are_ranked_by_lookahead_between_neighbours():
    model = perceptron()
    scores = (
        np.abs(model.get_layer("second").kernel) * np.sqrt(tf_lap.channel_energies(model)["second"].incoming)[:, None]
    )
    wrapped = compiled(tf_lap.prune_lookahead(model, sparsity_m_by_n=(2, 4)), tf_keras.optimizers.SGD(0.0))
    fit(wrapped, epochs=1)
    expected = np.argsort(np.argsort(scores.reshape(6, 4, 24), axis=1), axis=1).reshape(24, 24) >= 2
    np.testing.assert_array_equal(masks(wrapped)["second"], expected)


def test_masks_between_neighbours_are_those_of_prune():
    model = perceptron()
    expected = reference(model, 0.8)
    wrapped = compiled(tf_lap.prune_lookahead(model, at_once(0.8)), tf_keras.optimizers.SGD(0.0))
    fit(wrapped, epochs=1)
    for name, mask in expected.items():
        np.testing.assert_array_equal(masks(wrapped)[name], mask)


def test_counts_and_ties_are_exact():
    def make():
        ones = tf_keras.initializers.Ones()
        return tf_keras.Sequential([layers.Input((16,)), layers.Dense(10, kernel_initializer=ones, name="dense")])

    theirs, ours = alike(make, pruning_schedule=at_once(0.75))
    assert masks(theirs)["dense"].sum() == 160  # all tied: tfmot drops none
    np.testing.assert_array_equal(masks(ours)["dense"].ravel(), np.arange(160) < 40)


@pytest.mark.slow
def test_recurrent_embedding_and_attention_weights_are_pruned_to_the_count_without_a_warning(recwarn):
    inputs = tf_keras.Input((6,))
    x = layers.Embedding(50, 8)(inputs)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    model = tf_keras.Model(inputs, layers.Dense(10)(layers.LSTM(3)(x)))
    wrapped = compiled(tf_lap.prune_lookahead(model, at_once(0.5)))
    rng = np.random.default_rng(0)
    tokens, labels = rng.integers(0, 50, (32, 6)), rng.integers(0, 10, 32)
    wrapped.fit(tokens, labels, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    assert not [warning for warning in recwarn if issubclass(warning.category, tf_lap.warn.PruningWarning)]
    pruned = [weight for layer in wrappers(wrapped) for weight, _, _ in layer.pruning_vars]
    assert len(pruned) == 1 + 4 + 2 + 1
    for weight in pruned:
        size = weight.shape.num_elements()
        assert np.count_nonzero(weight) == round(size / 2)


@pytest.mark.slow
@both
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(wrap, policy):
    low_masks = tfmot.__version__ == "0.8.0"  # masks in the precision that the layer's weights report
    if low_masks and wrap is not tf_lap.prune_lookahead:
        pytest.skip("tfmot 0.8.0 multiplies float32 weights by such masks, which TensorFlow refuses")
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        # tfmot's wrapper of a float32 layer in a model of mixed precision fails.
        model = compiled(wrap(perceptron(dtype="float32" if wrap is tf_lap.prune_lookahead else None), at_once()))
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    fit(model)
    counts = kept(sparsity.strip_pruning(model))
    # tfmot compares weights in the low precision, where some are tied.
    assert (
        counts == exactly(0.9)
        if wrap is tf_lap.prune_lookahead
        else np.all(np.abs(np.subtract(counts, exactly(0.9))) < 9)
    )
    mask_dtypes = {name: mask.dtype.name for name, mask in masks(model).items()}
    low = policy.removeprefix("mixed_")
    possible = [("float32",) * 3] + [(low, low, "float32")] * low_masks
    assert tuple(mask_dtypes[name] for name in ("first", "second", "head")) in possible
