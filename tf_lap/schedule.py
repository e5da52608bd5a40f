"""When to prune, and how far: sparsity as a function of the training step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tf_lap.allocation import Sparsity, check_fraction, check_sparsity
from tf_lap.choices import Configurable

if TYPE_CHECKING:
    from typing_extensions import Self

# For each decay: the sparsity when a fraction of the way from begin_step to end_step is done, for
# Python numbers and for tensors alike.
_DECAYS: dict[str, Callable[[Any, float, float, float], Any]] = {
    "polynomial": lambda done, initial, final, power: final + (initial - final) * (1 - done) ** power,
    "geometric": lambda done, initial, final, power: 1 - (1 - initial) * ((1 - final) / (1 - initial)) ** done,
    "one_shot": lambda done, initial, final, power: final,
    "constant": lambda done, initial, final, power: final,
}
_WITH_END = ("polynomial", "geometric")

# What a schedule without steps makes of a training: which part of it comes before the first update, by which part the
# final sparsity is reached, and how many updates lie between.
DENSE_PART = 1 / 5
PRUNED_PART = 2 / 3
UPDATES = 50
_FREQUENCY = 100

REGISTERED_NAME = "tf_lap>LookaheadPruningSchedule"
"""What files of tf_keras call this class; `tf_lap.tfmot` registers it there."""


@dataclasses.dataclass(frozen=True)
class LookaheadPruningSchedule(Configurable):
    """The sparsity to reach at each training step.

    Masks are updated at `begin_step`, every `frequency` steps after it, and always at `end_step`, where the sparsity
    is exactly `final_sparsity`. Steps count training batches; step 0 is before the first.

    `LookaheadPruningSchedule(0.9)` alone leaves the steps to `LAPCallback`, which takes them from the length of the
    fit: the first fifth trains dense, the last third fine-tunes at the final sparsity, and about fifty updates lie
    between. `begin_epoch` and `end_epoch` say the same as steps do, in epochs of the fit.

    * `"polynomial"`: `final + (initial - final) * (1 - done) ** power`, where `done` goes from 0 at `begin_step`
      to 1 at `end_step` (Zhu and Gupta, 2017, with power 3).
    * `"geometric"`: every update removes the same fraction of the survivors, `(1 - p) ** t` of them left
      after t updates (Park et al., 2020).
    * `"one_shot"`: one update at `begin_step`, to `final_sparsity`.
    * `"constant"`: `final_sparsity` from `begin_step` on, chosen anew every `frequency` steps until
      `end_step`, where it is given. Weights once pruned stay pruned.

    tfmot's PolynomialDecay and ConstantSparsity give the same for the same arguments, with these differences: here
    the last update is due at `end_step` whatever `frequency` divides; a constant schedule without an end has
    `end_step=None` and not -1; an initial sparsity above the final one is an error.

    Example:

    >>> schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=1000, frequency=100)
    >>> should_prune, sparsity = schedule(1000)
    >>> bool(should_prune), round(float(sparsity), 3)
    (True, 0.9)
    >>> tf_lap.LookaheadPruningSchedule(0.9).for_training(steps=3000).end_step
    2000

    Args:
        final_sparsity: the fraction of zeros to reach, in [0, 1), or a mapping from layer paths or regular
            expressions to fractions.
        initial_sparsity: the fraction of zeros at `begin_step`, in [0, 1) and not above the final one.
        begin_step: the step of the first update. By default 0 where the end is given or not needed, else a fifth of
            the training.
        end_step: the step of the last update. Polynomial and geometric need an end; by default it comes after two
            thirds of the training.
        frequency: steps between updates. By default 100 where the end is given or not needed, else such that there
            are about fifty updates.
        decay: "polynomial", "geometric", "one_shot" or "constant".
        power: the exponent of the polynomial.
        begin_epoch: in place of `begin_step`: the epoch of the fit before which the first update comes. Epochs count
            from 0, and may be fractions.
        end_epoch: in place of `end_step`: the epoch of the fit before which the last update comes.

    Raises:
        ValueError: a sparsity outside [0, 1), an initial sparsity above the final one, an end that is not behind the
            beginning, a frequency below 1, an unknown decay, or a step and an epoch for the same thing.
        TypeError: a step or frequency that is no whole number, or a sparsity that is no number.
    """

    final_sparsity: Sparsity
    _: dataclasses.KW_ONLY
    initial_sparsity: float = 0.0
    begin_step: int | None = None
    end_step: int | None = None
    frequency: int | None = None
    decay: str = "polynomial"
    power: float = 3
    begin_epoch: float | None = None
    end_epoch: float | None = None

    def __post_init__(self) -> None:
        final = check_sparsity("final_sparsity", self.final_sparsity)
        initial = check_fraction("initial_sparsity", self.initial_sparsity)
        if self.decay not in _DECAYS:
            raise ValueError(f"decay={self.decay!r} is not known: use one of {list(_DECAYS)}")
        lowest = min(final.values()) if isinstance(final, Mapping) else final
        if initial > lowest:
            raise ValueError(
                f"initial_sparsity={initial} lies above the final sparsity {lowest}, and pruned weights never come "
                f"back: give at most {lowest}"
            )
        for edge in ("begin", "end"):
            step, epoch = getattr(self, f"{edge}_step"), getattr(self, f"{edge}_epoch")
            if step is not None and epoch is not None:
                raise ValueError(f"{edge}_step={step} and {edge}_epoch={epoch} say the same thing: give one of them")
        begin, end = _step("begin_step", self.begin_step, 0), _step("end_step", self.end_step, 0)
        frequency = _step("frequency", self.frequency, 1)
        begin_epoch, end_epoch = _epoch("begin_epoch", self.begin_epoch), _epoch("end_epoch", self.end_epoch)
        if end is not None or self.decay not in _WITH_END:
            frequency = _FREQUENCY if frequency is None else frequency
            begin = 0 if begin is None and begin_epoch is None else begin
        _check_order("step", begin, end, self.decay)
        _check_order("epoch", begin_epoch, end_epoch, self.decay)
        if isinstance(self.power, (bool, str)) or not hasattr(self.power, "__float__"):
            raise TypeError(f"power={self.power!r}: expected a number above 0")
        if not float(self.power) > 0:
            raise ValueError(f"power={self.power} must be above 0")
        # Plain numbers, whatever NumPy scalars were given: a configuration is JSON.
        plain = {"final_sparsity": final, "initial_sparsity": initial, "begin_step": begin, "power": float(self.power)}
        plain |= {"frequency": frequency, "end_step": end, "begin_epoch": begin_epoch, "end_epoch": end_epoch}
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @property
    def has_steps(self) -> bool:
        """Whether it is known at which steps masks are updated; where not, `for_training` tells."""
        ended = self.end_step is not None or (self.decay not in _WITH_END and self.end_epoch is None)
        return self.begin_step is not None and self.frequency is not None and ended

    def for_training(self, steps: int, *, steps_per_epoch: int | None = None, first_step: int = 0) -> Self:
        """The same schedule with the steps that it leaves to the training; itself where it leaves none.

        Args:
            steps: how many steps are done when the training ends, those before it included.
            steps_per_epoch: how many steps an epoch has; needed where the schedule is given in epochs.
            first_step: the step with which epoch 0 of the fit begins, or would have begun.

        Raises:
            ValueError: the training is too short to prune in it, or `steps_per_epoch` is needed and missing.
        """
        if self.has_steps:
            return self
        begin, end = (self._from_epoch(edge, steps_per_epoch, first_step) for edge in ("begin", "end"))
        remedy = "give begin_step and end_step"
        if end is None and self.decay in _WITH_END:
            remedy = f"train longer, or {remedy}"
            end = round(steps * PRUNED_PART)
            begin = round(steps * DENSE_PART) if begin is None else begin
        begin = 0 if begin is None else begin
        if self.decay in _WITH_END and begin >= (end or 0):
            raise ValueError(
                f"this training ends at step {steps}, and pruning would begin at step {begin} and end at step {end}: "
                f"{remedy}"
            )
        frequency = self.frequency
        if frequency is None:
            frequency = max(1, ((end or 0) - begin) // UPDATES) if self.decay in _WITH_END else _FREQUENCY
        return dataclasses.replace(
            self, begin_step=begin, end_step=end, frequency=frequency, begin_epoch=None, end_epoch=None
        )

    def _from_epoch(self, edge: str, steps_per_epoch: int | None, first_step: int) -> int | None:
        step, epoch = getattr(self, f"{edge}_step"), getattr(self, f"{edge}_epoch")
        if epoch is None:
            return step
        if steps_per_epoch is None:
            raise ValueError(
                f"{edge}_epoch={epoch}, and how many steps an epoch has is not known: give {edge}_step, or pass "
                "steps_per_epoch to fit"
            )
        return max(0, first_step + round(epoch * steps_per_epoch))

    @property
    def last_step(self) -> int:
        """The step by which the final sparsity is reached.

        Raises:
            ValueError: the schedule leaves its steps to the training.
        """
        self._check_steps()
        return self.begin_step if self.end_step is None or self.decay not in _WITH_END else self.end_step

    def is_due(self, step: int) -> bool:
        """Whether masks are updated at a step.

        Raises:
            ValueError: the schedule leaves its steps to the training.
        """
        self._check_steps()
        if self.decay == "one_shot":
            return step == self.begin_step
        if step < self.begin_step or (self.end_step is not None and step > self.end_step):
            return False
        return (step - self.begin_step) % self.frequency == 0 or step == self.end_step

    def sparsity_at(self, step: int) -> Sparsity:
        """The sparsity at a step: a float, or a mapping with the keys of `final_sparsity`."""
        if step >= self.last_step:
            return self._each(lambda final: final)
        return self._each(lambda final: self._one(max(self._done(step), 0.0), final))

    def __call__(self, step: int | tf.Tensor) -> tuple[tf.Tensor, Any]:
        """What tfmot asks of a schedule.

        Args:
            step: an integer or an integer scalar tensor.

        Returns:
            `(should_prune, sparsity)`: a bool scalar, and a float32 scalar or a mapping of them.

        Raises:
            TypeError: a step that is no integer.
            ValueError: the schedule leaves its steps to the training.
        """
        due, sparsity = self.precisely(step)
        if isinstance(sparsity, Mapping):
            return due, {key: tf.cast(each, tf.float32) for key, each in sparsity.items()}
        return due, tf.cast(sparsity, tf.float32)

    def precisely(self, step: int | tf.Tensor) -> tuple[tf.Tensor, Any]:
        """As a call, with sparsities in float64: float32 is too coarse for counts, and for steps beyond 2**24."""
        self._check_steps()
        given, step = step, tf.convert_to_tensor(step)
        if not step.dtype.is_integer:
            raise TypeError(f"step={given!r}: expected an integer, or an integer scalar tensor")
        step = tf.cast(step, tf.int64)
        since = step - self.begin_step
        if self.decay == "one_shot":
            due = tf.equal(since, 0)
        else:
            due = tf.equal(since % self.frequency, 0) & (since >= 0)
            if self.end_step is not None:
                due = (due & (step <= self.end_step)) | tf.equal(step, self.end_step)
        done = tf.clip_by_value(self._done(tf.cast(step, tf.float64)), 0.0, 1.0)
        return due, self._each(lambda final: tf.cast(self._one(done, final), tf.float64))

    def get_config(self) -> dict[str, Any]:
        """`{"class_name": ..., "config": the arguments}`: the form that tfmot asks of a schedule."""
        return {"class_name": REGISTERED_NAME, "config": super().get_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LookaheadPruningSchedule:
        """Makes the schedule that `get_config` describes, from all of it or from its inner part, as tfmot does."""
        return super().from_config(config.get("config", config))

    def _check_steps(self) -> None:
        if not self.has_steps:
            raise ValueError(
                f"{self} leaves its steps to the training, and only LAPCallback takes them from there: give "
                "begin_step, end_step and frequency, or the schedule that for_training(steps) makes of it"
            )

    def _done(self, step: Any) -> Any:
        if self.decay not in _WITH_END:
            return step * 0.0
        return (step - self.begin_step) / (self.end_step - self.begin_step)  # type: ignore[operator]

    def _one(self, done: Any, final: float) -> Any:
        return _DECAYS[self.decay](done, self.initial_sparsity, final, self.power)

    def _each(self, function: Callable[[float], Any]) -> Any:
        if isinstance(self.final_sparsity, Mapping):
            return {key: function(final) for key, final in self.final_sparsity.items()}
        return function(self.final_sparsity)


def _step(what: str, value: Any, least: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)  # 2 * len(x) / 32 is a float where it is whole, too
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what}={value!r}: expected an integer number of training steps")
    if value < least:
        raise ValueError(f"{what}={value} must be at least {least}")
    return int(value)


def _epoch(what: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{what}={value!r}: expected a number of epochs")
    if not 0 <= float(value) < math.inf:
        raise ValueError(f"{what}={value} must be at least 0")
    return float(value)


def _check_order(unit: str, begin: float | None, end: float | None, decay: str) -> None:
    if begin is not None and end is not None and (end < begin or (end == begin and decay in _WITH_END)):
        raise ValueError(f"end_{unit}={end} must lie behind begin_{unit}={begin}")
