"""Printing on every terminal: what it cannot show is written in other characters."""

import codecs
import io
import sys

# Of the texts of the programs; anything else, such as letters of file names, is escaped.
_PLAIN = {"…": "...", "×": "x", "±": "+-", "–": "-", "↑": "^", "↓": "v"}


def print_on_any_terminal() -> None:
    """Have standard output and error take every text, whatever their encoding is.

    Windows' code pages and Latin-1 lack arrows, ASCII lacks nearly all, and no encoding has the
    bytes of a file name that are not UTF-8: print would raise UnicodeEncodeError.
    """
    codecs.register_error("plain", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = (_PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode() for char in text)
    return "".join(plain), error.end
