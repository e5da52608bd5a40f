"""Several worker processes prune alike."""

import json
import os
import socket
import subprocess
import sys

import pytest

pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")

WORKER = """
import hashlib, json, sys
import numpy as np, tensorflow as tf, tf_keras
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import tf_lap
rng = np.random.default_rng(0)
x, y = rng.standard_normal((96, 16)).astype(np.float32), rng.integers(0, 10, 96)
with strategy.scope():
    tf_keras.utils.set_random_seed(1)
    layers = [tf_keras.layers.Input((16,)), tf_keras.layers.Dense(24, activation="relu"), tf_keras.layers.Dense(10)]
    model = tf_keras.Sequential(layers)
    schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=8, frequency=3)
    if sys.argv[1] == "wrapper":
        model = tf_lap.prune_lookahead(model, schedule)
    model.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16).repeat()
if sys.argv[1] == "wrapper":
    import tensorflow_model_optimization as tfmot
    callback = tfmot.sparsity.keras.UpdatePruningStep()
else:
    callback = tf_lap.LAPCallback(schedule, allocation="uniform")
model.fit(data, epochs=2, steps_per_epoch=5, callbacks=[callback], verbose=0)
masks = []
if sys.argv[1] == "wrapper":
    masks = [layer.pruning_vars[0][1].numpy() for layer in model.layers]
    model = tfmot.sparsity.keras.strip_pruning(model)
kernels = [layer.kernel.numpy() for layer in model.layers]
digest = hashlib.sha256(b"".join(kernel.tobytes() for kernel in kernels + masks)).hexdigest()
print(json.dumps({"kept": [int(np.count_nonzero(kernel)) for kernel in kernels], "digest": digest}))
"""


def free_addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in sockets]
    for sock in sockets:
        sock.close()
    return addresses


@pytest.mark.slow
@pytest.mark.parametrize("way", ["callback", "wrapper"])
def test_two_workers_of_tf_keras_end_with_the_same_weights_and_exact_counts(way):
    cluster, workers = {"worker": free_addresses(2)}, []
    for index in range(2):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        command = [sys.executable, "-c", WORKER, way]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        workers.append(subprocess.Popen(command, env={**os.environ, "TF_CONFIG": config}, **pipes))
    try:
        outputs = [worker.communicate(timeout=120) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (_, errors) in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, errors
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in outputs)
    assert first == second
    assert first["kept"] == [38, 24]
