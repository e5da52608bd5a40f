"""Masks that the method's authors' own code gives, and the Keras models of the same weights.

`parity_masks.npz` was computed with github.com/alinlab/lookahead_pruning at 35bdb17. Each case redraws its kernels from
a NumPy seed, so the file holds only the expected masks.
"""

import dataclasses
import json
import math
from pathlib import Path

import keras
import numpy as np

FILE = Path(__file__).parent / "parity_masks.npz"


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    score: str
    allocation: str
    order: str
    shapes: list[tuple[int, ...]]
    seed: int
    batch_norm: bool
    sparsities: list[float]
    masks: list[np.ndarray]

    def kernels(self) -> list[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        drawn = []
        for shape in self.shapes:
            weights = rng.standard_normal(shape)
            weights = weights * rng.gamma(2.0, 1.0, size=shape[-1])
            drawn.append((weights * rng.gamma(2.0, 1.0, size=shape[-2])[:, None]).astype(np.float32))
        return drawn

    def model(self) -> keras.Sequential:
        """The plain chain of the kernels, its batch normalizations and ReLUs, with a pooling before the Flatten."""
        rng = np.random.default_rng(self.seed + 1000)
        convolutional = len(self.shapes[0]) == 4
        layers: list = [keras.Input((32, 32, self.shapes[0][2]) if convolutional else self.shapes[0][:1])]
        previous: tuple[int, ...] = ()
        for i, shape in enumerate(self.shapes):
            if len(shape) == 2 and len(previous) == 4:
                side = math.isqrt(shape[0] // previous[-1])
                layers += [keras.layers.MaxPooling2D(32 // side), keras.layers.Flatten()]
            if len(shape) == 4:
                layers.append(keras.layers.Conv2D(shape[-1], shape[:2], padding="same", name=f"kernel_{i}"))
                if self.batch_norm:
                    gamma, variance = (rng.gamma(2.0, 1.0, shape[-1]).astype(np.float32) for _ in range(2))
                    layers.append(
                        keras.layers.BatchNormalization(
                            epsilon=1e-10,
                            gamma_initializer=_array(gamma),
                            moving_variance_initializer=_array(variance),
                        )
                    )
            else:
                layers.append(keras.layers.Dense(shape[-1], name=f"kernel_{i}"))
            layers.append(keras.layers.ReLU())
            previous = shape
        model = keras.Sequential(layers[:-1])
        for i, weights in enumerate(self.kernels()):
            model.get_layer(f"kernel_{i}").kernel.assign(weights)
        return model


def _array(values: np.ndarray):
    return lambda shape, dtype=None: keras.ops.convert_to_tensor(values, dtype)


def load() -> list[Case]:
    cases = []
    with np.load(FILE) as file:
        for name, entry in json.loads(str(file["cases"])).items():
            shapes = [tuple(shape) for shape in entry["shapes"]]
            masks = [
                np.unpackbits(file[f"{name}/{i}"], count=math.prod(shape)).reshape(shape).astype(bool)
                for i, shape in enumerate(shapes)
            ]
            cases.append(
                Case(
                    name=name,
                    score="magnitude" if entry["kind"].startswith("mp") else "lookahead",
                    allocation="global" if entry["kind"].endswith("global") else "uniform",
                    order=entry["kw"].get("mode", "base").replace("base", "simultaneous"),
                    shapes=shapes,
                    seed=entry["seed"],
                    batch_norm=bool(entry["bn"]),
                    sparsities=entry["ratios"],
                    masks=masks,
                )
            )
    return cases
