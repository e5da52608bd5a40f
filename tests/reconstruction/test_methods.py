"""What `repair=` takes."""

import pytest

from tf_lap.reconstruction.methods import read_methods


@pytest.mark.parametrize(
    ("repair", "has_data", "methods"),
    [
        (None, True, ()),
        (False, True, ()),
        (True, True, ("weights", "bias", "batchnorm")),
        (True, False, ("weights", "bias")),
        ("bias", False, ("bias",)),
        (["batchnorm", "weights"], True, ("weights", "batchnorm")),
        ({"bias"}, True, ("bias",)),
    ],
)
def test_methods_are_read_in_their_order(repair, has_data, methods):
    assert read_methods(repair, has_data) == methods


@pytest.mark.parametrize(
    ("repair", "error", "message"),
    [
        (1, TypeError, r"repair=1: expected True, or one or several of \['weights', 'bias', 'batchnorm'\]"),
        (["bias", 3], TypeError, "expected True, or one or several of"),
        ("batch_norm", ValueError, "repair='batch_norm' is not known: use True, or one or several of"),
        ([], ValueError, r"repair=\[\] is not known"),
        ("batchnorm", ValueError, r"pass data=, typical inputs such as x_train\[:256\], or leave 'batchnorm' out"),
    ],
)
def test_other_arguments_are_refused(repair, error, message):
    with pytest.raises(error, match=message):
        read_methods(repair, False)
