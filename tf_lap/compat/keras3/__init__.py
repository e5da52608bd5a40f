"""What is particular to Keras 3. `compat.flavours.Flavour` lists what this package and `compat.tf_keras` share."""

from tf_lap.compat.keras3.graphs import called_function as called_function
from tf_lap.compat.keras3.graphs import entering as entering
from tf_lap.compat.keras3.graphs import is_keras_own as is_keras_own
from tf_lap.compat.keras3.graphs import network as network
from tf_lap.compat.keras3.graphs import per_step as per_step
from tf_lap.compat.keras3.graphs import sublayers as sublayers
from tf_lap.compat.keras3.graphs import tensor_name as tensor_name
from tf_lap.compat.keras3.tracing import TRACEABLE_CODE as TRACEABLE_CODE
from tf_lap.compat.keras3.tracing import trace as trace
from tf_lap.compat.keras3.tracing import trace_model as trace_model
from tf_lap.compat.keras3.training import averages as averages
from tf_lap.compat.keras3.training import fit_data as fit_data
from tf_lap.compat.keras3.training import forget_start as forget_start
from tf_lap.compat.keras3.training import is_compiled as is_compiled
from tf_lap.compat.keras3.training import last_batch as last_batch
from tf_lap.compat.keras3.training import moved_variables as moved_variables
from tf_lap.compat.keras3.training import start_at_epoch as start_at_epoch
from tf_lap.compat.keras3.training import steps_per_execution as steps_per_execution
from tf_lap.compat.keras3.training import without_optimizer as without_optimizer
from tf_lap.compat.keras3.variables import bare as bare
from tf_lap.compat.keras3.variables import get_constraint as get_constraint
from tf_lap.compat.keras3.variables import is_kernel_variable as is_kernel_variable
from tf_lap.compat.keras3.variables import own_weights as own_weights
from tf_lap.compat.keras3.variables import set_constraint as set_constraint
from tf_lap.compat.keras3.variables import without_constraint as without_constraint
