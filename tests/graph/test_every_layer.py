"""Every layer class of both Kerases, alone between two Dense layers, and with every mask that its call takes."""

import inspect

import keras
import pytest
import tensorflow as tf

import tf_lap
from tf_lap.report.coverage import OPT_IN

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")
LIBRARIES = {"keras": keras, "tf_keras": tf_keras}

# Classes that cannot stand between two Dense layers, and why. A test fails if one of them can be built, or is missing.
NOT_BUILT = {
    ("keras", "Equalization"): "Keras finds a cycle in the graph that it makes",
    ("keras", "FlaxLayer"): "it takes a module of Flax",
    ("keras", "InputLayer"): "it takes no input",
    ("keras", "InputSpec"): "it is no layer",
    ("keras", "JaxLayer"): "it takes a function of JAX",
    ("keras", "Layer"): "it has no call",
    ("keras", "TFSMLayer"): "it takes a SavedModel on disk",
    ("keras", "TorchModuleWrapper"): "it takes a module of PyTorch",
    ("keras", "Wrapper"): "it has no call",
    ("tf_keras", "AbstractRNNCell"): "it has no call",
    ("tf_keras", "InputSpec"): "it is no layer",
}
if keras.__version__.startswith("3.8."):
    NOT_BUILT["keras", "RandomGrayscale"] = "Keras 3.8 finds a cycle in the graph that it makes"

# The arguments of a class that has no defaults for all of them.
ARGUMENTS = {
    "Activation": ("relu",),
    "AlphaDropout": (0.5,),
    "Average": (),
    "CategoryEncoding": (9,),
    "CenterCrop": (4, 4),
    "Discretization": ([0.0, 1.0],),
    "Dot": (1,),
    "Dropout": (0.5,),
    "EinsumDense": ("abc,cd->abd", (None, 8)),
    "Embedding": (9, 8),
    "GaussianDropout": (0.5,),
    "GaussianNoise": (0.5,),
    "GroupNormalization": (2,),
    "GroupQueryAttention": (4, 4, 2),
    "HashedCrossing": (9,),
    "Hashing": (9,),
    "MaxNumBoundingBoxes": (4,),
    "MultiHeadAttention": (2, 4),
    "Permute": ((2, 1),),
    "RandomColorJitter": ((0, 1),),
    "RandomCrop": (4, 4),
    "RandomFlip": (),
    "RandomPosterization": (4,),
    "RandomTranslation": (0.1, 0.1),
    "RepeatVector": (3,),
    "Rescaling": (0.5,),
    "Reshape": ((2, 4, 6),),
    "Resizing": (4, 4),
    "ReversibleEmbedding": (9, 8),
}
MAKERS = {
    "Bidirectional": lambda layers: layers.Bidirectional(layers.LSTM(8, return_sequences=True)),
    "DenseFeatures": lambda layers: layers.DenseFeatures([tf.feature_column.numeric_column("a", shape=(8,))]),
    "IntegerLookup": lambda layers: layers.IntegerLookup(vocabulary=[1, 2, 3]),
    "Lambda": lambda layers: layers.Lambda(lambda x, mask=None: x * 2.0),
    "MelSpectrogram": lambda layers: layers.MelSpectrogram(sequence_length=8, sequence_stride=4, fft_length=8),
    "Pipeline": lambda layers: layers.Pipeline([layers.ReLU(), layers.Rescaling(0.5)]),
    "RNN": lambda layers: layers.RNN(layers.GRUCell(8), return_sequences=True),
    "STFTSpectrogram": lambda layers: layers.STFTSpectrogram(frame_length=8, frame_step=4, fft_length=8),
    "SpectralNormalization": lambda layers: layers.SpectralNormalization(layers.Dense(8)),
    "StackedRNNCells": lambda layers: layers.StackedRNNCells([layers.GRUCell(8), layers.LSTMCell(8)]),
    "StringLookup": lambda layers: layers.StringLookup(vocabulary=["a", "b"]),
    "TextVectorization": lambda layers: layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=8),
    "TimeDistributed": lambda layers: layers.TimeDistributed(layers.Dense(8)),
    "Wrapper": lambda layers: layers.Wrapper(layers.Dense(8)),
}
BY_PREFIX = {
    "Adaptive": (2,),
    "Average": (2,),
    "AvgPool": (2,),
    "Conv": (8, 2),
    "Depthwise": (2,),
    "GRU": (8,),
    "LSTM": (8,),
    "LocallyConnected": (8, 2),
    "Random": (0.1,),
    "Separable": (8, 2),
    "SimpleRNN": (8,),
    "SpatialDropout": (0.5,),
    "Dense": (8,),
}  # classes with such a name that take no arguments are in ARGUMENTS
SHAPES = {"1D": (6, 8), "2D": (6, 6, 8), "3D": (6, 6, 6, 8), "1DTranspose": (6, 8), "2DTranspose": (6, 6, 8)}
SHAPES |= {"3DTranspose": (4, 4, 4, 8), "LSTM1D": (3, 6, 8), "LSTM2D": (3, 6, 6, 8), "LSTM3D": (3, 4, 4, 4, 8)}
SHAPES |= dict.fromkeys(("Cell", "Cells", "RepeatVector", "Spectrogram", "Features"), (8,))
SHAPES |= dict.fromkeys(("Random", "AugMix", "Contrast", "Equalization", "Solarization", "RandAugment"), (6, 6, 3))
SHAPES |= dict.fromkeys(("CutMix", "MixUp", "Resizing", "CenterCrop", "MaxNumBoundingBoxes"), (6, 6, 3))
SHAPES["STFTSpectrogram"] = (16, 1)
STEPS = (6, 8)


def make_layer(library, name):
    """A layer of this class."""
    if name in MAKERS:
        return MAKERS[name](library.layers)
    prefix = next((p for p in BY_PREFIX if name.startswith(p)), None)
    return getattr(library.layers, name)(*ARGUMENTS.get(name, BY_PREFIX.get(prefix, ())))


def choose_shape(name):
    """The shape of an input that suits a class."""
    endings = [ending for ending in SHAPES if name.endswith(ending) or name.startswith(ending)]
    return SHAPES[max(endings, key=len)] if endings else STEPS


def call_layer(layer, name, x, *arguments, **masks):
    """The first output of a layer, called on a tensor in the form that its class takes."""
    pairs = ("Add", "Average", "Concatenate", "Dot", "Maximum", "Minimum", "Multiply", "Subtract")
    if name in (*pairs, "Attention", "AdditiveAttention"):
        x = [x, x]
    elif name in ("MultiHeadAttention", "GroupQueryAttention"):
        arguments = (x, *arguments)
    elif name in ("GRUCell", "SimpleRNNCell"):
        arguments = ([x],)
    elif name == "LSTMCell":
        arguments = ([x, x],)
    elif name == "StackedRNNCells":
        arguments = ([x, [x, x]],)
    elif name == "HashedCrossing":
        x = (x, x)
    elif name == "DenseFeatures":
        x = {"a": x}
    out = layer(x, *arguments, **masks)
    return tf.nest.flatten(out)[0]


IDS = ("Embedding", "ReversibleEmbedding", "Hashing", "HashedCrossing", "IntegerLookup", "CategoryEncoding")
TEXTS = ("StringLookup", "TextVectorization")


def finish_model(library, inputs, x):
    if not tf.as_dtype(x.dtype).is_floating:
        x = library.layers.Rescaling(1.0)(x)
    return library.Model(inputs, library.layers.Dense(4, name="last")(x))


def build_model(library, name):
    """A model with a layer of this class between two Dense layers, or behind ids or texts where it takes those."""
    layer, shape = make_layer(library, name), choose_shape(name)
    if name in IDS or name in TEXTS:
        count = 1 if name in ("HashedCrossing", *TEXTS) else 8
        inputs = x = library.Input((count,), dtype="string" if name in TEXTS else "int32")
    else:
        inputs = library.Input(shape)
        x = library.layers.Dense(shape[-1], name="first")(inputs)
    return finish_model(library, inputs, call_layer(layer, name, x))


def assert_resolves_or_gives_reasons(model, prune=False):
    """Each kernel has other kernels on either side, or a reason why there is none."""
    around = tf_lap.neighbors(model)
    assert {"first", "last"} & set(around)
    for path, neighbors in around.items():
        assert neighbors.boundaries or (neighbors.previous and neighbors.following), path
        assert all(reason.strip() for reason in neighbors.boundaries)
    assert set(tf_lap.channel_energies(model)) == set(around)
    assert set(around) <= {layer.path for layer in tf_lap.Pruner(model).report().layers}
    if prune:  # pruning takes most of the time, and does not depend on the graph
        report = tf_lap.prune(model, 0.5)
        opt_in = {layer.path for layer in report.skipped if layer.skipped == OPT_IN}
        assert {layer.path for layer in report.pruned} | opt_in == set(around)


def list_classes():
    """Each class of both libraries under one of its names."""
    for library in LIBRARIES.values():
        named = {value: name for name, value in sorted(vars(library.layers).items()) if inspect.isclass(value)}
        named.update({value: value.__name__ for value in named if hasattr(library.layers, value.__name__)})
        yield from ((library, name) for name in sorted(named.values()))


ALL = [pytest.param(*case, id=f"{case[0].__name__}.{case[1]}") for case in list_classes()]


def _shares_specifications():
    return tf.keras.layers.InputSpec is tf_keras.layers.InputSpec


@pytest.mark.parametrize(("library", "name"), ALL)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:keras")
def test_every_layer_class_resolves_or_is_a_boundary_with_a_reason(library, name):
    if (library.__name__, name) in NOT_BUILT:
        with pytest.raises((TypeError, ValueError, NotImplementedError)):
            build_model(library, name)
        return
    if (library.__name__, name) == ("tf_keras", "SpectralNormalization") and not _shares_specifications():
        pytest.skip("tf_keras makes its input specification with tf.keras, which is Keras 3 in this process")
    assert_resolves_or_gives_reasons(build_model(library, name))


def test_classes_that_are_not_built_exist():
    existing = {(library.__name__, name) for library, name in list_classes()}
    newest = keras.__version__.startswith("3.15")
    assert not {case for case in NOT_BUILT if case not in existing and (newest or case[0] == "tf_keras")}


# The masks that calls take, by the argument's name: their shapes behind the batch.
MASKS = {
    "mask": lambda shape: shape[:1],
    "query_mask": lambda shape: shape[:1],
    "key_mask": lambda shape: shape[:1],
    "value_mask": lambda shape: shape[:1],
    "attention_mask": lambda shape: (shape[0], shape[0]),
}
# Masks that the library itself refuses. A test fails if it accepts one.
REFUSED = {
    ("tf_keras", "ConvLSTM1D", "of Masking"): "it takes a mask of steps, and Masking masks positions",
    ("tf_keras", "ConvLSTM2D", "of Masking"): "it takes a mask of steps, and Masking masks positions",
    ("tf_keras", "ConvLSTM3D", "of Masking"): "it takes a mask of steps, and Masking masks positions",
    ("tf_keras", "GroupNormalization", "of Masking"): "it takes a mask of its input's shape",
    ("tf_keras", "GroupNormalization", "of an embedding"): "it takes a mask of its input's shape",
    ("tf_keras", "Softmax", "of Masking"): "it takes a mask of its input's shape",
    ("tf_keras", "Softmax", "of an embedding"): "it takes a mask of its input's shape",
}
ATTENTION = ("MultiHeadAttention", "GroupQueryAttention")


def list_masked():
    """Each class that takes a mask, each mask that it takes, and each way to pass the mask."""
    for library, name in list_classes():
        cls = getattr(library.layers, name)
        if (library.__name__, name) in NOT_BUILT:
            continue
        for parameter in inspect.signature(cls.call).parameters:
            if parameter in MASKS:
                yield library, name, parameter, "by name"
                # The `__call__` of tf_keras's recurrent layers has another signature than their `call`.
                if "args" in inspect.signature(cls.__call__).parameters:
                    yield library, name, parameter, "positionally"
                if parameter == "mask" or parameter == "query_mask":
                    yield library, name, parameter, "of Masking"
                    if choose_shape(name) == STEPS:
                        yield library, name, parameter, "of an embedding"


MASKED = [pytest.param(*case, id=f"{case[0].__name__}.{case[1]}, {case[2]} {case[3]}") for case in list_masked()]


def build_masked_model(library, name, parameter, how):
    layers, shape, layer = library.layers, choose_shape(name), make_layer(library, name)
    if how == "of an embedding":
        inputs = library.Input(shape[:1], dtype="int32")
        x = layers.Embedding(9, 8, mask_zero=True)(inputs)
        return finish_model(library, inputs, call_layer(layer, name, layers.Dense(8, name="first")(x)))
    inputs = library.Input(shape)
    if how == "of Masking":
        x = layers.Dense(shape[-1], name="first")(layers.Masking()(inputs))
        return finish_model(library, inputs, call_layer(layer, name, x))
    x = layers.Dense(shape[-1], name="first")(inputs)
    wide = shape if name in ("Softmax", "GroupNormalization") else MASKS[parameter](shape)
    mask = library.Input(wide, dtype="float32" if name == "Softmax" else "bool")
    argument = [mask, mask] if name in ("Attention", "AdditiveAttention") else mask
    if how == "by name":
        return finish_model(library, [inputs, mask], call_layer(layer, name, x, **{parameter: argument}))
    order = list(inspect.signature(layer.call).parameters)
    before = order[2 if name in ATTENTION else 1 : order.index(parameter)]
    values = {"key": x, "query_mask": mask, "key_mask": mask, "value_mask": mask}
    return finish_model(library, [inputs, mask], call_layer(layer, name, x, *map(values.get, before), argument))


@pytest.mark.parametrize(("library", "name", "parameter", "how"), MASKED)
@pytest.mark.filterwarnings("ignore::UserWarning:keras", "ignore:model .* can be pruned")
def test_a_mask_is_no_signal(library, name, parameter, how):
    if (library.__name__, name, how) in REFUSED:
        with pytest.raises((TypeError, ValueError)):
            build_masked_model(library, name, parameter, how)
        return
    assert_resolves_or_gives_reasons(build_masked_model(library, name, parameter, how), prune=how == "of an embedding")


def test_masks_that_are_refused_are_tried():
    assert not set(REFUSED) - {(library.__name__, name, how) for library, name, _, how in list_masked()}
