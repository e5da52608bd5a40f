"""When to prune, and how far: sparsity as a function of the training step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tf_lap.allocation import Sparsity, check_fraction, check_sparsity
from tf_lap.choices import Configurable

# For each decay: the sparsity when a fraction of the way from begin_step to end_step is done, for
# Python numbers and for tensors alike.
_DECAYS: dict[str, Callable[[Any, float, float, float], Any]] = {
    "polynomial": lambda done, initial, final, power: final + (initial - final) * (1 - done) ** power,
    "geometric": lambda done, initial, final, power: 1 - (1 - initial) * ((1 - final) / (1 - initial)) ** done,
    "one_shot": lambda done, initial, final, power: final,
    "constant": lambda done, initial, final, power: final,
}
_WITH_END = ("polynomial", "geometric")

REGISTERED_NAME = "tf_lap>LookaheadPruningSchedule"
"""What files of tf_keras call this class; `tf_lap.tfmot` registers it there."""


@dataclasses.dataclass(frozen=True)
class LookaheadPruningSchedule(Configurable):
    """The sparsity to reach at each training step.

    Masks are updated at `begin_step`, every `frequency` steps after it, and always at `end_step`, where the sparsity
    is exactly `final_sparsity`. Steps count training batches; step 0 is before the first.

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

    Args:
        final_sparsity: the fraction of zeros to reach, in [0, 1), or a mapping from layer paths or regular
            expressions to fractions.
        initial_sparsity: the fraction of zeros at `begin_step`, in [0, 1) and not above the final one.
        begin_step: the step of the first update.
        end_step: the step of the last one; needed by polynomial and geometric.
        frequency: steps between updates.
        decay: "polynomial", "geometric", "one_shot" or "constant".
        power: the exponent of the polynomial.

    Raises:
        ValueError: a sparsity outside [0, 1), an initial sparsity above the final one, an end that is not behind the
            beginning, a frequency below 1, an unknown decay, or no `end_step` where the decay needs one.
        TypeError: a step or frequency that is no integer, or a sparsity that is no number.
    """

    final_sparsity: Sparsity
    _: dataclasses.KW_ONLY
    initial_sparsity: float = 0.0
    begin_step: int = 0
    end_step: int | None = None
    frequency: int = 100
    decay: str = "polynomial"
    power: float = 3

    def __post_init__(self) -> None:
        final = check_sparsity("final_sparsity", self.final_sparsity)
        initial = check_fraction("initial_sparsity", self.initial_sparsity)
        if self.decay not in _DECAYS:
            raise ValueError(f"decay={self.decay!r} is not known: use one of {list(_DECAYS)}")
        lowest = min(final.values()) if isinstance(final, Mapping) else final
        if initial > lowest:
            raise ValueError(
                f"initial_sparsity={initial} lies above the final sparsity {lowest}; pruned weights never come back"
            )
        begin = _step("begin_step", self.begin_step, 0)
        _step("frequency", self.frequency, 1)
        if self.end_step is not None:
            end = _step("end_step", self.end_step, 0)
            if end < begin or (end == begin and self.decay in _WITH_END):
                raise ValueError(f"end_step={end} must lie behind begin_step={begin}")
        elif self.decay in _WITH_END:
            raise ValueError(
                f"decay={self.decay!r} needs end_step, the step that reaches final_sparsity: "
                "for example epochs * steps_per_epoch, less the steps that fine-tuning at full sparsity should have"
            )
        if isinstance(self.power, (bool, str)) or not hasattr(self.power, "__float__"):
            raise TypeError(f"power={self.power!r}: expected a number above 0")
        if not float(self.power) > 0:
            raise ValueError(f"power={self.power} must be above 0")
        # Plain numbers, whatever NumPy scalars were given: a configuration is JSON.
        plain = {"final_sparsity": final, "initial_sparsity": initial, "begin_step": begin, "power": float(self.power)}
        plain |= {"frequency": int(self.frequency), "end_step": None if self.end_step is None else int(self.end_step)}
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @property
    def last_step(self) -> int:
        """The step by which the final sparsity is reached."""
        return self.begin_step if self.end_step is None or self.decay not in _WITH_END else self.end_step

    def is_due(self, step: int) -> bool:
        """Whether masks are updated at a step."""
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
        """
        due, sparsity = self.precisely(step)
        if isinstance(sparsity, Mapping):
            return due, {key: tf.cast(each, tf.float32) for key, each in sparsity.items()}
        return due, tf.cast(sparsity, tf.float32)

    def precisely(self, step: int | tf.Tensor) -> tuple[tf.Tensor, Any]:
        """As a call, with sparsities in float64: float32 is too coarse for counts, and for steps beyond 2**24."""
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


def _step(what: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what}={value!r}: expected an integer number of training steps")
    if value < least:
        raise ValueError(f"{what}={value} must be at least {least}")
    return int(value)
