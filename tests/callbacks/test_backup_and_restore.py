"""A training that is killed and started again ends as one that was not, bit for bit."""

import random
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from perceptrons import Interrupt, assert_nothing_left, compiled, data, polynomial
from replicas import two_replicas

import tf_lap
from tf_lap import compat
from tf_lap.compat import fits

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras comes with tensorflow-model-optimization")

pytestmark = pytest.mark.slow  # each trains several times
BOTH = pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
EPOCHS, STEPS = 3, 6


@pytest.fixture(autouse=True, scope="module")
def _generators():
    tf_keras.backend.experimental.enable_tf_random_generator()
    yield
    tf_keras.backend.experimental.disable_tf_random_generator()


def network(library, policy=None):
    library.utils.set_random_seed(7)
    layers = library.layers
    return library.Sequential(
        [
            layers.Input((16,)),
            layers.Dense(24, activation="relu", name="first", dtype=policy),
            layers.BatchNormalization(name="normalization"),
            layers.Dropout(0.3, name="dropout"),
            layers.Dense(24, activation="relu", name="second", dtype=policy),
            layers.Dense(10, name="head", dtype="float32"),
        ]
    )


def prepared(library, optimizer=None, steps_per_execution=1, policy=None, run_eagerly=True):
    model = network(library, policy)
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = optimizer(library) if optimizer else library.optimizers.Adam(0.01)
    # Eagerly where it does not matter: tracing takes longer than these trainings.
    eagerly = run_eagerly and steps_per_execution == 1
    arguments = {"jit_compile": False, "run_eagerly": eagerly, "steps_per_execution": steps_per_execution}
    model.compile(optimizer, loss, **arguments)
    return model


def source(kind):
    x, y = data()
    if kind == "arrays":
        return {"x": x, "y": y, "batch_size": 16}
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(96, seed=1).batch(16)
    if kind == "dataset":
        return {"x": batches}
    if kind == "repeated":
        return {"x": batches.repeat(), "steps_per_epoch": STEPS}
    rng = np.random.default_rng(0)
    return {"x": ((x[rows], y[rows]) for rows in rng.integers(0, 96, (1000, 16))), "steps_per_epoch": STEPS}


def pruning():
    return tf_lap.LAPCallback(polynomial(end_step=15, frequency=7))


def train(model, callbacks, kind="arrays", epochs=EPOCHS, **arguments):
    return model.fit(
        **source(kind), epochs=epochs, callbacks=callbacks, verbose=0, shuffle=kind == "arrays", **arguments
    )


def state(model):
    sections = fits.variables(model)
    sections.pop("keras.random", None)
    return [variable.numpy() for held in sections.values() for _, replicas in held for variable in replicas]


def assert_same_state(model, expected):
    for mine, other in zip(state(model), state(expected), strict=True):
        assert mine.dtype == other.dtype
        assert mine.tobytes() == other.tobytes()


def assert_resumes(tmp_path, make, callbacks, at, kind="arrays", save_freq="epoch", first=True):
    """Compares an undisturbed training with one that is interrupted in step `at`, counted from 1, and started again."""
    undisturbed = make()
    alone = callbacks()
    train(undisturbed, alone, kind)
    for interrupts in ([Interrupt(at)], []):
        model, again = make(), callbacks()
        backup = tf_lap.BackupAndRestore(tmp_path, save_freq=save_freq)
        listed = [backup, *again] if first else [*again, backup]
        if interrupts:
            with pytest.raises(KeyboardInterrupt):
                train(model, [*listed, *interrupts], kind)
        else:
            train(model, listed, kind)
    assert not tmp_path.exists()
    assert_same_state(model, undisturbed)
    return alone, again


@BOTH
@pytest.mark.parametrize(("first", "save_freq", "at"), [(True, "epoch", 8), (False, "epoch", 13), (True, 4, 11)])
def test_a_resumed_pruning_ends_as_an_undisturbed_one(tmp_path, library, first, save_freq, at):
    def make():
        return prepared(library, run_eagerly=False)

    tmp_path = tmp_path / "backup"
    (alone,), (again,) = assert_resumes(tmp_path, make, lambda: [pruning()], at, save_freq=save_freq, first=first)
    assert alone.step == again.step == EPOCHS * STEPS
    for path, mask in alone.pruner.masks.items():
        np.testing.assert_array_equal(mask, again.pruner.masks[path])
    assert_nothing_left_on(again.model)


def assert_nothing_left_on(model):
    assert all(getattr(layer, "kernel_constraint", None) is None for layer in model.layers)
    if isinstance(model, keras.Model):
        assert_nothing_left(keras.Sequential([layer for layer in model.layers if hasattr(layer, "kernel")]))


@BOTH
@pytest.mark.parametrize("kind", ["dataset", "repeated", "generator"])
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_goes_on_where_it_was(tmp_path, library, kind):
    assert_resumes(tmp_path / "backup", lambda: prepared(library), lambda: [pruning()], 14, kind)


@pytest.mark.parametrize(("library", "save_freq", "at"), [(keras, 4, 3), (tf_keras, 5, 4)])
def test_executions_of_several_steps_resume_too(tmp_path, library, save_freq, at):
    def make():
        return prepared(library, steps_per_execution=4)

    assert_resumes(tmp_path / "backup", make, lambda: [pruning()], at, save_freq=save_freq)


OPTIMIZERS = {
    "averages": lambda library: library.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8),
    "schedule": lambda library: library.optimizers.SGD(
        library.optimizers.schedules.ExponentialDecay(0.1, 2, 0.9), momentum=0.9
    ),
    "accumulated": lambda _: keras.optimizers.Adam(0.01, gradient_accumulation_steps=4),
    "scaled": lambda library: (library.optimizers if library is keras else library.mixed_precision).LossScaleOptimizer(
        library.optimizers.Adam(0.01), initial_scale=2.0**10
    ),
    "legacy": lambda _: tf_keras.optimizers.legacy.Adam(0.01),
}


@pytest.mark.parametrize(
    ("library", "optimizer", "policy"),
    [
        (keras, "averages", "bfloat16"),
        (keras, "accumulated", None),
        (keras, "scaled", "mixed_float16"),
        (tf_keras, "schedule", None),
        (tf_keras, "scaled", "mixed_float16"),
        (tf_keras, "legacy", None),
    ],
)
def test_optimizers_and_dtypes_keep_every_bit(tmp_path, library, optimizer, policy):
    def make():
        return prepared(library, OPTIMIZERS[optimizer], policy=policy)

    assert_resumes(tmp_path / "backup", make, lambda: [pruning()], 8)


@BOTH
def test_it_serves_without_any_pruning(tmp_path, library):
    assert_resumes(tmp_path / "backup", lambda: prepared(library), list, 8)


@BOTH
def test_preserve_sparsity_holds_the_same_zeros_afterwards(tmp_path, library):
    def make():
        model = prepared(library)
        tf_lap.prune(model, 0.8)
        return model

    class Zero(compat.Callback):
        """Brings a free weight to zero when the first epoch ends; it stays free."""

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                kernel = self.model.get_layer("head").kernel
                values = kernel.numpy()
                values[tuple(np.argwhere(values)[0])] = 0
                kernel.assign(values)

    def callbacks():
        return [Zero(), tf_lap.PreserveSparsity()]

    undisturbed = make()
    train(undisturbed, callbacks())
    assert np.count_nonzero(undisturbed.get_layer("head").kernel) == 48  # the one came back
    assert_resumes(tmp_path / "backup", make, callbacks, 8, first=False)


def keep_best(library, path):
    """The usual callbacks; at this learning rate the loss of the validation data rises from an early epoch on."""
    callbacks = library.callbacks
    return [
        callbacks.EarlyStopping("val_loss", patience=4, restore_best_weights=True),
        callbacks.ModelCheckpoint(str(path / "best.weights.h5"), save_best_only=True, save_weights_only=True),
        callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1),
    ]


@BOTH
@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("at", [14, 27])
def test_callbacks_that_keep_the_best_remember_it(tmp_path, library, place, at):
    x, y = data()
    held_out = np.random.default_rng(5).standard_normal((32, 16)).astype(np.float32), np.arange(32) % 10

    def run(folder, backup=(), extra=()):
        folder.mkdir(exist_ok=True)
        model = prepared(library, lambda library: library.optimizers.Adam(0.05))
        callbacks = [tf_lap.PreserveSparsity(), *keep_best(library, folder)]
        tf_lap.prune(model, 0.5)
        callbacks[place:place] = backup
        history = model.fit(
            x, y, batch_size=16, epochs=20, validation_data=held_out, verbose=0, callbacks=[*callbacks, *extra]
        )
        kept = prepared(library)
        kept.load_weights(folder / "best.weights.h5")
        return model, kept, history.epoch[-1]

    model, kept, last = run(tmp_path / "alone")
    assert 4 <= last < 19  # it was stopped, after the step that is killed
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", [tf_lap.BackupAndRestore(tmp_path / "backup")], [Interrupt(at)])
    resumed, kept_of_resumed, last_of_resumed = run(tmp_path / "killed", [tf_lap.BackupAndRestore(tmp_path / "backup")])
    assert last_of_resumed == last
    assert_same_state(resumed, model)
    for mine, other in zip(kept_of_resumed.get_weights(), kept.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


@BOTH
def test_callbacks_that_wait_for_the_sparse_model_remember_too(tmp_path, library):
    x, y = data()

    def run(backup, extra=()):
        model = prepared(library, lambda library: library.optimizers.Adam(0.05))
        waiting = library.callbacks.EarlyStopping("loss", patience=2, min_delta=0.3, restore_best_weights=True)
        schedule = tf_lap.LookaheadPruningSchedule(0.5, end_step=6, frequency=3)
        callbacks = [tf_lap.LAPCallback(schedule, once_sparse=[waiting]), *backup, *extra]
        model.fit(x, y, batch_size=16, epochs=12, verbose=0, callbacks=callbacks)
        return model, waiting

    model, waiting = run([])
    assert 0 < waiting.stopped_epoch < 11
    with pytest.raises(KeyboardInterrupt):
        run([tf_lap.BackupAndRestore(tmp_path)], [Interrupt(6 * waiting.stopped_epoch - 2)])
    resumed, again = run([tf_lap.BackupAndRestore(tmp_path)])
    assert (again.stopped_epoch, again.best) == (waiting.stopped_epoch, waiting.best)
    assert_same_state(resumed, model)


@pytest.mark.parametrize("slices", [1, 2])
def test_a_training_that_is_stopped_in_slices_goes_on_where_its_file_is_kept(tmp_path, slices):
    class Slice(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    undisturbed = prepared(keras)
    train(undisturbed, [], epochs=slices + 1)
    for _ in range(slices):
        train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path, delete_checkpoint=False), Slice()], epochs=slices + 1)
    resumed = prepared(keras)
    train(resumed, [tf_lap.BackupAndRestore(tmp_path)], epochs=slices + 1)
    assert_same_state(resumed, undisturbed)


def test_with_other_callbacks_a_warning_says_that_they_begin_anew(tmp_path):
    stopping = keras.callbacks.EarlyStopping("loss", patience=9)
    interrupted(tmp_path, callbacks=[stopping])
    with pytest.warns(UserWarning, match="what EarlyStopping remembered, and this fit has other callbacks"):
        train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path)])
    interrupted(tmp_path, callbacks=[stopping])
    train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path), stopping])  # the remedy


@BOTH
def test_a_training_killed_after_its_last_epoch_only_ends(tmp_path, library):
    class Kill(compat.Callback):
        def on_train_end(self, logs=None):
            raise KeyboardInterrupt

    undisturbed = prepared(library, OPTIMIZERS["averages"])
    train(undisturbed, [pruning()])
    with pytest.raises(KeyboardInterrupt):
        train(prepared(library, OPTIMIZERS["averages"]), [Kill(), tf_lap.BackupAndRestore(tmp_path), pruning()])
    model, callback = prepared(library, OPTIMIZERS["averages"]), pruning()
    history = train(model, [tf_lap.BackupAndRestore(tmp_path), callback])
    assert history.epoch == []
    assert callback.step == EPOCHS * STEPS
    assert callback.report.sparsity == pytest.approx(0.9, abs=1e-3)
    assert_same_state(model, undisturbed)


@BOTH
def test_a_kept_snapshot_goes_on_with_more_epochs_and_the_next_plain_fit_begins_at_the_first(tmp_path, library):
    def backup():
        return tf_lap.BackupAndRestore(tmp_path, delete_checkpoint=False)

    train(prepared(library), [backup()], epochs=2)
    model = prepared(library)
    assert train(model, [backup()], epochs=3).epoch == [2]
    assert train(model, [], epochs=2).epoch == [0, 1]


@BOTH
def test_batches_are_passed_over_in_their_own_fit_only(tmp_path, library):
    with pytest.raises(KeyboardInterrupt):
        train(prepared(library), [tf_lap.BackupAndRestore(tmp_path, save_freq=2), Interrupt(6)])
    model, plain = prepared(library), prepared(library)
    with pytest.raises(KeyboardInterrupt):
        train(model, [tf_lap.BackupAndRestore(tmp_path, save_freq=2), Interrupt(2)])
    steps = int(model.optimizer.iterations)
    assert steps == 4
    train(model, [], epochs=1)
    assert int(model.optimizer.iterations) == steps + STEPS
    train(plain, [], epochs=1)
    assert int(plain.optimizer.iterations) == STEPS


@BOTH
def test_global_generators_are_as_they_were_when_the_epoch_began(tmp_path, library):
    class Draw(compat.Callback):
        def __init__(self):
            super().__init__()
            self.drawn = {}

        def on_epoch_begin(self, epoch, logs=None):
            self.drawn[epoch] = (random.random(), np.random.rand(), float(tf.random.uniform([])))

    alone, killed, resumed = Draw(), Draw(), Draw()
    # The callback builds the optimizer earlier than Keras does, which draws from Python's generator.
    train(prepared(library), [alone, tf_lap.BackupAndRestore(tmp_path / "undisturbed")])
    with pytest.raises(KeyboardInterrupt):
        train(prepared(library), [killed, tf_lap.BackupAndRestore(tmp_path), Interrupt(8)])
    model = prepared(library)
    library.utils.set_random_seed(99)
    train(model, [resumed, tf_lap.BackupAndRestore(tmp_path)])
    assert list(resumed.drawn) == [1, 2]
    assert all(killed.drawn[1][i] == resumed.drawn[1][i] == alone.drawn[1][i] for i in (0, 1))


def test_replicas_of_a_mirrored_training_are_restored_each(tmp_path):
    strategy = two_replicas()

    def make():
        with strategy.scope():
            return prepared(tf_keras, run_eagerly=False)

    assert_resumes(tmp_path / "backup", make, lambda: [pruning()], 8)


def interrupted(tmp_path, model=None, callbacks=(), **arguments):
    with pytest.raises(KeyboardInterrupt):
        train(model or prepared(keras), [*callbacks, tf_lap.BackupAndRestore(tmp_path, **arguments), Interrupt(14)])


def test_a_damaged_snapshot_names_the_directory_and_the_remedy_which_helps(tmp_path):
    interrupted(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-50])
    model = prepared(keras)
    before = state(model)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"backup_dir='.*': tf_lap_snapshot.zip is damaged.*Delete the directory"):
            train(model, [tf_lap.BackupAndRestore(tmp_path)])
    for mine, other in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(mine, other)
    shutil.rmtree(tmp_path)
    assert train(model, [tf_lap.BackupAndRestore(tmp_path)]).epoch == [0, 1, 2]


def test_with_two_snapshots_the_one_before_is_taken_where_the_last_is_damaged_or_missing(tmp_path):
    interrupted(tmp_path, double_checkpoint=True)
    latest = tmp_path / "tf_lap_snapshot.zip"
    latest.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"tf_lap_snapshot.zip is damaged .* goes on from the snapshot before"):
        interrupted_again = train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path, delete_checkpoint=False)])
    assert interrupted_again.epoch == [1, 2]
    shutil.rmtree(tmp_path)
    interrupted(tmp_path, double_checkpoint=True)
    latest.unlink()
    assert train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path)]).epoch == [1, 2]
    assert not tmp_path.exists()


def test_what_killed_writers_left_is_removed(tmp_path):
    interrupted(tmp_path)
    (tmp_path / ".tf_lap_snapshot.zip.0123.part").write_bytes(b"half")
    train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path, delete_checkpoint=False)])
    assert [path.name for path in tmp_path.iterdir()] == ["tf_lap_snapshot.zip"]


def other_network():
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(24), keras.layers.Dense(10)])
    return compiled(model)


@pytest.mark.parametrize(
    ("make", "differs"),
    [
        (other_network, r"the model has \d+ variables in the snapshot, and \d+ in this fit|in the model, variable"),
        (
            lambda: prepared(keras, lambda library: library.optimizers.Nadam()),
            r"optimizer \(Adam\), keras.random, and this fit has the model, optimizer \(Nadam\)",
        ),
        (lambda: prepared(keras, policy="bfloat16"), "'.*kernel' of the snapshot has float32 of shape"),
    ],
)
def test_a_snapshot_of_another_training_is_refused_before_anything_changes(tmp_path, make, differs):
    interrupted(tmp_path)
    model = make()
    before = model.get_weights()
    with pytest.raises(ValueError, match=rf"another training: .*({differs}).* or delete the directory to begin anew"):
        train(model, [tf_lap.BackupAndRestore(tmp_path)])
    for mine, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path)]).epoch == [2]


def test_inside_an_epoch_executions_must_be_as_long(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path, save_freq=2), Interrupt(4)])
    with pytest.raises(ValueError, match="steps_per_execution is 1 in it, and 2 in this fit"):
        train(prepared(keras, steps_per_execution=2), [tf_lap.BackupAndRestore(tmp_path, save_freq=2)])


def test_other_layers_than_were_pruned_are_an_error(tmp_path):
    callback = tf_lap.LAPCallback(polynomial(end_step=15), filters="first|head")
    interrupted(tmp_path, callbacks=[callback])
    with pytest.raises(ValueError, match=r"masks of the layers first, head, and this fit holds masks on first, second"):
        train(
            prepared(keras),
            [tf_lap.LAPCallback(polynomial(end_step=15, frequency=7)), tf_lap.BackupAndRestore(tmp_path)],
        )


def test_a_pruned_training_resumed_without_its_callback_warns(tmp_path):
    interrupted(tmp_path, callbacks=[pruning()])
    with pytest.warns(UserWarning, match="this fit has no callback that keeps them"):
        train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path)])


@pytest.mark.parametrize("turn", [1, -1])
def test_masks_are_kept_in_one_place(tmp_path, turn):
    model = prepared(keras)
    callbacks = [tf_lap.LAPCallback(polynomial(), backup_dir=tmp_path / "masks"), tf_lap.BackupAndRestore(tmp_path)]
    with pytest.raises(ValueError, match=r"the snapshot holds the masks too. Leave backup_dir out of LAPCallback"):
        train(model, callbacks[::turn])
    assert_nothing_left_on(model)


def test_keras_own_backup_is_told_from_ours(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(prepared(keras), [keras.callbacks.BackupAndRestore(tmp_path), Interrupt(8)])
    with pytest.raises(ValueError, match=r"holds 'latest.weights.h5', a backup of Keras's own BackupAndRestore"):
        train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path)])


def test_two_in_one_fit_and_a_model_that_is_not_built_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"two tf_lap.BackupAndRestore in one fit"):
        train(prepared(keras), [tf_lap.BackupAndRestore(tmp_path / "a"), tf_lap.BackupAndRestore(tmp_path / "b")])
    model = compiled(keras.Sequential([keras.layers.Dense(10)]))
    with pytest.raises(ValueError, match=r"is not built, so nothing can be restored into it. .*model.build"):
        train(model, [tf_lap.BackupAndRestore(tmp_path)])
    model.build((None, 16))
    assert len(train(model, [tf_lap.BackupAndRestore(tmp_path)]).epoch) == EPOCHS


def test_arguments_are_checked(tmp_path):
    for directory in ("", "gs://bucket/backup"):
        with pytest.raises(ValueError, match=r"backup_dir='.*': expected a directory of this machine"):
            tf_lap.BackupAndRestore(directory)
    with pytest.raises(TypeError, match=r"backup_dir=1: expected a path, of str, bytes or pathlib.Path"):
        tf_lap.BackupAndRestore(1)
    for frequency in (0, -1, True, False, 1.5, "batch", None):
        with pytest.raises(ValueError, match=rf"save_freq={frequency!r}: expected 'epoch' or a whole number"):
            tf_lap.BackupAndRestore(tmp_path, save_freq=frequency)
    assert tf_lap.BackupAndRestore(bytes(tmp_path)).backup_dir == str(tmp_path)


def test_a_snapshot_that_cannot_be_written_leaves_no_constraint_on_the_model(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    model = prepared(keras)
    with pytest.raises(OSError, match="file"):
        train(model, [pruning(), tf_lap.BackupAndRestore(tmp_path / "file")])
    assert_nothing_left_on(model)
