"""Every layer class of both Kerases between two masked layers: the smaller copy does the same, whatever the class."""

import pytest
from helpers.every_layer import ALL, NOT_BUILT, TEXTS, build_model, shares_specifications
from helpers.shrunk import masked_and_shrunk


@pytest.mark.parametrize(("library", "name"), ALL)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:keras")
def test_every_layer_class_is_shrunk_around_or_with(library, name):
    if (library.__name__, name) in NOT_BUILT or name in TEXTS:
        pytest.skip("it cannot be built, or reads texts, which cannot be drawn")
    if (library.__name__, name) == ("keras", "RandomShear"):
        pytest.skip("Keras does not make it anew from its own config")
    if (library.__name__, name) == ("tf_keras", "SpectralNormalization") and not shares_specifications():
        pytest.skip("tf_keras makes its input specification with tf.keras, which is Keras 3 in this process")
    masked_and_shrunk(build_model(library, name), 0.5)
