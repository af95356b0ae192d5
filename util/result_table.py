"""`results.csv` beside the results of test.py: of which pair, options and weights each of them is.

A row is written after its picture, and taken out before the picture is made anew: whatever ends a
run, a picture with a row is what the row says. Columns: `result` (file), `source`, `target` (names
of the images), `options` (those that the picture depends on, as JSON), `checkpoint` (SHA-256 of the
weights), `inputs` (what changes with the images and key points; tables of earlier versions have no
such column).
"""

import argparse
import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from torch import nn

from util.errors import UserError
from util.files import LARGEST_TEXT, regular_file, written_whole
from util.json_files import parse_json

TABLE_NAME = "results.csv"
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
# Options that change no picture. What is added later counts, unless it is added here, too.
_WITHOUT_EFFECT = frozenset({
    "batchSize", "checkpoints_dir", "debug", "gpu_ids", "is_train", "max_dataset_size", "nThreads",
    "results_dir", "save_flow", "save_input", "serial_batches", "skip_bad_samples", "skip_existing",
})  # fmt: skip
# Said, but not compared: the hash tells whether the weights are the same.
_NAMES = frozenset({"name", "which_iter"})


@dataclass(frozen=True)
class ResultRow:
    """A row of the table; the attributes are its columns."""

    result: str
    source: str
    target: str
    options: str
    checkpoint: str
    inputs: str = ""

    def differences(self, other: "ResultRow") -> list[str]:
        """How this one was made otherwise than `other`, in words; empty when in the same way."""
        found = []
        if self.checkpoint != other.checkpoint:
            own, others = (f"{row.checkpoint[:12]} ({row.run_name})" for row in (self, other))
            found.append(f"checkpoint {own} instead of {others}")
        own, others = parse_json(self.options), parse_json(other.options)
        # An option that one of them does not have came with another version of the program.
        for name in sorted((own.keys() & others.keys()) - _NAMES):
            if own[name] != others[name]:
                found.append(f"--{name} {own[name]} instead of {others[name]}")
        return found

    def differences_for_pair(self, other: "ResultRow") -> list[str]:
        """As `differences`, of two results of one pair, whose images may have changed, too."""
        found = self.differences(other)
        if self.inputs and self.inputs != other.inputs:
            found.append("its images or key points were others")
        return found

    @property
    def run_name(self) -> str:
        """`--name` and `--which_iter` of the checkpoint."""
        options = parse_json(self.options)
        return " ".join(str(options[name]) for name in ("name", "which_iter") if name in options)


COLUMNS = tuple(field.name for field in fields(ResultRow))


def options_cell(options: argparse.Namespace) -> str:
    """The options that a picture depends on, as one line of JSON."""
    kept = {name: value for name, value in vars(options).items() if name not in _WITHOUT_EFFECT}
    kept["dataroot"] = os.path.abspath(kept["dataroot"])
    return json.dumps(kept, sort_keys=True, default=str)


def weights_hash(networks: Mapping[str, nn.Module]) -> str:
    """SHA-256 over names and values of all weights, the same for every file that holds them."""
    digest = hashlib.sha256()
    for key, network in sorted(networks.items()):
        for name, value in network.state_dict().items():
            digest.update(f"{key}.{name} {list(value.shape)} {value.dtype}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).numpy().tobytes())
    return digest.hexdigest()


def read_table(folder: Path) -> dict[str, ResultRow] | None:
    """The rows of a folder's table, by result; a line that a killed run left half done is none.

    Returns:
        None where there is no table, or one with other columns, of some other program.

    Raises:
        UserError: it cannot be read, or a row is damaged.
    """
    path = folder / TABLE_NAME
    try:
        regular_file(path, LARGEST_TEXT)
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    lines = io.StringIO(text[: text.rfind("\n") + 1], newline="")
    reader = csv.reader(lines, strict=True)
    rows: dict[str, ResultRow] = {}
    try:
        columns = tuple(next(reader, ()))
        if columns not in (COLUMNS, COLUMNS[:-1]):
            return None
        for values in reader:
            row = ResultRow(**dict(zip(columns, map(unguarded, values), strict=True)))
            if not isinstance(parse_json(row.options), dict):
                raise ValueError("options are no JSON object")
            rows[row.result] = row
    except (csv.Error, TypeError, ValueError) as error:
        raise UserError(
            f"{path}, line {reader.line_num}: is damaged ({error}); remove the file, and make the "
            "results anew with test.py"
        ) from None
    return rows


def write_table(folder: Path, rows: Iterable[ResultRow]) -> None:
    """Write the table of a folder anew. Raises UserError when it cannot be written."""
    with written_whole(folder / TABLE_NAME) as temporary:
        temporary.write_bytes(_encode([COLUMNS, *map(astuple, rows)]))


def append_rows(folder: Path, rows: Iterable[ResultRow]) -> None:
    """Add rows at the end of the table. Raises UserError when they cannot be written."""
    path = folder / TABLE_NAME
    try:
        with open(path, "ab") as file:
            file.write(_encode(map(astuple, rows)))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def _encode(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(map(guarded, row) for row in rows)
    return text.getvalue().encode("utf-8", errors="surrogateescape")


def guarded(cell: str) -> str:
    """Give a text as a cell that no spreadsheet runs as a formula: those begin with = + - @.

    An apostrophe goes in front, as it does of what would read back as a guarded text.
    """
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """Undo `guarded`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
