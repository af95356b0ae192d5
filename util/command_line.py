"""The argument parser of all programs: one clear line for a mistake, never a usage dump."""

import argparse
import contextlib
import difflib
import importlib
import itertools
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from util.errors import UserError, is_out_of_memory, out_of_memory_text, printable
from util.packages import not_installed
from util.terminal import print_on_any_terminal

DEBUG = "--debug"
# How OpenMP's threads wait for each other, which is read when torch is imported. By default they
# spin for long; beside other work that keeps the cores from the thread that all wait for. Figures:
# docs/performance.md.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
_WAITING_VARIABLES = {*WAITING, "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}  # of the user's choice
_LONGEST_NAME, _LONGEST_PATH = 255, 4096  # bytes; no system takes more
# What takes less memory, most effective first; a program names those that it has.
_LESS_MEMORY = {
    "--batchSize": "a smaller --batchSize",
    "--batch_size": "a smaller --batch_size",
    "--load_size": "a smaller --load_size",
    "--nThreads": "fewer --nThreads",
    "--workers": "fewer --workers",
}


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations; its errors are UserErrors and name the nearest option.

    Every parser has --debug, which `run_program` reads.

    Attributes:
        explain_unknown: given a flag that this parser does not know, says whose it is, or None.
        check: called by `parse_all` with the options; raises UserError for what they contradict.
        origins: where defaults come from that `set_defaults_from` has set, by the option's name.
    """

    in_use: ClassVar["Parser | None"] = None  # the one whose options the program runs with

    def __init__(self, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)
        self.explain_unknown: Callable[[str], str | None] = lambda flag: None
        self.check: Callable[[argparse.Namespace], None] = lambda options: None
        self.origins: dict[str, str] = {}
        self.add_argument(
            DEBUG, action="store_true", help="show where in the program an error arose, too"
        )

    def error(self, message: str) -> NoReturn:
        """Raise UserError in place of argparse's usage text and exit.

        Raises:
            UserError: always; `message` names the option.
        """
        message = " ".join(message.split())
        if lacking := re.match(r"argument (\S+): expected", message):
            for flag, word in itertools.pairwise(self._words):
                if flag in lacking[1].split("/") and word.startswith("-"):
                    written = shlex.quote(f"{flag}={word}")
                    message += f"; if {word!r} is meant, write {written}"
        raise UserError(message)

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's; no value is empty, or `--`, which it would take for [].

        Raises:
            UserError: a value that does not fit its option.
        """
        self._words = list(sys.argv[1:] if args is None else args)
        flag = ""
        for word in self._words:
            if word.startswith("--"):
                flag, has_value, value = word.partition("=")
            else:
                has_value, value = True, word
            if has_value and (problem := _problem_of(value)):
                self.error(f"argument {flag or repr(value[:40])}: {problem}")
        return super().parse_known_args(args, namespace)

    def set_defaults_from(self, origin: str, values: Mapping[str, Any]) -> None:
        """As `set_defaults` of those options that the parser has; `origin` says whose they are."""
        names = self.names()
        known = {name: value for name, value in values.items() if name in names}
        self.set_defaults(**known)
        self.origins.update(dict.fromkeys(known, origin))

    def names(self) -> set[str]:
        """Names under which the options' values are found."""
        return set(vars(self.parse_known_args([])[0]))

    def flags(self) -> list[str]:
        """All options as they are written, aliases apart."""
        return re.findall(r"--\w+", self.format_usage())

    def takes(self, flag: str) -> bool:
        """Whether the parser has an option of this spelling."""
        try:
            _, unknown = self.parse_known_args([flag])
        except UserError:  # it wants a value
            return True
        return flag not in unknown

    def origin_lines(
        self, options: argparse.Namespace, arguments: Sequence[str] | None
    ) -> list[str]:
        """A line for every option: its value, and where that is from.

        Args:
            options: as the program uses them.
            arguments: the command line that they are from.
        """
        usual, _ = self.parse_known_args([])
        unset = argparse.Namespace(**dict.fromkeys(vars(usual), self))
        given, _ = self.parse_known_args(arguments, unset)
        lines = []
        for name, value in sorted(vars(options).items()):
            if name not in usual:
                continue
            origin = self.origins.get(name, "default")
            if getattr(given, name) is not self:
                origin = "command line"
            elif value != getattr(usual, name):
                origin = "follows from the others"
            lines.append(f"{name:<26}  {as_argument(value):<24}  {origin}")
        return lines

    def parse_all(self, arguments: list[str] | None = None) -> argparse.Namespace:
        """Parse and refuse unknown options, naming the nearest known one.

        Raises:
            UserError: an unknown option, a value that does not fit its option, or `check`'s.
        """
        Parser.in_use = self
        _interrupt_as_usual()
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            raise UserError(self._unknown_message(unknown))
        self.check(options)
        return options

    def _unknown_message(self, unknown: list[str]) -> str:
        flags = [text.split("=")[0] for text in unknown if text.startswith("-")]
        if not flags:
            return (
                f"unexpected argument {unknown[0]!r}: values follow their option (--option=value)"
            )
        explained = self.explain_unknown(flags[0])
        if explained:
            return explained
        nearest = self._nearest(flags[0])
        hint = f"; did you mean {nearest}?" if nearest else "; see --help"
        return f"unknown option {' '.join(flags[0].split())}{hint}"

    def _nearest(self, flag: str) -> str | None:
        """The option that a flag is the beginning or another spelling of."""

        def letters(name: str) -> str:
            return name.replace("-", "").replace("_", "").lower()

        known = {letters(name): name for name in self.flags()}
        got = letters(flag)
        begun = sorted((n for n in known if len(got) > 2 and n.startswith(got)), key=len)
        # 0.8: at 0.6, which is usual, --results_dir is taken for --checkpoints_dir.
        nearest = begun or difflib.get_close_matches(got, known, n=1, cutoff=0.8)
        return known[nearest[0]] if nearest else None


def _problem_of(text: str) -> str | None:
    """What keeps a text from being a value of any option: none is empty, many are paths."""
    if not text.strip():
        return "the value is empty: give one"
    if text == "--":
        return "'--' is no value"
    if "\0" in text:
        return "the value holds a byte of zero"
    lengths = [len(os.fsencode(part)) for part in re.split("[/,]", text)]  # of names, or of a list
    if max(lengths) > _LONGEST_NAME or sum(lengths) + len(lengths) > _LONGEST_PATH:
        return (
            f"{text[:40]!r}… is too long: a name has at most {_LONGEST_NAME} bytes, a path "
            f"{_LONGEST_PATH}"
        )
    return None


def as_argument(value: Any) -> str:
    """The value of an option as it is written on a command line: 128,64 or 2=5,3=3."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def as_arguments(options: Mapping[str, Any]) -> str:
    """Options by name as a shell takes them: `--load_size=128,64 '--name=my run'`."""
    return shlex.join(f"--{name}={as_argument(value)}" for name, value in options.items())


def run_program(main: Callable[..., int | None] | str, *arguments: object) -> None:
    """Run a program's main function and exit; mistakes are one line.

    Exit codes: what `main` returns (None is 0); 2 for a UserError, for memory that ran out, for a
    file that its permissions keep from the program, and for a package that is not installed; 130
    for Ctrl-C; 1, with a traceback, for anything else, as that is a defect of the program. With
    --debug on the command line the traceback is shown for the others, too, before their line.

    OpenMP's threads wait as WAITING says, unless the user has set how: `main` imports torch.

    `main` imports what takes long before it calls `Parser.parse_all`: until then Ctrl-C ends the
    process at once, because PyTorch aborts with a dump when an exception comes up in its import.

    Args:
        main: the function, or the module whose `main` it is, which is imported here.
        *arguments: handed to `main`.
    """
    print_on_any_terminal()
    if not _WAITING_VARIABLES & os.environ.keys():
        os.environ.update(WAITING)
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)
    try:
        if isinstance(main, str):
            main = importlib.import_module(main).main
        sys.exit(main(*arguments))
    except UserError as error:
        _end(error, f"error: {error}", 2)
    except KeyboardInterrupt as error:
        _end(error, "interrupted", 130)
    except ModuleNotFoundError as error:
        missing = not_installed(error)
        if missing is None:
            raise
        _end(error, f"error: {missing}", 2)
    except PermissionError as error:
        if not isinstance(error.filename, str | bytes | os.PathLike):
            raise
        _end(error, f"error: {_permissions_text(error)}", 2)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        _end(error, f"error: {out_of_memory_text(error)}{_memory_hint()}", 2)
    finally:
        _interrupt_as_usual()


def _permissions_text(error: PermissionError) -> str:
    return (
        f"{printable(os.fsdecode(error.filename))}: {error.strerror}; it, or a folder above it, is "
        "another user's: change its permissions, or choose another"
    )


def _end_at_once(*_: object) -> NoReturn:
    with contextlib.suppress(OSError):  # nobody may be reading
        os.write(2, b"interrupted\n")
    os._exit(130)


def _interrupt_as_usual() -> None:
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _memory_hint() -> str:
    known = Parser.in_use.flags() if Parser.in_use else []
    fixes = [fix for option, fix in _LESS_MEMORY.items() if option in known]
    return f": try {', or '.join(fixes)}" if fixes else ": end other programs, or use less data"


def _end(error: BaseException, line: str, code: int) -> NoReturn:
    if DEBUG in sys.argv[1:]:
        link: BaseException | None = error
        while link is not None:  # `raise … from None` hides the cause from users, not from --debug
            link.__suppress_context__ = False
            link = link.__cause__ or link.__context__
        traceback.print_exception(error)
    print(line, file=sys.stderr)
    sys.exit(code)
