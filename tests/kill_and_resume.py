"""Kills a pruned training again and again, and compares how it ends with one that was never killed.

By hand, many minutes, most of them TensorFlow's import after each kill:

    python tests/kill_and_resume.py --kills 30

Every second kill comes at a random moment of the training, the others inside the writing of a snapshot: after so many
of its bytes, before it is put in place, or just after. All are SIGKILL, so nothing is tidied up.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

BATCH, STEPS = 32, 24  # of an epoch
RESULT = "result.npz"
FUSE = "KILL_AND_RESUME_FUSE"


def train(folder, epochs, width, save_freq, library):
    """One start of the training: goes on where the last one was killed, and writes the result at its end."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    import tf_lap
    from tf_lap.compat import fits

    if library == "tf_keras":
        import tf_keras as keras

        keras.backend.experimental.enable_tf_random_generator()

    class Progress(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch % 8 == 7:
                print("batch", flush=True)

    light_fuse(os.environ.get(FUSE))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((BATCH * STEPS, 64)).astype(np.float32), rng.integers(0, 10, BATCH * STEPS)
    keras.utils.set_random_seed(1)
    dense = keras.layers.Dense
    model = keras.Sequential(
        [
            keras.layers.Input((64,)),
            dense(width, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            dense(width, activation="relu"),
            dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3, use_ema=True, ema_momentum=0.9), loss, jit_compile=False)
    schedule = tf_lap.LookaheadPruningSchedule(0.9, end_step=epochs * STEPS * 2 // 3, frequency=5)
    pruning = tf_lap.LAPCallback(schedule)
    backup = tf_lap.BackupAndRestore(folder / "backup", save_freq=save_freq)
    model.fit(x, y, batch_size=BATCH, epochs=epochs, callbacks=[backup, pruning, Progress()], verbose=0)
    arrays = {f"mask {path}": mask.numpy() for path, mask in pruning.pruner.masks.items()}
    for section, held in fits.variables(model).items():
        arrays |= {f"{section} {i} {name}": replicas[0].numpy() for i, (name, replicas) in enumerate(held)}
    np.savez(folder / RESULT, step=pruning.step, **{name.replace("/", "."): array for name, array in arrays.items()})


def light_fuse(fuse):
    """Lets this process kill itself inside the writing of a snapshot."""
    if fuse is None:
        return
    from tf_lap import files
    from tf_lap.callbacks import snapshot

    write, moment, share = json.loads(fuse)
    original, begun = files.replaced, []

    class Fused:
        def __init__(self, file, path):
            self.file, self.left = file, share * (path.stat().st_size if path.exists() else 1_000_000)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            self.left -= len(data)
            if self.left <= 0:
                self.file.write(data[: len(data) // 2])
                self.file.flush()
                die()
            return self.file.write(data)

    @contextlib.contextmanager
    def replaced(path):
        begun.append(path)
        if len(begun) < write:
            with original(path) as file:
                yield file
            return
        if moment == "before":
            files.os.replace = die
        with original(path) as file:
            yield Fused(file, path) if moment == "within" else file
        die()

    snapshot.replaced = replaced


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def start(folder, arguments, fuse=None):
    environment = {name: value for name, value in os.environ.items() if name != FUSE}
    if fuse is not None:
        environment[FUSE] = json.dumps(fuse)
    command = [sys.executable, __file__, "--folder", str(folder), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def kill_and_resume(folder, kills, arguments, seed=0):
    """Runs the training undisturbed, then with kills, and returns what the test compares and the script prints."""
    rng = random.Random(seed)
    undisturbed, killed = folder / "undisturbed", folder / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    began = time.monotonic()
    process = start(undisturbed, arguments)
    process.communicate()
    assert process.returncode == 0, "the undisturbed training failed"
    seconds = time.monotonic() - began
    moments = []
    for number in range(kills):
        fuse = None
        if number % 2:
            fuse = (rng.randint(1, 2), rng.choice(["within", "within", "before", "after"]), rng.random())
        process = start(killed, arguments, fuse)
        guard = threading.Timer(300, process.kill)
        guard.start()
        try:
            if fuse is None:
                for _ in range(rng.randint(0, 7)):  # up to two epochs and a bit
                    process.stdout.readline()
                time.sleep(rng.random() * 0.2)
                process.kill()
            process.communicate()
        finally:
            guard.cancel()
        assert process.returncode == -signal.SIGKILL, f"start {number} ended with {process.returncode} before its kill"
        unfinished = list((killed / "backup").glob(".*.part"))
        moments.append(fuse[1] if fuse else "while a snapshot was written" if unfinished else "between snapshots")
    process = start(killed, arguments)
    process.communicate()
    assert process.returncode == 0, "the killed training did not come to its end"
    left = [path.name for path in killed.iterdir() if path.name != RESULT]
    with np.load(undisturbed / RESULT) as expected, np.load(killed / RESULT) as result:
        differing = [name for name in expected.files if expected[name].tobytes() != result[name].tobytes()]
        same = expected.files == result.files and not differing
        count = len(expected.files)
    return {"seconds": seconds, "moments": moments, "same": same, "differing": differing, "arrays": count, "left": left}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--width", type=int, default=512, help="of the two hidden layers")
    parser.add_argument("--save-freq", default="epoch", type=lambda value: value if value == "epoch" else int(value))
    parser.add_argument("--library", choices=["keras", "tf_keras"], default="keras")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        train(options.folder, options.epochs, options.width, options.save_freq, options.library)
        return
    arguments = [f"--epochs={options.epochs}", f"--width={options.width}"]
    arguments += [f"--save-freq={options.save_freq}", f"--library={options.library}"]
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_and_resume(Path(folder), options.kills, arguments, options.seed)
    print(f"undisturbed: {outcome['seconds']:.0f} seconds, the imports among them")
    for moment in dict.fromkeys(outcome["moments"]):
        print(f"kills, {moment}: {outcome['moments'].count(moment)}")
    print(f"arrays that differ: {len(outcome['differing'])} of {outcome['arrays']}", *outcome["differing"])
    sys.exit(0 if outcome["same"] else 1)


if __name__ == "__main__":
    main()
