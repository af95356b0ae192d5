"""Reading text tables row by row, and saying what is wrong with a file that is none."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from util.errors import UserError
from util.files import regular_file

LONGEST_ROW = 1 << 20  # characters; a row of 18 key points has some hundred
_SNIFFED = 1 << 16  # bytes of a file that show how it is written
_UTF_16 = ("utf-16", "utf-16-le", "utf-16-be")


def read_rows(
    path: Path, columns: tuple[str, ...], separator: str
) -> Iterator[tuple[int, list[str] | str]]:
    """Read a table: (row, values of `columns`) or (row, what is wrong with that row).

    Raises UserError when the file is missing, empty, not UTF-8, has another header or separator,
    a row beyond LONGEST_ROW, or no rows.
    """
    wanted = separator.join(columns)
    header: list[str] | None = None
    row_count = 0
    try:
        regular_file(path)
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = _Lines(path, file)
            reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
            for values in reader:
                lines.taken = 0
                if not "".join(values).strip():
                    continue
                if header is None:
                    header = [name.strip() for name in values]
                    positions = _column_positions(path, header, columns, separator)
                    continue
                row_count += 1
                if len(values) == len(header):
                    yield reader.line_num, [values[position].strip() for position in positions]
                else:
                    problem = f"has {len(values)} fields instead of {len(header)} ({wanted})"
                    yield reader.line_num, problem
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        told = encoding_problem(path, columns[0])
        raise UserError(
            told or f"{path}: is not a text table with the header {wanted} ({error})"
        ) from None
    if header is None:
        raise UserError(f"{path}: is empty; it needs the header {wanted} and one row per line")
    if row_count == 0:
        raise UserError(f"{path}: has a header but no rows")


class _Lines:
    """The lines of a file, of which a row (several of them, where it has quotes) takes a few.

    Attributes:
        taken: characters of the row that is being read; its reader begins each row with 0.
    """

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self._number = 0
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(LONGEST_ROW + 1 - self.taken):
            self._number += 1
            self.taken += len(line)
            if self.taken > LONGEST_ROW:
                raise UserError(
                    f"{self._path}: the row at line {self._number} has more than {LONGEST_ROW} "
                    "characters; is a quote not closed there, or above?"
                )
            yield line


def encoding_problem(path: Path, expected: str) -> str:
    """Say in what encoding, not UTF-8, a text file is; an empty text where it seems to be no text.

    Args:
        path: of the file.
        expected: what stands in the text, such as the name of a column.
    """
    with open(path, "rb") as file:
        head = file.read(_SNIFFED)
    for encoding in _UTF_16:
        if expected in head[: len(head) // 2 * 2].decode(encoding, errors="ignore"):
            return f"{path}: is written in UTF-16; save it as UTF-8"
    if expected.encode() in head and b"\0" not in head:
        data = path.read_bytes()
        try:
            data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            return (
                f"{path}: line {line} is not UTF-8 (Latin-1 or Windows-1252?); save the file as "
                "UTF-8"
            )
    return ""


def _column_positions(
    path: Path, header: list[str], columns: tuple[str, ...], separator: str
) -> list[int]:
    if not set(columns) <= set(header):
        shown = separator.join(header)
        told = encoding_problem(path, columns[0]) if "\0" in shown else ""
        raise UserError(
            told
            or f"{path}: the header is '{shortened(shown)}', "
            f"it must be {separator.join(columns)} (separated by '{separator}')"
        )
    return [header.index(column) for column in columns]


def shortened(text: str, length: int = 60) -> str:
    """Give the text, cut to `length` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
