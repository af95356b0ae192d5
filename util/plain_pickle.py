"""Reading pickles as data: nothing in them is looked up, called or run.

A pickle is a program for a stack machine. This one knows the operations with which torch.save
builds dictionaries, lists, numbers and texts. Where a pickle names a function or a class, its
reader decides by the name what comes of it, and a name that is not known ends the reading.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

MAX_OPERATIONS = 250_000  # a state of ours has 30,000
MAX_BYTES = 1 << 26
_LARGEST_KEY = 1 << 64  # such numbers hash to themselves or nearly: no keys made to collide
_LONGEST_KEY = 500

_CONSTANTS = frozenset([
    "NEWTRUE", "NEWFALSE", "NONE", "INT", "BININT", "BININT1", "BININT2", "LONG1", "LONG4",
    "BINFLOAT", "BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
])  # fmt: skip
_FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

Maker = Callable[..., Any]


class ForeignName(ValueError):
    """A pickle names a function or class, or an operation, that is not among those known.

    Attributes:
        name: such as `os.system`.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"it names {name}")
        self.name = name


class Named:
    """What stands for a function or class of a pickle, and for the objects made by it.

    Attributes:
        name: such as `torch.FloatStorage`.
    """

    def __init__(self, name: str) -> None:
        self.name = name


def read_pickle(
    file: BinaryIO, makers: Mapping[str, Maker | None], persistent: Callable[[Any], Any]
) -> Any:
    """Read the one pickle that begins at a file's position; the position is then behind it.

    Args:
        file: to read.
        makers: the names that may occur, each with what makes an object from the arguments; with
            None the objects are not made, a `Named` stands for them.
        persistent: gives the object of a persistent id.

    Raises:
        ValueError: no pickle, a damaged one, or one beyond the limits. A maker may raise it, too.
        ForeignName: a name that is not among `makers`.
    """
    start = file.tell()
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def popped(count: int) -> list[Any]:
        first = len(stack) - count
        if first < (marks[-1] if marks else 0):
            raise ValueError("its pickle takes more than there is")
        taken = stack[first:]
        del stack[first:]
        return taken

    def popped_to_mark() -> list[Any]:
        if not marks:
            raise ValueError("its pickle lacks a mark")
        taken = popped(len(stack) - marks[-1])
        marks.pop()
        return taken

    for number, (operation, argument, position) in enumerate(pickletools.genops(file)):
        if number > MAX_OPERATIONS or (position or 0) - start > MAX_BYTES:
            raise ValueError(
                f"its pickle has more than {MAX_OPERATIONS:,} operations or {MAX_BYTES:,} bytes"
            )
        name = operation.name
        if name in _CONSTANTS:
            stack.append(_FIXED.get(name, argument))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _TUPLES:
            stack.append(tuple(popped(_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(popped_to_mark()))
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in ("SETITEM", "SETITEMS"):
            items = popped(2) if name == "SETITEM" else popped_to_mark()
            set_items(stack[-1], items)
        elif name in ("APPEND", "APPENDS"):
            values = popped(1) if name == "APPEND" else popped_to_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(values)
            elif not isinstance(stack[-1], Named):
                raise ValueError("its pickle appends to what is no list")
        elif name == "GLOBAL":
            full_name = argument.replace(" ", ".", 1)
            if full_name not in makers:
                raise ForeignName(full_name)
            stack.append(Named(full_name))
        elif name in ("REDUCE", "NEWOBJ"):
            function, arguments = popped(2)
            if not isinstance(function, Named) or not isinstance(arguments, tuple):
                raise ValueError("its pickle calls what is no function")
            make = makers[function.name]
            stack.append(make(*arguments) if make else Named(function.name))
        elif name == "BUILD":  # attributes: no object here has any
            popped(1)
        elif name == "BINPERSID":
            stack.append(persistent(*popped(1)))
        elif name == "STOP":
            (result,) = popped(1)
            return result
        elif name != "PROTO":
            raise ForeignName(f"the operation {name}, which torch.save does not use")
    raise ValueError("its pickle is empty")


def set_items(target: Any, items: list[Any]) -> Any:
    """Put keys and values, which follow each other, into a dictionary, and give it.

    Raises:
        ValueError: another target, or a key that is neither text nor number nor None.
    """
    if isinstance(target, Named):
        return target
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError("its pickle sets items of what is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        is_number = isinstance(key, int | float) and abs(key) < _LARGEST_KEY
        if not (key is None or is_number or (isinstance(key, str) and len(key) <= _LONGEST_KEY)):
            raise ValueError(
                f"a key is neither a number nor a text of up to {_LONGEST_KEY} letters"
            )
        target[key] = value
    return target
