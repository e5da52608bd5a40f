"""Repairs a pruned model over data: its kernels in the order in which they are called, and what is behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tf_lap import compat
from tf_lap.compat.types import Layer, Model
from tf_lap.graph.model_graph import Recipe
from tf_lap.moments.measured import DAMPING, InputObserver
from tf_lap.moments.rows import RowReader
from tf_lap.reconstruction.fitting import OutputMoments, fit_kernel
from tf_lap.reconstruction.methods import BATCH_NORMALIZATION, BIAS, WEIGHTS
from tf_lap.reconstruction.normalizations import find_normalizations, measure_statistics, read_channels
from tf_lap.reconstruction.over_data import PairedObserver
from tf_lap.reconstruction.plan import KernelPlan, plan_kernels
from tf_lap.reconstruction.report import LayerRepair, RepairReport
from tf_lap.reconstruction.whole_weights import WholeWeights
from tf_lap.samples import Batch

_MAX_ROW_SIZE = 10_000
"""Of how many numbers a second moment is measured and factorized at most: it takes 0.8 GB, and so do a few copies."""

Progress = Callable[[str], None]


class DataRepairer:
    """Repairs a pruned model over data.

    Args:
        model: the model, its kernels pruned.
        recipe: its graph.
        masks: which weights stay, by the numbers of the kernels that lack some; bool, in the kernels' shapes.
        whole_weights: the weights before pruning.
        methods: of "weights", "bias" and "batchnorm".
        data: batches of inputs.
    """

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        masks: Mapping[int, np.ndarray],
        whole_weights: WholeWeights,
        methods: Sequence[str],
        data: Sequence[Batch],
    ) -> None:
        self._model, self._recipe, self._masks, self._whole_weights = model, recipe, masks, whole_weights
        self._methods, self._data = methods, data
        fitted = masks.keys() if WEIGHTS in methods or BIAS in methods else ()
        self._plans, self._reasons = plan_kernels(recipe, fitted, WEIGHTS in methods)
        self._layers: dict[int, LayerRepair] = {}
        self._normalizations: set[int] = set()

    def run(self, progress: Progress) -> RepairReport:
        """Repairs the model, and says what was done.

        Args:
            progress: is told what is being done.

        Raises:
            ValueError: what a kernel or a normalization reads is not finite over the data.
        """
        self._repair_in_order(progress)
        left = [LayerRepair(self._recipe.kernels[number].path, left=why) for number, why in self._reasons.items()]
        samples = sum(len(batch[0]) for batch in self._data)
        return RepairReport((*self._layers.values(), *left), tuple(self._methods), len(self._normalizations), samples)

    def _repair_in_order(self, progress: Progress) -> None:
        """Repairs kernels and normalizations in the order of their calls, each on what is repaired by then."""
        plans = self._plans
        layers = find_normalizations(self._model) if BATCH_NORMALIZATION in self._methods else []
        normalizations = dict(enumerate(layers, len(self._recipe.kernels)))
        readers: dict[int, RowReader] = {number: plan.reader for number, plan in plans.items()}
        readers.update((number, read_channels(layer)) for number, layer in normalizations.items())
        if not readers:
            return
        observer = InputObserver(self._model, readers, self._data)
        for number, plan in plans.items():
            if number not in observer.order:
                self._reasons[number] = "its layer is not called at inference"
            elif observer.count_calls(number) < self._recipe.kernels[number].uses:
                self._reasons[number] = "another layer has its kernel too"
            elif plan.reader.row_size > _MAX_ROW_SIZE:
                gigabytes = 8e-9 * plan.reader.groups * plan.reader.row_size**2
                self._reasons[number] = (
                    f"it reads {plan.reader.row_size:,} numbers at each position, more than {_MAX_ROW_SIZE:,}: their "
                    f"second moment would take {gigabytes:.1f} GB"
                )
        pruned = plans.keys() - self._reasons.keys()
        fitted = [numbers for stage in observer.stages if (numbers := [n for n in stage if n in pruned])]
        pairs = PairedObserver(observer, fitted, self._whole_weights)
        place = 0
        for stage in observer.stages:
            if numbers := [number for number in stage if number in pruned]:
                place += 1
                progress(f"{place}/{len(fitted)}: {self._recipe.kernels[numbers[0]].path}")
                self._repair_kernels(pairs, numbers)
            for number in stage:
                if number in normalizations and id(normalizations[number]) not in self._normalizations:
                    progress(f"statistics of {normalizations[number].name}")
                    self._measure_normalization(observer, number, normalizations[number])

    def _repair_kernels(self, pairs: PairedObserver, numbers: Sequence[int]) -> None:
        """Repairs kernels that are multiplied with the same tensors."""
        matrices = {number: self._whole_matrices(self._plans[number]) for number in numbers}
        for number, moments in pairs.measure_outputs(matrices).items():
            self._layers[number] = self._repair_kernel(number, moments, matrices[number])

    def _measure_normalization(self, observer: InputObserver, number: int, layer: Layer) -> None:
        try:
            statistics = measure_statistics(observer, number)
        except ValueError as error:
            raise ValueError(f"the statistics of layer {layer.name!r} cannot be measured: {error}") from error
        self._set_statistics(layer, *statistics)

    def _whole_matrices(self, plan: KernelPlan) -> np.ndarray:
        return plan.kernel.layout.to_matrices(self._whole_weights.value(plan.kernel.variable)).astype(np.float64)

    def _repair_kernel(self, number: int, moments: OutputMoments, matrices: np.ndarray) -> LayerRepair:
        plan = self._plans[number]
        kernel, layout = plan.kernel, plan.kernel.layout
        mask = layout.to_matrices(self._masks[number])
        shifted = plan.shift if BIAS in self._methods else None
        try:
            fit = fit_kernel(moments, matrices, mask, WEIGHTS in self._methods, shifted is not None)
        except ValueError as error:
            raise ValueError(f"layer {kernel.path!r} cannot be repaired over this data: {error}") from error
        compat.assign(kernel.variable, layout.from_matrices(fit.matrices))
        if shifted is not None:
            shift = plan.shift_sign * fit.shift.reshape(shifted.shape)
            compat.assign(shifted, self._whole_weights.value(shifted) + shift)
        if BATCH_NORMALIZATION in self._methods and plan.normalization is not None:
            mean, variance = moments.find_output_statistics(fit.matrices)
            if plan.bias is not None:
                mean = mean + compat.host_array(plan.bias).reshape(-1)
            self._set_statistics(plan.normalization, mean, variance)
        before = moments.measure_loss(np.where(mask, matrices, 0.0), False)
        after = moments.measure_loss(fit.matrices, shifted is not None)
        return LayerRepair(kernel.path, before, after, note=_describe(fit.damping, moments, matrices.shape[1]))

    def _set_statistics(self, layer: Layer, mean: np.ndarray, variance: np.ndarray) -> None:
        compat.assign(layer.moving_mean, mean.reshape(layer.moving_mean.shape))
        compat.assign(layer.moving_variance, variance.reshape(layer.moving_variance.shape))
        self._normalizations.add(id(layer))


def _describe(damping: float, moments: OutputMoments, rows: int) -> str | None:
    """What was done otherwise than usual, or None."""
    if math.isinf(damping):
        return "its second moment has no inverse, however it is damped: its kept weights are as they were"
    if damping > DAMPING:
        return f"its second moment has no inverse: the damping was raised from {DAMPING:g} to {damping:g}"
    if moments.count < rows:
        return f"measured over {moments.count:,} positions, and it reads {rows:,} numbers at each: more data may help"
    return None
