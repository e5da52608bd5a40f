"""Repair of a model that is pruned here, or was pruned before."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tf_lap import compat
from tf_lap.compat.types import Model, Variable
from tf_lap.graph.model_graph import Recipe
from tf_lap.graph.resolver import resolve
from tf_lap.pruning.options import REPAIR_BATCH, read_model_batches
from tf_lap.reconstruction.methods import BATCH_NORMALIZATION, RepairLike, read_methods
from tf_lap.reconstruction.normalizations import find_normalizations
from tf_lap.reconstruction.plan import plan_kernels
from tf_lap.reconstruction.repairer import DataRepairer
from tf_lap.reconstruction.report import LayerRepair, RepairReport
from tf_lap.reconstruction.whole_weights import WholeWeights
from tf_lap.reconstruction.without_data import repair_without_data
from tf_lap.samples import Batch, Representative

_FROZEN = "it is frozen (trainable=False)"


class PendingRepair:
    """A repair that is to follow an update of masks. It remembers the model as it is before the update.

    Args:
        model: the model.
        recipe: its graph.
        numbers: the numbers of the kernels that may be pruned.
        methods: what to do, as `read_methods` gives it.
        data: batches of inputs; none for a repair without data.
    """

    def __init__(
        self, model: Model, recipe: Recipe, numbers: Collection[int], methods: Sequence[str], data: Sequence[Batch]
    ) -> None:
        self._model, self._recipe = model, recipe
        self._methods, self._data = methods, data
        self._whole_weights = WholeWeights.of(find_variables(model, recipe, numbers))

    def run(self, masks: Mapping[int, np.ndarray], verbose: int = 0) -> RepairReport:
        """Repairs the model that has been pruned since.

        Args:
            masks: which weights stay, by the numbers of the pruned kernels; bool, in the kernels' shapes.
            verbose: 1 prints what is being repaired.

        Raises:
            ValueError: what a kernel reads is not finite over the data.
        """
        return _repair(self._model, self._recipe, masks, self._whole_weights, self._methods, self._data, verbose)

    def undo(self) -> None:
        """Makes the weights what they were before the update."""
        self._whole_weights.restore()


def find_variables(model: Model, recipe: Recipe, numbers: Collection[int]) -> list[Variable]:
    """The variables that pruning these kernels and a repair may change."""
    variables = [recipe.kernels[number].variable for number in numbers]
    plans, _ = plan_kernels(recipe, numbers)
    variables += [plan.bias for plan in plans.values() if plan.bias is not None]
    for layer in find_normalizations(model):
        variables += [layer.moving_mean, layer.moving_variance]
    return list({id(variable): variable for variable in variables}.values())


def repair(
    model: Any, data: Representative = None, method: RepairLike = True, *, dense: Any = None, verbose: int = 0
) -> RepairReport:
    """Repairs a model that was pruned before, in place: what is zero stays zero.

    Example:

    >>> dense = keras.models.clone_model(model)
    >>> dense.set_weights(model.get_weights())
    >>> report = tf_lap.prune(model, 0.9)
    >>> repaired = tf_lap.repair(model, x, dense=dense)  # inputs alone, a few hundred of them
    >>> [layer.path for layer in repaired.repaired]
    ['dense', 'dense_1', 'dense_2']

    `tf_lap.prune(model, 0.9, data=x, repair=True)` does both at once, and needs no second model.

    Args:
        model: a built Keras model. Its zero weights count as pruned.
        data: typical inputs, as in `Pruner`. Without any, moments are carried through the graph.
        method: "weights" fits the kept weights of each kernel to what the whole kernel put out, by least squares.
            "bias" puts back the mean of each output. "batchnorm" measures the statistics of batch normalizations anew.
            A sequence of these does several; True, all that `data` and `dense` allow.
        dense: the model as it was before pruning. "weights" and "bias" need it. It is not changed.
        verbose: 1 prints what is being repaired, and the report.

    Returns:
        A `RepairReport`.

    Raises:
        TypeError, ValueError: a method that is not known or cannot be done with what is given, data that does not fit,
            or a model with other weights as `dense`. The model is unchanged then.
    """
    has_data = data is not None
    methods = read_methods(method, has_data, "method")
    if not methods:
        raise ValueError(f"method={method!r}: nothing to do; leave it out for all that data and dense allow")
    compat.check_model(model)
    if dense is None:
        if method is not True and methods != (BATCH_NORMALIZATION,):
            raise ValueError(
                f"method={method!r}: kernels are fitted to what they put out when they were whole: pass dense=, the "
                "model as it was before pruning, or prune and repair at once with tf_lap.prune(..., repair=True)"
            )
        if not has_data:
            raise ValueError(
                "neither data nor dense is given: pass data= to measure the statistics of batch normalizations anew, "
                "and dense=, the model as it was before pruning, to fit kernels to what they put out when whole"
            )
        methods = (BATCH_NORMALIZATION,)
    recipe = resolve(model)
    batches = read_model_batches(data, model, REPAIR_BATCH) if has_data else []
    whole_weights = WholeWeights.of([]) if dense is None else _find_whole_weights(model, dense)
    masks = {} if dense is None else _find_masks(recipe, whole_weights)
    is_trained = compat.trains(model)
    frozen = [number for number in masks if not is_trained(recipe.kernels[number].variable)]
    repaired = {number: mask for number, mask in masks.items() if number not in frozen}
    present = WholeWeights.of(find_variables(model, recipe, repaired))
    try:
        report = _repair(model, recipe, repaired, whole_weights, methods, batches, verbose)
    except BaseException:
        present.restore()
        raise
    left = [LayerRepair(recipe.kernels[number].path, left=_FROZEN) for number in frozen]
    report = dataclasses.replace(report, layers=(*report.layers, *left))
    if verbose:
        print(report)
    return report


def _find_whole_weights(model: Model, dense: Any) -> WholeWeights:
    """The values in another model of this model's variables."""
    compat.check_model(dense)
    if dense is model:
        raise ValueError(
            f"dense: model {model.name!r} is the one that is repaired: pass a copy from before pruning, or prune and "
            "repair at once with tf_lap.prune(..., repair=True)"
        )
    weights, dense_weights = compat.weights(model), compat.weights(dense)
    shapes, dense_shapes = ([tuple(weight.shape) for weight in either] for either in (weights, dense_weights))
    if shapes != dense_shapes:
        raise ValueError(
            f"dense: model {dense.name!r} has {len(dense_shapes)} weights of other shapes than the {len(shapes)} of "
            f"model {model.name!r}: pass the same model as it was before pruning, such as a clone with its weights"
        )
    return WholeWeights(
        [(weight, np.array(compat.host_array(dense))) for weight, dense in zip(weights, dense_weights, strict=True)]
    )


def _find_masks(recipe: Recipe, whole_weights: WholeWeights) -> dict[int, np.ndarray]:
    """Which weights stay of the kernels that have zeros where whole ones have none, by the kernels' numbers."""
    masks = {}
    for number, kernel in enumerate(recipe.kernels):
        mask = compat.host_array(kernel.variable) != 0
        if mask.any() and whole_weights.value(kernel.variable)[~mask].any():
            masks[number] = mask
    return masks


def _repair(
    model: Model,
    recipe: Recipe,
    masks: Mapping[int, np.ndarray],
    whole_weights: WholeWeights,
    methods: Sequence[str],
    data: Sequence[Batch],
    verbose: int,
) -> RepairReport:
    # A kernel that is whole has nothing to make up for.
    masks = {number: mask for number, mask in masks.items() if not mask.all()}
    if not data:
        return repair_without_data(recipe, masks, whole_weights, methods)
    repairer = DataRepairer(model, recipe, masks, whole_weights, methods, data)
    return repairer.run(_print_line if verbose else lambda line: None)


def _print_line(line: str) -> None:
    print(f"repair {line}", flush=True)
