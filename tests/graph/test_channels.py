import keras
import pytest

from tf_lap.graph.channels import Boundary, Call, Signal, format_axis, require_axis


def test_an_axis_of_one_channel_carries_none():
    assert Signal((None, 8, 8, 1), (3,)).axes == ()
    assert Signal((None, 8, 1, 4), (3, 1, 2)).axes == (1, 3)


def test_sizes_that_are_not_known_are_a_boundary():
    assert Signal((None, None, 4), (2,)).sizes() == (4,)
    with pytest.raises(Boundary, match=r"input \(None, None, 4\) carries channels on axes \[1, 2\] of unknown size"):
        Signal((None, None, 4), (1, 2)).sizes()


def test_the_channel_axis_is_the_one_that_the_data_format_names():
    assert format_axis(keras.layers.MaxPooling2D(), 4) == 3
    assert format_axis(keras.layers.MaxPooling2D(data_format="channels_first"), 4) == 1


def test_channels_on_another_axis_are_a_boundary():
    require_axis(Signal((None, 2, 3), (1, 2)), -1, "reads")
    require_axis(Signal((None, 2, 1), (1,)), 2, "reads")
    require_axis(Signal((None, 2, 3)), 2, "reads")
    with pytest.raises(Boundary, match="reads axis 2, but its input carries channels on axis 1"):
        require_axis(Signal((None, 2, 3), (1,)), 2, "reads")


def test_an_option_is_an_argument_before_it_is_an_attribute():
    call = Call(keras.layers.Softmax(axis=1), (), (), {"axis": 2})
    assert call.option("axis") == 2
    assert call.option("dims", "axis") == 2
    assert Call(call.layer, (), ()).option("axis") == 1
    assert call.option("perm") is None
