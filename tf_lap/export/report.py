"""What an exported file holds, and how much smaller and faster it is."""

from __future__ import annotations

import dataclasses
import functools
import gzip
from pathlib import Path
from typing import Any

import numpy as np

from tf_lap.export import runtime as runtimes
from tf_lap.tabular import table
from tf_lap.tflite.file import WeightTensor

# A file is called faster or slower from these ratios on; smaller ones may be noise.
_FASTER = 1.05
_SLOWER = 1.1


@dataclasses.dataclass(frozen=True)
class TensorReport:
    """One weight tensor of the file, of two dimensions or more.

    Attributes:
        name: the path of the layer whose weight it is. Where the layer has several, the variable's name is appended.
            Where the layer is not known, the converter's name.
        shape: its shape, in TFLite's order: outputs first, inputs last.
        dtype: its dtype.
        sparsity: the fraction of zeros.
        encoding: "dense" (zeros written out), "sparse", or "sparse blocks 1x4".
        densified: whether the runtime writes the zeros out again when it loads the file.
        tensor: the converter's name.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    sparsity: float
    encoding: str
    densified: bool
    tensor: str

    @classmethod
    def from_weight(cls, weight: WeightTensor) -> TensorReport:
        """The report of a tensor."""
        values = weight.values
        zeros = 1 - np.count_nonzero(values) / values.size
        dtype = str(values.dtype)
        return cls(weight.label, values.shape, dtype, float(zeros), weight.encoding, weight.densified, weight.name)


@dataclasses.dataclass(frozen=True)
class Latency:
    """How long one call takes, measured by turns in one process.

    Attributes:
        threads: how many threads the runtime had.
        rounds: how often each was measured.
        dense: the milliseconds of the same model with every zero written out.
        file: the milliseconds of the file.
    """

    threads: int
    rounds: int
    dense: runtimes.Timing
    file: runtimes.Timing

    @property
    def on(self) -> str:
        """The number of threads, in words."""
        return "1 thread" if self.threads == 1 else f"{self.threads} threads"

    @property
    def speedup(self) -> float:
        """How many times as fast as the dense one the file is, by the medians."""
        return self.dense.median / self.file.median

    def __str__(self) -> str:
        slower = f"{1 / self.speedup:.1f} times SLOWER on {self.on}"
        if self.speedup * _SLOWER < 1:
            return slower
        speed = f"{self.speedup:.2f} times as fast on {self.on}"
        return speed if self.speedup >= _FASTER else f"not faster: {speed}"


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """A TFLite file that was written and checked. `str()` is a table, with the gain in its last line.

    It holds the bytes of the file, and of the dense one beside it, for `timed`.

    Attributes:
        path: where it lies.
        quantization: as it was passed to `export_tflite`.
        sparse: whether any tensor in it is stored without its zeros.
        reason: why none is; None where one is, or with `sparse=False`.
        dense_bytes: the size of the file with the same quantization and every zero written out.
        file_bytes: the size of this file.
        tensors: its weight tensors.
        difference: the largest difference of an output to the Keras model's, over the inputs it was checked with.
        relative_difference: the same, over the largest output; of several outputs the one where it is largest.
        tolerance: the largest relative difference that is accepted.
        runtime: the interpreter that it was run in.
        batch_size: the fixed batch of its first input; None where it is open.
        latency: how long a call takes, where `sparse="auto"` or `timed` measured it; else None.
        convolutions: how many 1x1 convolutions the file has, where it is sparse.
        sparse_convolutions: how many of them XNNPACK multiplies without their zeros on ARM and in WebAssembly, as
            `tf_lap.device_report` finds it. On x86 it does not.
    """

    path: Path
    quantization: str | None
    sparse: bool
    reason: str | None
    dense_bytes: int
    file_bytes: int
    tensors: tuple[TensorReport, ...]
    difference: float
    relative_difference: float
    tolerance: float
    runtime: str
    batch_size: int | None
    latency: Latency | None = None
    convolutions: int = 0
    sparse_convolutions: int = 0
    _files: tuple[bytes, ...] = dataclasses.field(default=(), repr=False, compare=False)
    _sample: dict[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @functools.cached_property
    def gzip_bytes(self) -> int:
        """The size of the file after gzip. The file is packed when this is first read, since that takes long."""
        return len(gzip.compress(self._files[-1]))

    @property
    def needs_densify(self) -> bool:
        """Whether the file needs the operation DENSIFY, which TFLite Micro does not have."""
        return any(tensor.densified for tensor in self.tensors)

    @property
    def gain(self) -> str:
        """In a line, what was gained against the dense file of the same quantization."""
        if not self.sparse:
            packed = f"gzip makes it {self.dense_bytes / self.gzip_bytes:.1f} times smaller"
            return f"as large as a dense file ({self.reason}); {packed}" if self.reason else f"dense; {packed}"
        ratio = self.dense_bytes / self.file_bytes
        size = f"{ratio:.1f} times smaller on disk" if ratio >= 1 else f"{1 / ratio:.2f} times larger on disk"
        blocks = [tensor for tensor in self.tensors if tensor.encoding != "dense" and not tensor.densified]
        if self.sparse_convolutions:
            return f"{size}; {self._gain_on_devices}"
        if not blocks:
            return f"{size}, not faster: TFLite writes these zeros out again when it loads the file"
        if self.latency is None:
            return f"{size}; runs {len(blocks)} Dense layer(s) without their zeros: timed() measures how fast"
        return f"{size}, {self.latency}"

    @property
    def _gain_on_devices(self) -> str:
        count = f"{self.sparse_convolutions} of {self.convolutions} 1x1 convolutions"
        if self.batch_size is None:
            return f"not faster: with batch_size=1 {count} would run sparse on ARM and in WebAssembly"
        here = "not on x86" if self.latency is None else f"here {self.latency}"
        return f"faster on ARM and in WebAssembly, where {count} run sparse; {here}"

    def timed(self, *, threads: int = 1, rounds: int = 20) -> ExportReport:
        """This report with its `latency`: the dense file and this one, as they were written, run by turns.

        Example:

        >>> report = tf_lap.export_tflite(model, "model.tflite")
        >>> report.timed(rounds=3).latency.threads
        1

        Args:
            threads: how many threads the runtime gets.
            rounds: how often each is measured.

        Raises:
            ValueError: fewer than one thread or round.
        """
        if threads < 1 or rounds < 1:
            raise ValueError(f"threads={threads}, rounds={rounds}: expected at least one of each")
        tool = runtimes.find_runtime()
        timings = runtimes.time_in_turn([tool.load(file, threads) for file in self._files], self._sample, rounds)
        return dataclasses.replace(self, latency=Latency(threads, rounds, timings[0], timings[-1]))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for `json.dumps`."""
        names = [field.name for field in dataclasses.fields(self) if not field.name.startswith("_")]
        plain = {name: getattr(self, name) for name in names} | {"path": str(self.path)}
        plain["tensors"] = [dataclasses.asdict(tensor) | {"shape": list(tensor.shape)} for tensor in self.tensors]
        if self.latency is not None:
            times = {name: getattr(self.latency, name)._asdict() for name in ("dense", "file")}
            plain["latency"] = {"threads": self.latency.threads, "rounds": self.latency.rounds, **times}
        return plain | {"gzip_bytes": self.gzip_bytes, "needs_densify": self.needs_densify, "gain": self.gain}

    def __str__(self) -> str:
        rows = [("tensor", "shape", "dtype", "zeros", "encoding")]
        for tensor in self.tensors:
            encoding = tensor.encoding + (", densified at load" if tensor.densified else "")
            shape = "x".join(map(str, tensor.shape))
            rows.append((tensor.name, shape, tensor.dtype, f"{tensor.sparsity:.2%}", encoding))
        lines = table(rows, right=(3,))
        if self.needs_densify:
            lines.append(
                "sparse tensors densified at load need the operation DENSIFY, which TFLite Micro does not have: "
                "for microcontrollers use sparse=False"
            )
        if self.batch_size is not None:
            lines.append(f"takes batches of {self.batch_size} alone")
        lines.append(
            f"{self.path}: {self.file_bytes:,} bytes, gzipped {self.gzip_bytes:,}; "
            f"dense {self.dense_bytes:,}; quantization {self.quantization or 'none'}"
        )
        lines.append(
            f"checked in {self.runtime}: differs from Keras by {self.difference:.2g}, "
            f"{self.relative_difference:.2g} of the largest output (at most {self.tolerance:g})"
        )
        if self.latency is not None:
            timings = {"dense": self.latency.dense, **({"file": self.latency.file} if self.sparse else {})}
            times = "; ".join(
                f"{name} {t.median:.3g} ms ({t.least:.3g} to {t.most:.3g})" for name, t in timings.items()
            )
            lines.append(f"latency on {self.latency.on}, {self.latency.rounds} rounds: {times}")
        return "\n".join([*lines, self.gain])
