"""A search that was stopped goes on from its file, and refuses that of another one."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from searched import build_model, find, kept_fraction, never, state

import tf_lap


def test_a_key_leaves_the_model_as_it_was_and_what_was_evaluated_in_the_file(tmp_path):
    model, path, calls = build_model(), tmp_path / "search.json", []
    before = state(model)

    def stop(model):
        calls.append(model)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return kept_fraction(model)

    with pytest.raises(KeyboardInterrupt):
        find(model, stop, path=path)
    assert state(model) == before
    assert len(json.loads(path.read_text())["evaluations"]) == 2
    resumed = find(model, stop, path=path)
    through = find(model)
    assert resumed == through
    assert len(calls) == 4 + len(through.evaluations) - 2
    assert find(model, never, path=path) == through


@dataclasses.dataclass(frozen=True)
class Rounded(tf_lap.scores.Score):
    digits: int = 1
    distance = 0

    def score(self, kernel, weights, incoming, outgoing):
        return tf.round(tf.abs(weights) * 10**self.digits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_drop": 0.2}, "had max_drop=0.3, and this one has 0.2: pass the same, name another file, or delete it"),
        ({"scores": Rounded(2)}, "had choices="),
        ({"scores": ["magnitude", "random"]}, "had choices="),
        ({"filters": ["first"]}, r"had layers=\['first', 'head', 'second'\], and this one has \['first'\]"),
        ({"tolerance": 0.1}, "had tolerance=0.01"),
        ({"higher_is_better": False}, "had higher_is_better=True"),
        ({"order": "forward"}, "had order=simultaneous"),
    ],
)
def test_a_file_of_other_arguments_is_refused(arguments, message, tmp_path):
    model = build_model()
    find(model, path=tmp_path / "search.json", scores=Rounded())
    with pytest.raises(ValueError, match=message):
        find(model, never, **{"scores": Rounded(), "path": tmp_path / "search.json", **arguments})


def test_a_file_of_other_weights_or_data_is_refused(tmp_path):
    model, path, x = build_model(), tmp_path / "search.json", np.ones((4, 12), np.float32)
    find(model, path=path, scores="lookahead_activation", data=x)
    with pytest.raises(ValueError, match="had other data"):
        find(model, never, path=path, scores="lookahead_activation", data=2 * x)
    model.get_layer("norm").beta.assign(np.ones(24))
    with pytest.raises(ValueError, match="was of a model with other weights: load those"):
        find(model, never, path=path, scores="lookahead_activation", data=x)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other"}', '{"format": "tf_lap search 1"}'])
def test_a_file_that_is_none_of_a_search(content, tmp_path):
    path = tmp_path / "search.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="is damaged, or is no file of find_sparsity"):
        find(build_model(), never, path=path)
    assert path.read_text() == content
