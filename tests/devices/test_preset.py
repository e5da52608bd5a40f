"""`filters="xnnpack"` prunes what makes a model fast on devices, and nothing else."""

import keras
import pytest
from mobile import WIDTH, make_mobile

import tf_lap


def dense_gate(x):
    scale = keras.layers.Dense(WIDTH, name="gate")(keras.layers.GlobalAveragePooling2D(keepdims=True)(x))
    return keras.layers.DepthwiseConv2D(3, padding="same", name="between")(keras.layers.Multiply()([x, scale]))


def test_it_prunes_1x1_convolutions_and_dense_layers_in_gates_alone():
    model = make_mobile(keras, between=dense_gate)
    report = tf_lap.prune(model, 0.8, filters="xnnpack", allocation="uniform")
    pruned = {layer.path for layer in report.pruned}
    assert pruned == {"pointwise_0", "pointwise_1", "gate"}
    assert tf_lap.device_report(model).runs_sparse


def test_it_refuses_a_model_of_which_nothing_runs_sparse_with_the_report():
    model = make_mobile(keras, stem="same")
    with pytest.raises(ValueError, match=r"(?s)for_devices\(model\).*'stem' pads 'same' at stride 2"):
        tf_lap.prune(model, 0.8, filters="xnnpack")
