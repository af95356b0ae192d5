"""Models by name: `--model=NAME` is the BaseModel subclass in models/NAME_model.py."""

import argparse
import importlib
import pkgutil

from models.base_model import BaseModel
from util.errors import UserError


def model_names() -> list[str]:
    """Names that --model takes."""
    files = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(
        name.removesuffix("_model")
        for name in files
        if name.endswith("_model") and name != "base_model"
    )


def find_model(name: str) -> type[BaseModel]:
    """The model class of a name.

    Raises:
        UserError: there is no such model.
    """
    if name not in model_names():
        raise UserError(
            f"--model: there is no model '{name}'; there are {', '.join(model_names())}"
        )
    module = importlib.import_module(f"models.{name}_model")
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, BaseModel)
            and value.__module__ == module.__name__
        ):
            return value
    raise TypeError(f"models/{name}_model.py defines no subclass of BaseModel")


def create_model(options: argparse.Namespace) -> BaseModel:
    """Build the model that the options name, on the device they name, with fresh weights."""
    return find_model(options.model)(options)
