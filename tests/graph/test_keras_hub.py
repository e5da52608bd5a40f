"""Backbones of keras-hub, built at toy width: how many kernels have neighbours, and which energies they see."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_lap
from tf_lap.graph.neighbors import find_neighbors
from tf_lap.graph.resolver import resolve

pytest.importorskip("keras_hub", reason="keras-hub is not installed")
sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.backbones import BACKBONES

# How many kernels there are, how many of them are pruned only by name, how many read an input of the network alone, and
# of how many nothing but an output of the network reads what they put out.
COUNTS = {
    "BERT": (16, 3, 0, 1),
    "RoBERTa": (14, 2, 0, 1),
    "DistilBERT": (14, 2, 0, 1),
    "ALBERT": (11, 3, 0, 1),
    "GPT-2": (14, 2, 0, 1),
    "OPT": (14, 2, 0, 1),
    "Bloom": (13, 1, 0, 1),
    "GPT-NeoX": (9, 1, 0, 2),
    "Falcon": (13, 1, 0, 1),
    "Gemma": (15, 1, 0, 1),
    "Llama": (16, 1, 0, 1),
    "Mistral": (16, 1, 0, 1),
    "Phi3": (16, 1, 0, 1),
    "Qwen": (15, 1, 0, 1),
    "T5": (37, 1, 0, 1),
    "Whisper": (37, 3, 1, 1),
    "ViT": (14, 1, 1, 1),
    "ResNet": (9, 0, 1, 2),
    "ResNetV2": (9, 0, 1, 2),
    "EfficientNet": (16, 3, 1, 1),
    "MiT": (17, 2, 1, 1),
    "SegFormer": (20, 2, 1, 1),
}

# What other boundaries there are: the last part of a kernel's path, and the reason.
UNUSED = {("token_embedding/reverse_embeddings", "no output depends on it")}
POSITIONS = "looks up by the numbers of positions"
BOUNDARIES = {
    **{name: {("position_embedding", POSITIONS)} for name in ("BERT", "RoBERTa", "DistilBERT", "ALBERT")},
    **{name: {("position_embedding", POSITIONS)} for name in ("GPT-2", "OPT")},
    **dict.fromkeys(("Llama", "Mistral", "Phi3"), UNUSED),
    "Whisper": {("encoder_position_embedding", POSITIONS), ("position_embedding", POSITIONS)},
    "ViT": {("position_embedding", "calls it on constants alone, or not at all")},
}


def read_boundaries(neighbors):
    """Which kernels have which boundaries: pairs of a path and a reason."""
    return [(path, reason) for path, around in neighbors.items() for reason in around.boundaries]


FAST = ("BERT", "Gemma", "Llama", "ViT")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in COUNTS])
def test_kernels_of_a_backbone_have_neighbours_on_both_sides(name):
    model = BACKBONES[name]()
    recipe = resolve(model)
    neighbors = find_neighbors(recipe)
    kernels = {id(kernel.variable) for kernel in recipe.kernels}
    matrices = [variable for variable in model.trainable_variables if variable.path.endswith("kernel")]
    assert all(id(variable) in kernels for variable in matrices)
    boundaries = read_boundaries(neighbors)
    opt_in = {kernel.path for kernel in recipe.kernels if kernel.is_opt_in}
    others = [(path, reason) for path, reason in boundaries if not reason.startswith("network")]
    followed = set(neighbors) - opt_in - {path for path, _ in others}
    first = {path for path in followed if not neighbors[path].previous}
    last = {path for path in followed if not neighbors[path].following}
    assert all(any(reason.startswith("network input") for reason in neighbors[path].boundaries) for path in first)
    assert all(any(reason.startswith("network output") for reason in neighbors[path].boundaries) for path in last)
    assert (len(neighbors), len(opt_in), len(first), len(last)) == COUNTS[name]
    expected = BOUNDARIES.get(name, set())
    assert len(others) == len(expected)
    assert all(any(path.endswith(end) and text in reason for end, text in expected) for path, reason in others), others


def test_deberta_calls_tensorflow_on_tensors():
    neighbors = tf_lap.neighbors(BACKBONES["DeBERTaV3"]())
    reasons = {reason for _, reason in read_boundaries(neighbors) if not reason.startswith("network")}
    assert len(reasons) == 2
    assert all(
        reason.startswith("DisentangledSelfAttention")
        and "A KerasTensor cannot be used as input to a TensorFlow function" in reason
        for reason in reasons
    )
    for block in range(2):
        for kernel in ("query", "key", "value", "attention_output"):
            around = neighbors[f"disentangled_attention_encoder_layer_{block}/self_attention_layer/{kernel}"]
            assert not around.previous
            assert not around.following


def kernels_of(model, prefix):
    """The values of the kernels below a path, by the rest of their paths."""
    return {
        kernel.path.removeprefix(prefix): kernel.variable.numpy()
        for kernel in resolve(model).kernels
        if kernel.path.startswith(prefix)
    }


def randomize_scales(model):
    """Gives the scales of normalizations other values than one, and returns them by path."""
    rng = np.random.default_rng(0)
    scales = {v.path: v for v in model.trainable_variables if v.path.rpartition("/")[2] in ("gamma", "scale")}
    for scale in scales.values():
        scale.assign(rng.uniform(0.5, 1.5, scale.shape))
    return {path: scale.numpy() for path, scale in scales.items()}


def test_the_energies_of_bert():
    model = BACKBONES["BERT"]()
    scales = randomize_scales(model)
    energies = tf_lap.channel_energies(model)
    prefix = "transformer_layer_0/self_attention_layer/"
    query, key, value, output = (
        kernels_of(model, prefix)[name] ** 2 for name in ("query", "key", "value", "attention_output")
    )
    # Queries are divided by the square root of their four channels a head, before keys read them.
    np.testing.assert_allclose(energies[prefix + "query"].outgoing, key.sum(0).reshape(-1) / 4, rtol=1e-5)
    np.testing.assert_allclose(energies[prefix + "key"].outgoing, query.sum(0).reshape(-1) / 4, rtol=1e-5)
    np.testing.assert_allclose(energies[prefix + "value"].outgoing, output.sum(2).reshape(-1), rtol=1e-5)
    np.testing.assert_allclose(energies[prefix + "attention_output"].incoming, value.sum(0).reshape(-1), rtol=1e-5)
    tables = kernels_of(model, "")
    tables = [tables[name] for name in ("token_embedding", "position_embedding", "segment_embedding")]
    embedded = sum((table**2).mean(0) for table in tables) * scales["embeddings_layer_norm/gamma"] ** 2
    for name in ("query", "key", "value"):
        np.testing.assert_allclose(energies[prefix + name].incoming, embedded, rtol=1e-5)


def mean_over_pairs(by_head):
    """The mean energy of the two channels that a rotary embedding turns, `(heads, channels)`."""
    return (by_head + np.roll(by_head, by_head.shape[1] // 2, axis=1)) / 2


def check_grouped_attention(energies, prefix, by_head, incoming, query_scale):
    """Checks the energies around attention with rotary embeddings in which two heads of queries share a key.

    Args:
        energies: the result of `channel_energies`.
        prefix: the path of the attention layer.
        by_head: for each kernel its squares, `(heads, channels, features)`.
        incoming: the energy that the layer reads, `(features,)`.
        query_scale: the square of what queries are multiplied by before keys read them.
    """
    put_by_query, put_by_key, put_by_value, read_by_output = (kernel.sum(2) for kernel in by_head)
    of_group = mean_over_pairs(put_by_query).reshape(2, 2, -1).sum(1)
    expected = {
        "query": np.repeat(mean_over_pairs(put_by_key), 2, axis=0) * query_scale,
        "key": of_group * query_scale,
        "value": read_by_output.reshape(2, 2, -1).sum(1),
    }
    for name, outgoing in expected.items():
        np.testing.assert_allclose(energies[prefix + name].outgoing, outgoing.reshape(-1), rtol=1e-5)
        np.testing.assert_allclose(energies[prefix + name].incoming, incoming, rtol=1e-5)
    read = np.repeat(put_by_value, 2, axis=0).reshape(-1)
    np.testing.assert_allclose(energies[prefix + "attention_output"].incoming, read, rtol=1e-5)


def test_the_energies_of_gemma():
    model = BACKBONES["Gemma"]()
    scales = randomize_scales(model)
    prefix = "decoder_block_0/attention/"
    kernels = kernels_of(model, prefix)
    squares = [kernels[name].transpose(0, 2, 1) ** 2 for name in ("query", "key", "value")]
    squares.append(kernels["attention_output"] ** 2)
    table = kernels_of(model, "")["token_embedding"]
    # What is looked up is multiplied by the square root of the width, and normalized by one more than a scale.
    incoming = (table**2).mean(0) * 16 * (1 + scales["decoder_block_0/pre_attention_norm/scale"]) ** 2
    check_grouped_attention(tf_lap.channel_energies(model), prefix, squares, incoming, 1 / 4)


def test_the_energies_of_llama():
    model = BACKBONES["Llama"]()
    scales = randomize_scales(model)
    prefix = "transformer_layer_0/self_attention/"
    kernels = kernels_of(model, prefix)
    squares = [kernels[name].transpose(1, 2, 0) ** 2 for name in ("query", "key", "value")]
    squares.append(kernels["attention_output"] ** 2)
    (scale,) = (v for path, v in scales.items() if "transformer_layer_0/self_attention_layernorm" in path)
    table = kernels_of(model, "")["token_embedding"]
    incoming = (table**2).mean(0) * scale**2
    energies = tf_lap.channel_energies(model)
    check_grouped_attention(energies, prefix, squares, incoming, 1)
    # The gated perceptron: a product of two tensors, which the output reads alike.
    block = kernels_of(model, "transformer_layer_0/feedforward_")
    read = (block["output_dense"] ** 2).sum(1)
    for name in ("gate_dense", "intermediate_dense"):
        outgoing = energies[f"transformer_layer_0/feedforward_{name}"].outgoing
        np.testing.assert_allclose(outgoing, read, rtol=1e-5)


def test_a_tied_table_is_one_kernel_of_two_uses():
    import keras_hub

    model = keras_hub.models.GemmaCausalLM(BACKBONES["Gemma"](), preprocessor=None)
    neighbors = tf_lap.neighbors(model)
    (table,) = (path for path in neighbors if path.endswith("token_embedding"))
    backbone = table.removesuffix("token_embedding")
    assert f"{backbone}decoder_block_1/ffw_linear" in neighbors[table].previous
    assert f"{backbone}decoder_block_0/attention/query" in neighbors[table].following


def test_a_backbone_is_pruned_to_the_exact_count():
    model = BACKBONES["Llama"]()
    tokens = {name: np.ones((2, 5), "int32") for name in ("token_ids", "padding_mask")}
    shape = model(tokens).shape
    tf_lap.prune(model, 0.5, allocation="uniform")
    kernels = [kernel for kernel in resolve(model).kernels if not kernel.is_opt_in]
    assert [int((kernel.variable.numpy() == 0).sum()) for kernel in kernels] == [k.layout.size // 2 for k in kernels]
    table = model.get_layer("token_embedding").embeddings
    assert np.all(table.numpy() != 0)
    outputs = model(tokens)
    assert outputs.shape == shape
    assert np.all(np.isfinite(keras.ops.convert_to_numpy(outputs)))
