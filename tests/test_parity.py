"""The masks are those of the method's authors, weight for weight."""

import numpy as np
import parity_cases
import pytest

import tf_lap

CASES = parity_cases.load()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_masks_are_the_authors(case):
    model = case.model()
    pruner = tf_lap.Pruner(model, score=case.score, allocation=case.allocation, order=case.order)
    sparsity = dict(zip(pruner.masks, case.sparsities, strict=True)) if len(case.sparsities) > 1 else case.sparsities[0]
    pruner.update(sparsity)
    weights = sum(mask.size for mask in case.masks)
    wrong = 0
    for ours, theirs in zip(pruner.masks.values(), case.masks, strict=True):
        assert np.count_nonzero(ours) == np.count_nonzero(theirs)
        wrong += np.count_nonzero(ours.numpy() != theirs)
    assert wrong <= weights / 100_000
    for (path, mask), kernel in zip(pruner.masks.items(), case.kernels(), strict=True):
        np.testing.assert_array_equal(model.get_layer(path).kernel.numpy(), np.where(mask, kernel, 0))


def test_all_cases_are_there():
    assert {(case.score, case.allocation, case.order, case.batch_norm) for case in CASES} == {
        ("lookahead", "uniform", "simultaneous", False),
        ("lookahead", "uniform", "simultaneous", True),
        ("lookahead", "uniform", "forward", False),
        ("lookahead", "global", "simultaneous", False),
        ("magnitude", "uniform", "simultaneous", False),
    }
    assert len(CASES) == 6
