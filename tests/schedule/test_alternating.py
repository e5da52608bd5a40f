"""Dense and sparse phases by turns."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tf_lap import LookaheadPruningSchedule as Schedule


def alternating(sparsity=0.9, **arguments):
    return Schedule(sparsity, decay="alternating", **arguments)


def phases_of(schedule, steps):
    """The sparsity at each step, by the last update before it or at it."""
    sparsities, now = [], 0.0
    for step in range(steps):
        if schedule.is_due(step):
            now = schedule.sparsity_at(step)
        sparsities.append(now)
    return sparsities


def test_sparse_and_dense_phases_take_turns_and_the_last_is_sparse():
    schedule = alternating(begin_step=10, end_step=50, frequency=10)
    expected = [0.0] * 10 + [0.9] * 10 + [0.0] * 10 + [0.9] * 10 + [0.0] * 10 + [0.9] * 30
    assert phases_of(schedule, 80) == expected
    assert [schedule.is_dense(step) for step in range(80)] == [sparsity == 0 for sparsity in expected]
    assert schedule.last_step == 50


def test_an_end_inside_a_dense_phase_cuts_it_short_and_one_inside_a_sparse_phase_changes_nothing():
    assert phases_of(alternating(end_step=15, frequency=10), 30) == [0.9] * 10 + [0.0] * 5 + [0.9] * 15
    assert phases_of(alternating(end_step=25, frequency=10), 40) == [0.9] * 10 + [0.0] * 10 + [0.9] * 20


@pytest.mark.parametrize("arguments", [
    {"begin_step": 13, "end_step": 90, "frequency": 7},
    {"end_step": 44, "phases": 2},
    {"begin_step": 40, "end_step": 80, "frequency": 20},
])  # fmt: skip
def test_tensors_and_integers_agree(arguments):
    schedule = alternating(**arguments)
    traced = tf.function(schedule)
    for step in range(120):
        expected = (schedule.is_due(step), np.float32(schedule.sparsity_at(step)))
        for due, sparsity in (schedule(step), traced(tf.constant(step, tf.int64))):
            assert (bool(due), float(sparsity)) == expected, step


def test_a_mapping_gives_each_layer_its_own():
    schedule = alternating({"dense": 0.5, "conv.*": 0.9}, end_step=20, frequency=5)
    assert schedule.sparsity_at(0) == schedule.sparsity_at(20) == {"dense": 0.5, "conv.*": 0.9}
    assert schedule.sparsity_at(5) == {"dense": 0.0, "conv.*": 0.0}
    assert {key: float(sparsity) for key, sparsity in schedule(5)[1].items()} == {"dense": 0.0, "conv.*": 0.0}


def test_phases_give_their_length():
    assert alternating(end_step=80, phases=4) == alternating(begin_step=0, end_step=80, frequency=10)
    assert alternating(end_step=60).frequency == 10  # three dense phases by default


@pytest.mark.parametrize("steps", [30, 100, 3000, 123_457])
def test_alone_it_takes_its_steps_from_the_training(steps):
    schedule = alternating()
    assert not schedule.has_steps
    fitted = schedule.for_training(steps)
    assert (fitted.begin_step, fitted.end_step) == (round(steps / 5), round(steps * 2 / 3))
    starts = np.diff(list(map(fitted.is_dense, range(steps))))
    assert np.count_nonzero(starts) == 7  # dense, then three times sparse and dense, then sparse
    longest = (fitted.end_step - fitted.begin_step) // 6
    assert fitted.frequency == longest
    assert not fitted.is_dense(fitted.end_step)
    assert alternating(phases=1).for_training(300) == alternating(begin_step=60, end_step=200, frequency=70)
    assert alternating(frequency=20).for_training(300) == alternating(begin_step=60, end_step=200, frequency=20)
    assert alternating(begin_epoch=1, end_epoch=3, phases=2).for_training(300, steps_per_epoch=50) == alternating(
        begin_step=50, end_step=150, frequency=25
    )


def test_a_config_makes_an_equal_schedule():
    for schedule in (alternating(), alternating(phases=5), alternating(end_step=20, frequency=5)):
        config = json.loads(json.dumps(schedule.get_config()))
        assert Schedule.from_config(config) == schedule
        del config["config"]["phases"]  # as configurations of older versions
        assert schedule.phases or Schedule.from_config(config) == schedule


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"end_step": 80, "phases": 2, "frequency": 5}, "phases=2 and frequency=5 both give the length of a phase"),
        ({"phases": 2, "frequency": 5}, "phases=2 and frequency=5 both give the length of a phase"),
        ({"end_step": 80, "phases": 0}, "phases=0 must be at least 1"),
        ({"end_step": 5, "phases": 3}, "begin_step=0 and end_step=5 there is no room for 3 dense phases .*fewer"),
        ({"end_step": 5, "frequency": 5}, "there is no room for one dense phase .* a lower frequency"),
        ({"end_step": 50, "initial_sparsity": 0.2}, "initial_sparsity=0.2: dense phases of decay='alternating'"),
        ({"begin_step": 5, "end_step": 5}, "end_step=5 must lie behind begin_step=5"),
    ],
)
def test_what_makes_no_sense_is_a_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        alternating(**arguments)


def test_phases_belong_to_alternating_alone():
    with pytest.raises(ValueError, match="phases=2 goes with decay='alternating' alone, and this is decay='geometric'"):
        Schedule(0.9, decay="geometric", end_step=5, phases=2)
    with pytest.raises(TypeError, match="phases='two': expected an integer"):
        alternating(phases="two")
    with pytest.raises(ValueError, match="no room for 3 dense phases"):
        alternating().for_training(9)


def test_only_alternating_schedules_have_dense_phases():
    assert not Schedule(0.9, begin_step=20, end_step=60).is_dense(0)
    with pytest.raises(ValueError, match="leaves its steps to the training"):
        alternating().is_dense(0)
