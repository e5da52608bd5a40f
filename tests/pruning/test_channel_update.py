import json

import keras
import numpy as np
import pytest
import tf_keras

import tf_lap
from tests.helpers.residual import residual

LIBRARIES = pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])


def dead(layer, axis):
    """Which channels on an axis of a layer's kernel have zero weights alone."""
    kernel = np.asarray(layer.depthwise_kernel if hasattr(layer, "depthwise_kernel") else layer.kernel)
    others = tuple(i for i in range(kernel.ndim) if i != axis % kernel.ndim)
    return ~kernel.any(axis=others)


@LIBRARIES
@pytest.mark.parametrize("score", ["lookahead", "magnitude", "random"])
def test_a_channel_goes_with_all_that_puts_it_out_and_all_that_reads_it(library, score):
    model = residual(library.layers, library)
    report = tf_lap.prune(model, 0.4, pattern="channels", score=score)
    layer = model.get_layer
    gone = dead(layer("stem"), -1)
    assert gone.sum() == 8 - round(8 * 0.6)
    for name, axis in (("project", -1), ("expand", -2), ("head", 0)):
        np.testing.assert_array_equal(dead(layer(name), axis), gone)
    gone = dead(layer("expand"), -1)
    assert gone.sum() == 12 - round(12 * 0.6)
    for name, axis in (("depthwise", 2), ("project", -2)):
        np.testing.assert_array_equal(dead(layer(name), axis), gone)
    assert not dead(layer("head"), -1).any()
    assert [(group.name, group.kept) for group in report.channels.groups] == [("stem", 5), ("expand", 7), ("head", 4)]


def test_what_a_removed_channel_holds_is_not_read():
    model = residual(keras.layers, keras)
    tf_lap.prune(model, 0.5, pattern="channels")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    before = model.predict(x, verbose=0)
    for name, axis in (("stem", -1), ("project", -1), ("expand", -1)):
        layer = model.get_layer(name)
        layer.bias.assign(np.where(dead(layer, axis), 7.0, layer.bias))
    gone = dead(model.get_layer("stem"), -1)
    for variable in model.get_layer("norm").weights:
        variable.assign(np.where(gone, 3.0, variable))
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)


def test_the_lookahead_score_is_what_the_removal_does_to_the_operators_that_read_the_channel():
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(6, name="hidden", use_bias=False)(inputs)
    outputs = [keras.layers.Dense(n, name=f"reader_{n}", use_bias=False)(hidden) for n in (3, 4)]
    model = keras.Model(inputs, outputs)
    pruner = tf_lap.Pruner(model, pattern="channels")
    scores = pruner._engine.score_channels()
    (group,) = pruner._targets.channels.prunable
    before = [model.get_layer(f"reader_{n}").kernel.numpy() for n in (3, 4)]
    hidden_kernel = model.get_layer("hidden").kernel.numpy()
    for channel, number in enumerate(group.classes):
        without = hidden_kernel.copy()
        without[:, channel] = 0
        change = [np.linalg.norm((hidden_kernel - without) @ kernel) for kernel in before]
        assert scores[number] == pytest.approx(np.hypot(*change), rel=1e-5)


def test_other_scores_are_pooled_over_all_weights_that_go_with_a_channel():
    model = residual(keras.layers, keras)
    pruner = tf_lap.Pruner(model, pattern="channels", score="magnitude")
    scores = pruner._engine.score_channels()
    group = pruner._targets.channels.prunable[1]
    layer = model.get_layer
    for channel, number in enumerate(group.classes):
        parts = [
            layer("expand").kernel.numpy()[..., channel],
            layer("depthwise").kernel.numpy()[:, :, channel],
            layer("project").kernel.numpy()[:, :, channel],
        ]
        # A depthwise weight reads the channel and puts it out.
        squares = sum(np.sum(part**2) * (2 if i == 1 else 1) for i, part in enumerate(parts))
        assert scores[number] == pytest.approx(np.sqrt(squares), rel=1e-5)


@LIBRARIES
def test_channels_stay_removed_in_training_and_more_go(library):
    model = residual(library.layers, library)
    model.compile(library.optimizers.Adam(1e-2), "mse")
    counts = []

    class Count(library.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            counts.append(int(dead(model.get_layer("stem"), -1).sum()))

    schedule = tf_lap.LookaheadPruningSchedule(0.75, begin_step=0, end_step=12, frequency=3)
    x = np.random.default_rng(0).normal(size=(160, 8, 8, 3)).astype(np.float32)
    model.fit(
        x,
        x.mean((1, 2)) @ np.ones((3, 4)),
        8,
        verbose=0,
        callbacks=[tf_lap.LAPCallback(schedule, pattern="channels"), Count()],
    )
    assert counts == sorted(counts)
    assert counts[-1] == 6
    gone = dead(model.get_layer("stem"), -1)
    np.testing.assert_array_equal(dead(model.get_layer("head"), 0), gone)


def test_a_later_update_keeps_what_is_removed():
    pruner = tf_lap.Pruner(residual(keras.layers, keras), pattern="channels", score="random")
    pruner.update(0.3)
    first = {path: mask.numpy() for path, mask in pruner.masks.items()}
    pruner.update(0.7)
    assert all(np.all(first[path] | ~mask.numpy()) for path, mask in pruner.masks.items())
    assert [group.kept for group in pruner.report().channels.pruned] == [2, 4]


def test_global_ranks_all_channels_together_and_empties_no_group():
    model = residual(keras.layers, keras)
    model.get_layer("expand").kernel.assign(model.get_layer("expand").kernel * 1e-3)
    report = tf_lap.prune(model, 0.9, pattern="channels", allocation="global")
    assert sum(group.kept for group in report.channels.pruned) == 2
    assert all(group.kept for group in report.channels.pruned)


@pytest.mark.parametrize(("sparsity", "kept"), [(0.4, [4, 8]), (0.9, [4, 4])])
def test_widths_are_rounded(sparsity, kept):
    report = tf_lap.prune(residual(keras.layers, keras), sparsity, pattern=tf_lap.patterns.Channels(round_to=4))
    assert [group.kept for group in report.channels.pruned] == kept


def test_what_several_kernels_share_can_be_left_whole():
    pattern = tf_lap.patterns.Channels(group_wise=False)
    report = tf_lap.prune(residual(keras.layers, keras), 0.5, pattern=pattern)
    assert [(group.name, group.kept) for group in report.channels.pruned] == [("expand", 6)]
    assert "group_wise=False" in str(report)


def test_filters_and_frozen_layers_leave_their_channels():
    model = residual(keras.layers, keras)
    report = tf_lap.prune(model, 0.5, pattern="channels", filters="expand")
    assert [group.name for group in report.channels.pruned] == ["expand"]
    model = residual(keras.layers, keras)
    model.get_layer("project").trainable = False
    with pytest.raises(ValueError, match=r"'project' is frozen.*'project' reads it and is frozen"):
        tf_lap.prune(model, 0.5, pattern="channels")


def test_a_mapping_names_groups_by_a_kernel_that_puts_them_out():
    report = tf_lap.prune(residual(keras.layers, keras), {"project": 0.5, "expand": 0.25}, pattern="channels")
    assert [group.kept for group in report.channels.pruned] == [4, 9]
    assert {layer.path for layer in report.pruned} == {"stem", "expand", "depthwise", "project", "head"}
    with pytest.raises(ValueError, match="put out the same channels"):
        tf_lap.prune(residual(keras.layers, keras), {"depth.*": 0.1, "expand": 0.2}, pattern="channels")


def test_a_model_whose_channels_all_stay_says_why():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="only")])
    with pytest.raises(ValueError, match=r"no channel .* can be removed. 'only' \(4\): network output 'only'"):
        tf_lap.prune(model, 0.5, pattern="channels")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"allocation": "lamp"}, "use allocation='uniform' or 'global'"),
        ({"order": "forward"}, "use order='simultaneous'"),
    ],
)
def test_choices_that_rank_weights_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tf_lap.prune(residual(keras.layers, keras), 0.5, pattern="channels", **arguments)


def test_kept_weights_can_be_repaired():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(256, 8, 8, 3)).astype(np.float32)
    errors = {}
    for repair in (False, True):
        keras.utils.set_random_seed(3)
        model = residual(keras.layers, keras)
        whole = model.predict(x, verbose=0)
        tf_lap.prune(model, 0.25, pattern="channels", repair=repair, data=x if repair else None)
        errors[repair] = np.mean((model.predict(x, verbose=0) - whole) ** 2)
        assert dead(model.get_layer("stem"), -1).sum() == 2
    assert errors[True] < 0.5 * errors[False]


def test_the_report_holds_channels_and_costs():
    model = residual(keras.layers, keras)
    report = tf_lap.prune(model, 0.5, pattern="channels")
    assert report.channels.sparsity == 0.5
    small = tf_lap.shrink(model)
    assert report.channels.after.weights == small.count_params()
    assert f"tf_lap.shrink leaves {small.count_params()} of {model.count_params()} weights" in " ".join(
        str(report).split()
    )
    assert max(map(len, report.render(width=80).splitlines())) <= 80
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["channels"]["groups"][0] == {"name": "stem", "width": 8, "kept": 4, "blocked": []}
    assert tf_lap.prune(residual(keras.layers, keras), 0.5).channels is None


def test_open_sizes_leave_the_cost_out():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    report = tf_lap.prune(model, 0.5, pattern="channels")
    assert report.channels.before is None
    assert report.channels.summary == "channels: 2 of 4 stay in 1 group"


def test_an_input_that_no_kernel_reads_is_counted():
    layers = keras.layers
    inputs = keras.Input((4,)), keras.Input((6,))
    hidden = layers.Dense(8, name="hidden")(inputs[0])
    other = layers.BatchNormalization()(layers.Rescaling(2.0)(inputs[1]))
    model = keras.Model(inputs, [layers.Dense(3, name="head")(hidden), other])
    report = tf_lap.prune(model, budget={"macs": 0.5}, pattern="channels")
    assert report.channels.before.weights == model.count_params()
    assert report.channels.after.weights == tf_lap.shrink(model).count_params()
