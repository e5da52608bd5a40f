"""A model with each layer class of both Kerases between two Dense layers."""

import inspect

import keras
import pytest
import tensorflow as tf

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


def list_classes():
    """Each class of both libraries under one of its names."""
    for library in LIBRARIES.values():
        named = {value: name for name, value in sorted(vars(library.layers).items()) if inspect.isclass(value)}
        named.update({value: value.__name__ for value in named if hasattr(library.layers, value.__name__)})
        yield from ((library, name) for name in sorted(named.values()))


ALL = [pytest.param(*case, id=f"{case[0].__name__}.{case[1]}") for case in list_classes()]


def shares_specifications():
    return tf.keras.layers.InputSpec is tf_keras.layers.InputSpec
