"""`python -m benchmarks.pquantml WEIGHTS METHOD SPARSITY SEED`: a fit with PQuantML, for the benchmark `accuracy`.

It runs in an environment that has pquant-ml, which needs an older TensorFlow, and prints what it measured as JSON.
Quantization is off. What else is set is what its files of settings cannot know, the length of the training: PDP's
sparsity rises over two epochs, by half in each, and its masks are fixed in the third; Wanda prunes once, after 100
batches, every kernel alike.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pquant
from pquant.core.keras.train import PQuantCallback

from benchmarks import digits_cnn


def configure(method: str, sparsity: float) -> Any:
    """The settings as PQuantML ships them, with the sparsity and the length of the training."""
    config = pquant.pdp_config() if method == "PDP" else pquant.wanda_config()
    config.quantization_parameters.enable_quantization = False
    config.pruning_parameters.sparsity = sparsity
    training = config.training_parameters
    training.pretraining_epochs = 0
    if method == "PDP":
        config.pruning_parameters.epsilon = 0.5
        training.epochs, training.fine_tuning_epochs = digits_cnn.PRUNING_EPOCHS - 1, 1
    else:
        config.pruning_parameters.t_start_collecting_batch = 0
        # As shipped it is on, and pruning fails inside fit: "int() argument must be ... not 'SymbolicTensor'".
        config.pruning_parameters.calculate_pruning_budget = False
        training.epochs, training.fine_tuning_epochs = digits_cnn.PRUNING_EPOCHS, 0
    return config


def main(weights: Sequence[np.ndarray], method: str, sparsity: float, seed: int) -> digits_cnn.Measured:
    """Prunes while training, and measures."""
    digits = digits_cnn.load()
    dense = digits_cnn.network(keras)
    dense.set_weights(weights)
    config = configure(method, sparsity)
    model = pquant.add_compression_layers(dense, config, (None, *digits.x.shape[1:]))
    callback = PQuantCallback(config, log_ebops=False, log_keep_ratio=False)
    digits_cnn.fit(model, keras, digits, seed, callback.total_epochs, [callback])
    logits = model.predict(digits.x_test, batch_size=500, verbose=0)
    kernels = [np.asarray(layer._kernel) for layer in model.layers if hasattr(layer, "_kernel")]
    return digits_cnn.Measured(
        float(np.mean(logits.argmax(axis=-1) == digits.y_test)), *digits_cnn.count_zeros(kernels)
    )


if __name__ == "__main__":
    with np.load(sys.argv[1]) as file:
        arrays = [file[name] for name in file.files]
    print(json.dumps(main(arrays, sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))))
