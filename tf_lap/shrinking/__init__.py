"""A smaller copy of a sparse model, without the channels that compute nothing."""

from __future__ import annotations

from typing import Any

from tf_lap import compat, samples
from tf_lap.compat import exporting
from tf_lap.compat.types import Layer, Model
from tf_lap.graph.coupling import find_coupling
from tf_lap.graph.model_graph import Recipe
from tf_lap.graph.resolver import resolve
from tf_lap.samples import Batch, Representative
from tf_lap.shrinking.constants import find_constants, find_independent
from tf_lap.shrinking.dead import find_removal
from tf_lap.shrinking.kept import Kept
from tf_lap.shrinking.remaking import remake


def shrink(model: Any, data: Representative = None, functional: bool = False, verbose: int = 0) -> Any:
    recipe = resolve(model)
    coupling = find_coupling(recipe)
    inputs = exporting.signature(model)
    batches = samples.draw_samples(inputs)[:2]
    independent = find_independent(recipe, coupling)
    direct = {id(layer) for layer in compat.parts(model)}
    constants = find_constants(model, recipe, independent, direct, batches)
    removal = find_removal(recipe, coupling, constants)
    kept = Kept(recipe, coupling, removal.is_kept)
    shrunk = remake(model, kept, constants)
    return shrunk.rebuilt.model
