"""Subclassed models of both Kerases, called in every way that a `call` can be: each is followed through it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from neighborhoods import list_paths

import tf_lap

# Keras 3 says that it cannot build such models before they run.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* looks like it has unbuilt state"),
    pytest.mark.filterwarnings("ignore:.build... was called on layer"),
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask"),
]
BOTH = pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
X, WIDE = np.ones((2, 4), np.float32), np.ones((2, 7), np.float32)
SEQUENCE, MASK = np.ones((2, 6, 4), np.float32), np.ones((2, 6), bool)


def relu(x):
    return keras.ops.relu(x) if keras.backend.is_keras_tensor(x) else tf.nn.relu(x)


def hide(x, mask):
    """The sequence, with zeros where the mask is False."""
    if keras.backend.is_keras_tensor(x):
        return x * keras.ops.cast(keras.ops.expand_dims(mask, -1), x.dtype)
    return x * tf.cast(tf.expand_dims(mask, -1), x.dtype)


def model_class(library, define):
    """A class of models with Dense layers `a`, `b` and `c`; `define(...)` is its `call`."""

    class Subclassed(library.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.a, self.b, self.c = (library.layers.Dense(n, name=name) for name, n in (("a", 5), ("b", 5), ("c", 3)))

    Subclassed.call = define
    return Subclassed


def merge(self, x, y):
    return self.c(relu(self.a(x) + self.b(y)))


def merge_list(self, inputs):
    return merge(self, *inputs)


def merge_mapping(self, inputs):
    return merge(self, inputs["x"], inputs["y"])


def merge_nested(self, inputs):
    return merge(self, inputs["p"]["x"], inputs["q"][0])


def merge_star(self, *tensors):
    return merge(self, *tensors)


def merge_keyword_only(self, x, *, y, training=None):
    return merge(self, x, y)


def merge_optional(self, x, y=None, mode=None):
    return merge(self, x, y) if y is not None else self.c(relu(self.a(x)))


def merge_masked(self, x, y, padding_mask, training=False, mask=None):
    return self.c(hide(relu(self.a(x) + self.b(y)), padding_mask))


def run(model, args, kwargs):
    """Calls a model on tensors of these arrays."""
    args, kwargs = tf.nest.map_structure(lambda x: x if isinstance(x, bool) else tf.constant(x), (args, kwargs))
    model(*args, **kwargs)


MERGED = {"a": ((), ("c",)), "b": ((), ("c",)), "c": (("a", "b"), ())}
CALLS = {
    "mapping": (merge_mapping, [{"x": X, "y": WIDE}], {}),
    "list": (merge_list, [[X, WIDE]], {}),
    "tuple": (merge_list, [(X, WIDE)], {}),
    "nested": (merge_nested, [{"p": {"x": X}, "q": [WIDE]}], {}),
    "two by position": (merge, [X, WIDE], {}),
    "one by name": (merge, [X], {"y": WIDE}),
    "both by name": (merge, [], {"y": WIDE, "x": X}),
    "any number": (merge_star, [X, WIDE], {}),
    "keyword only": (merge_keyword_only, [X], {"y": WIDE}),
    "optional by position": (merge_optional, [X, WIDE], {}),
    "optional by name": (merge_optional, [X], {"y": WIDE}),
    "mask without default": (merge_masked, [SEQUENCE, SEQUENCE, MASK], {}),
    "masks by name": (merge_masked, [SEQUENCE], {"y": SEQUENCE, "padding_mask": MASK, "training": True}),
}


@BOTH
@pytest.mark.parametrize(("define", "args", "kwargs"), CALLS.values(), ids=CALLS)
def test_all_tensors_of_a_call_are_followed(library, define, args, kwargs):
    model = model_class(library, define)()
    run(model, args, kwargs)
    assert list_paths(tf_lap.neighbors(model)) == MERGED
    assert sorted(layer.path for layer in tf_lap.prune(model, 0.5).pruned) == ["a", "b", "c"]


CHAIN = {"a": ((), ("c",)), "c": (("a",), ())}


def mask_by_default(self, x, mask=None, training=False):
    x = self.a(x)
    return self.c(relu(x if mask is None else hide(x, mask)))


def training_without_default(self, x, training):
    return self.c(relu(self.a(x)))


def ignored(self, x, y, attention_mask=None):
    return self.c(relu(self.a(x)))


def none_among_outputs(self, x):
    x = self.a(x)
    return {"scores": self.c(x), "loss": None}


DEFAULTS = {
    "mask left out": (mask_by_default, [SEQUENCE], {}),
    "mask by name": (mask_by_default, [SEQUENCE], {"mask": MASK}),
    "mask by position": (mask_by_default, [SEQUENCE, MASK], {"training": True}),
    "training": (training_without_default, [X], {"training": True}),
    "inputs that nothing reads": (ignored, [SEQUENCE, X], {"attention_mask": MASK}),
    "None among outputs": (none_among_outputs, [X], {}),
    "optional left out": (merge_optional, [X], {}),
}


@BOTH
@pytest.mark.parametrize(("define", "args", "kwargs"), DEFAULTS.values(), ids=DEFAULTS)
def test_masks_and_switches_are_no_signals(library, define, args, kwargs):
    model = model_class(library, define)()
    run(model, args, kwargs)
    assert list_paths(tf_lap.neighbors(model)) == CHAIN


@BOTH
def test_what_only_training_runs_stands_at_a_boundary(library):
    def call(self, x, training=False):
        x = self.a(x)
        return self.c(self.b(x) if training else x)

    model = model_class(library, call)()
    model(tf.constant(X), training=True)
    around = tf_lap.neighbors(model)
    assert (around["a"].following, around["b"].boundaries) == (("c",), ("no output depends on it",))


@BOTH
def test_nested_models_and_blocks_are_followed_through_their_arguments(library):
    class Block(library.layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.first, self.drop = library.layers.Dense(units, name="first"), library.layers.Dropout(0.5)
            self.second = library.layers.Dense(5, name="second")

        def build(self, shape):
            self.first.build(shape)
            self.second.build((*shape[:-1], self.first.units))
            self.built = True

        def call(self, x, other=None, mask=None, training=False):
            y = self.second(self.drop(relu(self.first(x)), training=training))
            return y if other is None else y + other

    class Whole(library.Model):
        def __init__(self):
            super().__init__()
            self.stem = library.layers.Dense(5, name="stem")
            self.blocks = [Block(7, name="one"), Block(8, name="two")]
            self.head = model_class(library, merge)(name="head")

        def call(self, x, training=None):
            x = self.stem(x)
            y = self.blocks[0](x, training=training)
            return self.head(x, y=self.blocks[1](y, other=x, training=training))

    model = Whole()
    model(tf.constant(X))
    assert list_paths(tf_lap.neighbors(model)) == {
        "stem": ((), ("one/first", "head/a", "head/b")),
        "one/first": (("stem",), ("one/second",)),
        "one/second": (("one/first",), ("two/first",)),
        "two/first": (("one/second",), ("two/second",)),
        "two/second": (("two/first",), ("head/b",)),
        "head/a": (("stem",), ("head/c",)),
        "head/b": (("stem", "two/second"), ("head/c",)),
        "head/c": (("head/a", "head/b"), ()),
    }


@BOTH
@pytest.mark.parametrize("named", [False, True], ids=["by position", "by name"])
def test_a_subclassed_model_inside_a_functional_one_gets_several_tensors(library, named):
    x, y = library.Input((4,)), library.Input((7,))
    inner = model_class(library, merge)(name="inner")
    stem = library.layers.Dense(4, name="stem")(x)
    merged = inner(stem, y=y) if named else inner(stem, y)
    model = library.Model([x, y], library.layers.Dense(2, name="head")(merged))
    paths = list_paths(tf_lap.neighbors(model))
    assert paths["inner/a"] == (("stem",), ("inner/c",))
    assert paths["inner/c"] == (("inner/a", "inner/b"), ("head",))


@BOTH
def test_words_and_their_positions_are_looked_up(library):
    class Words(library.Model):
        def __init__(self):
            super().__init__()
            self.words = library.layers.Embedding(10, 4, name="words")
            self.places = library.layers.Embedding(6, 4, name="places")
            self.head = library.layers.Dense(3, name="head")

        def call(self, ids, positions, token_mask=None, training=False):
            return self.head(self.words(ids) + self.places(positions))

    model = Words()
    ids = tf.ones((2, 6), tf.int32)
    model(ids, positions=ids)
    assert list_paths(tf_lap.neighbors(model))["head"] == (("words", "places"), ())


def test_a_shape_that_keras_does_not_keep_is_found_or_asked_for():
    def flat(self, x, y):  # y has more axes than any layer inside was built with
        return self.c(relu(self.a(x) + self.b(keras.ops.reshape(y, (-1, 7)))))

    def call(library_class, *args):
        model = library_class()
        model(*args)
        return model

    cube = np.ones((2, 7, 1, 1), np.float32)
    assert list_paths(tf_lap.neighbors(call(model_class(keras, flat), X, cube))) == MERGED

    def picky(self, x, y):
        assert len(y.shape) == 4
        return flat(self, x, y)

    around = tf_lap.neighbors(call(model_class(keras, picky), X, cube))
    start = r"its call cannot be followed on symbolic tensors \(ValueError: Keras does not keep the shape of y; "
    assert around["a"].previous == around["a"].following == ()
    (reason,) = around["a"].boundaries
    assert reason.startswith(start.replace("\\", "") + "build(self, x_shape, y_shape) would keep all")

    class Built(model_class(keras, picky)):
        def build(self, x_shape, y_shape):
            self.a.build(x_shape)
            self.b.build((None, 7))
            self.c.build((None, 5))

    assert list_paths(tf_lap.neighbors(call(Built, X, cube))) == MERGED


def test_a_model_that_was_fitted_is_followed():
    for library in (keras, tf_keras):
        model = model_class(library, merge_mapping)()
        model.compile("sgd", "mse")
        model.fit({"x": X, "y": WIDE}, np.ones((2, 3)), verbose=0)
        assert list_paths(tf_lap.neighbors(model)) == MERGED


@BOTH
def test_neighbours_are_given_to_a_model_that_cannot_be_followed(library):
    def opaque(self, x, y):
        return merge(self, tf.constant(x.numpy()), y)

    model = model_class(library, opaque)()
    model(tf.constant(X), tf.constant(WIDE))
    told = {"a": ((), ("c",)), "b": ((), ("c",)), "c": (("a", "b"), ())}
    with pytest.warns(UserWarning, match="cannot be followed"):
        assert [layer.boundaries[0][:4] for layer in tf_lap.prune(model, 0.0).layers] == ["its "] * 3
    weights = [np.square(layer.get_weights()[0].astype(np.float64)) for layer in (model.a, model.b, model.c)]
    with pytest.warns(UserWarning, match="cannot be followed"):
        pruner = tf_lap.Pruner(model, neighbors=told, allocation="uniform")
    pruner.update(0.5)
    scores = weights[0] * weights[2].sum(1)
    np.testing.assert_array_equal(pruner.masks["a"], scores >= np.sort(scores, axis=None)[-10])
    scores = weights[2] * (weights[0].sum(0) + weights[1].sum(0))[:, np.newaxis]
    np.testing.assert_array_equal(pruner.masks["c"], scores >= np.sort(scores, axis=None)[-8])
    with pytest.raises(
        ValueError, match=r"neighbors\['a'\]: 'b' has 7 inputs, which do not fit the layer's 5 channels"
    ):
        tf_lap.Pruner(model, neighbors={"a": ((), ("b",))})
