"""Passes over all weights, several made one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors and lists of them that XLA compiles where its caller is traced; else it runs as it is.

    TensorFlow runs one operation after another, and each reads and writes all weights; XLA makes one pass of what is
    elementwise, and of sums of few neighbours. (It is slow on a CPU at sums of many numbers and at sorting.) What
    crosses the border on a GPU must not be int32, which TensorFlow keeps on the host.
    """

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        if not tf.inside_function():
            return function(*args)
        # A new one each time: TensorFlow warns of a function that is traced for many shapes.
        return tf.function(functools.partial(function), jit_compile=True, autograph=False)(*args)

    return call
