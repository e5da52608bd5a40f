"""The fully connected network of Park et al., section 4.1, in both kinds of Keras, and the time of its steps."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

WIDTHS = (784, 500, 500, 500, 500, 10)
BATCH = 60


def network(kind: Any, widths: tuple[int, ...]) -> Any:
    """Dense layers with ReLU between them; `kind` is keras or tf_keras."""
    hidden = [kind.layers.Dense(width, activation="relu") for width in widths[1:-1]]
    return kind.Sequential([kind.layers.Input(widths[:1]), *hidden, kind.layers.Dense(widths[-1])])


def compile_model(model: Any, kind: Any) -> None:
    """Compiles with Adam at the paper's rate."""
    model.compile(kind.optimizers.Adam(0.0012), kind.losses.SparseCategoricalCrossentropy(from_logits=True))


def seconds_per_step(model: Any, kind: Any, callbacks: list[Any], steps: int, warm_up: int) -> float:
    """The mean seconds of the steps of an epoch, without the first ones."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH * steps, *model.input_shape[1:])).astype(np.float32)
    y = rng.integers(0, model.output_shape[-1], len(x))
    times: list[float] = []

    # Batches are timed, because the beginning and the end of a fit take longer than many steps.
    class Clock(kind.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            times.append(time.perf_counter())

    model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[*callbacks, Clock()])
    return (times[-1] - times[warm_up]) / (steps - 1 - warm_up)
