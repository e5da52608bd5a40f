"""A model's graph as either Keras has it; `reading` makes a description of it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

from tf_lap.compat.types import KerasTensor, Layer

TESTED = "keras 3.7 to 3.15, or tf_keras 2.17 to 2.21"
"""The releases that the tests were run with, from the oldest that pyproject.toml admits; see tests/versions.sh."""


@dataclasses.dataclass(frozen=True)
class Node:
    """One call of a layer or of a Keras operation on symbolic tensors.

    Attributes:
        layer: the layer or operation that is called.
        inputs: the symbolic tensors among its arguments, flattened.
        outputs: the symbolic tensors that it returns, flattened.
        args: all its positional arguments.
        kwargs: all its keyword arguments.
    """

    layer: Layer
    inputs: tuple[KerasTensor, ...]
    outputs: tuple[KerasTensor, ...]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Network:
    """The graph of a model.

    Attributes:
        nodes: its calls, in topological order.
        inputs: the symbolic tensors that enter it.
        outputs: the symbolic tensors that leave it.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[KerasTensor, ...]
    outputs: tuple[KerasTensor, ...]


Resize: TypeAlias = Callable[[int, tuple[int | None, ...]], tuple[int | None, ...]]
"""The shape that an input of a model is to have, given its number and the shape that it was built with."""


def keep_shape(number: int, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """The shape that an input was built with."""
    return shape


def is_mask_name(name: str) -> bool:
    """Whether an argument of a layer's `call` is a mask, by the names that both Kerases give masks."""
    return name == "mask" or name.endswith("_mask")


def private(obj: Any, name: str) -> Any:
    """A private attribute of Keras.

    Raises:
        RuntimeError: this release of Keras does not have it.
    """
    try:
        return getattr(obj, name)
    except AttributeError as error:
        package = importlib.import_module(type(obj).__module__.partition(".")[0])
        raise RuntimeError(
            f"tf_lap reads the private attribute `{name}` of {type(obj).__name__}, and {package.__name__} "
            f"{getattr(package, '__version__', '')} does not have it. Install a release that has it ({TESTED}), "
            "or report this version to tf_lap."
        ) from error
