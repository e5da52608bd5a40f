"""`python -m benchmarks.bert_base`: resolves a BERT of full size, prunes it to 90% once, and says what that takes."""

from __future__ import annotations

import json
import time
from typing import Any

import keras_hub

import tf_lap
from benchmarks.memory import peak
from tf_lap.graph.resolver import resolve

SIZES = {
    "vocabulary_size": 30522,
    "num_layers": 12,
    "num_heads": 12,
    "hidden_dim": 768,
    "intermediate_dim": 3072,
    "max_sequence_length": 512,
}
SPARSITY = 0.9


def main() -> dict[str, Any]:
    """Millions of weights, seconds to build, resolve and update, and the most memory of the process, in GB."""
    start = time.perf_counter()
    model = keras_hub.models.BertBackbone(**SIZES)
    built = time.perf_counter()
    resolve(model)
    resolved = time.perf_counter()
    pruner = tf_lap.Pruner(model, allocation="uniform")
    ready = time.perf_counter()
    pruner.update(SPARSITY)
    updated = time.perf_counter()
    return {
        "millions of weights": model.count_params() / 1e6,
        "seconds to build": built - start,
        "seconds to resolve": resolved - built,
        "seconds to make a pruner": ready - resolved,
        "seconds of an update to 90%": updated - ready,
        "peak memory in GB": peak() / 1e9,
    }


if __name__ == "__main__":
    print(json.dumps(main()))
