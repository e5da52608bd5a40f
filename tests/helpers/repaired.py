"""Models that are pruned and repaired, and the least squares that their weights must be, on the same rows."""

import keras
import numpy as np
import tensorflow as tf
from observed import find_readers, observe_rows, record_outputs

import tf_lap
from tf_lap import compat
from tf_lap.moments.measured import DAMPING


def array(variable):
    return np.array(tf.convert_to_tensor(variable))


def copy_of(model):
    """A model of the same layers and weights."""
    flavour = keras if isinstance(model, keras.Model) else __import__("tf_keras")
    copy = flavour.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def samples(shape, count=40, shift=0.5):
    """Samples whose numbers are correlated and have means, exact in float32."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, *shape)) @ rng.standard_normal((shape[-1], shape[-1])) + shift
    return x.astype(np.float32)


def prune_and_repair(model, data, repair, sparsity=0.5, **arguments):
    """Prunes a model, and returns a copy from before and the repair's report."""
    dense = copy_of(model)
    report = tf_lap.prune(model, sparsity, score="magnitude", repair=repair, data=data, **arguments)
    return dense, report.repair


def weights_by_path(model):
    """The matrices `(groups, rows, outputs)` of the kernels of a model whose rows can be read."""
    kernels, readers, _ = find_readers(model)
    return {kernels[i].path: kernels[i].layout.to_matrices(array(kernels[i].variable)) for i in readers}


def solve_least_squares(rows, outputs, weights, mask, has_shift, damping=DAMPING):
    """The kept weights of one group and a shift, output by output, by `numpy.linalg.lstsq`.

    Args:
        rows: `(positions, rows)`.
        outputs: what the whole kernel put out, `(positions, outputs)`.
        weights: of the whole kernel, `(rows, outputs)`, to which rows below those of the data pull.
        mask: of their shape.
        has_shift: whether there is a column of ones.
        damping: how much they pull.
    """
    solved, shift = np.zeros_like(weights), np.zeros(weights.shape[1])
    ridge = damping * np.mean(np.var(rows, axis=0) if has_shift else np.mean(np.square(rows), axis=0))
    for output, kept in enumerate(mask.T):
        pull = np.sqrt(ridge * len(rows)) * np.eye(int(kept.sum()))
        columns = np.concatenate([rows[:, kept], pull])
        if has_shift:
            ones = np.concatenate([np.ones(len(rows)), np.zeros(len(pull))])
            columns = np.concatenate([columns, ones[:, np.newaxis]], axis=1)
        right = np.concatenate([outputs[:, output], pull @ weights[kept, output]])
        solution = np.linalg.lstsq(columns, right, rcond=None)[0]
        solved[kept, output] = solution[: len(pull)]
        shift[output] = solution[-1] if has_shift else 0.0
    return solved, shift


def find_solutions(model, dense, batch, path, has_shift):
    """What least squares make of a kernel on the rows of the repaired model: its matrices, and a shift of its outputs.

    Args:
        model: the repaired model. What feeds the kernel is repaired.
        dense: the model before.
        batch: inputs of both.
        path: the kernel's path.
        has_shift: whether there is a column of ones.
    """
    rows, whole_rows = (observe_rows(m, [batch])[path].astype(np.float64) for m in (model, dense))
    weights, mask = weights_by_path(dense)[path].astype(np.float64), weights_by_path(model)[path] != 0
    groups = zip(rows, whole_rows @ weights, weights, mask, strict=True)
    solutions = [solve_least_squares(*group, has_shift) for group in groups]
    return np.stack([solved for solved, _ in solutions]), np.concatenate([shift for _, shift in solutions])


def check_least_squares(model, dense, batch, paths, has_shift, tolerance=1e-8):
    """The weights of repaired kernels, and their biases, are those of least squares."""
    for path in paths:
        solved, shift = find_solutions(model, dense, batch, path, has_shift)
        found, before = weights_by_path(model)[path], weights_by_path(dense)[path]
        assert np.abs(found - before * (found != 0)).max() > 100 * tolerance, f"{path} is not repaired"
        np.testing.assert_allclose(found, solved, rtol=tolerance, atol=tolerance, err_msg=path)
        if has_shift:
            biases = [array(find_kernel(m, path).layer.bias).reshape(-1) for m in (model, dense)]
            np.testing.assert_allclose(biases[0], biases[1] + shift, rtol=tolerance, atol=tolerance, err_msg=path)


def find_kernel(model, path):
    """The kernel of a path."""
    (kernel,) = (kernel for kernel in find_readers(model)[0] if kernel.path == path)
    return kernel


def measure_loss(model, dense, batch, path):
    """How much of what a layer put out is lost, over the variance of it, with what it puts out now."""
    outputs = []
    for flavour in (model, dense):
        kernel = find_kernel(flavour, path)
        calls = record_outputs(flavour, kernel.layer, [batch])
        outputs.append(np.concatenate([call.reshape(-1, call.shape[-1]) for call in calls]).astype(np.float64))
    lost = np.mean(np.square(outputs[0] - outputs[1]), axis=0).sum()
    return lost / np.var(outputs[1], axis=0).sum()


def loss_without_repair(model, dense, batch, path):
    """The same, where this kernel alone is pruned and not repaired."""
    kernel, before = find_kernel(model, path), find_kernel(dense, path)
    bias = getattr(kernel.layer, "bias", None)
    present = array(kernel.variable), None if bias is None else array(bias)
    compat.assign(kernel.variable, array(before.variable) * (present[0] != 0))
    if bias is not None:
        compat.assign(bias, array(before.layer.bias))
    loss = measure_loss(model, dense, batch, path)
    compat.assign(kernel.variable, present[0])
    if bias is not None:
        compat.assign(bias, present[1])
    return loss
