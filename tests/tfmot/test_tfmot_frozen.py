"""Frozen layers keep their weights inside wrappers, and are pruned once they train."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from replicas import two_replicas
from wrapped import (
    Subclassed,
    all_masks,
    at_once,
    compiled,
    data,
    decay,
    exactly,
    fit,
    layers,
    perceptron,
    sparsity,
    tf_keras,
)

import tf_lap

pytestmark = pytest.mark.slow  # each trains several times

FROZEN = "ignore:tf_lap.PrunableLayer does not prune"


def freeze_the_layer(model):
    model.layers[0].trainable = False


FREEZINGS = {
    "before wrapping": (freeze_the_layer, lambda wrapped: None),
    "the wrapper": (lambda model: None, lambda wrapped: setattr(wrapped.layers[0], "trainable", False)),
    "inside the wrapper": (lambda model: None, lambda wrapped: setattr(wrapped.layers[0].layer, "trainable", False)),
}


@pytest.mark.filterwarnings(FROZEN)
@pytest.mark.parametrize(
    ("freezing", "arguments"),
    [
        *((freezing, {}) for freezing in FREEZINGS),
        ("the wrapper", {"jit_compile": True}),
        ("the wrapper", {"run_eagerly": True}),
    ],
)
def test_a_frozen_layer_keeps_its_weights_and_the_others_are_pruned(freezing, arguments):
    before, after = FREEZINGS[freezing]
    model = perceptron()
    kernel = model.layers[0].kernel.numpy()
    before(model)
    wrapped = tf_lap.prune_lookahead(model, decay())
    after(wrapped)
    fit(compiled(wrapped, **arguments))
    np.testing.assert_array_equal(wrapped.layers[0].layer.kernel.numpy(), kernel)
    assert [int(mask.sum()) for mask in all_masks(wrapped).values()] == [kernel.size, *exactly(0.9)[1:]]


def nested():
    body = tf_keras.Sequential(
        [layers.Input((16,)), layers.Dense(24, name="a"), layers.Dense(24, name="b")], name="body"
    )
    return tf_keras.Sequential([layers.Input((16,)), body, layers.Dense(10, name="head")])


@pytest.mark.filterwarnings(FROZEN)
def test_a_frozen_model_inside_another_keeps_its_weights_until_it_is_thawed():
    model = tf_lap.prune_lookahead(nested(), decay())
    model.layers[0].trainable = False
    before = [wrapper.get_weights() for wrapper in model.layers[0].layers]  # a wrapper's are those of its layer
    fit(compiled(model))
    for wrapper, expected in zip(model.layers[0].layers, before, strict=True):
        for weights, frozen in zip(wrapper.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(weights, frozen)
    model.layers[0].trainable = True
    fit(compiled(model), epochs=1)  # the schedule is over, and asks for nothing any more
    counts = {name: int(mask.sum()) for name, mask in all_masks(model).items()}
    assert counts == {"body/a": 38, "body/b": 58, "head": 24}
    assert [np.count_nonzero(layer.layer.kernel) for layer in model.layers[0].layers] == [38, 58]


@pytest.mark.filterwarnings(FROZEN)
def test_nothing_is_pruned_in_a_model_that_is_frozen_whatever_its_layers_say():
    model = tf_lap.prune_lookahead(nested(), decay())
    model.trainable = False
    model.layers[1].trainable = True
    fit(compiled(model), epochs=1)
    assert all(mask.all() for mask in all_masks(model).values())


def test_what_is_frozen_after_compile_trains_on_and_is_pruned_until_the_model_is_compiled_again():
    # tf_keras trains what was not frozen when the model was compiled, with a wrapper and without.
    model = compiled(tf_lap.prune_lookahead(perceptron(), decay()))
    model.layers[0].trainable = False
    fit(model, epochs=1)
    mask = all_masks(model)["first"]
    assert mask.sum() < mask.size
    compiled(model)
    with pytest.warns(UserWarning, match="does not prune 'first'"):
        fit(model, epochs=1)
    np.testing.assert_array_equal(all_masks(model)["first"], mask)


def test_a_frozen_layer_is_named_once_and_the_remedy_helps():
    model = tf_lap.prune_lookahead(perceptron(), at_once())
    model.layers[0].trainable = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            fit(compiled(model), epochs=1)
    assert [str(each.message) for each in caught if "tf_lap" in str(each.message)] == [
        "tf_lap.PrunableLayer does not prune 'first' (Dense), frozen as they are: to have them pruned, set "
        "trainable=True on them and on the models around them, and compile the model again"
    ]
    model.layers[0].trainable = True
    fit(compiled(model), epochs=1)
    assert [int(mask.sum()) for mask in all_masks(model).values()] == exactly(0.9)


@pytest.mark.filterwarnings(FROZEN)
@pytest.mark.parametrize("eager", [False, True])
def test_between_two_updates_a_thawed_layer_gets_the_sparsity_of_the_last(eager):
    model = tf_lap.prune_lookahead(perceptron(), decay(0.9, 0, 20, frequency=5))
    model.layers[0].trainable = False
    fit(compiled(model, run_eagerly=eager), epochs=1)  # six steps, one update, at step 5
    model.layers[0].trainable = True
    compiled(model, run_eagerly=eager)
    steps = sparsity.UpdatePruningStep()
    x, y = data()
    model.fit(x[:16], y[:16], batch_size=16, callbacks=[steps], verbose=0)
    after_5 = 0.9 - 0.9 * (1 - 5 / 20) ** 3
    assert [int(mask.sum()) for mask in all_masks(model).values()] == exactly(after_5)


@pytest.mark.filterwarnings(FROZEN)
def test_before_the_schedule_begins_a_thawed_layer_is_left_dense():
    model = tf_lap.prune_lookahead(perceptron(), decay(begin=10, end=20))
    model.layers[0].trainable = False
    fit(compiled(model), epochs=1)
    model.layers[0].trainable = True
    fit(compiled(model), epochs=1, steps_per_epoch=2)
    assert all(mask.all() for mask in all_masks(model).values())


@pytest.mark.filterwarnings(FROZEN)
@pytest.mark.parametrize("options", [{"sparsity_m_by_n": (2, 4)}, {"block_size": (2, 2)}], ids=["m by n", "blocks"])
def test_what_is_pruned_in_groups_catches_up_too(options):
    model = tf_lap.prune_lookahead(perceptron(), at_once(0.5), **options)
    model.layers[0].trainable = False
    fit(compiled(model), epochs=1)
    model.layers[0].trainable = True
    fit(compiled(model), epochs=1)
    assert [int(mask.sum()) for mask in all_masks(model).values()] == exactly(0.5)


@pytest.mark.filterwarnings(FROZEN)
def test_a_model_saved_frozen_loads_frozen_and_catches_up_when_thawed(tmp_path):
    model = tf_lap.prune_lookahead(nested(), decay())
    model.layers[0].trainable = False
    fit(compiled(model))
    model.save(tmp_path / "model.keras")
    again = tf_keras.models.load_model(tmp_path / "model.keras")
    fit(again, epochs=1)
    assert [int(mask.sum()) for mask in all_masks(again).values()] == [384, 576, 24]
    again.layers[0].trainable = True
    fit(compiled(again), epochs=1)
    assert [int(mask.sum()) for mask in all_masks(again).values()] == exactly(0.9)


@pytest.mark.filterwarnings("ignore:tf_lap.PrunableLayer ranks the weights of", FROZEN)
def test_one_weight_of_a_layer_may_be_frozen():
    inputs = tf_keras.Input((5, 8))
    attention = layers.MultiHeadAttention(2, 4, name="attention")
    x = layers.GlobalAveragePooling1D()(attention(inputs, inputs))
    model = tf_lap.prune_lookahead(tf_keras.Model(inputs, layers.Dense(10, name="head")(x)), at_once(0.5))
    attention._key_dense.trainable = False
    compiled(model).fit(np.ones((8, 5, 8)), np.zeros(8), verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    (wrapper,) = (layer for layer in model.layers if getattr(layer, "layer", None) is attention)
    counts = {variable.name.split("/")[-2]: int(mask.numpy().sum()) for variable, mask, _ in wrapper.pruning_vars}
    assert counts == {"query": 32, "key": 64, "value": 32, "attention_output": 32}


@pytest.mark.filterwarnings("ignore:tf_lap.PrunableLayer ranks the weights of", FROZEN)
def test_subclassed_models_and_loops_of_ones_own_too():
    model = Subclassed()
    model(np.zeros((1, 16), np.float32))
    model.hidden.trainable = False
    steps, optimizer = sparsity.UpdatePruningStep(), tf_keras.optimizers.SGD(0.1)
    steps.set_model(model)
    steps.on_train_begin()
    x = tf.random.stateless_normal((16, 16), seed=(1, 2))

    @tf.function
    def train():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x, training=True) ** 2)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for _ in range(2):
        train()
    steps.on_epoch_end(batch=-1)
    assert [np.count_nonzero(each.layer.kernel) for each in (model.hidden, model.head)] == [384, 24]


@pytest.mark.filterwarnings(FROZEN)
def test_replicas_and_mixed_precision_too():
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        with two_replicas().scope():
            model = tf_lap.prune_lookahead(perceptron(dtype="float32"), decay())
            model.layers[0].trainable = False
            compiled(model)
            fit(model)
            before = [int(mask.sum()) for mask in all_masks(model).values()]
            model.layers[0].trainable = True
            compiled(model)
            fit(model, epochs=1)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    assert before == [384, *exactly(0.9)[1:]]
    assert [int(mask.sum()) for mask in all_masks(model).values()] == exactly(0.9)
