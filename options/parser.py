"""The argument parser of all programs: one clear line for a mistake, never a usage dump."""

import argparse
import difflib
import sys
from collections.abc import Callable
from typing import NoReturn

from util.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations; its errors are UserErrors and name the nearest option."""

    def __init__(self, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raise UserError in place of argparse's usage text and exit.

        Raises:
            UserError: always; `message` names the option.
        """
        raise UserError(message)

    def parse_all(self, arguments: list[str] | None = None) -> argparse.Namespace:
        """Parse and refuse unknown options, naming the nearest known one.

        Raises:
            UserError: an unknown option, or a value that does not fit its option.
        """
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            raise UserError(self._unknown_message(unknown))
        return options

    def _unknown_message(self, unknown: list[str]) -> str:
        flags = [text.split("=")[0] for text in unknown if text.startswith("-")]
        if not flags:
            return (
                f"unexpected argument '{unknown[0]}': values follow their option (--option=value)"
            )
        known = [name for action in self._actions for name in action.option_strings]
        nearest = difflib.get_close_matches(flags[0], known, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else "; see --help"
        return f"unknown option {flags[0]}{hint}"


def run_program(main: Callable[..., int | None], *arguments: object) -> None:
    """Run a program's main function and exit: 0, 2 with one line for a UserError, 130 for Ctrl-C.

    Args:
        main: the function; what it returns (None or a number) is the exit code.
        *arguments: handed to `main`.
    """
    try:
        sys.exit(main(*arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
