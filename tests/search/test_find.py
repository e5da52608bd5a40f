"""`find_sparsity` finds the sparsest model within a drop that it measured, and `best` makes it."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from searched import build_model, find, kept_fraction, kept_norm, kernels, libraries, never, state

import tf_lap
from tf_lap.warn import PruningWarning


@pytest.mark.parametrize("library", libraries(), ids=lambda library: library.__name__)
def test_the_best_is_as_near_to_the_drop_as_the_tolerance(library):
    model = build_model(library)
    before = state(model)
    result = find(model)
    assert 0.29 <= result.sparsity <= 0.3
    assert result.best_evaluation.value >= 0.7
    assert state(model) == before


@pytest.mark.parametrize(
    "choices",
    [
        {"scores": ["lookahead", "magnitude"], "allocations": ["global", "lamp", "uniform"]},
        {"scores": tf_lap.scores.Lookahead(distance=2), "order": "forward"},
        {"scores": {"class_name": "magnitude", "config": {}}, "patterns": ["2:4", "block:1x4"]},
        {"scores": "random", "filters": ["second", "head"]},
        {"neighbors": {"second": (["first"], [])}, "scores": "lookahead"},
    ],
    ids=lambda choices: "-".join(choices),
)
def test_the_best_can_be_pruned_with_and_gives_the_very_model_that_was_measured(choices):
    model = build_model()
    models = []

    def keep(model):
        models.append((kept_norm(model), kernels(model)))
        return models[-1][0]

    result = find(model, keep, 0.5, relative=True, **choices)
    measured = dict(models)[result.best_evaluation.value]
    report = tf_lap.prune(model, **result.best)
    assert report.sparsity == result.sparsity
    assert report.model_sparsity == result.model_sparsity
    for name, kernel in kernels(model).items():
        np.testing.assert_array_equal(kernel, measured[name])


def test_no_other_combination_reaches_further():
    result = find(
        build_model(), kept_norm, 0.3, relative=True, scores=["random", "magnitude"], allocations=["uniform", "global"]
    )
    assert result.best["score"] == "magnitude"
    within = [entry.target for entry in result.evaluations if entry.within]
    assert result.best["sparsity"] == max(within)
    assert len({entry.combination for entry in result.evaluations}) == 4


def test_a_combination_that_does_not_reach_the_best_so_far_is_over_after_one_evaluation():
    result = find(build_model(), kept_norm, 0.3, relative=True, scores=["magnitude", "random"])
    first, second = ([entry for entry in result.evaluations if entry.combination == i] for i in (0, 1))
    assert len(second) == 1 < len(first)
    assert second[0].target == result.best["sparsity"]


def test_of_equally_sparse_models_the_better_one():
    values = iter([1.0, 0.8, 0.9])  # dense, and 2:4 by two scores
    result = find(build_model(), lambda model: next(values), scores=["random", "magnitude"], patterns="2:4")
    assert (result.best["score"], result.best["sparsity"]) == ("magnitude", 0.5)
    assert result.best_evaluation.value == 0.9


def test_a_pattern_of_one_sparsity_is_tried_at_that_and_left_out_where_it_cannot_win():
    model = build_model()
    result = find(model, max_drop=0.6, patterns=["unstructured", "2:4", "1:4"], allocations=["global", "lamp"])
    tried = [result.combinations[entry.combination] for entry in result.evaluations]
    assert tried.count(("magnitude", "uniform", "1:4")) == 1
    assert ("magnitude", "uniform", "2:4") not in tried
    (row,) = [line for line in result.render(100).splitlines() if "2:4" in line]
    assert row.split()[-2:] == ["not", "tried"]


def test_whole_channels_are_tried_with_the_allocations_that_divide_them():
    model = build_model()
    result = find(model, max_drop=0.5, patterns="channels", allocations=["global", "lamp", "uniform"])
    assert set(result.combinations) == {("magnitude", name, "channels") for name in ("global", "uniform")}
    report = tf_lap.prune(model, **result.best)
    assert report.channels.sparsity > 0


def test_values_that_are_not_monotone_give_a_model_that_was_measured():
    def wave(model):
        return float(np.sin(40 * kept_fraction(model)))

    result = find(build_model(), wave, 0.2)
    best = result.best_evaluation
    assert best in result.evaluations
    assert best.within
    assert best.value >= result.goal.limit


def test_lower_is_better_and_a_drop_that_is_a_fraction():
    model = build_model()
    result = find(model, lambda model: 4 - 2 * kept_fraction(model), 0.1, relative=True, higher_is_better=False)
    assert result.goal.limit == pytest.approx(2.2)
    assert 0.09 <= result.sparsity <= 0.1


def test_a_drop_of_exactly_what_is_allowed_is_within_in_float32():
    values = iter([np.float32(0.97), np.float32(0.96)])
    assert find(build_model(), lambda model: next(values), 0.01, patterns="2:4").best["sparsity"] == 0.5


def test_nothing_within_the_drop():
    result = find(build_model(), lambda model: float(kept_fraction(model) == 1), 0.5)
    assert result.best_evaluation is None
    assert (result.sparsity, result.model_sparsity) == (0.0, 0.0)
    assert "no model is within the drop: allow a larger max_drop" in result.render(100)
    assert "none within the drop" in repr(result)
    assert result.to_dict()["best"] is None
    with pytest.raises(ValueError, match="no model of the 7 that were tried is within the drop"):
        _ = result.best


def test_nan_of_a_pruned_model_is_not_within():
    result = find(build_model(), lambda model: 1.0 if kept_fraction(model) > 0.8 else float("nan"))
    assert 0.19 <= result.sparsity <= 0.2
    assert "nan" in result.render(100, all=True)


def test_a_model_that_is_sparse_already_is_made_sparser():
    model = build_model()
    tf_lap.prune(model, 0.6)
    result = find(model, max_drop=0.2)
    assert min(entry.target for entry in result.evaluations) > 0.6
    assert 0.78 <= result.sparsity <= 0.81
    assert tf_lap.prune(model, **result.best).sparsity == result.sparsity


@pytest.mark.filterwarnings("ignore:model .* can be pruned")
def test_frozen_layers_are_left_alone_and_named_embeddings_are_pruned():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(20, 8, name="embedding"),
            layers.Flatten(),
            layers.Dense(8, trainable=False, name="frozen"),
            layers.Dense(4, name="head"),
        ]
    )
    before = [variable.numpy() for variable in model.weights]
    frozen = before[1]

    def measure(model):
        np.testing.assert_array_equal(model.get_layer("frozen").kernel.numpy(), frozen)
        return np.count_nonzero(model.get_layer("embedding").embeddings.numpy()) / 160

    result = find(model, measure, 0.3, filters=["embedding", "head"])
    assert 0.29 <= result.sparsity <= 0.31
    for variable, array in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), array)


def test_a_dataset_that_shuffles_anew_is_read_once():
    model = build_model()
    x = np.random.default_rng(0).standard_normal((64, 12)).astype(np.float32)
    dataset = tf.data.Dataset.from_tensor_slices(x).shuffle(64).take(16).batch(8)
    models = {}

    def keep(model):
        value = kept_norm(model)
        models[value] = kernels(model)
        return value

    result = find(model, keep, 0.5, relative=True, scores=["lookahead_activation", "magnitude"][:1], data=dataset)
    assert "read once" in repr(result.best["data"])
    tf_lap.prune(model, **result.best)
    for name, kernel in kernels(model).items():
        np.testing.assert_array_equal(kernel, models[result.best_evaluation.value][name])


def test_data_go_to_the_scores_that_need_them():
    x = np.ones((8, 12), np.float32)
    result = find(build_model(), scores=["lookahead_activation", "magnitude"], data=x)
    assert {entry.combination for entry in result.evaluations} == {0, 1}
    assert ("data" in result.best) == (result.best["score"] != "magnitude")


def test_lines_say_what_was_tried(capsys):
    result = find(
        build_model(),
        scores=["lookahead_activation", tf_lap.scores.Lookahead(2)],
        patterns="2:4",
        data=np.ones((4, 12), np.float32),
        max_drop=0.6,
        verbose=1,
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "find_sparsity: dense 1.0000; within a drop of 0.6: 0.4000 or higher"
    assert lines[1].split()[:4] == ["1", "lookahead_activation,", "uniform,", "2:4"]
    assert lines[1].split()[4:] == ["50.00%", "0.5000", "within"]
    assert "Lookahead(distance=2), uniform, 2:4" in lines[2]
    assert len(lines) == 1 + len(result.evaluations)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_its_text_fits_and_html_is_escaped(width):
    result = find(
        build_model(),
        scores=["lookahead", tf_lap.scores.Lookahead(distance=2, look="back")],
        allocations=["global", "uniform"],
    )
    for everything in (False, True):
        assert max(map(len, result.render(width, all=everything).splitlines())) <= width
    assert "pattern unstructured" in " ".join(result.render(width).split())
    assert str(result) == result.render()
    page = result._repr_html_()
    assert page.count("<table>") == 2
    assert "look=&#x27;back&#x27;" in page
    assert json.loads(json.dumps(result.to_dict()))["best"]["sparsity"] == result.sparsity


def test_a_loss_that_is_taken_for_an_accuracy_is_warned_of():
    with pytest.warns(
        PruningWarning, match=r"counts as better.* returns a loss or an error, pass higher_is_better=False"
    ):
        find(build_model(), lambda model: 2 - kept_fraction(model))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scores": "loud"}, ValueError, "score='loud' is not known"),
        ({"scores": ["magnitude", "loud"]}, ValueError, "score='loud' is not known"),
        ({"scores": []}, TypeError, r"scores=\[\]: expected a name"),
        ({"scores": None}, TypeError, "scores=None: expected a name"),
        ({"allocations": 3}, TypeError, "allocations=3: expected a name"),
        ({"allocations": ["loud"]}, ValueError, "allocation='loud' is not known"),
        ({"patterns": "4:2"}, ValueError, "drops nothing"),
        ({"patterns": [tf_lap.patterns.Blocks]}, TypeError, "it is a class, not an object"),
        ({"order": "sideways"}, ValueError, "order='sideways' is not known"),
        ({"order": "forward", "allocations": ["uniform", "global"]}, ValueError, "order='forward' chooses one kernel"),
        ({"filters": "loud"}, ValueError, "matches no layer"),
        ({"max_drop": -0.01}, ValueError, "max_drop=-0.01: expected 0 or more"),
        ({"max_drop": float("nan")}, ValueError, "max_drop=nan: expected 0 or more"),
        ({"max_drop": "1%"}, TypeError, "max_drop='1%': expected a number"),
        ({"tolerance": 0}, ValueError, "tolerance=0: expected a difference"),
        ({"data": np.ones((4, 12), np.float32)}, ValueError, "data is given, and nothing here needs it"),
        ({"scores": "obd"}, ValueError, "is measured over data: pass data="),
        ({"scores": "obd", "data": np.ones((4, 5), np.float32)}, ValueError, "samples have"),
        ({"repair": "loud"}, ValueError, "repair='loud' is not known"),
        ({"repair": 3}, TypeError, "repair=3: expected True"),
        ({"repair": "batchnorm"}, ValueError, "are measured over data: pass data="),
        ({"repair": True, "data": np.ones((4, 5), np.float32)}, ValueError, "samples have"),
        ({"repair": False, "data": np.ones((4, 12), np.float32)}, ValueError, "nothing here needs it"),
        ({"evaluate": 0.9}, TypeError, "evaluate=0.9: expected a function"),
        ({"path": "none/there.json"}, FileNotFoundError, "there is no folder 'none'"),
        ({"path": 3}, TypeError, "path=3: expected a path"),
    ],
)
def test_mistakes_are_said_before_the_first_evaluation(arguments, error, message):
    with pytest.raises(error, match=message):
        find(build_model(compiled=False), **{"evaluate": never, **arguments})


@pytest.mark.parametrize("returned", [None, [0.1, 0.9], float("nan")], ids=str)
def test_an_evaluation_that_gives_no_number_leaves_the_model_as_it_was(returned):
    model = build_model()
    before = state(model)
    with pytest.raises((TypeError, ValueError), match="evaluate returned"):
        find(model, lambda model: returned)
    assert state(model) == before


@pytest.mark.parametrize("library", libraries(), ids=lambda library: library.__name__)
@pytest.mark.parametrize("repair", [True, "weights", ["bias", "batchnorm"]], ids=str)
def test_what_is_repaired_is_put_back_and_made_again(library, repair):
    model, x = build_model(library), np.random.default_rng(0).standard_normal((64, 12)).astype(np.float32)
    models = {}

    def keep(model):
        value = kept_norm(model)
        models[value] = [variable.numpy() for variable in model.weights]
        return value

    before = state(model)
    result = find(model, keep, 0.5, relative=True, patterns="2:4", repair=repair, data=x)
    assert state(model) == before
    assert result.best["repair"] == repair
    tf_lap.prune(model, **result.best)
    for variable, array in zip(model.weights, models[result.best_evaluation.value], strict=True):
        np.testing.assert_array_equal(variable.numpy(), array)
