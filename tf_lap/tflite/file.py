"""Reading a TFLite file: its weight tensors, how they are encoded, and what of it a runtime needs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from tf_lap.tflite.origins import Origins

_DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT8: np.int8,
}

_INDEX_DTYPES = {schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}

# The first can read weights beyond 2 GB of a file. TensorFlow 2.17 has the second alone, which cannot; it writes no
# such file unless a private flag is set.
_parse = getattr(flatbuffer_utils, "read_model_from_bytearray", flatbuffer_utils.convert_bytearray_to_object)


def parse(file: bytes) -> Any:
    """A file as the classes of TFLite's schema."""
    return _parse(bytearray(file))


@dataclasses.dataclass(frozen=True, eq=False)
class WeightTensor:
    """A constant tensor of two dimensions or more.

    Attributes:
        name: the converter's name for it.
        layer: the path of the layer whose weight it is; None where that cannot be told.
        values: what it holds, zeros written out, in TFLite's order: outputs first, inputs last.
        block: how many consecutive inputs are stored together: 0 where zeros are stored too.
        densified: whether the runtime writes its zeros out again when it loads the file.
    """

    name: str
    layer: str | None
    values: np.ndarray
    block: int
    densified: bool

    @property
    def label(self) -> str:
        """The layer's path, or the converter's name where the layer is not known."""
        # Where the converter merges tensors, it joins their names by semicolons.
        return self.name.partition(";")[0] if self.layer is None else self.layer

    @property
    def encoding(self) -> str:
        """How it is stored, in words: "dense", "sparse", or "sparse blocks 1x4"."""
        if self.block > 1:
            return f"sparse blocks 1x{self.block}"
        return "sparse" if self.block else "dense"


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
    """What a file holds.

    Attributes:
        weights: its weight tensors, in the order of the file.
        flex: names of TensorFlow operations that it needs beside TFLite's own.
    """

    weights: tuple[WeightTensor, ...]
    flex: tuple[str, ...]

    @property
    def sparse(self) -> tuple[WeightTensor, ...]:
        """The weights that are stored without their zeros."""
        return tuple(weight for weight in self.weights if weight.block)


def read(file: bytes, origins: Origins | None = None) -> Contents:
    """Reads a TFLite file.

    Args:
        file: its bytes.
        origins: tells which layers its tensors come from.

    Raises:
        ValueError: it holds a sparse tensor of an unknown form.
    """
    model = parse(file)
    graphs, codes = model.subgraphs or [], model.operatorCodes or []
    densify = {i for i, code in enumerate(codes) if code.builtinCode == schema.BuiltinOperator.DENSIFY}
    weights = []
    for graph in graphs:
        densified = {op.inputs[0] for op in graph.operators or [] if op.opcodeIndex in densify}
        for number, tensor in enumerate(graph.tensors or []):
            data = model.buffers[tensor.buffer].data
            shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
            if data is None or not len(data) or len(shape) < 2 or tensor.type not in _DTYPES:
                continue
            stored = np.frombuffer(bytes(data), _DTYPES[tensor.type])
            name = tensor.name.decode()
            values, block = _decode(name, stored, shape, tensor.sparsity)
            layer = None if origins is None else origins.find_path(name, values)
            weights.append(WeightTensor(name, layer, values, block, number in densified))
    custom = (code.customCode.decode() for code in codes if code.customCode)
    return Contents(tuple(weights), tuple(sorted({name[4:] for name in custom if name.startswith("Flex")})))


def decode_tensor(model: Any, tensor: Any) -> np.ndarray:
    """The numbers of a constant tensor of a parsed file, zeros written out.

    Raises:
        ValueError: its sparse encoding has an unknown form.
    """
    dtype = {**_DTYPES, **_INDEX_DTYPES}.get(tensor.type)
    shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
    if dtype is None:
        return np.zeros(shape, np.uint8)
    stored = np.frombuffer(bytes(model.buffers[tensor.buffer].data), dtype)
    return _decode(tensor.name.decode(), stored, shape, tensor.sparsity)[0]


def _decode(name: str, stored: np.ndarray, shape: Sequence[int], sparsity: Any) -> tuple[np.ndarray, int]:
    """A tensor with its zeros written out, and how many inputs are stored together.

    TensorFlow's converter stores all dimensions dense except the last, and of the last either single columns or blocks
    of columns. No other form is read.

    Args:
        name: the tensor's name, for errors.
        stored: the values in the file, of one dimension.
        shape: the tensor's shape.
        sparsity: the file's description of the encoding; None for a dense tensor.

    Raises:
        ValueError: the encoding has another form.
    """
    if sparsity is None:
        return stored.reshape(shape), 0
    rank, levels = len(shape), sparsity.dimMetadata
    blocks = [] if sparsity.blockMap is None else list(sparsity.blockMap)
    are_sparse = [level.format == schema.DimensionType.SPARSE_CSR for level in levels]
    is_in_order = list(sparsity.traversalOrder) == list(range(len(levels)))
    only_last_sparse = are_sparse == [False] * (rank - 1) + [True] + [False] * len(blocks)
    if not is_in_order or not only_last_sparse or blocks not in ([], [rank - 1]):
        raise ValueError(f"tensor {name!r} has a sparse encoding that is not known: {sparsity.__dict__}")
    width = levels[-1].denseSize if blocks else 1
    starts = np.asarray(levels[rank - 1].arraySegments.values).astype(np.int64)
    columns = np.asarray(levels[rank - 1].arrayIndices.values)
    # Where the width of a block does not divide the inputs, the converter stores the whole blocks alone.
    dense = np.zeros((math.prod(shape[:-1]), -(-shape[-1] // width), width), stored.dtype)
    rows = np.repeat(np.arange(len(dense)), starts[1:] - starts[:-1])
    # The converter pads buffers to whole words.
    dense[rows, columns] = stored[: len(columns) * width].reshape(-1, width)
    return dense.reshape(len(dense), -1)[:, : shape[-1]].reshape(shape), width
