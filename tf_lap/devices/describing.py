"""The report on the operations of a file."""

from __future__ import annotations

import dataclasses

from tf_lap.devices.clusters import Cluster, Clusters, find_clusters, is_counted
from tf_lap.devices.obstacles import Obstacle, explain_failing, find_obstacles
from tf_lap.devices.report import DeviceCluster, DeviceLayer, DeviceReport
from tf_lap.devices.rules import Role
from tf_lap.tflite.operations import DeviceGraph, Operation


def describe_graph(graph: DeviceGraph, name: str) -> DeviceReport:
    """The report on the operations of a file."""
    clusters = find_clusters(graph)
    obstacles = find_obstacles(graph, clusters)
    described = tuple(_describe_cluster(graph, clusters, cluster) for cluster in clusters.clusters)
    layers = tuple(
        _describe_layer(number, operation, clusters, described, obstacles)
        for number, operation in enumerate(graph.operations)
        if operation.is_pointwise
        or (operation.kind == "FULLY_CONNECTED" and _find_cluster(clusters, number) is not None)
    )
    explained = [explain_failing(graph, number) for number in clusters.failing]
    failing = {obstacle.layer: f"{obstacle.reason}: {obstacle.remedy}" for obstacle in explained}
    return DeviceReport(name, layers, described, failing)


def _find_cluster(clusters: Clusters, number: int) -> int | None:
    return next((place for place, c in enumerate(clusters.clusters) if number in c.operations), None)


def _describe_cluster(graph: DeviceGraph, clusters: Clusters, cluster: Cluster) -> DeviceCluster:
    operations = [graph.operations[number] for number in cluster.operations]
    ends = [n for n in cluster.operations if clusters.judgements[n].role & Role.ENDS]
    dense = [op for op in operations if op.kind == "FULLY_CONNECTED" and is_counted(op)]
    return DeviceCluster(
        begins=operations[0].label,
        ends=graph.operations[ends[-1]].label if ends else operations[-1].label,
        weights=cluster.weights,
        zeros=cluster.zeros,
        dense_weights=sum(op.size for op in dense),
        dense_zeros=sum(op.zeros for op in dense),
    )


def _describe_layer(
    number: int,
    operation: Operation,
    clusters: Clusters,
    described: tuple[DeviceCluster, ...],
    obstacles: dict[int, list[Obstacle]],
) -> DeviceLayer:
    is_convolution = operation.is_pointwise
    place = _find_cluster(clusters, number)
    can_run = number in clusters.sparse or (place is not None and not is_convolution)
    assert operation.weights is not None
    layer = DeviceLayer(
        path=operation.label,
        kind="convolution" if is_convolution else "dense",
        inputs=operation.weights.shape[-1],
        outputs=operation.weights.shape[0],
        sparsity=operation.zeros / operation.size,
        cluster=place + 1 if place is not None and can_run else None,
        runs_sparse=place is not None and number in clusters.sparse and described[place].runs_sparse,
    )
    if can_run:
        return layer
    judgement = clusters.judgements[number]
    first = Obstacle(operation.label, judgement.obstacle, judgement.remedy)
    if judgement.role:
        first = obstacles[number][0] if obstacles[number] else Obstacle(operation.label, "cannot be reached", "-")
    return dataclasses.replace(layer, blocker=first.layer, reason=first.reason, remedy=first.remedy)
