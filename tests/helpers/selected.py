"""Scores and the masks that a stable sort gives for them, shared by the tests of both selections."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


def _scores():
    """Denormals and infinity among them; TensorFlow 2.17 lets processors take denormals for zero."""
    denormals = [1e-45] if np.float32(1e-45) > 0 else []
    chosen = [0.0, -0.0, 1.0, 1.0000001, 2.0, *denormals, 3.4e38, float("inf")]
    return st.one_of(
        st.floats(0, width=32, allow_nan=False, allow_subnormal=bool(denormals)),
        st.sampled_from([float(np.float32(score)) for score in chosen]),
    )


SCORES = st.deferred(_scores)


def reference(scores, weights, live, keep):
    """The mask of a stable sort: by score, then by magnitude, zeros last; ties by flat index; none that is dead."""

    def rank(i):
        if not live[i]:
            return (3,)
        if scores[i] == 0:
            return (1, -abs(weights[i])) if weights[i] else (2,)
        return (0, -scores[i])

    order = sorted(range(len(scores)), key=lambda i: (*rank(i), i))
    mask = np.zeros(len(scores), bool)
    mask[order[:keep]] = True
    return mask & live


def drawn_kernel(data):
    """Scores, weights and which are live, of one kernel, and how many weights it is to keep."""
    scores = data.draw(arrays(np.float32, st.integers(1, 40), elements=SCORES))
    live = data.draw(arrays(bool, len(scores)))
    weights = data.draw(arrays(np.float32, len(scores), elements=st.sampled_from([0.0, -0.0, 1.0, -2.0, 2.0**-100])))
    keep = data.draw(st.integers(1, len(scores)))
    scores = np.where(live, np.abs(scores), np.float32(0))
    return scores, weights, live, keep


def drawn_kernels(data):
    """Three kernels that are ranked together, how many weights they are to keep, and the mask of all in a row."""
    parts = [np.abs(data.draw(arrays(np.float32, st.integers(1, 15), elements=SCORES))) for _ in range(3)]
    together = np.concatenate(parts)
    keep = data.draw(st.integers(1, len(together)))
    kernels = [(part, np.ones_like(part), np.ones(part.shape, bool)) for part in parts]
    return kernels, keep, reference(together, np.ones(len(together)), np.ones(len(together), bool), keep)


def kept_of(scores, keep):
    """The mask of the largest by a stable sort."""
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores.reshape(-1), kind="stable")[:keep]] = True
    return mask.reshape(scores.shape)
