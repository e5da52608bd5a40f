"""How a choice is given: by name, as an object, or as a configuration, as Keras does for layers and optimizers."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self


class Configurable:
    """What has a configuration: a dataclass by its fields, any other class by methods of its own."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal object: `type(x).from_config(x.get_config()) == x`.

        Raises:
            NotImplementedError: the class is no dataclass, and does not say what its configuration is.
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


class Registry(Generic[Choice]):
    """The classes of one kind of choice, by name.

    Args:
        what: the argument's name, for errors.
        base: what all of them are subclasses of.
        module: where those of the package are, for errors.
        forms: what names of another form stand for, for errors; none by default.
    """

    def __init__(self, what: str, base: type[Choice], module: str, forms: str = "") -> None:
        self._what, self._base, self._module, self._forms = what, base, module, forms
        self._classes: dict[str, type[Choice]] = {}

    def names(self) -> list[str]:
        """The names that stand for an object, in the order of registration: those of classes that need no arguments."""
        return [name for name, cls in self._classes.items() if _needs_no_arguments(cls)]

    @property
    def accepted(self) -> str:
        """What the argument takes, in words."""
        return (
            f"use one of {sorted(self.names())}{self._forms}, an object of a class of {self._module} or of your own "
            f"subclass of {self._module}.{self._base.__name__}"
        )

    def register(self, name: str) -> Callable[[type[Choice]], type[Choice]]:
        """A decorator that lets a class be chosen by a name, which it has in configurations too.

        Raises:
            TypeError: what is decorated is no such class. ValueError: another class has the name.
        """
        if not isinstance(name, str):
            raise TypeError(
                f"tf_lap.register_{self._what} takes a name, got {name!r}: write it with one, in parentheses"
            )

        def decorate(cls: type[Choice]) -> type[Choice]:
            if not (isinstance(cls, type) and issubclass(cls, self._base)):
                raise TypeError(
                    f"{self._what} {name!r} is {cls!r}: expected a subclass of {self._module}.{self._base.__name__}"
                )
            before = self._classes.get(name)
            # A cell of a notebook that is run again defines its class anew.
            if before is not None and (before.__module__, before.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(f"{self._what} {name!r} is {before.__name__} already: choose another name")
            self._classes[name] = cls
            return cls

        return decorate

    def get(self, given: Any) -> Choice:
        """The object that a name, an object or a configuration stands for.

        Raises:
            ValueError: an unknown name. TypeError: none of the three.
        """
        if isinstance(given, self._base):
            return given
        if isinstance(given, Mapping):
            return self.deserialize(given)
        if isinstance(given, str):
            if given not in self.names():
                raise ValueError(f"{self._what}={given!r} is not known: {self.accepted}")
            return self._classes[given]()
        reason = "it is a class, not an object" if isinstance(given, type) else f"its class is {type(given).__name__}"
        raise TypeError(f"{self._what}={given!r} cannot be used ({reason}): {self.accepted}")

    def serialize(self, choice: Choice) -> dict[str, Any]:
        """A configuration of plain data, which `deserialize` makes an equal object of.

        Raises:
            ValueError: the class is not registered. NotImplementedError: it has no configuration.
        """
        names = [name for name, cls in self._classes.items() if cls is type(choice)]
        if not names:
            raise ValueError(
                f"{type(choice).__name__} has no name: register it with tf_lap.register_{self._what}(name)"
            )
        return {"class_name": names[0], "config": choice.get_config()}

    def deserialize(self, config: Mapping[str, Any]) -> Choice:
        """The object that `serialize` describes.

        Raises:
            ValueError: an unknown name, or a mapping of another form.
        """
        if set(config) != {"class_name", "config"}:
            raise ValueError(
                f"{self._what}={dict(config)!r}: a configuration is a mapping of 'class_name' and 'config', as "
                f"{self._module}.serialize gives it"
            )
        if config["class_name"] not in self._classes:
            raise ValueError(
                f"{self._what}={dict(config)!r}: this class is not known. Register it first, with "
                f"tf_lap.register_{self._what}. Known are {sorted(self._classes)}"
            )
        return self._classes[config["class_name"]].from_config(config["config"])


def _needs_no_arguments(cls: type) -> bool:
    given = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(cls).parameters.values()
    return all(p.default is not p.empty or p.kind in given for p in parameters)
