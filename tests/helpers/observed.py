"""The rows that kernels are multiplied by when a model runs, and what layers make of their inputs."""

import contextlib

import numpy as np
import tensorflow as tf

from tf_lap import compat
from tf_lap.graph.resolver import resolve
from tf_lap.moments.measured import InputObserver
from tf_lap.moments.rows import RowReader, find_reader


def find_readers(model):
    """The kernels of a model by path, what reads their rows by their numbers, and by path why nothing does."""
    recipe = resolve(model)
    found = {number: find_reader(recipe, number) for number in range(len(recipe.kernels))}
    readers = {number: reader for number, reader in found.items() if isinstance(reader, RowReader)}
    reasons = {recipe.kernels[number].path: reason for number, reason in found.items() if isinstance(reason, str)}
    return recipe.kernels, readers, reasons


def find_reason(model, path):
    """Why the rows of a kernel are not read."""
    return find_readers(model)[2][path]


def observe_rows(model, data):
    """By path the rows `(groups, positions, row_size)` of the kernels that can be read, those of all batches joined.

    Args:
        model: the model.
        data: batches of its inputs.
    """
    kernels, readers, _ = find_readers(model)
    observer = InputObserver(model, readers, data)
    parts = {number: [] for number in observer.order}
    for batch in data:
        observer.visit_rows(batch, observer.order, lambda number, rows: parts[number].append(rows.numpy()))
    return {kernels[number].path: np.concatenate(found, axis=1) for number, found in parts.items()}


def record_outputs(model, layer, data):
    """What a layer puts out before its activation, over all calls and batches: a list of arrays."""
    outputs = []
    with compat.intercepted(layer, lambda _, output: outputs.append(np.array(output)), True):
        for batch in data:
            model(batch[0] if len(batch) == 1 else list(batch), training=False)
    return outputs


def record_inputs(model, layer, data):
    """What a layer is given, over all calls and batches: a list of arrays."""
    given = []
    with compat.intercepted(layer, lambda x, _: given.append(np.array(x)), False):
        for batch in data:
            model(batch[0] if len(batch) == 1 else list(batch), training=False)
    return given


def multiply(kernel, rows):
    """What a kernel makes of its rows: `(positions, outputs)`, the outputs sorted by group."""
    products = rows @ kernel.layout.to_matrices(np.array(tf.convert_to_tensor(kernel.variable)))
    return products.transpose(1, 0, 2).reshape(len(products[0]), -1)


def check_layer(model, x, path, channel_axes=(-1,)):
    """Rows times kernel are what the layer puts out, position after position; returns the rows.

    Args:
        model: the model; the layer has no bias, or one of zeros.
        x: its only input, in one batch.
        path: the layer's path.
        channel_axes: the axes of the layer's output that its channels lie on.
    """
    kernels, _, _ = find_readers(model)
    (kernel,) = (kernel for kernel in kernels if kernel.path == path)
    rows = observe_rows(model, [[x]])[path]
    made = []
    for output in record_outputs(model, kernel.layer, [[x]]):
        last = list(range(-len(channel_axes), 0))
        made.append(np.moveaxis(output, channel_axes, last).reshape(-1, kernel.layout.outputs))
    np.testing.assert_allclose(multiply(kernel, rows), np.concatenate(made), rtol=1e-4, atol=1e-4)
    return rows


@contextlib.contextmanager
def calls_counted(*layers):
    """By name how often layers are called in the block."""
    counts = {layer.name: 0 for layer in layers}

    def make_counter(name):
        def count(*_):
            counts[name] += 1

        return count

    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(compat.intercepted(layer, make_counter(layer.name), False))
        yield counts
