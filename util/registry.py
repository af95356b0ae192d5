"""Classes by name: those of models and data sets lie in a file each, whose name says which."""

import importlib
import pkgutil
from typing import TypeVar

Base = TypeVar("Base")


def names_in(package: str, ending: str, left_out: str) -> list[str]:
    """The names for which `package/NAME<ending>.py` is there.

    Args:
        package: such as `models`.
        ending: such as `_model`.
        left_out: the name of the base class.
    """
    folder = importlib.import_module(package).__path__
    files = (module.name for module in pkgutil.iter_modules(folder))
    found = (name.removesuffix(ending) for name in files if name.endswith(ending))
    return sorted(name for name in found if name != left_out)


def class_in(package: str, name: str, ending: str, base: type[Base]) -> type[Base]:
    """The subclass of `base` that is defined in `package/NAME<ending>.py`.

    Raises:
        TypeError: none is.
    """
    module = importlib.import_module(f"{package}.{name}{ending}")
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, base)
            and value.__module__ == module.__name__
        ):
            return value
    raise TypeError(f"{package}/{name}{ending}.py defines no subclass of {base.__name__}")
