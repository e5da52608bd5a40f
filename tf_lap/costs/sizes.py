"""A model read with a size on every axis of its inputs, so that all tensors in it have sizes too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tf_lap import compat
from tf_lap.compat.types import Model
from tf_lap.graph.channels import Shape, format_shape
from tf_lap.graph.describing import describe


class SizedModel(NamedTuple):
    """A model that was read with sizes.

    Attributes:
        description: the description.
        input_names: the names of its inputs; none where its call cannot be followed.
        batch_size: the size of the batch axis.
    """

    description: compat.ModelDescription
    input_names: tuple[str, ...]
    batch_size: int


def describe_sized(model: Model, batch_size: int, input_shape: Any) -> SizedModel:
    """Reads a built model with sizes on all axes.

    Args:
        model: a model of either Keras.
        batch_size: the size of the batch axis, where that is open.
        input_shape: the shape of its input without the batch axis; for several inputs a list of shapes in the model's
            order, or a mapping from their names. None: the shapes that it was built with.

    Raises:
        TypeError, ValueError: the model is not built; an axis of an input is open and `input_shape` does not say its
            size; a shape or a batch size that does not fit the model's.
    """
    if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__"):
        raise TypeError(f"batch_size={batch_size!r}: expected a whole number of samples, 1 or more")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}: expected 1 or more")
    # Read once as it was built, without looking into layers, to learn what the inputs are.
    compat.check_model(model)
    graph = compat.read_model(model, lambda layer: True, lambda layer: False).graph
    if isinstance(graph, compat.Unreadable):
        return SizedModel(describe(model), (), int(batch_size))
    inputs = graph.inputs
    shapes = _list_shapes(input_shape, inputs) if input_shape is not None else [tensor.shape[1:] for tensor in inputs]
    for tensor, shape in zip(inputs, shapes, strict=True):
        _check_shape(tensor, shape)
        if None in shape:
            raise ValueError(
                f"the model's input {tensor.producer!r} has the shape {format_shape(tensor.shape)}: how much it "
                "computes depends on the open axes. Say their size, without the batch axis, as with "
                f"input_shape={_make_example(inputs, shapes)}"
            )
    batch = _find_batch(inputs, int(batch_size))
    description = describe(model, lambda number, built: (batch, *shapes[number]))
    return SizedModel(description, tuple(tensor.producer for tensor in inputs), batch)


def _find_batch(inputs: Sequence[compat.Tensor], batch_size: int) -> int:
    """The size of the batch axis: that which is fixed in the model, or the one that the user gives.

    Raises:
        ValueError: the user gives another one than the model's.
    """
    fixed = next((tensor.shape[0] for tensor in inputs if tensor.shape[0] is not None), batch_size)
    if batch_size not in (1, fixed):
        raise ValueError(f"batch_size={batch_size}: the model was built for a batch of {fixed}; leave batch_size out")
    return fixed


def _list_shapes(input_shape: Any, inputs: Sequence[compat.Tensor]) -> list[Shape]:
    """The shape of each input, without the batch axis, as the user gives them.

    Raises:
        TypeError, ValueError: it is no shape, or there are more or fewer shapes than inputs.
    """
    names = [tensor.producer for tensor in inputs]
    if isinstance(input_shape, Mapping):
        if set(input_shape) != set(names):
            raise ValueError(f"input_shape names {sorted(input_shape)}, and the model's inputs are {sorted(names)}")
        shapes = [input_shape[name] for name in names]
    elif isinstance(input_shape, (list, tuple)):
        is_one = not any(isinstance(part, (list, tuple)) for part in input_shape)
        shapes = [input_shape] if is_one else list(input_shape)
    else:
        raise TypeError(
            f"input_shape={input_shape!r}: expected the shape of the model's input without the batch axis, as "
            "(224, 224, 3), or for several inputs a list of shapes or a mapping from their names"
        )
    if len(shapes) != len(inputs):
        raise ValueError(f"input_shape={input_shape!r} has {len(shapes)} shapes, and the model's inputs are {names}")
    for shape in shapes:
        if not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in shape):
            raise ValueError(f"input_shape={input_shape!r}: expected whole numbers above 0, without the batch axis")
    return [tuple(shape) for shape in shapes]


def _check_shape(tensor: compat.Tensor, shape: Shape) -> None:
    """Raises ValueError where an input has another shape than it was built with."""
    built = tensor.shape[1:]
    fits = len(shape) == len(built) and all(
        expected in (None, size) for expected, size in zip(built, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"input_shape: the model's input {tensor.producer!r} has the shape {format_shape(tensor.shape)}, batch "
            f"axis first, and {format_shape(shape)} was given for it without that axis"
        )


def _make_example(inputs: Sequence[compat.Tensor], shapes: Sequence[Shape]) -> Shape | dict[str, Shape]:
    """A shape for each input with a size on its open axes; the shape alone of a single input."""
    example = [tuple(224 if size is None else size for size in shape) for shape in shapes]
    if len(example) == 1:
        return example[0]
    return {tensor.producer: shape for tensor, shape in zip(inputs, example, strict=True)}
