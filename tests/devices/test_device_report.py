"""The report on what runs sparse on devices: what qualifies, what is in the way, and how it is printed."""

import json

import keras
import numpy as np
import pytest
import tf_keras
from mobile import WIDTH, make_mobile, set_zeros

import tf_lap


@pytest.mark.parametrize("flavour", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_a_network_of_symmetric_padding_qualifies(flavour):
    model = make_mobile(flavour)
    report = tf_lap.device_report(model)
    (cluster,) = report.clusters
    assert report.qualifies
    assert not report.runs_sparse
    assert (cluster.begins, cluster.ends) == ("stem", "mean")
    assert cluster.weights == 2 * WIDTH**2
    assert [(layer.path, layer.kind, layer.qualifies) for layer in report.layers] == [
        ("pointwise_0", "convolution", True),
        ("pointwise_1", "convolution", True),
    ]
    assert "0 of 2 1x1 convolutions run sparse, 2 can" in report.summary


def dense_gate(x):
    scale = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    scale = keras.layers.Dense(64, activation="relu", name="squeeze")(scale)
    return keras.layers.Multiply()([x, keras.layers.Dense(WIDTH, name="excite")(scale)])


def test_more_than_two_thirds_of_all_weights_must_be_zero_those_of_gates_among_them():
    model = make_mobile(keras, between=dense_gate)
    set_zeros(model, 0.9)
    report = tf_lap.device_report(model)
    assert not report.runs_sparse
    text = str(report)
    assert "too few zeros" in text
    assert "Dense layers have 2,048 of them: prune these too, or they alone are too large" in " ".join(text.split())
    set_zeros(model, 0.9, ("pointwise", "squeeze", "excite"))
    report = tf_lap.device_report(model)
    assert report.runs_sparse
    assert [layer.path for layer in report.layers if layer.kind == "dense"] == ["squeeze", "excite"]


def test_zeros_of_a_dense_head_do_not_count():
    model = make_mobile(keras, classes=64)
    set_zeros(model, 0.9)
    assert tf_lap.device_report(model).runs_sparse


def test_the_share_that_is_needed_elsewhere_is_named():
    def small_gate(x):
        scale = keras.layers.Dense(WIDTH, name="gate")(keras.layers.GlobalAveragePooling2D(keepdims=True)(x))
        return keras.layers.Multiply()([x, scale])

    model = make_mobile(keras, blocks=4, between=small_gate)
    set_zeros(model, 0.7)
    (cluster,) = tf_lap.device_report(model).clusters
    assert cluster.needed == pytest.approx((2 / 3 * cluster.weights) / (4 * WIDTH**2))
    set_zeros(model, cluster.needed + 0.01)
    assert tf_lap.device_report(model).runs_sparse


def branch(*layers):
    def apply(x):
        for layer in layers:
            x = layer(x)
        return x

    return apply


@pytest.mark.parametrize(
    ("between", "blocker", "reason", "remedy"),
    [
        (branch(keras.layers.MaxPooling2D(name="pool")), "pool", "MAX_POOL_2D", "activations"),
        (branch(keras.layers.Conv2D(WIDTH, 3, padding="same", name="full")), "full", "a 3x3 convolution", "depthwise"),
        (branch(keras.layers.DepthwiseConv2D(3, strides=2, padding="same", name="half")), "half", "'same'", "ZeroPadd"),
        (branch(keras.layers.DepthwiseConv2D(7, padding="same", name="wide")), "wide", "depthwise 7x7", "3x3 or 5x5"),
        (branch(keras.layers.Conv2D(WIDTH, 1, strides=2, name="skip")), "skip", "1x1 convolution of stride", "stride"),
        (branch(keras.layers.Softmax(name="softmax")), "softmax", "SOFTMAX", "activations"),
    ],
)
def test_what_is_in_the_way_is_named_with_a_remedy(between, blocker, reason, remedy):
    report = tf_lap.device_report(make_mobile(keras, between=between))
    assert not report.qualifies
    layer = report.layers[0]
    assert layer.blocker == blocker
    assert reason in layer.reason
    assert remedy in layer.remedy
    assert layer.blocker in str(report)


@pytest.mark.parametrize("stem", ["same", "late"])
def test_a_stem_that_pads_on_one_side_is_in_the_way(stem):
    report = tf_lap.device_report(make_mobile(keras, stem=stem))
    assert not report.qualifies
    assert report.layers[0].blocker == "stem"
    assert "ZeroPadding2D(1)" in report.layers[0].remedy


def test_a_convolution_behind_the_mean_fails():
    def make_head(x):
        return keras.layers.Conv2D(5, 1, name="late")(keras.layers.GlobalAveragePooling2D(keepdims=True)(x))

    model = make_mobile(keras, between=None, classes=None)
    x = make_head(model.get_layer("pointwise_1").output)
    report = tf_lap.device_report(keras.Model(model.inputs, keras.layers.Flatten()(x)))
    assert not report.qualifies
    assert "late" in report.failing
    assert "Dense layer" in report.failing["late"]
    assert "FAILS" in str(report)


def scale_by_mean(x):
    scale = keras.layers.Activation("sigmoid", name="sigmoid")(keras.layers.GlobalAveragePooling2D(keepdims=True)(x))
    return keras.layers.Multiply(name="scaled")([x, scale])


def test_a_gate_without_a_convolution_fails():
    report = tf_lap.device_report(make_mobile(keras, between=scale_by_mean))
    assert not report.qualifies
    assert "scaled" in report.failing
    assert "put a 1x1 convolution between" in report.failing["scaled"]


def test_what_asks_for_the_shape_of_a_mean_behind_the_cluster_fails():
    body = make_mobile(keras, classes=None)
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(body.get_layer("pointwise_1").output)
    report = tf_lap.device_report(keras.Model(body.inputs, keras.layers.Softmax()(x)))
    assert not report.qualifies
    (reason,) = report.failing.values()
    assert "use GlobalAveragePooling2D() at the end" in reason


def test_a_mean_over_one_axis_fails():
    body = make_mobile(keras, classes=None)
    x = keras.layers.Lambda(lambda x: keras.ops.mean(x, axis=1), name="rows")(body.get_layer("pointwise_1").output)
    report = tf_lap.device_report(keras.Model(body.inputs, x))
    (reason,) = report.failing.values()
    assert "a mean over axes 1, and XNNPACK computes it wrongly" in reason


def test_a_file_is_reported_on_as_its_model_is(tmp_path):
    model = make_mobile(keras, batch_size=1)
    set_zeros(model, 0.9, ("pointwise", "head"))
    for sparse in (False, True):
        tf_lap.export_tflite(model, tmp_path / "model.tflite", sparse=sparse, verbose=0)
        report = tf_lap.device_report(tmp_path / "model.tflite")
        assert report.runs_sparse
        assert [layer.sparsity for layer in report.layers] == [
            layer.sparsity for layer in tf_lap.device_report(model).layers
        ]


def test_the_report_is_plain_data_and_fits_80_columns():
    model = make_mobile(keras, between=branch(keras.layers.MaxPooling2D(name="a_very_long_name_of_a_layer" * 3)))
    report = tf_lap.device_report(model)
    assert max(map(len, str(report).splitlines())) <= 80
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["layers"][0]["blocker"] == report.layers[0].blocker
    assert plain["qualifies"] is False
    assert "DeviceReport" in repr(report)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"keras\.Model"):
        tf_lap.device_report(np.zeros(3))


def test_what_is_alike_is_said_once():
    inputs = x = keras.Input((32, 32, 3))
    for number in range(4):
        x = keras.layers.Conv2D(8, 1, name=f"conv{number}")(keras.layers.MaxPooling2D(1, name=f"pool{number}")(x))
    text = " ".join(str(tf_lap.device_report(keras.Model(inputs, x))).split())
    assert text.count("which the sparse path does not have") == 1
    assert "4 dense: 'pool0' is MAX_POOL_2D, which the sparse path does not have, and so for 3 more layers: " in text
