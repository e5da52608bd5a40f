"""A learning-rate schedule whose clock is set back; each Keras's module makes it a schedule of that Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


class RewoundRateBase:
    """Another schedule's learning rate, from a step of it on.

    Before `begin_step` it stands still, at what it is there.

    Args:
        rewind: the other schedule, or a function from a float32 scalar tensor, the step, to a learning rate.
        rewind_step: the step of it that is gone back to.
        begin_step: the optimizer's step at which that happens.
    """

    # Of the Keras: the class of its schedules; what makes a configuration of a schedule or a function, and back.
    _schedule_class: type[Any]
    _serialize: Callable[[Any], Any]
    _deserialize: Callable[[Any], Any]

    def __init__(self, rewind: Callable[[Any], Any], rewind_step: int, begin_step: int) -> None:
        self.rewind, self.rewind_step, self.begin_step = rewind, rewind_step, begin_step

    def __call__(self, step: Any) -> tf.Tensor:
        """The learning rate at a step of the optimizer.

        Args:
            step: an integer, or an integer scalar variable or tensor.

        Returns:
            A float32 scalar.
        """
        at = tf.maximum(tf.cast(tf.convert_to_tensor(step), tf.int64) - self.begin_step, 0) + self.rewind_step
        # A function may reckon with it, as in 0.1 * 0.5 ** (step // 1000).
        at = at if isinstance(self.rewind, self._schedule_class) else tf.cast(at, tf.float32)
        return tf.cast(self.rewind(at), tf.float32)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "rewind": type(self)._serialize(self.rewind),
            "rewind_step": self.rewind_step,
            "begin_step": self.begin_step,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Makes the schedule that `get_config` describes."""
        return cls(**{**config, "rewind": cls._deserialize(config["rewind"])})
