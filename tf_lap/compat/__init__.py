"""The only room that knows Keras 3 from tf_keras, and the only one that touches private attributes of either.

Everything else of the package sees a model as `read_model` describes it, and a variable through the functions of
`variables`. What is particular to one Keras is in `keras3` or `tf_keras`. When a release moves a private attribute, the
error says which one.
"""

from tf_lap.compat.batch_skipping import is_skipping_batches as is_skipping_batches
from tf_lap.compat.batch_skipping import stop_skipping_batches as stop_skipping_batches
from tf_lap.compat.callback import Callback as Callback
from tf_lap.compat.compiling import copy_compiled as copy_compiled
from tf_lap.compat.description import Graph as Graph
from tf_lap.compat.description import Inside as Inside
from tf_lap.compat.description import LayerCall as LayerCall
from tf_lap.compat.description import LayerEntry as LayerEntry
from tf_lap.compat.description import ModelDescription as ModelDescription
from tf_lap.compat.description import Tensor as Tensor
from tf_lap.compat.description import TimeStep as TimeStep
from tf_lap.compat.description import Unreadable as Unreadable
from tf_lap.compat.flavours import is_tf_keras as is_tf_keras
from tf_lap.compat.flavours import tf_keras_module as tf_keras_module
from tf_lap.compat.keras_ops import activation_ops as activation_ops
from tf_lap.compat.keras_ops import core_ops as core_ops
from tf_lap.compat.keras_ops import linalg_ops as linalg_ops
from tf_lap.compat.keras_ops import math_ops as math_ops
from tf_lap.compat.keras_ops import nn_ops as nn_ops
from tf_lap.compat.keras_ops import numpy_ops as numpy_ops
from tf_lap.compat.models import called_layers as called_layers
from tf_lap.compat.models import check_model as check_model
from tf_lap.compat.models import check_unwrapped as check_unwrapped
from tf_lap.compat.models import find_called_model as find_called_model
from tf_lap.compat.models import function_name as function_name
from tf_lap.compat.models import has_graph as has_graph
from tf_lap.compat.models import has_keras_call as has_keras_call
from tf_lap.compat.models import has_wrappers as has_wrappers
from tf_lap.compat.models import intercepted as intercepted
from tf_lap.compat.models import is_built as is_built
from tf_lap.compat.models import is_model as is_model
from tf_lap.compat.models import is_operation as is_operation
from tf_lap.compat.models import parts as parts
from tf_lap.compat.models import sublayers as sublayers
from tf_lap.compat.nodes import Resize as Resize
from tf_lap.compat.nodes import is_mask_name as is_mask_name
from tf_lap.compat.reading import read_model as read_model
from tf_lap.compat.rebuilding import NewLayer as NewLayer
from tf_lap.compat.rebuilding import Rebuilt as Rebuilt
from tf_lap.compat.rebuilding import rebuild as rebuild
from tf_lap.compat.training import check_compiled as check_compiled
from tf_lap.compat.training import gradient_accumulation_steps as gradient_accumulation_steps
from tf_lap.compat.training import has_moving_averages as has_moving_averages
from tf_lap.compat.training import iterations as iterations
from tf_lap.compat.training import last_batch as last_batch
from tf_lap.compat.training import moving_averages as moving_averages
from tf_lap.compat.training import refresh_train_function as refresh_train_function
from tf_lap.compat.variables import HostVariables as HostVariables
from tf_lap.compat.variables import assign as assign
from tf_lap.compat.variables import computes_on_host as computes_on_host
from tf_lap.compat.variables import get_constraint as get_constraint
from tf_lap.compat.variables import host_array as host_array
from tf_lap.compat.variables import host_memory as host_memory
from tf_lap.compat.variables import host_value as host_value
from tf_lap.compat.variables import is_kernel_variable as is_kernel_variable
from tf_lap.compat.variables import is_on_host as is_on_host
from tf_lap.compat.variables import overlaid_matrices as overlaid_matrices
from tf_lap.compat.variables import own_weights as own_weights
from tf_lap.compat.variables import refuses_constraint as refuses_constraint
from tf_lap.compat.variables import set_constraint as set_constraint
from tf_lap.compat.variables import trains as trains
from tf_lap.compat.variables import under_xla as under_xla
from tf_lap.compat.variables import value as value
from tf_lap.compat.variables import variable_name as variable_name
from tf_lap.compat.variables import variable_path as variable_path
from tf_lap.compat.variables import weights as weights
