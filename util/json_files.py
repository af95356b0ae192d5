"""JSON that the programs read back, within limits that no file of their own comes near.

Python's own reader takes NaN, a number of any length, a name twice and a thousand levels, and what
goes on with such a value fails, or fills the memory, somewhere else.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from util.errors import UserError
from util.files import regular_file

LARGEST_FILE = 64 * 2**20
LARGEST_LOG = 2**30
LARGEST_LINE = 2**20
DEEPEST = 32
MOST_NAMES = 10_000
_MOST_DIGITS = 18  # an int64 holds them
_LONGEST_NUMBER = 100  # Python writes 25; many make float() slow
_LARGEST_NUMBER = 1e300  # differences are finite, too


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _number(text: str) -> float:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} characters")
    value = float(text)
    if abs(value) > _LARGEST_NUMBER:
        raise ValueError(f"a number beyond {_LARGEST_NUMBER}")
    return value


def _no_number(text: str) -> None:
    raise ValueError(f"{text}, which is no number")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(pairs) > MOST_NAMES:
        raise ValueError(f"an object of {len(pairs)} names")
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"'{twice[:40]}' twice in an object")
    return found


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_no_number
)


# A run's log has a million lines like these; the hooks above take most of the time of reading one.
_SHORT, _BELOW = 10_000, 10**17
_QUICK_DECODER = json.JSONDecoder()


def _read_quickly(line: bytes) -> dict[str, object] | None:
    """Read a short line of one object of texts and usual numbers, each name once; None if it is
    another: `parse_json` tells of what kind."""
    # As many colons as names: no name comes twice, nothing is inside of anything.
    try:
        value = _QUICK_DECODER.decode(line.decode("utf-8")) if len(line) <= _SHORT else None
        if (
            isinstance(value, dict)
            and line.count(b":") == len(value)
            and all(type(one) is str or -_BELOW < one < _BELOW for one in value.values())
        ):
            return value  # NaN is below nothing
    except (ValueError, TypeError, RecursionError):
        pass
    return None


def parse_json(text: str) -> object:
    """Read one value.

    Raises:
        ValueError: no JSON; a number that is not finite, beyond 1e300 or of more than 18 digits; an
            object of more than 10 000 names, or with a name twice; more than 32 levels.
    """
    try:
        value = _DECODER.decode(text)
        if text.count("{") + text.count("[") <= DEEPEST:
            return value  # no need to look, which takes as long as reading
        level: list[object] = [value]
        for _ in range(DEEPEST):
            level = [inner for outer in level for inner in _inside(outer)]
            if not level:
                return value
    except RecursionError:
        pass
    raise ValueError(f"more than {DEEPEST} levels")


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def read_json(path: Path, advice: str) -> dict[str, object]:
    """Read a file that holds one object.

    Args:
        path: of the file, of at most 64 MiB.
        advice: what to do about a file that is damaged, for the message.

    Raises:
        UserError: it cannot be read, or is not such a file; see `parse_json`.
    """
    try:
        regular_file(path, LARGEST_FILE)
        with open(path, "rb") as file:
            value = parse_json(file.read(LARGEST_FILE).decode("utf-8"))
        if not isinstance(value, dict):
            raise ValueError("no object")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is no UTF-8 text; {advice}") from None
    except ValueError as error:
        raise UserError(f"{path}: is no valid JSON ({error}); {advice}") from None
    return value


def read_json_lines(path: Path) -> Iterator[dict[str, object] | None]:
    """Read a file of an object a line, a line at a time; one that is damaged gives None.

    Blank lines are passed by; of a line of more than 1 MiB each MiB gives None.

    Raises:
        UserError: the file cannot be read, or is of more than 1 GiB.
    """
    try:
        regular_file(path, LARGEST_LOG)
        with open(path, "rb") as file:
            while line := file.readline(LARGEST_LINE):
                if line.isspace():
                    continue
                try:
                    value = _read_quickly(line) or parse_json(line.decode("utf-8"))
                except ValueError:
                    value = None
                yield value if isinstance(value, dict) else None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
