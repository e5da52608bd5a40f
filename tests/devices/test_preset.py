"""`filters="xnnpack"` prunes what makes a model fast on devices, and nothing else."""

import keras
import pytest
from mobile import make_mobile

import tf_lap


def test_it_prunes_1x1_convolutions_and_the_head_alone():
    model = make_mobile(keras, between=keras.layers.DepthwiseConv2D(3, padding="same", name="between"))
    report = tf_lap.prune(model, 0.8, filters="xnnpack", allocation="uniform")
    pruned = {layer.path for layer in report.pruned}
    assert pruned == {"pointwise_0", "pointwise_1", "head"}
    assert tf_lap.device_report(model).runs_sparse


def test_it_refuses_a_model_of_which_nothing_runs_sparse_with_the_report():
    model = make_mobile(keras, stem="same")
    with pytest.raises(ValueError, match=r"(?s)for_devices\(model\).*'stem' pads 'same' at stride 2"):
        tf_lap.prune(model, 0.8, filters="xnnpack")
