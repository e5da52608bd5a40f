"""Scores, allocations and patterns: chosen by name, as an object or by a configuration, and classes of one's own."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from chains import chain

import tf_lap
from tf_lap import allocation, patterns, scores
from tf_lap.choices import Configurable, Registry

CHOICES = [
    (scores, "magnitude", scores.Magnitude(), scores.Lookahead(distance=2, look="ahead")),
    (allocation, "erk", allocation.ERK(), allocation.LAMP()),
    (patterns, "unstructured", patterns.Unstructured(), patterns.NOfM(2, 4)),
    (patterns, "block:1x4", patterns.Blocks(1, 4), patterns.Blocks(2, 8)),
]
EVERY_CHOICE = pytest.mark.parametrize(
    ("module", "name", "named", "other"), CHOICES, ids=[name for _, name, _, _ in CHOICES]
)


@EVERY_CHOICE
def test_a_name_an_object_and_a_configuration_stand_for_the_same(module, name, named, other):
    assert module.get(name) == named
    for choice in (named, other):
        assert module.get(choice) is choice
        config = module.serialize(choice)
        assert set(config) == {"class_name", "config"}
        assert module.get(config) == module.deserialize(config) == choice


def test_pruning_takes_configurations():
    report = tf_lap.prune(
        chain(16, 16, 4),
        0.5,
        score=scores.serialize(scores.Lookahead(look="back")),
        allocation={"class_name": "erk", "config": {}},
        pattern={"class_name": "blocks", "config": {"outputs": 1, "inputs": 4}},
    )
    assert report.sparsity == pytest.approx(0.5, abs=0.05)


@EVERY_CHOICE
def test_a_configuration_of_another_form_is_told_the_right_one(module, name, named, other):
    with pytest.raises(ValueError, match=r"a configuration is a mapping of 'class_name' and 'config', as tf_lap\.\w+"):
        module.get({"name": "x"})
    with pytest.raises(ValueError, match=r"this class is not known\. Register it first, with"):
        module.get({"class_name": "elsewhere", "config": {}})


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (scores, {"lookahead", "magnitude", "random", "lookahead_activation", "obd", "obd_lookahead"}),
        (scores, {"wanda", "lookahead_wanda", "obs", "obs_lookahead"}),
        (allocation, {"auto", "uniform", "global", "lamp", "erk"}),
        (patterns, {"unstructured"}),
    ],
    ids=["scores", "scores over inputs", "allocation", "patterns"],
)
def test_names_are_those_that_the_argument_takes(module, named):
    assert named <= set(module.names())
    assert {module.serialize(module.get(name))["class_name"] for name in named} == named


def test_a_class_that_needs_arguments_is_no_name():
    with pytest.raises(ValueError, match=r"pattern='blocks' is not known: use one of .*'block:RxC'"):
        patterns.get("blocks")
    assert "blocks" not in patterns.names()


@dataclasses.dataclass(frozen=True)
class Noisy(scores.Lookahead):
    """Scores in a way of its own, which its base class's factors do not know."""

    def score(self, kernel, weights, incoming, outgoing):
        return tf.reshape(tf.range(float(kernel.layout.size)), kernel.layout.shape)


def test_a_registered_score_is_chosen_by_name_and_scores_in_its_own_way():
    assert tf_lap.register_score("noisy")(Noisy) is Noisy
    assert scores.get("noisy") == Noisy()
    pruner = tf_lap.Pruner(chain(4, 5, 2), score="noisy", allocation="uniform")
    pruner.update(0.75)
    np.testing.assert_array_equal(pruner.masks["dense_0"].numpy().ravel(), np.arange(20) >= 15)
    assert scores.channel_factors(Noisy(), np.ones((1, 4)), np.ones((1, 5))) is None
    assert scores.channel_factors(scores.OBDLookahead(), np.ones((1, 4)), np.ones((1, 5))) is not None
    assert scores.channel_factors(scores.Random(), np.ones((1, 4)), np.ones((1, 5))) is None


@pytest.mark.parametrize(
    ("register", "name", "thing", "error", "message"),
    [
        (tf_lap.register_score, "mine", allocation.Uniform, TypeError, "expected a subclass of tf_lap.scores.Score"),
        (tf_lap.register_pattern, "mine", 3, TypeError, "expected a subclass of tf_lap.patterns.Pattern"),
        (
            tf_lap.register_score,
            "magnitude",
            Noisy,
            ValueError,
            "score 'magnitude' is Magnitude already: choose",
        ),
    ],
)
def test_what_cannot_be_registered(register, name, thing, error, message):
    with pytest.raises(error, match=message):
        register(name)(thing)
    assert scores.get("magnitude") == scores.Magnitude()


def test_a_class_that_is_defined_anew_takes_its_name_again():
    registry = Registry("score", Configurable, "tf_lap.scores")

    def define():
        @registry.register("mine")
        class Mine(Configurable):
            pass

        return Mine

    define()
    last = define()
    assert type(registry.get("mine")) is last


def test_a_class_without_a_configuration_says_what_to_do():
    class Plain(scores.Score):
        def score(self, kernel, weights, incoming, outgoing):
            return tf.abs(weights)

    with pytest.raises(ValueError, match=r"Plain has no name: register it with tf_lap.register_score\(name\)"):
        scores.serialize(Plain())
    tf_lap.register_score("plain")(Plain)
    with pytest.raises(NotImplementedError, match="Plain has no configuration: make it a dataclass"):
        scores.serialize(Plain())
    dataclass = tf_lap.register_score("plain")(dataclasses.dataclass(frozen=True)(Plain))
    assert scores.get(scores.serialize(dataclass())) == dataclass()


def test_whole_numbers_of_numpy_are_plain_in_a_configuration():
    choices = [
        (scores, scores.Lookahead(distance=np.int64(2))),
        (scores, scores.Random(np.int32(3))),
        (patterns, patterns.NOfM(np.int64(2), np.int64(4))),
        (patterns, patterns.Blocks(np.int64(1), 4)),
    ]
    for module, choice in choices:
        assert module.get(json.loads(json.dumps(module.serialize(choice)))) == choice


def test_a_decorator_without_parentheses_is_told():
    with pytest.raises(TypeError, match=r"tf_lap.register_score takes a name, got <class .*in parentheses"):
        tf_lap.register_score(Noisy)


@dataclasses.dataclass(frozen=True)
class Misshapen(patterns.Pattern):
    """A pattern with a sparsity of its own, whose masks have another shape than the kernel."""

    sparsity: float = 0.5
    flat: bool = True

    def expand(self, kept, live, layout):
        return tf.reshape(kept, [-1]) if self.flat else tf.cast(kept, tf.float32)


@pytest.mark.parametrize(
    ("flat", "result"), [(True, r"shape \(20,\) and dtype bool"), (False, r"shape \(4, 5\) and dtype float32")]
)
def test_a_mask_of_another_shape_or_dtype_is_an_error_before_anything_changes(flat, result):
    model = chain(4, 5, 2)
    before = [np.array(weight) for weight in model.get_weights()]
    with pytest.raises(ValueError, match=f"gives a mask of {result} for the kernel of layer 'dense_0': return bool"):
        tf_lap.prune(model, 0.5, pattern=Misshapen(0.5, flat))
    for weight, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, was)
