"""Lookahead pruning of Keras models (not the Lookahead optimizer).

Park, Lee, Mo, Shin: "Lookahead: A Far-sighted Alternative of Magnitude-based Pruning", ICLR 2020.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_lap import allocation as allocation
    from tf_lap import patterns as patterns
    from tf_lap import scores as scores
    from tf_lap.callbacks.backup_and_restore import BackupAndRestore as BackupAndRestore
    from tf_lap.callbacks.lap_callback import LAPCallback as LAPCallback
    from tf_lap.callbacks.preserve_sparsity import PreserveSparsity as PreserveSparsity
    from tf_lap.channels.groups import ChannelGroup as ChannelGroup
    from tf_lap.channels.groups import channel_groups as channel_groups
    from tf_lap.costs import CostReport as CostReport
    from tf_lap.costs import LayerCost as LayerCost
    from tf_lap.costs.measure import cost as cost
    from tf_lap.devices import device_report as device_report
    from tf_lap.devices.remaking import for_devices as for_devices
    from tf_lap.devices.report import DeviceReport as DeviceReport
    from tf_lap.export import export_tflite as export_tflite
    from tf_lap.export.check import ExportError as ExportError
    from tf_lap.export.report import ExportReport as ExportReport
    from tf_lap.graph.energy import ChannelEnergies as ChannelEnergies
    from tf_lap.graph.energy import channel_energies as channel_energies
    from tf_lap.graph.neighbors import Neighbors as Neighbors
    from tf_lap.graph.neighbors import neighbors as neighbors
    from tf_lap.graph.registry import register_rule as register_rule
    from tf_lap.graph.user_kernels import register_kernel as register_kernel
    from tf_lap.plotting import plot_graph as plot_graph
    from tf_lap.plotting import plot_masks as plot_masks
    from tf_lap.plotting import plot_sparsity as plot_sparsity
    from tf_lap.plotting import plot_tradeoff as plot_tradeoff
    from tf_lap.pruning.one_shot import prune as prune
    from tf_lap.pruning.pruner import Pruner as Pruner
    from tf_lap.pruning.repairing import repair as repair
    from tf_lap.reconstruction.report import RepairReport as RepairReport
    from tf_lap.report import PruningReport as PruningReport
    from tf_lap.schedule import LookaheadPruningSchedule as LookaheadPruningSchedule
    from tf_lap.schedule.retraining import retraining_rate as retraining_rate
    from tf_lap.search.find import find_sparsity as find_sparsity
    from tf_lap.search.layer_values import sensitivity as sensitivity
    from tf_lap.search.search_report import SearchReport as SearchReport
    from tf_lap.search.sensitivity_report import SensitivityReport as SensitivityReport
    from tf_lap.shrinking import shrink as shrink
    from tf_lap.shrinking.report import ShrinkReport as ShrinkReport
    from tf_lap.shrinking.verification import ShrinkError as ShrinkError
    from tf_lap.tfmot import PrunableLayer as PrunableLayer
    from tf_lap.tfmot import prune_lookahead as prune_lookahead

    register_allocation = allocation.register
    register_pattern = patterns.register
    register_score = scores.register

__version__ = "0.1.0"

# Imported at their first use, so that `tf-lap --help` does not wait for TensorFlow.
_HOMES = {
    "LAPCallback": "callbacks.lap_callback",
    "BackupAndRestore": "callbacks.backup_and_restore",
    "PreserveSparsity": "callbacks.preserve_sparsity",
    "ChannelGroup": "channels.groups",
    "channel_groups": "channels.groups",
    "CostReport": "costs",
    "LayerCost": "costs",
    "cost": "costs.measure",
    "ChannelEnergies": "graph.energy",
    "channel_energies": "graph.energy",
    "device_report": "devices",
    "DeviceReport": "devices.report",
    "for_devices": "devices.remaking",
    "ExportError": "export.check",
    "ExportReport": "export.report",
    "export_tflite": "export",
    "Neighbors": "graph.neighbors",
    "neighbors": "graph.neighbors",
    "plot_graph": "plotting",
    "plot_masks": "plotting",
    "plot_sparsity": "plotting",
    "plot_tradeoff": "plotting",
    "Pruner": "pruning.pruner",
    "prune": "pruning.one_shot",
    "RepairReport": "reconstruction.report",
    "repair": "pruning.repairing",
    "register_rule": "graph.registry",
    "register_kernel": "graph.user_kernels",
    "PruningReport": "report",
    "LookaheadPruningSchedule": "schedule",
    "retraining_rate": "schedule.retraining",
    "SearchReport": "search.search_report",
    "SensitivityReport": "search.sensitivity_report",
    "find_sparsity": "search.find",
    "sensitivity": "search.layer_values",
    "shrink": "shrinking",
    "ShrinkError": "shrinking.verification",
    "ShrinkReport": "shrinking.report",
    "PrunableLayer": "tfmot",
    "prune_lookahead": "tfmot",
}
_MODULES = ("allocation", "patterns", "scores")
_DECORATORS = {
    "register_allocation": "allocation",
    "register_pattern": "patterns",
    "register_score": "scores",
}

__all__ = [*_HOMES, *_MODULES, *_DECORATORS]


if not TYPE_CHECKING:  # to a type checker any name would exist

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"tf_lap.{name}")
        if name in _DECORATORS:
            return importlib.import_module(f"tf_lap.{_DECORATORS[name]}").register
        if name not in _HOMES:
            raise AttributeError(f"module 'tf_lap' has no attribute {name!r}")
        return getattr(importlib.import_module(f"tf_lap.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "tensorflow_model_optimization" in sys.modules:
    # A user of tfmot may load a file that holds wrappers of tf_lap before using any name of this package.
    importlib.import_module("tf_lap.tfmot")
