"""The operations of a TFLite file, as XNNPACK sees them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tf_lap.tflite import file as tflite

Shape = tuple[int, ...]
Padding = tuple[int, int, int, int]
"""How many rows and columns of zeros are added: above, below, on the left and on the right."""

Labels = Callable[[str, np.ndarray | None], str]
"""What an operation is called, given the converter's name for a tensor of it, and its values where it is weights."""


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """An operation of a file. Tensors that it computes with are numbers, constants are left out.

    Attributes:
        kind: TFLite's name for it, as "CONV_2D".
        label: the path of its layer, or the converter's name where the layer is not known.
        inputs: the tensors that it reads and that others put out, each once.
        outputs: the tensors that it puts out.
        shapes: the shapes of all that it reads, constants among them.
        constants: the places in `shapes` that are constants.
        is_float: whether all that it reads and puts out is float32 or float16.
        weights: the weights of a convolution or a Dense layer, outputs first, zeros written out; else None.
        kernel: how many rows and columns of taps a convolution has.
        strides: its strides, of rows and of columns.
        dilations: likewise.
        padding: the zeros that a convolution or a pad adds; None where a convolution pads "same" in a way that XNNPACK
            reckons out when it runs, or a pad adds other than rows and columns.
        multiplier: how many outputs a depthwise convolution has for each channel.
        axes: the axes that a mean or a sum goes over.
        keeps_rank: whether a mean, a sum or a Dense layer puts out as many axes as it reads.
    """

    kind: str
    label: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shapes: tuple[Shape, ...]
    constants: tuple[int, ...]
    is_float: bool
    weights: np.ndarray | None = None
    kernel: tuple[int, int] = (0, 0)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    padding: Padding | None = (0, 0, 0, 0)
    multiplier: int = 1
    axes: tuple[int, ...] = ()
    keeps_rank: bool = False

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a 1x1 convolution."""
        return self.kind == "CONV_2D" and self.kernel == (1, 1)

    @property
    def groups(self) -> int:
        """How many groups a convolution has."""
        return self.shapes[0][-1] // self.weights.shape[-1] if self.weights is not None else 1

    @property
    def size(self) -> int:
        """How many weights it has."""
        return 0 if self.weights is None else self.weights.size

    @property
    def zeros(self) -> int:
        """How many of them are zero."""
        return 0 if self.weights is None else self.weights.size - int(np.count_nonzero(self.weights))


@dataclasses.dataclass(frozen=True, eq=False)
class DeviceGraph:
    """The operations of a file, in the order in which they run.

    Attributes:
        operations: the operations.
        outputs: the tensors that leave the network.
    """

    operations: tuple[Operation, ...]
    outputs: frozenset[int]

    def producers(self) -> dict[int, Operation]:
        """By tensor the operation that puts it out; the network's inputs are not among them."""
        return {tensor: operation for operation in self.operations for tensor in operation.outputs}

    def consumers(self) -> dict[int, list[Operation]]:
        """By tensor the operations that read it."""
        readers: dict[int, list[Operation]] = {}
        for operation in self.operations:
            for tensor in operation.inputs:
                readers.setdefault(tensor, []).append(operation)
        return readers


def name_by_tensor(name: str, values: np.ndarray | None = None) -> str:
    """The converter's name of an operation, without what it merged it with."""
    return name.partition(";")[0]


def read_operations(file: bytes, labels: Labels = name_by_tensor) -> DeviceGraph:
    """Reads the operations of a file's first subgraph.

    Zeros that a file pads with before a convolution are the convolution's own padding, as XNNPACK merges them. What
    only writes constants out (DENSIFY, DEQUANTIZE) is left out.

    Args:
        file: the bytes of a TFLite file.
        labels: names operations.

    Raises:
        ValueError: it holds a sparse tensor of an unknown form.
    """
    model = tflite.parse(file)
    reader = _Reader(model, labels)
    operations = [operation for raw in reader.graph.operators or [] if (operation := reader.read(raw)) is not None]
    outputs = frozenset(map(int, reader.graph.outputs))
    return DeviceGraph(tuple(_merge_pads(operations, outputs)), outputs)


_KINDS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_FLOATS = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16)
_UNFOLDED = ("DENSIFY", "DEQUANTIZE")
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


class _Reader:
    """Reads the operations of one file.

    Attributes:
        graph: its first subgraph.
    """

    def __init__(self, model: Any, labels: Labels) -> None:
        self.graph = model.subgraphs[0]
        self._model, self._labels = model, labels
        self._sources: dict[int, int] = {}  # a constant that is written out, and the tensor in the file

    def read(self, raw: Any) -> Operation | None:
        """An operation; None for one that only writes a constant out."""
        code = self._model.operatorCodes[raw.opcodeIndex]
        kind = _KINDS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
        numbers = [int(number) for number in raw.inputs if number >= 0]
        outputs = tuple(map(int, raw.outputs))
        if kind in _UNFOLDED and self.is_constant(numbers[0]):
            self._sources[outputs[0]] = self._sources.get(numbers[0], numbers[0])
            return None
        constants = tuple(place for place, number in enumerate(numbers) if self.is_constant(number))
        computed = [number for number in numbers if not self.is_constant(number)]
        weights = self.values(numbers[1]) if kind in _WEIGHTED and 1 in constants else None
        numeric = [*computed, *outputs, *(numbers[1:2] if weights is not None else ())]
        operation = Operation(
            kind=kind,
            label=self._label(kind, numbers, outputs, weights),
            inputs=tuple(dict.fromkeys(computed)),
            outputs=outputs,
            shapes=tuple(self.shape(number) for number in numbers),
            constants=constants,
            is_float=all(self.graph.tensors[number].type in _FLOATS for number in numeric),
            weights=weights,
        )
        return self._add_settings(operation, raw.builtinOptions, numbers)

    def _add_settings(self, operation: Operation, options: Any, numbers: Sequence[int]) -> Operation:
        """The operation with what its options say."""
        if operation.kind in ("MEAN", "SUM"):
            rank = len(operation.shapes[0])
            listed = self.values(numbers[1]) if 1 in operation.constants else np.array([], np.int32)
            axes = tuple(sorted(int(axis) % rank for axis in np.ravel(listed)))
            return dataclasses.replace(operation, axes=axes, keeps_rank=options.keepDims)
        if operation.kind == "FULLY_CONNECTED":
            return dataclasses.replace(operation, keeps_rank=options.keepNumDims)
        if operation.kind == "PAD":
            added = self.values(numbers[1]) if operation.constants == (1,) else np.array([])
            return dataclasses.replace(operation, padding=_spatial_padding(added))
        if operation.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            return operation
        kernel = operation.shapes[1][1], operation.shapes[1][2]
        strides = options.strideH, options.strideW
        dilations = options.dilationHFactor, options.dilationWFactor
        is_same = options.padding == schema.Padding.SAME
        multiplier = 1
        if operation.kind == "DEPTHWISE_CONV_2D":
            multiplier = operation.shapes[1][-1] // operation.shapes[0][-1]
        return dataclasses.replace(
            operation,
            kernel=kernel,
            strides=strides,
            dilations=dilations,
            multiplier=multiplier,
            padding=_same_padding(kernel, strides, dilations) if is_same else (0, 0, 0, 0),
        )

    def _label(self, kind: str, numbers: Sequence[int], outputs: Sequence[int], weights: np.ndarray | None) -> str:
        if weights is not None:
            source = self._sources.get(numbers[1], numbers[1])
            return self._labels(self.graph.tensors[source].name.decode(), weights)
        if not outputs:
            return kind
        return self._labels(self.graph.tensors[outputs[0]].name.decode(), None)

    def is_constant(self, number: int) -> bool:
        """Whether a tensor is in the file."""
        if number in self._sources:
            return True
        data = self._model.buffers[self.graph.tensors[number].buffer].data
        return data is not None and len(data) > 0

    def shape(self, number: int) -> Shape:
        """The shape of a tensor; empty for a single number."""
        extents = self.graph.tensors[number].shape
        return () if extents is None else tuple(map(int, extents))

    def values(self, number: int) -> np.ndarray:
        """The numbers of a constant, zeros written out."""
        tensor = self.graph.tensors[self._sources.get(number, number)]
        return tflite.decode_tensor(self._model, tensor)


def _same_padding(kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Padding | None:
    """What "same" pads, where XNNPACK reckons it out when it loads a file: at stride 1 alone."""
    if tuple(strides) != (1, 1):
        return (0, 0, 0, 0) if tuple(kernel) == (1, 1) else None
    rows, columns = ((taps - 1) * apart for taps, apart in zip(kernel, dilations, strict=True))
    return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2


def _merge_pads(operations: Sequence[Operation], outputs: frozenset[int]) -> list[Operation]:
    """The operations, with pads of zeros as the padding of the convolution behind them, where it alone reads them."""
    readers = Counter(tensor for operation in operations for tensor in operation.inputs)
    pads: dict[int, Operation] = {}
    merged: list[Operation] = []
    for operation in operations:
        if operation.kind == "PAD" and operation.padding is not None and operation.outputs[0] not in outputs:
            pads[operation.outputs[0]] = operation
        pad = pads.get(operation.inputs[0]) if operation.inputs else None
        is_alone = pad is not None and readers[pad.outputs[0]] == 1
        if pad is not None and is_alone and operation.kernel != (0, 0) and operation.padding is not None:
            merged.remove(pad)
            top, bottom, left, right = map(sum, zip(operation.padding, pad.padding or (), strict=True))
            shapes, padding = (pad.shapes[0], *operation.shapes[1:]), (top, bottom, left, right)
            operation = dataclasses.replace(operation, inputs=pad.inputs, shapes=shapes, padding=padding)
        merged.append(operation)
    return merged


def _spatial_padding(added: np.ndarray) -> Padding | None:
    """The rows and columns that a pad adds; None where it adds anything else."""
    if added.size != 8:
        return None
    batch, rows, columns, channels = added.reshape(4, 2).tolist()
    return None if any((*batch, *channels)) else (rows[0], rows[1], columns[0], columns[1])
