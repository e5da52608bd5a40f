"""Each remedy that a message about arguments and schedules names is followed here, and helps.

Those about models are in test_model_remedies, those about training in test_training_remedies and test_mask_remedies.
"""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np
import pytest
import tensorflow as tf
from remedied import perceptron, prune

import tf_lap
from tf_lap.allocation import Uniform
from tf_lap.patterns import Blocks, NOfM, Unstructured
from tf_lap.scores import Lookahead, Magnitude, Random

layers = keras.layers
X = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
NEIGHBORS = {"dense_1": (["dense_0"], ["dense_2"])}
DIFFERENT = {"dense_0": 0.5, "dense_1": 0.6, "dense_2": 0.5}


class Squares(tf_lap.scores.Score):
    distance = 0

    def score(self, kernel, weights, incoming, outgoing):
        return tf.square(weights)


class Flat(Squares):
    def score(self, kernel, weights, incoming, outgoing):
        return tf.reshape(tf.square(weights), [-1])


class AtLeastTwo(Uniform):
    def keep(self, sizes, sparsities, shapes):
        return [max(2, count) for count in super().keep(sizes, sparsities, shapes)]


class Singles(Unstructured):
    pass


over_data = {"score": "lookahead_activation"}
ARGUMENTS = [
    (
        {"order": "random"},
        r"use one of \['simultaneous', 'forward', 'backward'\]",
        [{"order": order} for order in ("simultaneous", "forward", "backward")],
    ),
    (
        {"pattern": "2:4", "allocation": "erk"},
        "use allocation='uniform'",
        [{"pattern": "2:4", "allocation": "uniform"}],
    ),
    *[
        (
            {"order": "forward", "allocation": pooled},
            "use order='simultaneous' or allocation='uniform'",
            [{"order": "simultaneous", "allocation": pooled}, {"order": "forward", "allocation": "uniform"}],
        )
        for pooled in ("global", "lamp")
    ],
    ({"score": "obd"}, r"pass data=, typical inputs such as x_train\[:1000\]", [{"score": "obd", "data": X}]),
    (
        {"data": X},
        "leave it out, or use a score that is measured over data, such as 'lookahead_activation'",
        [{}, {"data": X, "score": "lookahead_activation"}],
    ),
    (
        {"sparsity": 0.9, "pattern": "2:4"},
        "ends at 0.5; pass that, or another pattern",
        [{"sparsity": 0.5, "pattern": "2:4"}, {"sparsity": 0.9, "pattern": "block:1x4"}],
    ),
    (
        {"sparsity": 0.3, "pattern": "2:3", "filters": "dense_2"},
        "is reached at 0.333333; pass that, or another pattern",
        [{"sparsity": 0.333333, "pattern": "2:3", "filters": "dense_2"}, {"sparsity": 0.3, "pattern": "unstructured"}],
    ),
    ({"pattern": "4:2"}, "n must be less than m, as in '2:4'", [{"pattern": "2:4"}]),
    ({"pattern": "block:1x1"}, "use pattern='unstructured'", [{"pattern": "unstructured"}]),
    *[
        (
            {"pattern": pattern},
            r"use one of \['channels', 'unstructured'.*\], 'N:M' such as '2:4' .*, 'block:RxC' such as 'block:1x4'",
            [{"pattern": p} for p in ("unstructured", "2:4", "block:1x4", NOfM(1, 2), Singles())],
        )
        for pattern in ("4x1", 4, Unstructured)
    ],
    (
        {"neighbors": ["dense_0"]},
        r"expected a mapping from layer paths to \(paths before, paths after\)",
        [{"neighbors": NEIGHBORS}],
    ),
    (
        {"neighbors": {"dense_1": "dense_0"}},
        "expected two lists of layer paths, before and after",
        [{"neighbors": NEIGHBORS}],
    ),
    (
        {"neighbors": {"dense_1": ([], ["dense_7"])}},
        "is no kernel's path: 'dense_0', 'dense_1', 'dense_2'",
        [{"neighbors": {"dense_1": ([], ["dense_2"])}}],
    ),
    (
        {"neighbors": {"dense_1": ([], ["dense_0"])}},
        "name kernels with as many, or with a multiple or a divisor of them",
        [
            {"neighbors": {"dense_1": ([], ["dense_2"])}},  # 12 of 12
            {"neighbors": {"dense_0": (["dense_0"], [])}},  # 16 of 8
            {"neighbors": {"dense_1": (["dense_2"], [])}},  # 4 of 16
        ],
    ),
    (
        {"score": Lookahead(distance=2), "neighbors": NEIGHBORS},
        "use distance=1, or leave them out",
        [{"score": Lookahead(distance=1), "neighbors": NEIGHBORS}, {"score": Lookahead(distance=2)}],
    ),
    (
        {"filters": lambda layer: layer.units > 99},
        "the layers with a kernel are 'dense_0', 'dense_1', 'dense_2'",
        [{"filters": lambda layer: layer.name == "dense_1"}],
    ),
    (
        {"filters": 3},
        "expected a regular expression, a list of them, or a function of a layer",
        [{"filters": "[01]"}, {"filters": ["0", "1"]}, {"filters": lambda layer: layer.units > 9}],
    ),
    ({"filters": []}, "pass None to prune every layer", [{"filters": None}]),
    (
        {"filters": "*_0"},
        "a layer's path, or a part of it, is enough. The layers with a kernel are 'dense_0'",
        [{"filters": "dense_0"}, {"filters": "_0"}],
    ),
    ({"filters": "conv"}, "the layers with a kernel are 'dense_0'", [{"filters": "dense_0"}]),
    ({"sparsity": {0: 0.5}}, "use a string, such as 'dense_0'", [{"sparsity": {"dense_0": 0.5}}]),
    (
        {"sparsity": {}},
        "give it a layer path or a regular expression",
        [{"sparsity": {"dense_0": 0.5}}, {"sparsity": {"dense_[01]": 0.5}}],
    ),
    ({"sparsity": 90}, "0.9 leaves one weight in ten", [{"sparsity": 0.9}]),
    ({"sparsity": "90%"}, r"expected the fraction of zeros, a number in \[0, 1\)", [{"sparsity": 0.9}]),
    ({"sparsity": np.array([0.5, 0.6])}, r"expected one number in \[0, 1\)", [{"sparsity": 0.6}]),
    (
        {"score": "best"},
        r"use one of \[.*'lookahead', 'lookahead_activation', 'lookahead_wanda', 'magnitude', .*'obd', "
        r"'obd_lookahead', 'obs', 'obs_lookahead', .*'random', .*'wanda'\], "
        r"an object of a class of tf_lap\.scores or of your own subclass of tf_lap\.scores\.Score",
        [
            *({"score": score} for score in ("lookahead", "magnitude", "random", Squares())),
            *(
                {"score": score, "data": X}
                for score in ("lookahead_activation", "obd", "obd_lookahead", "wanda", "obs", "obs_lookahead")
            ),
        ],
    ),
    ({"score": Magnitude}, r"is a class, not an object\): .* an object of a class", [{"score": Magnitude()}]),
    ({"score": Flat()}, "return one for each weight, in that shape", [{"score": Squares()}]),
    (
        {"allocation": "erdos"},
        r"use one of \['auto', 'erk', 'global', 'lamp', .*'uniform'\], an object of a class of tf_lap\.allocation",
        [{"allocation": allocation} for allocation in ("auto", "erk", "global", "lamp", "uniform", AtLeastTwo())],
    ),
    *[
        (
            {"sparsity": {"dense_0": 0.5}, "allocation": pooled},
            "use filters to leave layers out",
            [{"filters": "dense_0", "allocation": pooled}],
        )
        for pooled in ("global", "lamp")
    ],
    *[
        (
            {"sparsity": DIFFERENT, "allocation": shared},
            "pass a number, use filters to leave layers out, or use allocation='uniform' with the mapping",
            [
                {"sparsity": 0.5, "allocation": shared},
                {"sparsity": 0.5, "filters": "dense_[02]", "allocation": shared},
                {"sparsity": DIFFERENT, "allocation": "uniform"},
            ],
        )
        for shared in ("global", "lamp", "erk")
    ],
    ({"steps": 0}, "expected a whole number of at least 1", [{"steps": 1}, {"steps": 2}]),
    (
        {**over_data, "data": "data.npy"},
        "expected an array, a list of arrays or a mapping of them, a tf.data.Dataset, or a function that returns an",
        [
            {**over_data, "data": data}
            for data in (X, [X], {"features": X}, tf.data.Dataset.from_tensor_slices(X).batch(5), lambda: [X[:1]])
        ],
    ),
    (
        {**over_data, "data": lambda: 3},
        "expected an iterable of samples with a batch dimension, each an array, a list of arrays or a mapping from",
        [{**over_data, "data": lambda: iter([X[:1], [X[1:2]], {"features": X[2:3]}])}],
    ),
    ({**over_data, "data": [X, X]}, "pass one array", [{**over_data, "data": X}]),
    (
        {**over_data, "data": {"x": X}},
        r"the model's inputs are \['features'\]",
        [{**over_data, "data": {"features": X}}],
    ),
    ({**over_data, "data": X * 1j}, "expected real numbers", [{**over_data, "data": X}]),
]


@pytest.mark.parametrize(("arguments", "message", "remedies"), ARGUMENTS)
def test_arguments_that_an_error_names_are_taken(arguments, message, remedies):
    model = perceptron()
    with pytest.raises((TypeError, ValueError), match=message):
        prune(model, **arguments)
    sound = model.get_weights()
    for remedy in remedies:
        model.set_weights(sound)
        sparsity = remedy.get("sparsity", 0.5)
        asked = sparsity.values() if isinstance(sparsity, Mapping) else [sparsity]
        assert min(asked) - 0.02 <= prune(model, **remedy).sparsity <= max(asked) + 0.02


@pytest.mark.parametrize(
    ("choice", "kind", "wrong", "message", "remedies"),
    [
        (
            "score",
            Lookahead,
            {"look": "x"},
            "use 'back', 'ahead' or 'both'",
            [{"look": s} for s in ("back", "ahead", "both")],
        ),
        (
            "score",
            Lookahead,
            {"distance": -1},
            "a whole number of at least 0, or None",
            [{"distance": 0}, {"distance": None}],
        ),
        ("score", Random, {"seed": "x"}, "expected an integer", [{"seed": 7}]),
        ("pattern", Blocks, {"outputs": 0, "inputs": 4}, "a whole number of at least 1", [{"outputs": 1, "inputs": 4}]),
    ],
)
def test_fields_of_choices_that_an_error_names_are_taken(choice, kind, wrong, message, remedies):
    with pytest.raises((TypeError, ValueError), match=message):
        kind(**wrong)
    for remedy in remedies:
        assert prune(perceptron(), **{choice: kind(**remedy)}).sparsity == pytest.approx(0.5, abs=0.02)


Schedule = tf_lap.LookaheadPruningSchedule
SCHEDULES = [
    ({"decay": "cosine"}, "use one of", [{"decay": d} for d in ("polynomial", "geometric", "one_shot", "constant")]),
    ({"initial_sparsity": 0.95}, "give at most 0.9", [{"initial_sparsity": 0.9}]),
    ({"begin_step": 2, "begin_epoch": 1}, "give one of them", [{"begin_step": 2}, {"begin_epoch": 1}]),
    ({"end_step": 20, "end_epoch": 1}, "give one of them", [{"end_step": 20}, {"end_epoch": 1}]),
    ({"begin_step": 9, "end_step": 9}, "end_step=9 must lie behind begin_step=9", [{"begin_step": 9, "end_step": 10}]),
    ({"begin_epoch": 2, "end_epoch": 1}, "must lie behind", [{"begin_epoch": 1, "end_epoch": 2}]),
    ({"end_step": 5.5}, "expected an integer number of training steps", [{"end_step": 5}]),
    ({"frequency": 0}, "must be at least 1", [{"frequency": 1}]),
    ({"end_epoch": "2"}, "expected a number of epochs", [{"end_epoch": 2}, {"end_epoch": 1.5}]),
    ({"begin_epoch": -1}, "must be at least 0", [{"begin_epoch": 0}]),
    ({"power": "3"}, "expected a number above 0", [{"power": 3}]),
    ({"power": 0}, "must be above 0", [{"power": 0.5}]),
]


@pytest.mark.parametrize(("arguments", "message", "remedies"), SCHEDULES)
def test_fields_of_a_schedule_that_an_error_names_are_taken(arguments, message, remedies):
    with pytest.raises((TypeError, ValueError), match=message):
        Schedule(0.9, **arguments)
    for remedy in remedies:
        schedule = Schedule(0.9, **remedy).for_training(30, steps_per_epoch=10)
        assert schedule.sparsity_at(schedule.last_step) == 0.9
        assert schedule.is_due(schedule.last_step)


def test_a_schedule_without_steps_is_asked_when_it_has_some():
    schedule = Schedule(0.9)
    with pytest.raises(ValueError, match=r"give begin_step, end_step and frequency, or the schedule that for_training"):
        schedule(20)
    complete = dataclasses.replace(schedule, begin_step=0, end_step=20, frequency=5)
    for remedy in (complete, schedule.for_training(30)):
        assert float(remedy(20)[1]) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="give end_step, or pass steps_per_epoch to fit"):
        Schedule(0.9, end_epoch=2).for_training(30)
    assert Schedule(0.9, end_step=20).for_training(30).end_step == 20
    assert Schedule(0.9, end_epoch=2).for_training(30, steps_per_epoch=10).end_step == 20


@pytest.mark.parametrize("step", [4.0, np.float32(4)])
def test_a_step_is_asked_for_as_an_integer(step):
    schedule = Schedule(0.9, end_step=4)
    with pytest.raises(TypeError, match="expected an integer, or an integer scalar tensor"):
        schedule(step)
    for remedy in (int(step), tf.cast(step, tf.int64)):
        assert float(schedule(remedy)[1]) == pytest.approx(0.9)
