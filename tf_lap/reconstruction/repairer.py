"""Repairs a pruned model over data: its kernels in the order in which they are called, and what is behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tf_lap import compat
from tf_lap.compat.types import Layer, Model
from tf_lap.graph.model_graph import Recipe
from tf_lap.moments.measured import InputObserver
from tf_lap.reconstruction.fitting import OutputMoments, fit_kernel
from tf_lap.reconstruction.methods import BATCH_NORMALIZATION, BIAS, WEIGHTS
from tf_lap.reconstruction.normalizations import measure_statistics
from tf_lap.reconstruction.over_data import measure_outputs
from tf_lap.reconstruction.plan import KernelPlan, find_normalizations, plan_kernels
from tf_lap.reconstruction.report import LayerRepair, RepairReport
from tf_lap.reconstruction.solver import DAMPING
from tf_lap.reconstruction.whole_weights import WholeWeights
from tf_lap.samples import Batch

Progress = Callable[[str], None]


class DataRepairer:
    """Repairs a pruned model over data.

    Args:
        model: the model, its kernels pruned.
        recipe: its graph.
        masks: which weights stay, by the numbers of the pruned kernels; bool, in the kernels' shapes.
        whole: the weights before pruning.
        methods: of "weights", "bias" and "batchnorm".
        data: batches of inputs.
    """

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        masks: Mapping[int, np.ndarray],
        whole: WholeWeights,
        methods: Sequence[str],
        data: Sequence[Batch],
    ) -> None:
        self._model, self._recipe, self._masks, self._whole = model, recipe, masks, whole
        self._methods, self._data = methods, data
        self._plans, self._reasons = plan_kernels(recipe, masks.keys())
        self._layers: dict[int, LayerRepair] = {}
        self._normalizations: set[int] = set()

    def run(self, progress: Progress) -> RepairReport:
        """Repairs the model, and says what was done.

        Args:
            progress: is told what is being done.

        Raises:
            ValueError: what a kernel reads is not finite over the data.
        """
        if self._fits_kernels:
            self._repair_kernels(progress)
        if BATCH_NORMALIZATION in self._methods:
            self._measure_normalizations(progress)
        paths = {number: self._recipe.kernels[number].path for number in self._masks}
        left = [LayerRepair(paths[number], left=reason) for number, reason in self._reasons.items()]
        if not self._fits_kernels:
            left = []
        samples = sum(len(batch[0]) for batch in self._data)
        return RepairReport((*self._layers.values(), *left), tuple(self._methods), len(self._normalizations), samples)

    @property
    def _fits_kernels(self) -> bool:
        return WEIGHTS in self._methods or BIAS in self._methods

    def _repair_kernels(self, progress: Progress) -> None:
        readers = {number: plan.reader for number, plan in self._plans.items()}
        observer = InputObserver(self._model, readers, self._data)
        for number in self._plans.keys() - set(observer.order):
            self._reasons[number] = "its layer is not called at inference"
        for number in observer.order:
            if observer.count_calls(number) < self._recipe.kernels[number].uses:
                self._reasons[number] = "another layer has its kernel too"
        # A kernel that is whole has nothing to make up for.
        pruned = {number for number in self._plans.keys() - self._reasons.keys() if not self._masks[number].all()}
        stages = [stage for numbers in observer.stages if (stage := [n for n in numbers if n in pruned])]
        for place, stage in enumerate(stages):
            progress(f"{place + 1}/{len(stages)}: {self._recipe.kernels[stage[0]].path}")
            matrices = {number: self._whole_matrices(self._plans[number]) for number in stage}
            for number, moments in measure_outputs(observer, readers, matrices, self._whole).items():
                self._layers[number] = self._repair_kernel(number, moments, matrices[number])

    def _whole_matrices(self, plan: KernelPlan) -> np.ndarray:
        return plan.kernel.layout.to_matrices(self._whole.value(plan.kernel.variable)).astype(np.float64)

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
            compat.assign(shifted, self._whole.value(shifted) + shift)
        if BATCH_NORMALIZATION in self._methods and plan.normalization is not None:
            mean, variance = moments.find_output_statistics(fit.matrices)
            if plan.bias is not None:
                mean = mean + np.array(compat.host_value(plan.bias)).reshape(-1)
            self._set_statistics(plan.normalization, mean, variance)
        before = moments.measure_loss(np.where(mask, matrices, 0.0), False)
        after = moments.measure_loss(fit.matrices, shifted is not None)
        return LayerRepair(kernel.path, before, after, note=_describe(fit.damping, moments, matrices.shape[1]))

    def _set_statistics(self, layer: Layer, mean: np.ndarray, variance: np.ndarray) -> None:
        compat.assign(layer.moving_mean, mean)
        compat.assign(layer.moving_variance, variance)
        self._normalizations.add(id(layer))

    def _measure_normalizations(self, progress: Progress) -> None:
        """Measures the statistics of those normalizations that are not right behind a kernel, in their order."""
        for layer in find_normalizations(self._model):
            if id(layer) not in self._normalizations:
                progress(f"statistics of {layer.name}")
                statistics = measure_statistics(self._model, layer, self._data)
                if statistics is not None:
                    self._set_statistics(layer, *statistics)


def _describe(damping: float, moments: OutputMoments, rows: int) -> str | None:
    """What was done otherwise than usual, or None."""
    if damping > DAMPING:
        return f"its second moment has no inverse: the damping was raised from {DAMPING:g} to {damping:g}"
    if moments.count < rows:
        return f"measured over {moments.count:,} positions, and it reads {rows:,} numbers at each: more data may help"
    return None
