"""Steps are counted in every way that Keras tells of batches."""

import types

import pytest

from tf_lap.callbacks.step_counter import StepCounter


class Trained:
    """A model with an optimizer that counts what it is told."""

    steps_per_execution = 1

    def __init__(self, accumulation=None):
        self.optimizer = types.SimpleNamespace(iterations=0, gradient_accumulation_steps=accumulation)

    def advance(self, iterations):
        self.optimizer.iterations += iterations


def counted(counter, model, executions):
    """The steps of executions given as (first batch, last batch as Keras tells it, iterations of the optimizer)."""
    steps = []
    for first, last, iterations in executions:
        counter.begin(first)
        model.advance(iterations)
        steps.append(counter.end(last))
    return steps


@pytest.mark.parametrize("moves", [0, 1])
def test_single_batches_count_one_each_whatever_the_optimizer_does(moves):
    model = Trained()
    assert counted(StepCounter(model, None), model, [(0, 0, moves), (1, 1, moves), (2, 2, moves)]) == [1, 1, 1]


def test_a_known_length_cuts_the_last_execution_short():
    model = Trained()
    assert counted(StepCounter(model, 10), model, [(0, 3, 0), (4, 7, 0), (8, 11, 0), (0, 3, 0)]) == [4, 4, 2, 4]


def test_of_an_unknown_length_the_optimizer_tells_how_short_the_last_execution_was():
    model = Trained()
    epoch = [(0, 3, 4), (4, 7, 4), (8, 11, 2)]
    assert counted(StepCounter(model, None), model, epoch * 2) == [4, 4, 2] * 2


def test_an_optimizer_that_stands_still_is_not_asked():
    model = Trained()
    assert counted(StepCounter(model, None), model, [(0, 1, 0), (2, 3, 0), (4, 5, 0)]) == [2, 2, 2]


def test_an_optimizer_that_moves_in_some_steps_only_is_not_asked_once_that_shows():
    model = Trained()
    assert sum(counted(StepCounter(model, None), model, [(0, 3, 2), (4, 7, 2), (8, 11, 2)])) == 12


def test_an_optimizer_that_moves_twice_a_step_counts_once():
    model = Trained()
    assert counted(StepCounter(model, None), model, [(0, 3, 8), (4, 7, 8)]) == [4, 4]


def test_accumulated_gradients_count_when_they_are_applied():
    model = Trained(accumulation=4)
    assert counted(StepCounter(model, None), model, [(0, 1, 0), (2, 3, 1), (4, 5, 0), (6, 7, 1)]) == [0, 4, 0, 4]


def test_without_an_optimizer_batches_are_counted():
    model = Trained()
    model.optimizer = None
    counter = StepCounter(model, None)
    counter.begin(0)
    assert counter.end(3) == 4
