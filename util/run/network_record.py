"""network.json: what the weights beside it are, written by training."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from util.command_line import as_argument
from util.errors import UserError
from util.files import written_whole
from util.json_files import read_json

FILE_NAME = "network.json"


def write_network_record(folder: Path, values: Mapping[str, Any]) -> None:
    """Write network.json into a run's folder.

    Args:
        folder: with the weights.
        values: `model`, `dataset_mode`, and the options that shape the networks and what they read.

    Raises:
        UserError: the operating system refuses.
    """
    text = json.dumps({name: as_argument(value) for name, value in values.items()}, indent=2)
    with written_whole(folder / FILE_NAME) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def read_network_record(folder: Path) -> dict[str, str]:
    """Options by name, as text for a command line; empty where no network.json lies there.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / FILE_NAME
    if not os.path.exists(path):
        return {}
    advice = "move it away, and give the options that the weights beside it were trained with"
    record = read_json(path, advice)
    if not all(isinstance(text, str) for text in record.values()):
        raise UserError(f"{path}: a value in it is no text; {advice}")
    return record
