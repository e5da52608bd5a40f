"""Why lookahead loses to magnitude on a small CNN that is pruned once and not retrained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

import tf_lap
from benchmarks import digits_cnn, measure
from benchmarks.digits_cnn import Digits

SEEDS, SPARSITY, MEASURED = 5, 0.9, 2_000
SCORES, ALLOCATIONS = ("magnitude", "lookahead"), ("uniform", "global", "lamp")
KERNEL = "hidden"  # nine tenths of all weights

Figures = dict[str, list[float]]


class Network:
    """A trained network, whose kernels are masked and given back.

    Args:
        model: the network.
        digits: the data.
    """

    def __init__(self, model: keras.Model, digits: Digits) -> None:
        self._model, self._digits, self._weights = model, digits, model.get_weights()
        self.paths = [layer.name for layer in model.layers if layer.weights]

    def choose_masks(self, score: str, allocation: str) -> dict[str, np.ndarray]:
        """The masks of a score, by layer."""
        self._model.set_weights(self._weights)
        pruner = tf_lap.Pruner(self._model, score=score, allocation=allocation)
        pruner.update(SPARSITY)
        return {path: mask.numpy() for path, mask in pruner.masks.items()}

    def measure(self, masks: dict[str, np.ndarray], change: Any = None) -> float:
        """The fraction of test images that is right under masks.

        Args:
            masks: by layer; a layer without one keeps all.
            change: what kernel and bias of `KERNEL` become, after the masks.
        """
        self._model.set_weights(self._weights)
        for path, mask in masks.items():
            kernel = self._model.get_layer(path).kernel
            kernel.assign(kernel * mask)
        if change is not None:
            for variable, value in zip(self._model.get_layer(KERNEL).weights, change, strict=True):
                variable.assign(value)
        return digits_cnn.measure(self._model, self._digits).right

    def inputs(self) -> np.ndarray:
        """What `KERNEL` reads, for some images to train with: `(images, inputs)`."""
        self._model.set_weights(self._weights)
        reader = keras.Model(self._model.inputs, self._model.get_layer(KERNEL).input)
        return reader.predict(self._digits.x[:MEASURED], batch_size=500, verbose=0)

    @property
    def kernel(self) -> np.ndarray:
        """The weights of `KERNEL`, `(inputs, outputs)`."""
        return self._weights[2 * self.paths.index(KERNEL)]

    @property
    def bias(self) -> np.ndarray:
        """Its bias."""
        return self._weights[2 * self.paths.index(KERNEL) + 1]

    def energy_before(self) -> np.ndarray:
        """For each input of `KERNEL` the squared norm of what puts it out, as lookahead takes it."""
        before = self._weights[2 * self.paths.index("conv_2")]
        channels = np.square(before).sum(axis=(0, 1, 2))
        return np.tile(channels, len(self.kernel) // len(channels))

    def energy_after(self) -> np.ndarray:
        """For each output of `KERNEL` the squared norm of what reads it."""
        return np.square(self._weights[2 * self.paths.index("head")]).sum(axis=1)


def examine(network: Network) -> dict[str, float]:
    """The figures of a network, by name."""
    masks = {(s, a): network.choose_masks(s, a) for s in SCORES for a in ALLOCATIONS}
    figures = {f"right, {score} {allocation}": network.measure(m) for (score, allocation), m in masks.items()}
    by_magnitude, by_lookahead = masks["magnitude", "lamp"], masks["lookahead", "lamp"]
    for path in network.paths:
        figures[f"right, magnitude lamp, {path} by lookahead"] = network.measure(
            {**by_magnitude, path: by_lookahead[path]}
        )
        for score, chosen in (("magnitude", by_magnitude), ("lookahead", by_lookahead)):
            figures[f"{path}, {score}: weights kept"] = float(chosen[path].mean())
    inputs, after = network.inputs(), network.energy_after()
    mean_squares = np.square(inputs).mean(axis=0)
    errors = {}
    for score, chosen in (("magnitude", by_magnitude), ("lookahead", by_lookahead)):
        mask = chosen[KERNEL]
        dropped = network.kernel * ~mask
        changes = inputs @ dropped
        error = float((np.square(changes).mean(axis=0) * after).sum())
        shift = float((np.square(changes.mean(axis=0)) * after).sum())
        independent = float((mean_squares[:, np.newaxis] * np.square(dropped) * after).sum())
        errors[score] = error, independent
        channels = mask.reshape(25, -1, mask.shape[1]).sum(axis=(0, 2))
        figures |= {
            f"{KERNEL}, {score}: part of the error that is a shift of means": shift / error,
            f"{KERNEL}, {score}: weights kept in the channel of the fewest": float(channels.min()),
            f"right, {KERNEL} alone, {score}": network.measure({KERNEL: mask}),
            f"right, {KERNEL} alone, {score}, outputs scaled back": network.measure(
                {}, scale_back(network, mask, inputs)
            ),
        }
    figures[f"{KERNEL}: error, lookahead over magnitude"] = errors["lookahead"][0] / errors["magnitude"][0]
    figures[f"{KERNEL}: error of independent inputs, lookahead over magnitude"] = (
        errors["lookahead"][1] / errors["magnitude"][1]
    )
    before = np.sqrt(network.energy_before())
    figures[f"{KERNEL}: correlation of the norm before with the input's root mean square"] = _correlate(
        before, np.sqrt(mean_squares)
    )
    figures[f"{KERNEL}: correlation of the norm before with the norm of the row"] = _correlate(
        before, np.linalg.norm(network.kernel, axis=1)
    )
    return figures


def scale_back(network: Network, mask: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias, with each output multiplied and shifted to come nearest to the dense one over some images."""
    dense, pruned = inputs @ network.kernel, inputs @ (network.kernel * mask)
    centred = pruned - pruned.mean(axis=0)
    power = np.square(centred).sum(axis=0)
    slope = np.divide((centred * dense).sum(axis=0), power, out=np.zeros_like(power), where=power > 0)
    shift = dense.mean(axis=0) - slope * pruned.mean(axis=0)
    return network.kernel * mask * slope, network.bias + shift


def _correlate(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def run() -> dict[str, Any]:
    """Trains a network for each seed, and examines it."""
    digits = digits_cnn.load()
    model = digits_cnn.network(keras)
    networks: list[dict[str, float]] = []
    for seed in range(SEEDS):
        model.set_weights(digits_cnn.train_dense(digits, seed))
        networks.append(examine(Network(model, digits)))
        print(networks[-1], flush=True)
    return {
        "what": f"{digits_cnn.describe()}; pruned once at {SPARSITY:.0%}, not retrained; {SEEDS} seeds; errors are of "
        f"what the layer {KERNEL} puts out, over {MEASURED:,} images to train with, weighted by what reads it",
        "ratios": {name: _spread([figures[name] for figures in networks]) for name in networks[0]},
        "networks": networks,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(f"{np.mean(values):.4g}"), **measure.spread(values)}
