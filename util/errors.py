"""The one exception for mistakes that the user can mend."""

_LONGEST = 4000  # characters of a message; a path alone can have as many


class UserError(Exception):
    """Bad input: an option, a file, a row. Its text names what is wrong and the fix, on one line.

    The programs print the text without a traceback and exit with code 2. What files put into it is
    shown by `printable`, so that it is one line and changes nothing on a terminal.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class SpoiltFile(UserError):
    """A file of weights is damaged or holds unusable numbers; another one of its kind may do."""


def printable(text: object) -> str:
    r"""Give a text with escapes (`\n`, `\x1b`, `\u202e`) for what is no printable character.

    For all that comes from files and folders and is printed: it can hold line breaks, sequences
    that steer terminals, and marks that turn the direction of writing. Backslashes stay, so that a
    text that was made printable stays as it is. Of one beyond 4000 characters the middle is left
    out.
    """
    text = str(text)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 1003]} … {text[-1000:]}"
    return text
