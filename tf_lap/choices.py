"""Choices by name, by object or by configuration, as Keras takes layers and optimizers."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self


class Configurable:
    """A class with a configuration.

    A dataclass has one by its fields. Any other class defines `get_config`, and `from_config` where it needs to.
    """

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal object: `type(x).from_config(x.get_config()) == x`.

        Raises:
            NotImplementedError: the class is no dataclass and does not define `get_config`.
        """
        if not dataclasses.is_dataclass(self):
            raise NotImplementedError(
                f"{type(self).__name__} has no configuration: make it a dataclass, or give it get_config"
            )
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Makes the object that `get_config` describes."""
        return cls(**config)


Choice = TypeVar("Choice", bound=Configurable)
AnyClass = TypeVar("AnyClass", bound=type)


class Registry(Generic[Choice]):
    """The classes of one kind of choice, by name.

    Args:
        argument: the name of the argument that takes such a choice, for errors.
        base: the base class of all of them; it may be abstract.
        module: the module of the package's own classes, for errors.
        forms: other forms of names that are accepted, for errors; none by default.
    """

    def __init__(self, argument: str, base: type[Any], module: str, forms: str = "") -> None:
        self._argument, self._base, self._module, self._forms = argument, base, module, forms
        self._classes: dict[str, type[Choice]] = {}

    def names(self) -> list[str]:
        """The names that the argument takes, in the order of registration.

        A class whose constructor requires arguments is not among them, nor are forms with numbers, such as "2:4".
        """
        return [name for name, cls in self._classes.items() if not _needs_arguments(cls)]

    @property
    def _accepted(self) -> str:
        """The values that the argument takes, for errors."""
        return (
            f"use one of {sorted(self.names())}{self._forms}, an object of a class of {self._module} or of your own "
            f"subclass of {self._module}.{self._base.__name__}"
        )

    def register(self, name: str) -> Callable[[AnyClass], AnyClass]:
        """A decorator that makes a class of your own available by a name. Its configurations have that name too.

        This is `tf_lap.register_score`, `tf_lap.register_allocation` and `tf_lap.register_pattern`, each for subclasses
        of its own base class.

        Example:

        >>> import dataclasses, tensorflow as tf
        >>> @tf_lap.register_score("cubed")
        ... @dataclasses.dataclass(frozen=True)
        ... class Cubed(tf_lap.scores.Score):
        ...     distance = 0
        ...     def score(self, kernel, weights, incoming, outgoing):
        ...         return tf.abs(weights) ** 3
        >>> report = tf_lap.prune(model, 0.5, score="cubed")

        The docstrings of `tf_lap.scores.Score`, `tf_lap.allocation.Allocation` and `tf_lap.patterns.Pattern` have an
        example each.

        Args:
            name: the name.

        Raises:
            TypeError: the name is no string, or the decorated class is no subclass of the base class.
            ValueError: another class has the name.
        """
        if not isinstance(name, str):
            raise TypeError(
                f"tf_lap.register_{self._argument} takes a name, got {name!r}: write it with one, in parentheses"
            )

        def decorate(cls: AnyClass) -> AnyClass:
            if not (isinstance(cls, type) and issubclass(cls, self._base)):
                raise TypeError(
                    f"{self._argument} {name!r} is {cls!r}: expected a subclass of {self._module}.{self._base.__name__}"
                )
            registered = self._classes.get(name)
            # Running a cell of a notebook again defines its class again, under the same name.
            if registered is not None and _full_name(registered) != _full_name(cls):
                raise ValueError(f"{self._argument} {name!r} is {registered.__name__} already: choose another name")
            self._classes[name] = cls
            return cls

        return decorate

    def get(self, choice: str | Choice | Mapping[str, Any]) -> Choice:
        """The object that a name, an object or a configuration stands for.

        Raises:
            ValueError: an unknown name. TypeError: none of the three.
        """
        if isinstance(choice, self._base):
            return choice
        if isinstance(choice, Mapping):
            return self.deserialize(choice)
        if isinstance(choice, str):
            if choice not in self.names():
                raise ValueError(f"{self._argument}={choice!r} is not known: {self._accepted}")
            return self._classes[choice]()
        reason = "it is a class, not an object" if isinstance(choice, type) else f"its class is {type(choice).__name__}"
        raise TypeError(f"{self._argument}={choice!r} cannot be used ({reason}): {self._accepted}")

    def serialize(self, choice: Choice) -> dict[str, Any]:
        """A configuration of plain data, from which `deserialize` makes an equal object.

        Raises:
            ValueError: the class is not registered. NotImplementedError: it has no configuration.
        """
        names = [name for name, cls in self._classes.items() if cls is type(choice)]
        if not names:
            raise ValueError(
                f"{type(choice).__name__} has no name: register it with tf_lap.register_{self._argument}(name)"
            )
        return {"class_name": names[0], "config": choice.get_config()}

    def deserialize(self, config: Mapping[str, Any]) -> Choice:
        """The object that `serialize` describes.

        Raises:
            ValueError: an unknown name, or a mapping of another form.
        """
        if set(config) != {"class_name", "config"}:
            raise ValueError(
                f"{self._argument}={dict(config)!r}: a configuration is a mapping of 'class_name' and 'config', as "
                f"{self._module}.serialize gives it"
            )
        if config["class_name"] not in self._classes:
            raise ValueError(
                f"{self._argument}={dict(config)!r}: this class is not known. Register it first, with "
                f"tf_lap.register_{self._argument}. Known are {sorted(self._classes)}"
            )
        return self._classes[config["class_name"]].from_config(config["config"])


def _full_name(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _needs_arguments(cls: type) -> bool:
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(cls).parameters.values()
    return any(p.default is p.empty and p.kind not in optional for p in parameters)
