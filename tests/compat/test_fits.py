"""What a fit that goes on needs of the generators of random numbers."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from tf_lap.compat import fits


def draw():
    # Of TensorFlow the seed of the next eager operation.
    return random.random(), np.random.standard_normal(), context.internal_operation_seed()


def test_all_generators_go_on_from_a_state_that_went_through_json():
    tf.random.set_seed(3)
    draw()
    state = json.loads(json.dumps(fits.random_state()))
    expected = draw()
    draw()
    fits.set_random_state(state)
    assert draw() == expected


UNSEEDED = """
import json
from tf_lap.compat import fits
state = json.loads(json.dumps(fits.random_state()))
fits.set_random_state(state)
print(state["tensorflow"])
"""


@pytest.mark.slow
def test_without_a_seed_tensorflow_has_no_state_to_keep():
    run = subprocess.run([sys.executable, "-c", UNSEEDED], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "None"
