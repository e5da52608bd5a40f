"""Which channels can only be removed together, found by the very maps that carry energy.

Every channel of every tensor, and every input and output channel of every kernel, gets a label. Where a map makes one
channel of another, both get the same label: a sum couples what it adds up, a Flatten couples the places of a channel, a
concatenation couples each part with its place. Channels of one label are a class.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from tf_lap import compat
from tf_lap.graph.channels import Signal
from tf_lap.graph.model_graph import KernelStep, ProductStep, Recipe, RuleStep
from tf_lap.graph.resizing import find_obstacle, has_own_call


@dataclasses.dataclass(frozen=True, eq=False)
class Coupling:
    """The classes of channels that can only be removed together. Classes are numbered from 0.

    Attributes:
        tensor_classes: for each tensor the class of each of its channels: int64 `(channels,)`, or `(1,)` where all are
            alike.
        kernel_inputs: for each kernel the class of each input channel: int64 `(inputs,)`.
        kernel_outputs: for each kernel the class of each output channel: int64 `(outputs,)`.
        walls: for each class that cannot be removed the reasons.
        count: how many classes there are.
    """

    tensor_classes: tuple[np.ndarray, ...]
    kernel_inputs: tuple[np.ndarray, ...]
    kernel_outputs: tuple[np.ndarray, ...]
    walls: dict[int, tuple[str, ...]]
    count: int


def find_coupling(recipe: Recipe) -> Coupling:
    """The classes of channels of a resolved model."""
    return _Labels(recipe).couple()


class _Labels:
    """The labels of all channels, in one array, with those of each tensor and each kernel behind one another."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        widths = [_count_channels(signal) for signal in recipe.signals]
        widths += [width for kernel in recipe.kernels for width in (kernel.layout.inputs, kernel.layout.outputs)]
        ends = np.cumsum([0, *widths])
        places = [np.arange(start, end) for start, end in itertools.pairwise(ends)]
        count = len(recipe.signals)
        self._tensors, self._inputs, self._outputs = places[:count], places[count::2], places[count + 1 :: 2]
        self._forest = UnionFind(int(ends[-1]))
        self._walls: list[tuple[np.ndarray, str]] = []

    def couple(self) -> Coupling:
        """Goes through all steps, and numbers the classes."""
        for step in (*self._recipe.steps, *self._recipe.coupling_steps):
            match step:
                case KernelStep():
                    self._couple_kernel(step)
                case RuleStep():
                    self._couple_rule(step)
                case ProductStep():
                    (made_of,) = step.energy_map.trace(len(self._tensors[step.left]), len(self._tensors[step.right]))
                    self._join(step.left, step.right, made_of)
                    if not step.is_by_head:
                        places = np.concatenate([self._tensors[tensor] for tensor in (step.left, step.right)])
                        self._walls.append((places, "it is multiplied with channels of another tensor, and added up"))
        for number in range(len(self._recipe.kernels)):
            self._couple_groups(number)
        self._wall_layers()
        self._couple_shared_weights()
        for tie in self._recipe.ties:
            self._join_ties(tie)
        self._join_slices()
        self._walls += [(self._tensors[tensor], reason) for tensor, reason in self._recipe.walls]
        for number, kernel in enumerate(self._recipe.kernels):
            if not kernel.uses:
                places = np.concatenate([self._inputs[number], self._outputs[number]])
                self._walls.append((places, kernel.unreached_reason or "not in the graph"))
        return self._number_classes()

    def _wall_layers(self) -> None:
        """Notes the layers that cannot be made anew with fewer channels: their output is as wide as it is."""
        for step in self._recipe.steps:
            if isinstance(step, (KernelStep, RuleStep)):
                layer = step.layer if isinstance(step, RuleStep) else self._recipe.kernels[step.kernel].layer
                obstacle = find_obstacle(layer)
                if obstacle:
                    self._walls.append((self._tensors[step.target], obstacle))
                if obstacle and isinstance(step, KernelStep) and has_own_call(layer):
                    self._walls.append((self._tensors[step.source], obstacle))

    def _couple_kernel(self, step: KernelStep) -> None:
        """A kernel's channels are those of the tensors that it reads and puts out."""
        read, put = self._inputs[step.kernel], self._outputs[step.kernel]
        if step.is_transposed:
            read, put = put, read
        for places, tensor in ((read, step.source), (put, step.target)):
            channels = self._tensors[tensor]
            self._forest.join(places, np.broadcast_to(channels, places.shape))
        kernel = self._recipe.kernels[step.kernel]
        if kernel.is_tied:
            self._walls.append((np.concatenate([read, put]), f"{kernel.path!r} shares its kernel with another layer"))

    def _couple_rule(self, step: RuleStep) -> None:
        target = self._tensors[step.target]
        traces = step.energy_map.trace(len(target), *(len(self._tensors[source]) for source in step.sources))
        for source, made_of in zip(step.sources, traces, strict=True):
            self._join(step.target, source, made_of)
            if step.tied is not None:
                places = self._tensors[source][step.tied]
                self._forest.join(places[:, 1:], np.broadcast_to(places[:, :1], places[:, 1:].shape))
        if step.kernel is not None:
            read, put = self._inputs[step.kernel], self._outputs[step.kernel]
            self._forest.join(read, np.broadcast_to(self._tensors[step.sources[0]], read.shape))
            self._forest.join(put, np.broadcast_to(target, put.shape))

    def _join(self, target: int, source: int, made_of: np.ndarray) -> None:
        """Couples channels of one tensor with those of another that they are made of.

        A channel that is one of its kind may be made to act on all channels, as a mask of positions does; it is not
        coupled with them. Where it stands for several that are alike, these cannot be told apart, nor removed.

        Args:
            target: a tensor.
            source: another.
            made_of: int64 `(channels of the target, n)`: numbers of the source's channels, or -1.
        """
        targets, sources = self._tensors[target], self._tensors[source]
        rows, columns = np.nonzero(made_of >= 0)
        if len(sources) == 1 and len(np.unique(rows)) > 1:
            signals = self._recipe.signals
            if _stands_for_several(signals[source], signals[target]):
                reasons = [reason for tensor, reason in self._recipe.walls if tensor == source]
                reason = reasons[0] if reasons else "its channels meet others that cannot be told apart"
                self._walls.append((targets[rows], reason))
            return
        self._forest.join(targets[rows], sources[made_of[rows, columns]])

    def _couple_groups(self, number: int) -> None:
        """The inputs and outputs of each group of a grouped kernel go together: groups are equally wide."""
        groups = self._recipe.kernels[number].layout.plain.groups
        if groups == 1:
            return
        inputs, outputs = (places[number].reshape(groups, -1) for places in (self._inputs, self._outputs))
        self._forest.join(inputs, np.broadcast_to(inputs[:, :1], inputs.shape))
        self._forest.join(outputs, np.broadcast_to(inputs[:, :1], outputs.shape))

    def _couple_shared_weights(self) -> None:
        """What a layer puts out goes together over all its calls where it has weights for channels, as a scale."""
        with_kernels = {id(kernel.layer) for kernel in self._recipe.kernels}
        first: dict[int, np.ndarray] = {}
        for step in self._recipe.steps:
            if isinstance(step, RuleStep) and id(step.layer) not in with_kernels and compat.own_weights(step.layer):
                channels = self._tensors[step.target]
                other = first.setdefault(id(step.layer), channels)
                if len(other) == len(channels):
                    self._forest.join(channels, other)

    def _join_ties(self, tie: Sequence[tuple[int, int]]) -> None:
        """The places on axes that must stay equally long go together, over all tensors of the tie."""
        slices = []
        for tensor, axis in tie:
            signal, places = self._recipe.signals[tensor], self._tensors[tensor]
            by_axis = _slice_along_each(places.reshape(signal.sizes()))
            slices.append(by_axis[signal.axes.index(axis)] if axis in signal.axes else places.reshape(1, -1))
        for by_place in slices:
            self._forest.join(by_place, np.broadcast_to(by_place[:, :1], by_place.shape))
        first, *others = slices
        for by_place in others:
            if len(by_place) == len(first):
                self._forest.join(by_place[:, 0], first[:, 0])
            else:
                self._walls.append((np.concatenate([by_place.ravel(), first.ravel()]), "its heads do not match others"))

    def _join_slices(self) -> None:
        """Of a tensor whose channels lie on several axes, only whole slices along one axis can be removed.

        That is the axis along which classes are such slices already; the first one where there is none.
        """
        joined = True
        while joined:
            joined = False
            for signal, channels in zip(self._recipe.signals, self._tensors, strict=True):
                if len(signal.axes) < 2 or len(channels) == 1:
                    continue
                places = channels.reshape(signal.sizes())
                labels = self._forest.find(places)
                if any(np.all(moved == moved[:, :1]) for moved in _slice_along_each(labels)):
                    continue
                by_slice = _slice_along_each(places)[0]
                self._forest.join(by_slice, np.broadcast_to(by_slice[:, :1], by_slice.shape))
                joined = True

    def _number_classes(self) -> Coupling:
        labels = self._forest.find(np.arange(self._forest.size))
        classes, numbers = np.unique(labels, return_inverse=True)
        numbers = numbers.reshape(-1)
        walls: dict[int, dict[str, None]] = {}
        for places, reason in self._walls:
            for number in np.unique(numbers[places]):
                walls.setdefault(int(number), {})[reason] = None
        tensors, inputs, outputs = (
            tuple(numbers[places] for places in parts) for parts in (self._tensors, self._inputs, self._outputs)
        )
        reasons = {number: tuple(texts) for number, texts in walls.items()}
        return Coupling(tensors, inputs, outputs, reasons, len(classes))


class UnionFind:
    """Disjoint sets of the numbers 0 to `size` - 1."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._parents = np.arange(size)

    def find(self, numbers: np.ndarray) -> np.ndarray:
        """The number that stands for the set of each number; shaped alike."""
        roots = self._parents[numbers]
        while True:
            above = self._parents[roots]
            if np.array_equal(above, roots):
                self._parents[numbers] = roots
                return roots
            roots = above

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Joins the set of each number on the left with that of the number on the right at its place."""
        left, right = left.reshape(-1), right.reshape(-1)
        while True:
            left_roots, right_roots = self.find(left), self.find(right)
            apart = left_roots != right_roots
            if not np.any(apart):
                return
            left, right = left[apart], right[apart]
            low = np.minimum(left_roots[apart], right_roots[apart])
            high = np.maximum(left_roots[apart], right_roots[apart])
            # Of several lower sets that a set is to join, one is taken; the others' turn comes in the next round.
            self._parents[high] = low


def _count_channels(signal: Signal) -> int:
    """How many channels a tensor tells apart; 1 where an axis of them is open."""
    sizes = [signal.shape[axis] for axis in signal.axes]
    return 1 if None in sizes else math.prod(size or 0 for size in sizes)


def _stands_for_several(source: Signal, target: Signal) -> bool:
    """Whether a tensor whose channels are all alike has several of them on the channel axes of another."""
    offset = len(target.shape) - len(source.shape)
    axes = (axis - offset for axis in target.axes)
    return any(axis > 0 and source.shape[axis] != 1 for axis in axes)


def _slice_along_each(places: np.ndarray) -> list[np.ndarray]:
    """For each axis of an array its slices along that axis, as the rows of a matrix."""
    return [np.moveaxis(places, axis, 0).reshape(places.shape[axis], -1) for axis in range(places.ndim)]
