import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest


def pytest_collection(session):
    """Before tests are imported; the process of pytest-xdist that only hands them out does without TensorFlow."""
    if session.config.pluginmanager.hasplugin("dsession"):
        return
    import tensorflow as tf

    # Two of them, so that distribution is tested on every machine.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


@pytest.fixture(autouse=True, scope="module")
def unburdened():
    """TensorFlow's converter collects garbage, which takes seconds where hundreds of tests have left their objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded():
    import keras
    import tf_keras

    keras.utils.set_random_seed(1)
    tf_keras.utils.set_random_seed(1)  # it has a generator of its own for the seeds of initializers
