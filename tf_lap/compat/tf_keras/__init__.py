"""What is particular to tf_keras, the Keras 2 that goes on as a package; imported once a model of it is seen.

`compat.flavours.Flavour` lists what this package and `compat.keras3` share. The rest serves pruning wrappers of tfmot.
"""

import tf_keras

from tf_lap.compat.tf_keras.compiling import build_optimizer as build_optimizer
from tf_lap.compat.tf_keras.compiling import compile_arguments as compile_arguments
from tf_lap.compat.tf_keras.compiling import is_metric as is_metric
from tf_lap.compat.tf_keras.compiling import optimized as optimized
from tf_lap.compat.tf_keras.compiling import optimizer_variables as optimizer_variables
from tf_lap.compat.tf_keras.compiling import remake_object as remake_object
from tf_lap.compat.tf_keras.compiling import slots as slots
from tf_lap.compat.tf_keras.graphs import called_function as called_function
from tf_lap.compat.tf_keras.graphs import entering as entering
from tf_lap.compat.tf_keras.graphs import flatten as flatten
from tf_lap.compat.tf_keras.graphs import function_name as function_name
from tf_lap.compat.tf_keras.graphs import graph_of as graph_of
from tf_lap.compat.tf_keras.graphs import is_keras_own as is_keras_own
from tf_lap.compat.tf_keras.graphs import layers_inside as layers_inside
from tf_lap.compat.tf_keras.graphs import map_structure as map_structure
from tf_lap.compat.tf_keras.graphs import network as network
from tf_lap.compat.tf_keras.graphs import new_input as new_input
from tf_lap.compat.tf_keras.graphs import sublayers as sublayers
from tf_lap.compat.tf_keras.graphs import symbolic_calls as symbolic_calls
from tf_lap.compat.tf_keras.graphs import tensor_name as tensor_name
from tf_lap.compat.tf_keras.graphs import time_step_layer as time_step_layer
from tf_lap.compat.tf_keras.learning_rates import RewoundRate as RewoundRate
from tf_lap.compat.tf_keras.learning_rates import schedules as schedules
from tf_lap.compat.tf_keras.passes import Pass as Pass
from tf_lap.compat.tf_keras.passes import current_pass as current_pass
from tf_lap.compat.tf_keras.passes import is_rehearsal as is_rehearsal
from tf_lap.compat.tf_keras.rebuilding import add_ancillary as add_ancillary
from tf_lap.compat.tf_keras.rebuilding import all_variables as all_variables
from tf_lap.compat.tf_keras.rebuilding import count_calls as count_calls
from tf_lap.compat.tf_keras.rebuilding import forget_calls as forget_calls
from tf_lap.compat.tf_keras.rebuilding import input_structure as input_structure
from tf_lap.compat.tf_keras.rebuilding import is_ancillary as is_ancillary
from tf_lap.compat.tf_keras.rebuilding import is_sequential as is_sequential
from tf_lap.compat.tf_keras.rebuilding import keep_flag as keep_flag
from tf_lap.compat.tf_keras.rebuilding import keep_trainable as keep_trainable
from tf_lap.compat.tf_keras.rebuilding import make_functional as make_functional
from tf_lap.compat.tf_keras.rebuilding import make_layer as make_layer
from tf_lap.compat.tf_keras.rebuilding import make_sequential as make_sequential
from tf_lap.compat.tf_keras.rebuilding import output_structure as output_structure
from tf_lap.compat.tf_keras.rebuilding import remake_input as remake_input
from tf_lap.compat.tf_keras.rebuilding import remake_layer as remake_layer
from tf_lap.compat.tf_keras.rebuilding import remake_wrapper as remake_wrapper
from tf_lap.compat.tf_keras.rebuilding import sequence as sequence
from tf_lap.compat.tf_keras.tracing import TRACEABLE_CODE as TRACEABLE_CODE
from tf_lap.compat.tf_keras.tracing import trace_call as trace_call
from tf_lap.compat.tf_keras.tracing import trace_model as trace_model
from tf_lap.compat.tf_keras.training import averages as averages
from tf_lap.compat.tf_keras.training import fit_data as fit_data
from tf_lap.compat.tf_keras.training import forget_start as forget_start
from tf_lap.compat.tf_keras.training import is_compiled as is_compiled
from tf_lap.compat.tf_keras.training import last_batch as last_batch
from tf_lap.compat.tf_keras.training import moved_variables as moved_variables
from tf_lap.compat.tf_keras.training import start_at_epoch as start_at_epoch
from tf_lap.compat.tf_keras.training import steps_per_execution as steps_per_execution
from tf_lap.compat.tf_keras.training import without_optimizer as without_optimizer
from tf_lap.compat.tf_keras.variables import autocasts as autocasts
from tf_lap.compat.tf_keras.variables import bare as bare
from tf_lap.compat.tf_keras.variables import get_constraint as get_constraint
from tf_lap.compat.tf_keras.variables import is_kernel_variable as is_kernel_variable
from tf_lap.compat.tf_keras.variables import own_weights as own_weights
from tf_lap.compat.tf_keras.variables import set_constraint as set_constraint
from tf_lap.compat.tf_keras.variables import takes_constraint as takes_constraint
from tf_lap.compat.tf_keras.variables import uncast as uncast
from tf_lap.compat.tf_keras.variables import weights as weights
from tf_lap.compat.tf_keras.variables import without_constraint as without_constraint
from tf_lap.compat.tf_keras.wrappers import is_wrapper as is_wrapper
from tf_lap.compat.tf_keras.wrappers import rename as rename
from tf_lap.compat.tf_keras.wrappers import wrappers as wrappers

layers = tf_keras.layers
