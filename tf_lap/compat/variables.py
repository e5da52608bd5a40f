"""Variables of either Keras: their values, on the device and the host, their constraints, and who trains them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # there is no public way to ask

from tf_lap.compat import keras3
from tf_lap.compat.flavours import flavour_of, is_tf_keras, tf_keras_module
from tf_lap.compat.types import Variable

_ALIGNMENT = 64  # bytes, of the memory that TensorFlow's kernels work on
_MOST_KEPT = 1 << 24  # bytes, of new values that are not written yet


def own_weights(layer: Any) -> list[Any]:
    """The variables that a layer owns itself, without those of the layers inside it."""
    return flavour_of(layer).own_weights(layer)


def weights(layer: Any) -> list[Any]:
    """The variables of a layer or model and of all layers in it, without the states of random generators."""
    return flavour_of(layer).weights(layer)


def variable_name(variable: Any) -> str:
    """A variable's own name, without those of the layers around it: `depthwise_kernel`."""
    return variable.name.rpartition("/")[2].partition(":")[0]


def variable_path(variable: Any) -> str:
    """A variable's name with those of the layers around it, as far as its Keras keeps them."""
    return getattr(variable, "path", variable.name).partition(":")[0]


def overlaid_matrices(model: Any) -> dict[str, Any]:
    """The weight matrices that a LoRA adapter adds to, by the names of their layers: they are frozen themselves."""
    layers = [] if is_tf_keras(model) else model._flatten_layers()
    return {
        layer.name: variable
        for layer in layers
        if getattr(layer, "lora_enabled", False)
        for variable in own_weights(layer)
        if not variable.trainable and len(variable.shape) > 1
    }


def is_kernel_variable(kernel: Any) -> bool:
    """Whether a layer's kernel is a floating-point variable (not a tensor of LoRA, nor a quantized table)."""
    return _of_variable(kernel).is_kernel_variable(kernel)


def value(variable: Any) -> tf.Tensor:
    """A variable, tensor or number as a float32 tensor, read where it lives."""
    return tf.cast(tf.convert_to_tensor(variable), tf.float32)


def computes_on_host() -> bool:
    """Whether what is traced or run now is computed by the host's processor, operation by operation."""
    return not under_xla() and all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


def is_on_host(variable: Any) -> bool:
    """Whether a variable's values are in the host's memory, and not on an accelerator."""
    return tf.DeviceSpec.from_string(tf.convert_to_tensor(variable).device).device_type == "CPU"


def host_value(variable: Any) -> np.ndarray:
    """A variable, tensor or number as a float32 array, without a copy where it is one in the host's memory already."""
    return host_array(variable).astype(np.float32, copy=False)


def host_array(variable: Any) -> np.ndarray:
    """The same in its own dtype; not to be written to."""
    if isinstance(variable, (float, int, np.ndarray)):
        return np.asarray(variable)
    resource = _resource(variable)
    return np.asarray(tf.convert_to_tensor(variable) if resource is None else _read_tensor(resource))


def host_memory(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """New memory for an array that is given to TensorFlow, so aligned that it is taken without a copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + size].view(dtype).reshape(shape)


class HostVariables:
    """Reads and writes variables in the host's memory, for somebody who does so again and again.

    What holds a variable's values is looked up once, and TensorFlow's own operations on it are called: together that
    takes a fifth of the time that the variable's methods take. Many calls are made one behind the other: between other
    work each takes several times as long, because TensorFlow's code has left the processor's caches.
    """

    def __init__(self) -> None:
        self._resources: dict[int, tuple[Variable, Any, tf.Variable]] = {}  # the variables keep the identities unique
        self._arrays: dict[int, np.ndarray] | None = None
        self._unwritten: dict[int, tuple[Variable, np.ndarray]] = {}  # by the identity of the variable

    @contextlib.contextmanager
    def reading_once(self, variables: Sequence[Variable]) -> Iterator[None]:
        """Reads variables once, at the beginning; in the block they are not read again, and nobody else may write them.

        What is given in the block is written by its end, or dropped where the block fails, as far as it is not written
        yet.
        """
        resources = [self._resource(variable) for variable in variables]
        read = [None if resource is None else _read_tensor(resource) for resource in resources]
        self._arrays = {
            id(variable): host_array(variable) if tensor is None else np.asarray(tensor)
            for variable, tensor in zip(variables, read, strict=True)
        }
        del read
        try:
            yield
        except BaseException:
            self._unwritten = {}
            raise
        finally:
            self._arrays = None
            self.flush()

    def value(self, variable: Any) -> np.ndarray:
        """As `host_value`."""
        return self.array(variable).astype(np.float32, copy=False)

    def array(self, variable: Any) -> np.ndarray:
        """As `host_array`."""
        if id(variable) in self._unwritten:  # as a kernel that two layers share
            self.flush()
        array = None if self._arrays is None else self._arrays.get(id(variable))
        if array is not None:
            return array
        resource = self._resource(variable)
        return host_array(variable) if resource is None else np.asarray(_read_tensor(resource))

    def take(self, variable: Any) -> np.ndarray:
        """As `array`, for a variable that is written to next. The caller alone keeps its memory from now on."""
        array = self.array(variable)
        if self._arrays is not None:
            self._arrays.pop(id(variable), None)
        return array

    def give(self, *values: tuple[Variable, np.ndarray]) -> None:
        """Makes arrays the values of variables, past their constraints. Nobody else may use the arrays from now on.

        They are kept and written together with others, at the latest by `flush`. Those of one call are written all or
        not at all.

        Args:
            *values: variables in the host's memory, and for each an array of its shape and dtype. TensorFlow copies the
                array unless it is from `host_memory`.
        """
        self._unwritten.update((id(variable), (variable, array)) for variable, array in values)
        if sum(array.nbytes for _, array in self._unwritten.values()) > _MOST_KEPT:
            self.flush()

    def flush(self) -> None:
        """Writes what was given and is not written yet."""
        unwritten, self._unwritten = self._unwritten, {}
        for variable, array in unwritten.values():
            resource = self._resource(variable)
            if resource is None:  # each replica needs memory of its own
                variable.assign(tf.constant(array))
            else:
                tf.raw_ops.AssignVariableOp(resource=resource.handle, value=array)

    def _resource(self, variable: Any) -> tf.Variable | None:
        cached = self._resources.get(id(variable))
        if cached is not None and cached[0] is variable and _inner(variable) is cached[1]:
            return cached[2]
        resource = _resource(variable)
        if resource is not None:
            self._resources[id(variable)] = variable, _inner(variable), resource
        return resource


def _inner(variable: Any) -> Any:
    """What a Keras variable holds its values in; another variable is that itself."""
    return getattr(variable, "_value", variable) if isinstance(variable, keras.Variable) else variable


def _read_tensor(resource: tf.Variable) -> tf.Tensor:
    return tf.raw_ops.ReadVariableOp(resource=resource.handle, dtype=resource.dtype)


def _resource(variable: Any) -> tf.Variable | None:
    """The one TensorFlow variable that holds a variable's values; None where there are several, or none."""
    inner = variable.value if isinstance(variable, keras.Variable) else variable
    plain = isinstance(inner, tf.Variable) and not isinstance(inner, tf.distribute.DistributedValues)
    return inner if plain else None


def under_xla() -> bool:
    """Whether what is traced now will be compiled by XLA as a whole."""
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def assign(variable: Any, new: tf.Tensor) -> None:
    """Writes `new` into a variable, in the variable's own dtype, past its constraint."""
    variable.assign(tf.cast(new, variable.dtype))


def get_constraint(variable: Any) -> Callable[[Any], Any] | None:
    """The function that the optimizer applies to this variable after each step."""
    return _of_variable(variable).get_constraint(variable)


def set_constraint(variable: Any, constraint: Callable[[Any], Any] | None) -> None:
    """Sets the function that the optimizer applies to this variable after each step."""
    _of_variable(variable).set_constraint(variable, constraint)


def refuses_constraint(model: Any) -> Callable[[Any], bool]:
    """For which variables the model's optimizer raises where they have a constraint.

    Legacy optimizers of tf_keras do for embeddings, whose gradients are sparse.

    Args:
        model: the model that is trained.

    Returns:
        A predicate on variables.
    """
    refused = {id(variable) for variable in flavour_of(model).without_constraint(model)}
    return lambda variable: id(variable) in refused


def _of_variable(variable: Any) -> ModuleType:
    return tf_keras_module() if isinstance(variable, tf.Variable) else keras3


def trains(model: Any) -> Callable[[Any], bool]:
    """Which variables a training step of a model moves, as its layers and the models in it are frozen now.

    This is what `trainable_variables` of the model says. A variable's own `trainable` does not say it: in tf_keras it
    stays True where a layer is frozen, and in Keras 3 where a layer was thawed in a model that is frozen itself.
    While it fits, tf_keras sets each layer back to what it was when the model was compiled. The answer there is what
    that step trains.

    Example:

    >>> model.layers[0].trainable = False
    >>> trained = trains(model)
    >>> [trained(layer.kernel) for layer in model.layers]
    [False, True, True]

    Args:
        model: the outermost model that is trained, or a layer.

    Returns:
        A predicate on variables. It compares them by identity, also behind mixed precision and mirrored over replicas.
        Variables that are not of the model are False.

    Raises:
        ValueError: a tf_keras model that is not built.
    """
    parts = [part for variable in model.trainable_variables for part in _of_variable(variable).bare(variable)]
    trained = {id(part): part for part in parts}  # the values keep them alive, so that no identity is used again
    return lambda variable: any(id(part) in trained for part in _of_variable(variable).bare(variable))
