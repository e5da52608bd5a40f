"""When to prune, and to which sparsity, as functions of the training step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import tensorflow as tf

from tf_lap.allocation import Sparsity, check_fraction, check_sparsity
from tf_lap.choices import Configurable
from tf_lap.schedule.arguments import check_epoch, check_initial, check_order, check_power, check_step, settle_phases

if TYPE_CHECKING:
    from typing_extensions import Self

# The sparsity of each decay, given the fraction of the way from begin_step to end_step that is done: for Python numbers
# and for tensors alike.
_DECAYS: dict[str, Callable[[Any, float, float, float], Any]] = {
    "polynomial": lambda done, initial, final, power: final + (initial - final) * (1 - done) ** power,
    "geometric": lambda done, initial, final, power: 1 - (1 - initial) * ((1 - final) / (1 - initial)) ** done,
    "alternating": lambda done, initial, final, power: final * done,
    "one_shot": lambda done, initial, final, power: final,
    "constant": lambda done, initial, final, power: final,
}
_DECAYS_WITH_END = ("polynomial", "geometric", "alternating")

# For a schedule that takes its steps from the training.
DENSE_PART = 1 / 5
"""The part of the training before the first update."""
PRUNED_PART = 2 / 3
"""The part of the training until the final sparsity is reached."""
UPDATES = 50
"""About how many updates lie between."""
_FREQUENCY = 100  # the default where the schedule says its steps

REGISTERED_NAME = "tf_lap>LookaheadPruningSchedule"
"""The name of this class in files of tf_keras; `tf_lap.tfmot` registers it there."""


class _Steps(NamedTuple):
    """The steps of the first and the last update (None without an end), and the number of steps between updates."""

    begin: int
    end: int | None
    frequency: int


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
    * `"geometric"`: every update prunes the same fraction p of the remaining weights, so that `(1 - p) ** t` of them
      remain after t updates (Park et al., 2020).
    * `"alternating"`: sparse and dense phases by turns (AC/DC, Peste et al., 2021). At `begin_step` a sparse phase
      begins, whose masks are chosen at the final sparsity. Every `frequency` steps a dense phase takes its place, or a
      sparse one with masks that are chosen anew. The last sparse phase begins at `end_step` at the latest, and holds.
      In dense phases, and only there, pruned weights may return: they train on from zero.
    * `"one_shot"`: one update at `begin_step`, to `final_sparsity`.
    * `"constant"`: `final_sparsity` from `begin_step` on. Masks are updated every `frequency` steps until `end_step`,
      or to the end of the training if there is no `end_step`. Pruned weights stay pruned.

    tfmot's PolynomialDecay and ConstantSparsity give the same for the same arguments, with these differences: here
    the last update is always due at `end_step`, also if `frequency` does not divide the steps before it; a constant
    schedule without an end has `end_step=None` and not -1; an initial sparsity above the final one is an error.

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
        initial_sparsity: the fraction of zeros at `begin_step`, in [0, 1) and not above the final one. An alternating
            schedule has none.
        begin_step: the step of the first update. By default 0 if the end is given or not needed, otherwise a fifth of
            the training.
        end_step: the step of the last update. Polynomial, geometric and alternating need an end; by default it comes
            after two thirds of the training.
        frequency: the number of steps between updates. By default 100 if the end is given or not needed; otherwise
            there are about fifty updates. Of an alternating schedule it is the length of a phase.
        decay: "polynomial", "geometric", "alternating", "one_shot" or "constant".
        power: the exponent of the polynomial.
        begin_epoch: instead of `begin_step`: the first update comes before this epoch of the fit. Epochs count from 0,
            and may be fractions.
        end_epoch: instead of `end_step`: the last update comes before this epoch of the fit.
        phases: instead of `frequency`, for an alternating schedule: how many dense phases lie between the first update
            and the last, as many as sparse ones there. By default 3.

    Raises:
        ValueError: a sparsity outside [0, 1), an initial sparsity above the final one, an end that is not behind the
            beginning, a frequency below 1, an unknown decay, a step and an epoch for the same thing, or phases that do
            not fit.
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
    phases: int | None = None

    def __post_init__(self) -> None:
        final = check_sparsity("final_sparsity", self.final_sparsity)
        initial = check_fraction("initial_sparsity", self.initial_sparsity)
        if self.decay not in _DECAYS:
            raise ValueError(f"decay={self.decay!r} is not known: use one of {list(_DECAYS)}")
        check_initial(initial, final, self.alternates)
        for edge in ("begin", "end"):
            step, epoch = getattr(self, f"{edge}_step"), getattr(self, f"{edge}_epoch")
            if step is not None and epoch is not None:
                raise ValueError(f"{edge}_step={step} and {edge}_epoch={epoch} say the same thing: give one of them")
        begin = check_step("begin_step", self.begin_step, 0)
        end = check_step("end_step", self.end_step, 0)
        frequency = check_step("frequency", self.frequency, 1)
        begin_epoch = check_epoch("begin_epoch", self.begin_epoch)
        end_epoch = check_epoch("end_epoch", self.end_epoch)
        if end is not None or self.decay not in _DECAYS_WITH_END:
            frequency = _FREQUENCY if frequency is None and not self.alternates else frequency
            begin = 0 if begin is None and begin_epoch is None else begin
        check_order("step", begin, end, self.decay in _DECAYS_WITH_END)
        check_order("epoch", begin_epoch, end_epoch, self.decay in _DECAYS_WITH_END)
        phases = check_step("phases", self.phases, 1)
        if self.alternates:
            frequency, phases = settle_phases(phases, frequency, begin, end)
        elif phases is not None:
            raise ValueError(f"phases={phases} goes with decay='alternating' alone, and this is decay={self.decay!r}")
        # Plain numbers in place of NumPy scalars, because a configuration is JSON.
        plain = {
            "final_sparsity": final,
            "initial_sparsity": initial,
            "begin_step": begin,
            "power": check_power(self.power),
        }
        plain |= {"frequency": frequency, "end_step": end, "begin_epoch": begin_epoch, "end_epoch": end_epoch}
        plain["phases"] = phases
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @property
    def alternates(self) -> bool:
        """Whether dense phases take turns with sparse ones, so that pruned weights may return."""
        return self.decay == "alternating"

    def is_dense(self, step: int) -> bool:
        """Whether a step lies in a dense phase of an alternating schedule: before the first sparse phase, or between.

        Raises:
            ValueError: the schedule leaves its steps to the training.
        """
        return (
            self.alternates
            and step < self.last_step
            and self._fraction_done(max(step, self._require_steps().begin - 1)) == 0
        )

    @property
    def has_steps(self) -> bool:
        """Whether the schedule has its steps; if not, `for_training` gives it those of a training."""
        return self._find_steps() is not None

    def _find_steps(self) -> _Steps | None:
        """The steps of the schedule, or None if it leaves them to the training."""
        has_end = self.end_step is not None or (self.decay not in _DECAYS_WITH_END and self.end_epoch is None)
        if self.begin_step is None or self.frequency is None or not has_end:
            return None
        return _Steps(self.begin_step, self.end_step, self.frequency)

    def _require_steps(self) -> _Steps:
        """The steps of the schedule; raises ValueError if it leaves them to the training."""
        steps = self._find_steps()
        if steps is None:
            raise ValueError(
                f"{self} leaves its steps to the training, and only LAPCallback takes them from there: give "
                "begin_step, end_step and frequency, or the schedule that for_training(steps) makes of it"
            )
        return steps

    def for_training(self, steps: int, *, steps_per_epoch: int | None = None, first_step: int = 0) -> Self:
        """The same schedule with the steps that it leaves to the training; itself if it leaves none.

        Args:
            steps: the step at which the training ends, counted from step 0 of the schedule.
            steps_per_epoch: how many steps an epoch has; needed if the schedule is in epochs.
            first_step: the step at which epoch 0 of the fit begins. If the fit begins with a later epoch, the step at
                which epoch 0 would have begun.

        Raises:
            ValueError: the training is too short to prune in, or `steps_per_epoch` is needed and missing.
        """
        if self.has_steps:
            return self
        begin, end = (self._find_step(edge, steps_per_epoch, first_step) for edge in ("begin", "end"))
        remedy = "give begin_step and end_step"
        if end is None and self.decay in _DECAYS_WITH_END:
            remedy = f"train longer, or {remedy}"
            end = round(steps * PRUNED_PART)
            begin = round(steps * DENSE_PART) if begin is None else begin
        begin = 0 if begin is None else begin
        if self.decay in _DECAYS_WITH_END and begin >= (end or 0):
            raise ValueError(
                f"this training ends at step {steps}, and pruning would begin at step {begin} and end at step {end}: "
                f"{remedy}"
            )
        frequency = self.frequency
        if frequency is None and not self.alternates:
            frequency = max(1, ((end or 0) - begin) // UPDATES) if self.decay in _DECAYS_WITH_END else _FREQUENCY
        return dataclasses.replace(
            self, begin_step=begin, end_step=end, frequency=frequency, begin_epoch=None, end_epoch=None
        )

    def _find_step(self, edge: str, steps_per_epoch: int | None, first_step: int) -> int | None:
        """The step of an edge, "begin" or "end", which may be given as an epoch; None if it is not given."""
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
        steps = self._require_steps()
        return steps.begin if steps.end is None or self.decay not in _DECAYS_WITH_END else steps.end

    def is_due(self, step: int) -> bool:
        """Whether masks are updated at a step.

        Raises:
            ValueError: the schedule leaves its steps to the training.
        """
        begin, end, frequency = self._require_steps()
        if self.decay == "one_shot":
            return step == begin
        if step < begin or (end is not None and step > end):
            return False
        return (step - begin) % frequency == 0 or step == end

    def sparsity_at(self, step: int) -> Sparsity:
        """The sparsity at a step: a float, or a mapping with the keys of `final_sparsity`.

        Raises:
            ValueError: the schedule leaves its steps to the training.
        """
        if step >= self.last_step:
            return self._map_sparsity(lambda final: final)
        done = max(self._fraction_done(max(step, self._require_steps().begin - 1)), 0.0)
        return self._map_sparsity(lambda final: self._interpolate(done, final))

    def __call__(self, step: int | tf.Tensor) -> tuple[tf.Tensor, Any]:
        """Whether masks are updated at a step, and the sparsity, in the form of tfmot's schedules.

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
            return due, {key: tf.cast(fraction, tf.float32) for key, fraction in sparsity.items()}
        return due, tf.cast(sparsity, tf.float32)

    def precisely(self, step: int | tf.Tensor) -> tuple[tf.Tensor, Any]:
        """As a call, with sparsities in float64: float32 is too coarse for counts, and for steps above 2**24."""
        begin, end, frequency = self._require_steps()
        tensor = tf.convert_to_tensor(step)
        if not tensor.dtype.is_integer:
            raise TypeError(f"step={step!r}: expected an integer, or an integer scalar tensor")
        tensor = tf.cast(tensor, tf.int64)
        since = tensor - begin
        if self.decay == "one_shot":
            due = tf.equal(since, 0)
        else:
            due = tf.equal(since % frequency, 0) & (since >= 0)
            if end is not None:
                due = (due & (tensor <= end)) | tf.equal(tensor, end)
        done = tf.clip_by_value(self._fraction_done(tf.cast(tf.maximum(since, -1) + begin, tf.float64)), 0.0, 1.0)
        if end is not None:
            done = tf.where(tensor >= end, tf.ones([], tf.float64), done)
        return due, self._map_sparsity(lambda final: tf.cast(self._interpolate(done, final), tf.float64))

    def get_config(self) -> dict[str, Any]:
        """`{"class_name": ..., "config": the arguments}`, the form of tfmot's schedules."""
        return {"class_name": REGISTERED_NAME, "config": super().get_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LookaheadPruningSchedule:
        """Makes the schedule that `get_config` describes, from the whole configuration or from its arguments alone."""
        return super().from_config(config.get("config", config))

    def _fraction_done(self, step: Any) -> Any:
        """The fraction of the way from begin to end at a step, a number or a tensor; 0 without an end.

        Where phases alternate, it is 0 in dense ones and 1 in sparse ones, from the last step before begin on.
        """
        begin, end, frequency = self._require_steps()
        if end is None or self.decay not in _DECAYS_WITH_END:
            return step * 0.0
        if self.alternates:
            return 1.0 - (step - begin) // frequency % 2
        return (step - begin) / (end - begin)

    def _interpolate(self, done: Any, final: float) -> Any:
        """The sparsity when the fraction `done` of the way to the final sparsity is done, a number or a tensor."""
        return _DECAYS[self.decay](done, self.initial_sparsity, final, self.power)

    def _map_sparsity(self, function: Callable[[float], Any]) -> Any:
        """A function of the final sparsity, or of each final sparsity in a mapping."""
        if isinstance(self.final_sparsity, Mapping):
            return {key: function(final) for key, final in self.final_sparsity.items()}
        return function(self.final_sparsity)


ScheduleLike: TypeAlias = LookaheadPruningSchedule | Callable[[int], tuple[Any, Any]] | Sparsity
"""A schedule, a function of a step that returns `(should_prune, sparsity)`, or the final sparsity of a schedule."""
