"""How much look-ahead the kernels of well-known models have: keras.applications, and backbones of keras-hub."""

from __future__ import annotations

import collections
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import keras

from benchmarks import measure
from benchmarks.backbones import BACKBONES
from tf_lap.graph.neighbors import Neighbors, find_neighbors
from tf_lap.graph.resolver import resolve

FAMILIES = (
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "Xception",
)
"""A member of each family of keras.applications."""


def describe(model: keras.Model) -> dict[str, Any]:
    """How many kernels of a model have kernels before and behind them, where its channels end, and the seconds it took.

    Kernels that are pruned only by name are counted apart. Ends of the network are not among the boundaries.
    """
    start = time.perf_counter()
    recipe = resolve(model)
    neighbors = find_neighbors(recipe)
    seconds = time.perf_counter() - start
    sides = [count_sides(neighbors[kernel.path]) for kernel in recipe.kernels if not kernel.is_opt_in]
    boundaries = collections.Counter(
        reason
        for around in neighbors.values()
        for reason in {generalize(reason) for reason in around.boundaries if not reason.startswith("network ")}
    )
    return {
        "kernels": len(sides),
        "by name": len(recipe.kernels) - len(sides),
        "both sides": sides.count(2),
        "one side": sides.count(1),
        "neither side": sides.count(0),
        "boundaries": dict(boundaries.most_common()),
        "seconds": seconds,
    }


def count_sides(around: Neighbors) -> int:
    """On how many sides of a kernel there are others."""
    return bool(around.previous) + bool(around.following)


def generalize(reason: str) -> str:
    """The reason for a boundary without the path of the layer and what helps, so that those of several layers agree."""
    return re.sub(r"^(\w+) '[^']*'", r"\1", reason.partition("; ")[0])


def describe_all(builders: dict[str, Callable[[], keras.Model]]) -> dict[str, dict[str, Any]]:
    """What `describe` says of each of several models."""
    described = {}
    for name, build in builders.items():
        described[name] = describe(build())
        keras.backend.clear_session()
    return described


def run() -> dict[str, Any]:
    """Resolves a member of each family and each backbone once, and prunes a BERT of full size in a new process."""
    families = {name: lambda name=name: getattr(keras.applications, name)(weights=None) for name in FAMILIES}
    tables = {"applications": describe_all(families), "backbones": describe_all(dict(BACKBONES))}
    command = [sys.executable, "-m", "benchmarks.bert_base"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    bert_base = json.loads(output.splitlines()[-1])
    seconds = {
        f"{name}: seconds to resolve": measure.spread([described["seconds"]])
        for table in tables.values()
        for name, described in table.items()
    }
    return {
        "what": "the kernels of models with random weights, and the seconds that it took to resolve each once",
        **tables,
        "bert_base": bert_base,
        "ratios": seconds | {f"BERT base: {what}": measure.spread([figure]) for what, figure in bert_base.items()},
    }
