"""What the schedules of wrappers ask for, in tfmot's steps, whose first is 1."""

from __future__ import annotations

import copy
from typing import Any

import tensorflow as tf

from tf_lap.schedule import LookaheadPruningSchedule

_STEPS = ("begin_step", "end_step", "frequency")


def schedule_key(wrapper: Any) -> Any:
    """What is equal for wrappers that share a schedule: they are due at the same steps."""
    schedule = wrapper.pruning_schedule
    if wrapper.sparsity_m_by_n or not hasattr(schedule, "get_config"):
        return wrapper
    return type(schedule), repr(vars(schedule))


def check_schedule(schedule: Any) -> None:
    """Raises ValueError where a schedule counts in parts of steps, or has dense phases."""
    if isinstance(schedule, LookaheadPruningSchedule) and schedule.alternates:
        raise ValueError(
            "pruning_schedule has decay='alternating', in whose dense phases pruned weights return, and what a wrapper "
            "of tf_lap prunes stays pruned: use tf_lap.LAPCallback in fit, or another decay, such as 'polynomial'"
        )
    for name in _STEPS:
        steps = getattr(schedule, name, None)
        # Floats of NumPy are not meant: tfmot takes them, whole or not.
        if type(steps) is float and not steps.is_integer():
            raise ValueError(
                f"{type(schedule).__name__} has {name}={steps}: expected a whole number of steps, such as "
                f"{name}={round(steps)}"
            )


def ask_schedule(schedule: Any, step: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """What a schedule asks for at a step.

    Args:
        schedule: of tfmot or of tf_lap, or a function of a step.
        step: an int64 scalar.

    Returns:
        Whether it is due, and the sparsity in float64 (a mapping of them where the schedule has one).
    """
    if isinstance(schedule, LookaheadPruningSchedule):
        due, sparsity = schedule.precisely(step)
        return due | (tf.equal(step, 1) & schedule.is_due(0)), sparsity
    due, sparsity = _with_integer_steps(schedule)(step)
    # What a float32 stands for: 0.9 is a little less in float32, and would keep one weight too many now and then.
    return due, tf.round(tf.cast(sparsity, tf.float64) * 1e7) / 1e7


def find_last_sparsity(schedule: Any, step: int) -> Any | None:
    """The sparsity that a schedule asked for when it was due last, at a step or before; None where it never was.

    Looked for step by step, from the last one back: a schedule is any function.
    """

    @tf.function
    def search() -> tf.Tensor:
        def is_later(at: tf.Tensor) -> tf.Tensor:
            return (at > 0) & ~ask_schedule(schedule, at)[0]

        return tf.while_loop(is_later, lambda at: (at - 1,), [tf.constant(step, tf.int64)])[0]

    due = search()
    return ask_schedule(schedule, due)[1] if due > 0 else None


def _with_integer_steps(schedule: Any) -> Any:
    """The schedule, with whole floats as integers: tfmot compares them with an integer tensor, which refuses floats."""
    steps = {name: getattr(schedule, name, None) for name in _STEPS}
    integers = {name: int(value) for name, value in steps.items() if isinstance(value, float) and value.is_integer()}
    if not integers:
        return schedule
    schedule = copy.copy(schedule)
    vars(schedule).update(integers)
    return schedule
