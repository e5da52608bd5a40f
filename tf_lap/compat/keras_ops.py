"""The classes behind `keras.ops`. They are not public; channel rules need them."""

from keras.src.activations import activations as activation_ops
from keras.src.ops import core as core_ops
from keras.src.ops import linalg as linalg_ops
from keras.src.ops import math as math_ops
from keras.src.ops import nn as nn_ops
from keras.src.ops import numpy as numpy_ops

__all__ = ["activation_ops", "core_ops", "linalg_ops", "math_ops", "nn_ops", "numpy_ops"]
