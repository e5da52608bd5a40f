"""Training on two replicas, shared by the tests of it."""

import tensorflow as tf


def two_replicas():
    """A mirrored strategy that adds gradients up on one device.

    By default TensorFlow adds them up with collective operations, which two strategies of one process number alike: the
    second one fails where its model has other shapes.
    """
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
