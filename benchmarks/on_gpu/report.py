"""What the parts share: tables that are on disk at once, and processes that cannot take them along.

A part runs its work in other processes, each with a time limit: one that dies, hangs or spoils its
GPU's state costs its own row and no other.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST_REASON = 300  # characters of a table's cell


class FailedError(Exception):
    """Something did not work or took too long; the message says what, in one line."""


class TimeLimitError(FailedError):
    """It was ended because it took too long."""


class Report:
    """A markdown file that is printed, too; every line is in it when the call returns.

    Attributes:
        done: rows with a result.
        failed: rows that say what failed.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed by `close`
        self.done = self.failed = 0
        self._columns = 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def write(self, text: str = "") -> None:
        """Write and print lines."""
        print(text, flush=True)
        self._file.write(f"{text}\n")
        self._file.flush()

    def table(self, title: str, columns: Sequence[str]) -> None:
        """Begin a table."""
        self._columns = len(columns)
        self.write(f"\n### {title}\n")
        self.write(f"| {' | '.join(columns)} |")
        self.write(f"|{'---|' * len(columns)}")

    def row(self, *cells: str) -> None:
        """Write a row of the table; cells that are missing at the end are empty."""
        cells = (*cells, *[""] * (self._columns - len(cells)))
        self.write(f"| {' | '.join(' '.join(c.replace('|', '/').split()) for c in cells)} |")

    def failure(self, *cells: str) -> None:
        """Write a row that says what failed in its last cell."""
        self.failed += 1
        self.row(*cells[:-1], f"FAILED: {cells[-1][:LONGEST_REASON]}")

    def attempt(self, names: Sequence[str], get_cells: Callable[[], Sequence[str]]) -> None:
        """Write the row of `names` and of the cells that a call gives, or of what failed in it."""
        try:
            cells = get_cells()
        except Exception as error:  # whatever it is, it must not take the other rows along
            self.failure(*names, str(error) or repr(error))
            return
        self.done += 1
        self.row(*names, *cells)


@contextmanager
def program(
    arguments: Sequence[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    """A Python program within the block, which ends it with all that it started, if it still runs.

    It writes to the log, and is out of reach of the terminal's Ctrl-C.
    """
    with open(log, "ab") as output:
        output.write(f"\n$ python {' '.join(arguments)}\n".encode())
        output.flush()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_line(log: Path) -> str:
    """The last line of the log with anything in it: what a program died of."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def run_program(arguments: Sequence[str], log: Path, seconds: float) -> None:
    """Run a Python program to its end.

    Raises:
        FailedError: it failed.
        TimeLimitError: it had not ended after so many seconds.
    """
    with program(arguments, log) as process:
        try:
            code = process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            raise TimeLimitError(f"time limit of {seconds:.0f} s") from None
    if code:
        raise FailedError(f"exit code {code}: {last_line(log)}")


class Child:
    """A process that calls functions one after another, so that they share its start.

    The first call starts it; after a failure the next call starts a new one.

    Args:
        log: file that everything printed there goes to.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: Any = None

    def call(self, seconds: float, function: Callable, *arguments: Any) -> Any:
        """What the function returns there; function and arguments are pickled.

        Raises:
            FailedError: it raised, or its process died.
            TimeLimitError: it took longer than so many seconds.
        """
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, other = context.Pipe()
            self._process = context.Process(
                target=_serve, args=(other, str(self._log)), name="measurements"
            )
            self._process.start()
            other.close()
        try:
            self._connection.send((function, arguments))
            if not self._connection.poll(max(0.0, seconds)):
                raise TimeLimitError(f"time limit of {seconds:.0f} s")
            reason, result = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            self.stop()
            raise FailedError(f"its process died (exit code {code}): see the log") from None
        except BaseException:
            self.stop()
            raise
        if reason:
            self.stop()
            raise FailedError(reason)
        return result

    def close(self) -> None:
        """Let the process end by itself, if there is one."""
        if self._process is not None:
            self._connection.close()
            self._process.join(5)
            self.stop()

    def stop(self) -> None:
        """End the process, if there is one, with all that it started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # where it has not come to make its group
        self._process.join()
        self._connection.close()
        self._process = None


def _serve(connection: Any, log: str) -> None:
    os.setsid()
    # It has inherited the way it was started itself, which makes loaders' workers slow to start.
    multiprocessing.set_start_method(None, force=True)
    with open(log, "ab") as output:
        for number in (1, 2):
            os.dup2(output.fileno(), number)
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = None, function(*arguments)
        except Exception as error:
            traceback.print_exc()
            answer = traceback.format_exception_only(error)[-1].strip(), None
        sys.stdout.flush()
        connection.send(answer)


@dataclass
class Job:
    """What a part gets.

    Attributes:
        report: where its tables go.
        deadline: when the part has to end, by `time.monotonic()`.
        out: folder of what stays.
        scratch: folder of what goes when all is done.
        log: file that the programs write to.
        child: process for measurements.
        device: "cuda" or "cpu".
        is_tiny: whether to take the sizes of a rehearsal.
        vgg: value of --vgg_weights.
        writer: process that writes the synthetic people to `data`.
    """

    report: Report
    deadline: float
    out: Path
    scratch: Path
    log: Path
    child: Child
    device: str
    is_tiny: bool
    vgg: str
    writer: subprocess.Popen | None = None

    @property
    def data(self) -> Path:
        """Folder of the synthetic people."""
        return self.scratch / "data"

    @property
    def gpu_id(self) -> str:
        """Value of --gpu_id."""
        return "0" if self.device == "cuda" else "-1"

    @property
    def seconds_left(self) -> float:
        """Until the part's deadline."""
        return self.deadline - time.monotonic()

    def wait_for_data(self) -> Sequence[str]:
        """Wait until the synthetic people are written; gives what there is, for a cell."""
        try:
            code = self.writer.wait(max(0.0, self.seconds_left))
        except subprocess.TimeoutExpired:
            raise FailedError("not written in time") from None
        if code:
            raise FailedError(f"exit code {code}: see the log")
        counts = [len(list((self.data / phase).iterdir())) for phase in ("train", "test")]
        return [f"{counts[0]} pictures to train, {counts[1]} to test"]
