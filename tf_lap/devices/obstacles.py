"""What keeps operations out of XNNPACK's sparse path, for each of them."""

from __future__ import annotations

from typing import NamedTuple

from tf_lap.devices.clusters import Clusters
from tf_lap.devices.failing import REDUCTIONS
from tf_lap.devices.rules import Role
from tf_lap.tflite.operations import DeviceGraph


class Obstacle(NamedTuple):
    """Why an operation does not run sparse.

    Attributes:
        layer: the layer that is to blame.
        reason: what of it is in the way.
        remedy: what to do.
    """

    layer: str
    reason: str
    remedy: str


_NO_STEM = "begin with a 3x3 convolution of stride 2 over 3 channels, padded by 1 on each side"
_NO_END = "end it with GlobalAveragePooling2D()"


def find_obstacles(graph: DeviceGraph, clusters: Clusters) -> dict[int, list[Obstacle]]:
    """By the number of each operation that can be in a cluster, what is in the way of all that it is joined with.

    The obstacles of an operation come in the order of the graph.
    """
    joined = _Joined(graph, clusters)
    obstacles: dict[int, list[Obstacle]] = {}
    for members in joined.components():
        in_the_way = joined.find_obstacles(members)
        obstacles.update((number, in_the_way) for number in members)
    return obstacles


class _Joined:
    """Operations that would be in one cluster if nothing were in the way."""

    def __init__(self, graph: DeviceGraph, clusters: Clusters) -> None:
        self._graph = graph
        self._judgements = clusters.judgements
        self._failing = set(clusters.failing)
        self._producers = {tensor: i for i, op in enumerate(graph.operations) for tensor in op.outputs}
        self._consumers: dict[int, list[int]] = {}
        for number, operation in enumerate(graph.operations):
            for tensor in operation.inputs:
                self._consumers.setdefault(tensor, []).append(number)

    def _role(self, number: int) -> Role:
        return self._judgements[number].role

    def components(self) -> list[list[int]]:
        """The operations that are joined, in sets."""
        parents = list(range(len(self._graph.operations)))

        def find(number: int) -> int:
            while parents[number] != number:
                number = parents[number]
            return number

        for number, operation in enumerate(self._graph.operations):
            if self._role(number) & (Role.INSIDE | Role.ENDS):
                for tensor in operation.inputs:
                    producer = self._producers.get(tensor)
                    if producer is not None and self._role(producer) & (Role.BEGINS | Role.INSIDE):
                        parents[find(producer)] = find(number)
        members: dict[int, list[int]] = {}
        for number in range(len(parents)):
            if self._role(number):
                members.setdefault(find(number), []).append(number)
        return list(members.values())

    def find_obstacles(self, members: list[int]) -> list[Obstacle]:
        """What is in the way of joined operations."""
        obstacles: list[Obstacle] = []
        for number in members:
            if self._role(number) & (Role.INSIDE | Role.ENDS):
                for tensor in self._graph.operations[number].inputs:
                    obstacles += self._find_before(number, tensor) + self._find_beside(tensor)
        if not any(self._role(number) & Role.ENDS for number in members):
            leaving = [tensor for number in members for tensor in self._graph.operations[number].outputs]
            readers = [obstacle for tensor in leaving for obstacle in self._find_beside(tensor)]
            last = self._graph.operations[members[-1]].label
            obstacles += readers or [Obstacle(last, "no mean over both spatial axes comes behind it", _NO_END)]
        for number in members:
            if number in self._failing:
                obstacles.append(explain_failing(self._graph, number))
        return list(dict.fromkeys(obstacles))

    def _find_before(self, number: int, tensor: int) -> list[Obstacle]:
        """What is wrong with what puts a tensor out."""
        producer = self._producers.get(tensor)
        if producer is None:
            return [Obstacle(self._graph.operations[number].label, "reads the network's input", _NO_STEM)]
        judgement, label = self._judgements[producer], self._graph.operations[producer].label
        if judgement.role & (Role.BEGINS | Role.INSIDE):
            return []
        if judgement.role:
            return [Obstacle(label, "ends the cluster before it", "move it behind")]
        return [Obstacle(label, judgement.obstacle, judgement.remedy)]

    def _find_beside(self, tensor: int) -> list[Obstacle]:
        """What is wrong with what else reads a tensor."""
        obstacles = [
            Obstacle(self._graph.operations[reader].label, self._judgements[reader].obstacle, judgement.remedy)
            for reader in self._consumers.get(tensor, ())
            if not (judgement := self._judgements[reader]).role
        ]
        if tensor in self._graph.outputs:
            label = self._graph.operations[self._producers[tensor]].label if tensor in self._producers else "input"
            obstacles.append(
                Obstacle(label, "is an output of the network too", "give the network outputs at its end alone")
            )
        return obstacles


def explain_failing(graph: DeviceGraph, number: int) -> Obstacle:
    """Why the runtime fails at an operation, or computes wrongly, and what to do."""
    operation, producers = graph.operations[number], graph.producers()
    if operation.kind in REDUCTIONS and operation.axes != (1, 2):
        axes, what = ", ".join(map(str, operation.axes)), "mean" if operation.kind == "MEAN" else "sum"
        reason = f"is a {what} over axes {axes}, and XNNPACK computes it wrongly"
        return Obstacle(operation.label, reason, "take the mean over both spatial axes")
    if operation.is_pointwise and producers[operation.inputs[0]].kind in REDUCTIONS:
        remedy = "use a Dense layer behind GlobalAveragePooling2D(); tf_lap.for_devices(model) does it"
        return Obstacle(operation.label, "is a convolution behind the mean, and XNNPACK fails there", remedy)
    read = [shape for place, shape in enumerate(operation.shapes) if place not in operation.constants]
    if any(len(shape) == 4 and shape[1:3] == (1, 1) for shape in read):
        reason = "reads a mean with its dimensions, and XNNPACK has a wrong shape for it"
        remedy = "put a 1x1 convolution between in a gate, and use GlobalAveragePooling2D() at the end"
        return Obstacle(operation.label, reason, remedy)
    reason = "puts out what leaves the cluster without a mean, and XNNPACK fails there"
    return Obstacle(operation.label, reason, "put a mean between, or write the file with sparse=False")
