import json

import numpy as np
import pytest
import tensorflow as tf

from tf_lap import LookaheadPruningSchedule as Schedule


def test_polynomial_is_zhu_and_guptas_cubic():
    schedule = Schedule(0.9, initial_sparsity=0.3, begin_step=100, end_step=1100, frequency=100)
    for step in range(100, 1101, 100):
        expected = 0.9 + (0.3 - 0.9) * (1 - (step - 100) / 1000) ** 3
        assert schedule.sparsity_at(step) == pytest.approx(expected, abs=1e-12)
        assert float(schedule(step)[1]) == pytest.approx(expected, abs=1e-6)


def test_geometric_removes_the_same_fraction_of_survivors_at_each_update():
    schedule = Schedule(0.99, end_step=1000, frequency=100, decay="geometric")
    left = [1 - schedule.sparsity_at(step) for step in range(0, 1001, 100)]
    ratios = np.array(left[1:]) / left[:-1]
    np.testing.assert_allclose(ratios, 0.01 ** (1 / 10))
    np.testing.assert_allclose(left, [(1 - (1 - ratios[0])) ** t for t in range(11)])


@pytest.mark.parametrize("decay", ["polynomial", "geometric", "constant"])
@pytest.mark.parametrize("frequency", [1, 7, 100, 300, 5000])
def test_the_last_update_reaches_the_final_sparsity_whatever_frequency_divides(decay, frequency):
    schedule = Schedule(0.98, begin_step=13, end_step=1000, frequency=frequency, decay=decay)
    due = [step for step in range(1200) if schedule.is_due(step)]
    assert due[0] == 13
    assert due[-1] == 1000
    assert schedule.sparsity_at(due[-1]) == 0.98
    assert due[:-1] == list(range(13, 1000, frequency))


def test_one_shot_prunes_once():
    schedule = Schedule(0.7, begin_step=5, decay="one_shot")
    assert [step for step in range(500) if schedule.is_due(step)] == [5]
    assert schedule.sparsity_at(5) == 0.7
    assert schedule.last_step == 5


def test_constant_goes_on_without_an_end():
    schedule = Schedule(0.7, begin_step=10, frequency=50, decay="constant")
    assert [step for step in range(200) if schedule.is_due(step)] == [10, 60, 110, 160]
    assert schedule.sparsity_at(10) == schedule.sparsity_at(160) == 0.7


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(0.9, initial_sparsity=0.2, begin_step=3, end_step=40, frequency=7),
        Schedule(0.9, begin_step=3, end_step=40, frequency=7, decay="geometric"),
        Schedule(0.9, begin_step=3, decay="one_shot"),
        Schedule(0.9, begin_step=3, frequency=7, decay="constant"),
        Schedule(0.9, begin_step=3, end_step=31, frequency=7, decay="constant"),
    ],
    ids=lambda s: f"{s.decay}-{s.end_step}",
)
def test_tensors_and_integers_agree(schedule):
    traced = tf.function(schedule)
    for step in range(60):
        due, sparsity = schedule(step)
        assert isinstance(due, tf.Tensor)
        assert due.dtype == tf.bool
        assert sparsity.dtype == tf.float32
        assert bool(due) == schedule.is_due(step)
        if step >= 3:
            assert float(sparsity) == pytest.approx(schedule.sparsity_at(step), abs=1e-6)
        in_graph = traced(tf.constant(step, tf.int64))
        assert bool(in_graph[0]) == bool(due)
        assert float(in_graph[1]) == float(sparsity)


def test_a_mapping_gives_each_layer_its_own():
    schedule = Schedule({"dense": 0.5, "conv.*": 0.9}, end_step=10)
    assert schedule.sparsity_at(10) == {"dense": 0.5, "conv.*": 0.9}
    assert {k: round(float(v), 4) for k, v in schedule(10)[1].items()} == {"dense": 0.5, "conv.*": 0.9}
    assert schedule.sparsity_at(0) == {"dense": 0.0, "conv.*": pytest.approx(0.0)}


@pytest.mark.parametrize("final", [0.9, {"dense": 0.5}])
def test_a_config_makes_an_equal_schedule(final):
    schedule = Schedule(final, initial_sparsity=0.1, begin_step=2, end_step=9, frequency=3, decay="geometric", power=2)
    config = json.loads(json.dumps(schedule.get_config()))
    assert Schedule.from_config(config) == schedule


def test_numpy_scalars_become_plain_numbers():
    schedule = Schedule(np.float32(0.5), begin_step=np.int64(2), end_step=tf.constant(10), frequency=np.int32(3))
    config = json.loads(json.dumps(schedule.get_config()))["config"]
    assert (config["final_sparsity"], config["begin_step"], config["end_step"], config["frequency"]) == (0.5, 2, 10, 3)
    assert schedule.is_due(np.int64(5))


@pytest.mark.parametrize("step", [2.5, "x"])
def test_a_step_that_is_no_integer_is_an_error(step):
    with pytest.raises(TypeError, match=f"step={step!r}: expected an integer"):
        Schedule(0.9, end_step=10)(step)


def test_it_agrees_with_tfmots_schedules(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")  # tfmot sets it for good; this way it is undone
    tfmot = pytest.importorskip("tensorflow_model_optimization")
    tfmot_keras = tfmot.sparsity.keras
    pairs = [
        (Schedule(0.9, initial_sparsity=0.2, begin_step=10, end_step=110, frequency=10),
         tfmot_keras.PolynomialDecay(0.2, 0.9, 10, 110, frequency=10)),
        (Schedule(0.9, begin_step=10, end_step=110, frequency=20, decay="constant"),
         tfmot_keras.ConstantSparsity(0.9, 10, 110, frequency=20)),
        (Schedule(0.9, begin_step=10, frequency=20, decay="constant"),
         tfmot_keras.ConstantSparsity(0.9, 10, frequency=20)),
    ]  # fmt: skip
    for schedule, tfmot_schedule in pairs:
        for step in range(10, 150):
            due, sparsity = schedule(step)
            tfmot_due, tfmot_sparsity = tfmot_schedule(step)
            assert bool(due) == bool(tfmot_due), step
            assert float(sparsity) == pytest.approx(float(tfmot_sparsity), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"final_sparsity": 1.0, "end_step": 5}, r"final_sparsity=1.0: .* lies in \[0, 1\)"),
        ({"final_sparsity": -0.1, "end_step": 5}, r"final_sparsity=-0.1"),
        ({"final_sparsity": float("nan"), "end_step": 5}, r"final_sparsity=nan"),
        ({"final_sparsity": {"dense": 2}, "end_step": 5}, r"final_sparsity\['dense'\]=2"),
        ({"final_sparsity": {}, "end_step": 5}, "empty mapping"),
        ({"final_sparsity": 0.5, "initial_sparsity": 0.6, "end_step": 5}, "lies above the final sparsity 0.5"),
        ({"final_sparsity": 0.5, "initial_sparsity": 1.5, "end_step": 5}, "initial_sparsity=1.5"),
        ({"final_sparsity": 0.5, "begin_step": 9, "end_step": 5}, "end_step=5 must lie behind begin_step=9"),
        ({"final_sparsity": 0.5, "begin_step": 5, "end_step": 5}, "end_step=5 must lie behind begin_step=5"),
        ({"final_sparsity": 0.5, "end_step": 5, "frequency": 0}, "frequency=0 must be at least 1"),
        ({"final_sparsity": 0.5, "begin_step": -1, "end_step": 5}, "begin_step=-1 must be at least 0"),
        ({"final_sparsity": 0.5, "begin_epoch": 2, "end_epoch": 1}, "end_epoch=1.0 must lie behind begin_epoch=2.0"),
        ({"final_sparsity": 0.5, "begin_epoch": -1}, "begin_epoch=-1 must be at least 0"),
        ({"final_sparsity": 0.5, "begin_step": 1, "begin_epoch": 1}, "begin_step=1 and begin_epoch=1 say the same"),
        ({"final_sparsity": 0.5, "end_step": 1, "end_epoch": 1}, "end_step=1 and end_epoch=1 say the same thing"),
        ({"final_sparsity": 0.5, "end_step": 5, "decay": "cosine"}, "decay='cosine' is not known: use one of"),
        ({"final_sparsity": 0.5, "end_step": 5, "power": 0}, "power=0 must be above 0"),
    ],
)
def test_what_makes_no_sense_is_a_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"final_sparsity": "0.9", "end_step": 5}, "final_sparsity='0.9': expected the fraction of zeros"),
        ({"final_sparsity": True, "end_step": 5}, "final_sparsity=True"),
        ({"final_sparsity": 0.9, "end_step": 5.5}, "end_step=5.5: expected an integer"),
        ({"final_sparsity": 0.9, "end_epoch": "5"}, "end_epoch='5': expected a number of epochs"),
        ({"final_sparsity": 0.9, "end_step": 5, "frequency": "often"}, "frequency='often': expected an integer"),
        ({"final_sparsity": 0.9, "end_step": 5, "power": "3"}, "power='3': expected a number above 0"),
    ],
)
def test_what_is_no_number_is_a_type_error(arguments, message):
    with pytest.raises(TypeError, match=message):
        Schedule(**arguments)


def test_whole_floats_are_steps():
    schedule = Schedule(0.9, begin_step=2.0, end_step=np.float64(1000.0), frequency=50.0)
    assert schedule == Schedule(0.9, begin_step=2, end_step=1000, frequency=50)
    assert schedule.is_due(52)


@pytest.mark.parametrize("decay", ["polynomial", "geometric"])
@pytest.mark.parametrize("steps", [15, 100, 3000, 123_457])
def test_alone_it_trains_dense_for_a_fifth_and_fine_tunes_for_a_third_with_about_fifty_updates_between(decay, steps):
    schedule = Schedule(0.9, decay=decay)
    assert not schedule.has_steps
    fitted = schedule.for_training(steps)
    assert fitted.has_steps
    assert fitted.begin_step == round(steps / 5)
    assert fitted.end_step == fitted.last_step == round(steps * 2 / 3)
    updates = sum(fitted.is_due(step) for step in range(steps))
    assert min(steps * 2 // 3 - steps // 5, 49) <= updates <= 100
    if steps >= 3000:
        assert 50 <= updates <= 53
    assert fitted.for_training(7) is fitted


def test_what_is_given_stays_beside_what_the_training_gives():
    assert Schedule(0.9, begin_step=7).for_training(300) == Schedule(0.9, begin_step=7, end_step=200, frequency=3)
    assert Schedule(0.9, frequency=20).for_training(300) == Schedule(0.9, begin_step=60, end_step=200, frequency=20)
    assert Schedule(0.9, begin_epoch=1.5, end_epoch=4).for_training(300, steps_per_epoch=50) == Schedule(
        0.9, begin_step=75, end_step=200, frequency=2
    )
    assert Schedule(0.9, end_epoch=4).for_training(300, steps_per_epoch=50, first_step=10) == Schedule(
        0.9, begin_step=0, end_step=210, frequency=4
    )
    assert Schedule(0.9, begin_epoch=2, decay="one_shot").for_training(300, steps_per_epoch=50) == Schedule(
        0.9, begin_step=100, decay="one_shot"
    )
    assert Schedule(0.9, begin_epoch=2, end_epoch=3, decay="constant").for_training(
        300, steps_per_epoch=50
    ) == Schedule(0.9, begin_step=100, end_step=150, decay="constant")


def test_without_steps_it_says_who_knows_them_and_what_to_give():
    schedule = Schedule(0.9)
    for ask in (schedule, schedule.is_due, schedule.precisely, lambda step: schedule.last_step):
        with pytest.raises(
            ValueError, match=r"leaves its steps to the training.*give begin_step, end_step and frequency"
        ):
            ask(3)
    with pytest.raises(ValueError, match=r"end_epoch=2.0, and how many steps an epoch has is not known: give end_step"):
        Schedule(0.9, end_epoch=2).for_training(100)
    with pytest.raises(ValueError, match="ends at step 100, and pruning would begin at step 80 and end at step 67"):
        Schedule(0.9, begin_step=80).for_training(100)


def test_a_config_keeps_what_the_training_gives_open():
    for schedule in (Schedule(0.9), Schedule(0.9, begin_epoch=1, end_epoch=2.5)):
        config = json.loads(json.dumps(schedule.get_config()))
        assert Schedule.from_config(config) == schedule
