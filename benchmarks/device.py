"""One mask update of ResNet50 on an accelerator, through JAX: for a machine that has JAX and no TensorFlow.

    python -m benchmarks.device write FOLDER     # here, with TensorFlow: the update as StableHLO, and its masks
    python benchmarks/device.py run FOLDER       # there, with JAX alone: runs it, compares the masks, times it

The weights are drawn from a seed on both sides. So the folder holds only the program, the packed masks, and what the
program reads beside the kernels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SPARSITY, ROUNDS = 0.9, 20
PROGRAM, MASKS, BETWEEN, ABOUT = "update.mlir", "masks.npz", "between.npz", "about.json"


def make_weights(shapes: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Random weights in float32, the same on every machine."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) * np.float32(0.05) for shape in shapes]


def write(folder: Path, model: Any = None) -> None:
    """Writes what `run` reads.

    Args:
        folder: the folder to write to.
        model: a Keras model; ResNet50 by default.
    """
    import dataclasses

    import keras
    import tensorflow as tf

    import tf_lap
    from tf_lap.pruning.mask_selection import KernelWeights

    model = keras.applications.ResNet50(weights=None) if model is None else model
    updater = tf_lap.Pruner(model, allocation="uniform")._engine.updater
    kernels = updater.measurer.recipe.kernels
    targets = list(range(len(kernels)))
    keep = [max(1, round(kernel.layout.size * (1 - SPARSITY))) for kernel in kernels]

    def update(*weights: tf.Tensor) -> list[tf.Tensor]:
        replaced = tuple(dataclasses.replace(k, variable=w) for k, w in zip(kernels, weights, strict=True))
        recipe = dataclasses.replace(updater.measurer.recipe, kernels=replaced)
        measurer = dataclasses.replace(updater.measurer, recipe=recipe)
        selection = dataclasses.replace(updater.selection, measurer=measurer)
        kernel_energies, _ = measurer.measure({})
        energies, _ = measurer.energies_around(kernel_energies, {})
        dense = [KernelWeights(i, weight, tf.ones_like(weight, tf.bool)) for i, weight in enumerate(weights)]
        masks = selection.select(dense, energies, tf.constant(keep), {}, [[i] for i in targets]).masks
        return [
            *masks,
            *(tf.where(mask, weight, 0.0) for mask, weight in zip(masks, weights, strict=True)),
        ]

    shapes = [kernel.layout.shape for kernel in kernels]
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    compiled = tf.function(update, jit_compile=True, autograph=False)
    program = compiled.experimental_get_compiler_ir(*specs)(stage="stablehlo")
    concrete = compiled.get_concrete_function(*specs)
    variables = {id(variable.handle): variable for variable in concrete.graph.variables}
    between = [variables[id(handle)].numpy() for handle in concrete.captured_inputs]
    weights = make_weights(shapes)
    results = compiled(*map(tf.constant, weights))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROGRAM).write_text(program, encoding="utf-8")
    np.savez_compressed(folder / MASKS, *(np.packbits(mask.numpy()) for mask in results[: len(shapes)]))
    np.savez(folder / BETWEEN, *between)  # what the program reads beside the kernels, in the order of its parameters
    about = {"model": model.name, "shapes": shapes, "keep": keep}
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


def time_calls(function: Callable[[], Any]) -> list[float]:
    """The seconds that each call takes until its results are computed."""
    import jax

    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - start)
    return seconds


def run(folder: Path) -> dict[str, Any]:
    """Runs the update on JAX's first device: its time against a copy of the same bytes, and whether masks are equal."""
    import jax
    from jax.extend.backend import get_backend
    from jaxlib import xla_client

    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    shapes = [tuple(shape) for shape in about["shapes"]]
    backend, device = get_backend(), jax.devices()[0]
    start = time.perf_counter()
    devices = xla_client.DeviceList((device,))
    program = backend.compile_and_load((folder / PROGRAM).read_text(encoding="utf-8"), devices)
    compilation = time.perf_counter() - start
    weights = [jax.device_put(array, device) for array in make_weights(shapes)]
    with np.load(folder / BETWEEN) as between:
        parameters = [*weights, *(jax.device_put(between[name], device) for name in between.files)]
    results = program.execute(parameters)
    masks, zeroed = results[: len(shapes)], results[len(shapes) :]
    with np.load(folder / MASKS) as packed:
        expected = [
            np.unpackbits(packed[f"arr_{i}"], count=int(np.prod(shape))).reshape(shape).astype(bool)
            for i, shape in enumerate(shapes)
        ]
    differing = sum(
        int(np.count_nonzero(np.asarray(mask) != other)) for mask, other in zip(masks, expected, strict=True)
    )
    kept = [int(np.count_nonzero(np.asarray(mask))) for mask in masks]
    copy = jax.jit(lambda arrays: [-array for array in arrays])
    jax.block_until_ready(copy(weights))
    update_seconds, copy_seconds = time_calls(lambda: program.execute(parameters)), time_calls(lambda: copy(weights))
    return {
        "device": device.device_kind,
        "jax": jax.__version__,
        "model": about["model"],
        "weights": int(sum(np.prod(shape) for shape in shapes)),
        "compilation_seconds": round(compilation, 2),
        "differing_mask_bits": differing,
        "kept_exactly": kept == about["keep"],
        "zeros_are_where_masks_are": all(
            not np.any(np.asarray(array)[~np.asarray(mask)]) for array, mask in zip(zeroed, masks, strict=True)
        ),
        "update_milliseconds": spread(update_seconds),
        "copy_milliseconds": spread(copy_seconds),
        "update_over_copy": round(statistics.median(update_seconds) / statistics.median(copy_seconds), 2),
    }


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """The median, the least and the most, in milliseconds."""
    figures = {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
    return {name: float(f"{1e3 * value:.4g}") for name, value in figures.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("write", "run"))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "write":
        write(arguments.folder)
    else:
        print(json.dumps(run(arguments.folder), indent=2))
