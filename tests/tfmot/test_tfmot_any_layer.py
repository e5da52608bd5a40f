"""Layers of several kernels, and recurrent ones, inside tfmot: ranked by lookahead, as `tf_lap.prune` ranks them."""

import warnings

import numpy as np
import pytest
from wrapped import at_once, layers, sparsity, still, tf_keras, wrappers

import tf_lap

VECTORS, IMAGES, VIDEOS = (6, 5), (6, 6, 5), (2, 6, 6, 5)

# Layers by name, with the shape of what the model around them reads.
TAKEN = {
    "MultiHeadAttention": (lambda: layers.MultiHeadAttention(2, 4, name="middle"), VECTORS),
    "LSTM": (lambda: layers.LSTM(4, return_sequences=True, name="middle"), VECTORS),
    "GRU": (lambda: layers.GRU(4, name="middle"), VECTORS),
    "SimpleRNN": (lambda: layers.SimpleRNN(4, name="middle"), VECTORS),
    "RNN": (lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], name="middle"), VECTORS),
    "Bidirectional": (lambda: layers.Bidirectional(layers.LSTM(4), name="middle"), VECTORS),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dense(4), name="middle"), VECTORS),
    "SeparableConv1D": (lambda: layers.SeparableConv1D(4, 3, name="middle"), VECTORS),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(4, 3, name="middle"), IMAGES),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(4, 3, name="middle"), IMAGES),
}
REFUSED = {
    "EinsumDense": (lambda: layers.EinsumDense("abc,cd->abd", (None, 4), name="middle"), VECTORS),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(3, name="middle"), VECTORS),
    "ConvLSTM2D": (lambda: layers.ConvLSTM2D(4, 3, name="middle"), VIDEOS),
}
taken = pytest.mark.parametrize(("make", "shape"), TAKEN.values(), ids=TAKEN)
refused = pytest.mark.parametrize(("make", "shape"), REFUSED.values(), ids=REFUSED)


def network(make, shape):
    """The layer between two Dense layers."""
    inputs = tf_keras.Input(shape)
    x, middle = layers.Dense(8, name="first")(inputs), make()
    x = middle(x, x) if isinstance(middle, layers.MultiHeadAttention) else middle(x)
    model = tf_keras.Model(inputs, layers.Dense(3, name="last")(x))
    rng = np.random.default_rng(0)  # channels that differ much, so that magnitude ranks otherwise
    model.set_weights([rng.standard_normal(w.shape) * np.exp(rng.standard_normal(w.shape[-1:])) for w in model.weights])
    return model


def train(wrapped, shape, run_eagerly=True):
    wrapped.compile(still(), "mse", run_eagerly=run_eagerly)  # tracing recurrent layers takes far longer
    x = np.zeros((4, *shape), np.float32)
    wrapped.fit(x, np.zeros(wrapped(x).shape), verbose=0, callbacks=[sparsity.UpdatePruningStep()])


def masks_by_kernel(model):
    """The masks of all wrappers, by the id of the kernel."""
    return {id(kernel): mask.numpy() for layer in wrappers(model) for kernel, mask, _ in layer.pruning_vars}


def masks_of_prune(model, fraction, score="lookahead"):
    """By the id of the kernel the masks that tf_lap.prune gives on the plain model."""
    clone = tf_keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    originals = dict(zip(map(id, clone.weights), model.weights, strict=True))
    pruner = tf_lap.Pruner(clone, score=score, allocation="uniform")
    pruner.update(fraction)
    kernels = pruner.enforcement.kernels
    return {id(originals[id(kernels[path])]): mask.numpy() for path, mask in pruner.masks.items()}


@taken
@pytest.mark.parametrize("run_eagerly", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_masks_are_those_of_prune_on_the_plain_model(make, shape, run_eagerly):
    model = network(make, shape)
    expected, by_magnitude = masks_of_prune(model, 0.5), masks_of_prune(model, 0.5, "magnitude")
    with warnings.catch_warnings():
        warnings.simplefilter("error", tf_lap.warn.PruningWarning)
        wrapped = tf_lap.prune_lookahead(model, at_once(0.5))
        train(wrapped, shape, run_eagerly)
    chosen = masks_by_kernel(wrapped)
    assert chosen.keys() == expected.keys()
    assert len(chosen) >= 3
    for number, mask in expected.items():
        np.testing.assert_array_equal(chosen[number], mask)
    assert any(np.any(mask != by_magnitude[number]) for number, mask in expected.items())


def test_an_embedding_is_pruned_as_tfmot_does_and_ranked_by_lookahead():
    words = tf_keras.Input((6,), dtype="int32")
    model = tf_keras.Model(words, layers.Dense(3)(layers.Embedding(20, 8, name="table")(words)))
    clone = tf_keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    tf_lap.prune(clone, 0.5, allocation="uniform", filters=["table", "dense"])
    wrapped = tf_lap.prune_lookahead(model, at_once(0.5))
    wrapped.compile(still(), "mse", run_eagerly=True)
    x = np.zeros((4, 6), np.int32)
    wrapped.fit(x, np.zeros((4, 6, 3)), verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    for pruned, expected in zip(sparsity.strip_pruning(wrapped).get_weights(), clone.get_weights(), strict=True):
        np.testing.assert_array_equal(pruned, expected)


def test_a_depthwise_kernel_is_left_whole_as_by_tfmot():
    model = network(lambda: layers.DepthwiseConv2D(3, name="middle"), IMAGES)
    assert [layer.layer.name for layer in wrappers(tf_lap.prune_lookahead(model))] == ["first", "last"]


@refused
def test_what_tfmot_refuses_is_left_whole_and_said_with_what_helps(make, shape):
    with pytest.raises(ValueError, match="supported layer"):
        sparsity.prune_low_magnitude(make())
    with pytest.raises(ValueError, match=r"nothing that tfmot prunes: .*tf_lap\.LAPCallback can prune it, without"):
        tf_lap.PrunableLayer(make())
    model = network(make, shape)
    with pytest.warns(tf_lap.warn.PruningWarning, match=r"'middle' .* tf_lap\.LAPCallback can prune 'middle'"):
        wrapped = tf_lap.prune_lookahead(model)
    assert [layer.layer.name for layer in wrappers(wrapped)] == ["first", "last"]


@pytest.mark.parametrize("name", ["EinsumDense", "ConvLSTM2D"])
def test_a_method_that_names_its_kernels_has_them_ranked_by_lookahead(name):
    make, shape = REFUSED[name]
    model = network(make, shape)
    middle = model.get_layer("middle")
    names = ["kernel", "recurrent_kernel"] if name == "ConvLSTM2D" else ["kernel"]
    middle.get_prunable_weights = lambda: [getattr(getattr(middle, "cell", middle), kernel) for kernel in names]
    expected = masks_of_prune(model, 0.5)
    wrapped = tf_lap.prune_lookahead(model, at_once(0.5))
    train(wrapped, shape)
    chosen = masks_by_kernel(wrapped)
    assert chosen.keys() == expected.keys()
    for number, mask in expected.items():
        np.testing.assert_array_equal(chosen[number], mask)


def test_a_mapping_speaks_of_kernels_of_one_layer_apart():
    schedule = tf_lap.LookaheadPruningSchedule(
        {"middle/kernel": 0.75, "middle/recurrent_kernel": 0.5}, begin_step=0, end_step=1, frequency=1
    )
    wrapped = tf_lap.prune_lookahead(network(*TAKEN["LSTM"]), schedule)
    train(wrapped, VECTORS)
    shares = [float(np.mean(mask.numpy())) for layer in wrappers(wrapped) for _, mask, _ in layer.pruning_vars]
    assert shares == [1.0, 0.25, 0.5, 1.0]
