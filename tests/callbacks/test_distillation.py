"""A student is pruned while it is distilled: `fit` is called on a model that holds its teacher too."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from perceptrons import SIZES, Interrupt, assert_exact, assert_nothing_left, data, network, polynomial, quietly

import tf_lap

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
needs_distiller = pytest.mark.skipif(not hasattr(keras, "distillation"), reason="Keras has a Distiller from 3.12 on")


def make_teacher(library=keras):
    layers = library.layers
    return library.Sequential(
        [layers.Input((16,)), layers.Dense(64, activation="relu", name="first"), layers.Dense(10, name="head")],
        name="teacher",
    )


def make_distiller(student, losses=None, optimizer=None):
    teacher = make_teacher()
    losses = losses or keras.distillation.LogitsDistillation(temperature=2.0)
    distiller = keras.distillation.Distiller(teacher, student, losses)
    # Eagerly: tracing takes longer than these trainings.
    distiller.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), LOSS, run_eagerly=True)
    return distiller


@needs_distiller
@pytest.mark.parametrize("is_built", [False, True])
def test_the_student_is_pruned_as_if_it_were_trained_alone_and_the_teacher_is_not(is_built, tmp_path):
    student = network()
    distiller = make_distiller(student)
    if is_built:
        distiller.build((None, 16))
    before = distiller.teacher.get_weights()
    callback = tf_lap.LAPCallback(polynomial())
    history = quietly(distiller, [callback]).history
    assert [layer.path for layer in callback.report.layers] == list(SIZES)
    assert callback.pruner.model is student
    weights = sum(weight.size for weight in student.get_weights())
    zeros = sum(np.count_nonzero(weight == 0) for weight in student.get_weights())
    assert history["model_sparsity"][-1] == pytest.approx(zeros / weights)
    assert callback.report.model_weights == weights
    for expected, weight in zip(before, distiller.teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert_exact(student)
    assert_nothing_left(distiller)
    student.save(tmp_path / "student.keras")
    assert_exact(keras.models.load_model(tmp_path / "student.keras"))


@needs_distiller
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"filters": "first"}, ["first"]),
        ({"score": "lookahead_activation", "data": data()[0]}, list(SIZES)),
        ({"allocation": "global"}, list(SIZES)),
    ],
    ids=["filters", "data", "global"],
)
def test_arguments_speak_of_the_student(arguments, expected):
    callback = tf_lap.LAPCallback(polynomial(), **arguments)
    quietly(make_distiller(network()), [callback])
    assert [layer.path for layer in callback.report.pruned] == expected
    assert callback.report.sparsity == pytest.approx(0.9, abs=2e-3)


@needs_distiller
def test_a_mapping_names_the_students_layers():
    callback = tf_lap.LAPCallback(polynomial({"first": 0.5, "head": 0.9}))
    quietly(make_distiller(network()), [callback])
    assert {layer.path: round(layer.sparsity, 1) for layer in callback.report.pruned} == {"first": 0.5, "head": 0.9}


@needs_distiller
def test_features_of_layers_are_distilled_too():
    student = network()
    losses = [
        keras.distillation.LogitsDistillation(),
        keras.distillation.FeatureDistillation(teacher_layer_name="head", student_layer_name="head"),
    ]
    callback = tf_lap.LAPCallback(polynomial())
    quietly(make_distiller(student, losses), [callback])
    assert callback.pruner.model is student
    assert_exact(student)


@needs_distiller
@pytest.mark.parametrize(
    "callback",
    [
        lambda: tf_lap.LAPCallback(
            tf_lap.LookaheadPruningSchedule(0.9, decay="alternating", begin_step=2, end_step=8, frequency=3)
        ),
        lambda: tf_lap.LAPCallback(0.9),
    ],
    ids=["alternating", "steps of the fit"],
)
def test_averages_of_the_distillers_optimizer_get_the_zeros(callback):
    student = network()
    optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8)
    quietly(make_distiller(student, optimizer=optimizer), [callback()])
    assert_exact(student)


@needs_distiller
def test_the_callback_goes_on_in_the_next_fit_of_distiller_and_student():
    student, callback = network(), tf_lap.LAPCallback(polynomial(end_step=30))
    distiller = make_distiller(student)
    with pytest.warns(UserWarning, match="ends at step 12, before the pruning schedule does at step 30"):
        distiller.fit(*data(), batch_size=16, epochs=2, callbacks=[callback], verbose=0)
    zeros = student.get_layer("first").kernel.numpy() == 0
    quietly(distiller, [callback])
    assert callback.step == 24
    student.compile("adam", LOSS, run_eagerly=True)
    quietly(student, [callback])
    assert callback.step == 36
    assert_exact(student)
    assert np.all(student.get_layer("first").kernel.numpy()[zeros] == 0)


@needs_distiller
def test_preserve_sparsity_keeps_the_students_zeros():
    student = network()
    tf_lap.prune(student, 0.9)
    distiller = make_distiller(student)
    distiller.build((None, 16))
    quietly(distiller, [tf_lap.PreserveSparsity()])
    assert_exact(student)


@needs_distiller
@pytest.mark.slow
def test_a_distillation_that_is_killed_ends_as_one_that_is_not(tmp_path):
    def distil(at=None):
        student = network()
        keras.utils.set_random_seed(3)
        student.set_weights([np.random.default_rng(0).standard_normal(w.shape) / 4 for w in student.get_weights()])
        distiller = make_distiller(student)
        distiller.build((None, 16))
        callbacks = [tf_lap.LAPCallback(polynomial(end_step=10)), tf_lap.BackupAndRestore(tmp_path / "backup")]
        quietly(distiller, [*callbacks, *([Interrupt(at)] if at else [])], epochs=3)
        return student.get_weights()

    undisturbed = distil()
    with pytest.raises(KeyboardInterrupt):
        distil(at=9)
    for weights, expected in zip(distil(), undisturbed, strict=True):
        np.testing.assert_array_equal(weights, expected)


def make_own_distiller(library):
    """A distiller as users write it, whose teacher is not frozen."""

    class OwnDistiller(library.Model):
        def __init__(self, teacher, student):
            super().__init__()
            self.teacher, self.student = teacher, student

        def call(self, x, training=None):
            return self.student(x, training=training)

        def train_step(self, batch):
            x, _ = batch
            goal = tf.nn.softmax(self.teacher(x, training=False))
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(goal, self(x, training=True)))
            variables = self.student.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return {"loss": loss}

    layers = library.layers
    student = library.Sequential(
        [layers.Input((16,)), layers.Dense(24, activation="relu", name="first"), layers.Dense(10, name="head")]
    )
    distiller = OwnDistiller(make_teacher(library), student)
    distiller.compile(library.optimizers.SGD(0.1, momentum=0.9), run_eagerly=True)
    return distiller


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_the_teacher_of_a_distiller_of_the_users_own_is_left_alone(library):
    distiller = make_own_distiller(library)
    distiller(np.zeros((1, 16), np.float32))
    before = distiller.teacher.get_weights()
    callback = tf_lap.LAPCallback(polynomial(), allocation="uniform")
    quietly(distiller, [callback])
    assert callback.pruner.model is distiller.student
    assert [layer.path for layer in callback.report.layers] == ["first", "head"]
    for expected, weight in zip(before, distiller.teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    kernels = [np.asarray(layer.kernel) for layer in distiller.student.layers if hasattr(layer, "kernel")]
    assert [np.count_nonzero(kernel) for kernel in kernels] == [38, 24]
