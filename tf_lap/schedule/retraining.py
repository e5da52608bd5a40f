"""Learning rates for retraining what is pruned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tf_lap.compat import learning_rates
from tf_lap.schedule.arguments import check_step


def retraining_rate(
    model: Any,
    peak: float | None = None,
    steps: int | None = None,
    *,
    rewind: Callable[[Any], Any] | None = None,
    rewind_step: int | None = None,
    begin_step: int = 0,
) -> Any:
    """A learning-rate schedule for retraining a pruned model, or for the whole fit that prunes it.

    Either from a peak to zero in a straight line (Zimmer et al., 2023, "How I learned to stop worrying and love
    retraining"); or the schedule that the model was trained with, gone back to a step of it (Renda et al., 2020,
    "Comparing rewinding and fine-tuning in neural network pruning").

    Steps are those that the optimizer counts. An optimizer made anew, as for `compile`, counts from 0.

    The straight line from step 0 is Keras's own `PolynomialDecay`. The others are classes of tf_lap: to load a model
    that was saved compiled with one, tf_lap is needed too, or `load_model(path, compile=False)`. A function as `rewind`
    can be loaded where it is registered with `keras.saving.register_keras_serializable`.

    Example:

    >>> report = tf_lap.prune(model, 0.9)
    >>> rate = tf_lap.retraining_rate(model, peak=0.1, steps=20)
    >>> [round(float(rate(step)), 3) for step in (0, 10, 20)]
    [0.1, 0.05, 0.0]
    >>> model.compile(keras.optimizers.SGD(rate, momentum=0.9), "sparse_categorical_crossentropy")
    >>> history = model.fit(x, y, batch_size=16, epochs=5, callbacks=[tf_lap.PreserveSparsity()], verbose=0)
    >>> trained_with = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=1000)
    >>> again = tf_lap.retraining_rate(model, rewind=trained_with, rewind_step=500)  # its second half
    >>> float(again(0)) == float(trained_with(500))
    True

    Args:
        model: the model that is retrained, of Keras 3 or tf_keras: the schedule is for optimizers of its Keras.
        peak: the learning rate at `begin_step`, above 0, where it goes to zero in a straight line.
        steps: after how many steps more it is zero. It stays zero.
        rewind: a learning-rate schedule of the model's Keras, or a function of a step, that is gone back to.
        rewind_step: the step of it that is gone back to.
        begin_step: the optimizer's step at which retraining begins. Before it, the rate is what it is there.

    Returns:
        A `LearningRateSchedule` of the model's Keras.

    Raises:
        ValueError: a straight line and a rewound schedule at once, half of one of them, or neither; a peak or a number
            of steps that is not above 0, a negative step, or a schedule of another Keras than the model.
        TypeError: what is no model, number, or function.
    """
    arguments = {"peak": peak, "steps": steps, "rewind": rewind, "rewind_step": rewind_step}
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if set(arguments) not in ({"peak", "steps"}, {"rewind", "rewind_step"}):
        shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items()) or "neither"
        raise ValueError(
            f"retraining_rate was given {shown}: give peak and steps, for a straight line to zero, or rewind and "
            "rewind_step, to go back to a step of another schedule"
        )
    begin = check_step("begin_step", begin_step, 0) or 0
    if rewind is None:
        rate = learning_rates.make_linear_rate(model, _check_peak(peak), check_step("steps", steps, 1) or 1)
        return learning_rates.make_rewound_rate(model, rate, 0, begin) if begin else rate
    if not callable(rewind) or isinstance(rewind, type):
        raise TypeError(f"rewind={rewind!r}: expected a learning-rate schedule, or a function of a step")
    return learning_rates.make_rewound_rate(model, rewind, check_step("rewind_step", rewind_step, 0) or 0, begin)


def _check_peak(peak: Any) -> float:
    """A learning rate as a float; raises TypeError or ValueError for anything but a finite number above 0."""
    if isinstance(peak, (bool, str)) or not hasattr(peak, "__float__"):
        raise TypeError(f"peak={peak!r}: expected a learning rate, such as 0.1")
    if not 0 < float(peak) < math.inf:
        raise ValueError(f"peak={peak} must be a finite number above 0")
    return float(peak)
