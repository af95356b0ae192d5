"""Printing on every terminal: what it cannot show is written in other characters.

What nobody reads any more is dropped: a closed pipe or a full disk under standard output is no
reason to end a program that writes files.
"""

import codecs
import io
import os
import sys

# Of the texts of the programs; anything else, such as letters of file names, is escaped.
_PLAIN = {"…": "...", "×": "x", "±": "+-", "–": "-", "↑": "^", "↓": "v"}


def print_on_any_terminal() -> None:
    """Have standard output and error take every text, whatever they are connected to.

    Windows' code pages and Latin-1 lack arrows, ASCII lacks nearly all, and no encoding has the
    bytes of a file name that are not UTF-8: print would raise UnicodeEncodeError. It would raise
    OSError where the reader has gone (`| head`) or the disk is full, again when Python ends.
    """
    codecs.register_error("plain", _replace)
    _open_closed_descriptors()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed; print(file=None) would print on the other one
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")
            raw = getattr(stream.buffer, "raw", stream.buffer)
            if stream is getattr(sys, f"__{name}__") and isinstance(raw, io.FileIO):
                setattr(sys, name, _forgiving(stream, raw))


def _open_closed_descriptors() -> None:
    """Open 0, 1 and 2 where they are closed, so that no file of the program becomes one of them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _forgiving(stream: io.TextIOWrapper, raw: io.FileIO) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(raw)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Output(io.RawIOBase):
    """The writing end of a descriptor; what cannot be written is dropped."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int | None:
        try:
            return self._raw.write(data)
        except OSError:
            return len(data)

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = (_PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode() for char in text)
    return "".join(plain), error.end
