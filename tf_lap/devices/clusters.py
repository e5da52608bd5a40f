"""Which tensors XNNPACK lays out with channels first, so that 1x1 convolutions between them run sparse.

XNNPACK groups operations into clusters by their producers, drops clusters that read or are read by anything else, and
those with too few zeros. Here the same is done in the same order: at the seams the order decides, also where it fails.
"""

from __future__ import annotations

import dataclasses

from tf_lap.devices.failing import find_failing
from tf_lap.devices.rules import Judgement, Role, judge
from tf_lap.tflite.operations import DeviceGraph, Operation

MIN_ZEROS = 2 / 3
"""A cluster runs sparse where more than this fraction of its weights is zero."""


@dataclasses.dataclass(frozen=True, eq=False)
class Cluster:
    """Operations that run with channels first together.

    Attributes:
        operations: their numbers in the graph.
        weights: how many weights 1x1 convolutions and Dense layers in it have.
        zeros: how many of them are zero.
    """

    operations: tuple[int, ...]
    weights: int
    zeros: int

    @property
    def is_sparse_enough(self) -> bool:
        """Whether so many are zero that XNNPACK takes the cluster."""
        return self.zeros > MIN_ZEROS * self.weights


@dataclasses.dataclass(frozen=True, eq=False)
class Clusters:
    """What XNNPACK makes of a graph.

    Attributes:
        judgements: what each operation can be.
        clusters: those that qualify, whatever their zeros.
        sparse: the numbers of the 1x1 convolutions that run sparse where their clusters have zeros enough.
        failing: the numbers of operations at which the runtime fails or computes wrongly where the file is sparse.
    """

    judgements: tuple[Judgement, ...]
    clusters: tuple[Cluster, ...]
    sparse: frozenset[int]
    failing: tuple[int, ...]


def find_clusters(graph: DeviceGraph) -> Clusters:
    """The clusters of a graph."""
    search = _Search(graph)
    search.join_ends()
    search.join_all()
    search.drop_spoiled()
    return search.close()


class _Search:
    """The clusters in the making: each operation has a leader, the last operation of its cluster."""

    def __init__(self, graph: DeviceGraph) -> None:
        self._graph = graph
        self._judgements = tuple(map(judge, graph.operations))
        self._roles = [judgement.role for judgement in self._judgements]
        self._leaders = list(range(len(graph.operations)))
        self._spoiled = [False] * len(graph.operations)
        self._producers = {tensor: i for i, op in enumerate(graph.operations) for tensor in op.outputs}
        self._joined = False

    def join_ends(self) -> None:
        """Joins operations that can end a cluster with those that they read."""
        for number, role in enumerate(self._roles):
            if role & Role.ENDS:
                self._joined |= self._join(number)

    def join_all(self) -> None:
        """Joins all others, until nothing changes."""
        changes = self._joined
        while changes:
            changes = False
            for number in range(len(self._roles)):
                if not self._spoiled[number] and self._roles[number] & (Role.INSIDE | Role.ENDS):
                    changes |= self._join(number)

    def _join(self, number: int) -> bool:
        """Joins an operation with what it reads; whether that changed anything."""
        changed = False
        for tensor in self._graph.operations[number].inputs:
            producer = self._producers.get(tensor)
            is_open = producer is None or not self._roles[producer] & (Role.BEGINS | Role.INSIDE)
            if producer is None or is_open or self._spoiled[producer]:
                self._spoiled[number] = True
                continue
            self._roles[producer] &= ~Role.ENDS  # it is read inside the cluster
            if self._leaders[producer] != self._leaders[number]:
                leader = max(self._leaders[producer], self._leaders[number])
                self._leaders[producer] = self._leaders[number] = leader
                changed = True
        return changed

    def drop_spoiled(self) -> None:
        """Drops clusters that hold a spoiled operation, or a tensor that others read too."""
        for number, is_spoiled in enumerate(self._spoiled):
            if is_spoiled:
                self._spoiled[self._leaders[number]] = True
        readers: dict[int, int] = dict.fromkeys(self._graph.outputs, 1)
        readers_inside: dict[int, int] = {}
        for number, operation in enumerate(self._graph.operations):
            for tensor in operation.inputs:
                readers[tensor] = readers.get(tensor, 0) + 1
                if self._is_inside(number):
                    readers_inside[tensor] = readers_inside.get(tensor, 0) + 1
        for number in [number for number in range(len(self._roles)) if self._is_inside(number)]:
            if any(readers[tensor] != readers_inside[tensor] for tensor in self._graph.operations[number].inputs):
                self._spoiled[self._leaders[number]] = True

    def _is_inside(self, number: int) -> bool:
        is_whole = not self._spoiled[self._leaders[number]]
        return self._joined and is_whole and bool(self._roles[number] & (Role.INSIDE | Role.ENDS))

    def close(self) -> Clusters:
        """What was found."""
        members: dict[int, list[int]] = {}
        for number in range(len(self._roles)):
            is_member = self._is_inside(number) or bool(self._roles[number] & Role.BEGINS)
            if self._joined and is_member and not self._spoiled[self._leaders[number]]:
                members.setdefault(self._leaders[number], []).append(number)
        clusters = [self._describe(numbers) for numbers in members.values()]
        clusters = [cluster for cluster in clusters if cluster.weights]
        turned = {
            tensor
            for cluster in clusters
            for number in cluster.operations
            if self._is_inside(number)
            for tensor in self._graph.operations[number].inputs
        }
        inside = {number for cluster in clusters for number in cluster.operations if self._is_inside(number)}
        sparse = frozenset(
            number
            for number in inside
            if self._graph.operations[number].is_pointwise and turned.issuperset(self._graph.operations[number].outputs)
        )
        return Clusters(self._judgements, tuple(clusters), sparse, tuple(find_failing(self._graph, inside, turned)))

    def _describe(self, numbers: list[int]) -> Cluster:
        counted = [op for op in (self._graph.operations[n] for n in numbers) if is_counted(op)]
        return Cluster(tuple(numbers), sum(op.size for op in counted), sum(op.zeros for op in counted))


def is_counted(operation: Operation) -> bool:
    """Whether the weights of an operation count where XNNPACK looks for zeros."""
    return operation.weights is not None and (operation.is_pointwise or operation.kind == "FULLY_CONNECTED")
