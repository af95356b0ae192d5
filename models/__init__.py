"""Models by name: `--model=NAME` is the BaseModel subclass in models/NAME_model.py."""

import argparse

from models.base_model import BaseModel
from models.names import model_names
from util.errors import UserError
from util.registry import class_in

__all__ = ["BaseModel", "create_model", "find_model", "model_names"]


def find_model(name: str) -> type[BaseModel]:
    """The model class of a name.

    Raises:
        UserError: there is no such model.
    """
    if name not in model_names():
        raise UserError(
            f"--model: there is no model '{name}'; there are {', '.join(model_names())}"
        )
    return class_in("models", name, "_model", BaseModel)


def create_model(options: argparse.Namespace) -> BaseModel:
    """Build the model that the options name, on the device they name, with fresh weights."""
    return find_model(options.model)(options)
