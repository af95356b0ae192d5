"""Runs the readers of a format over generated inputs, in a child process with limits.

A finding is: an exception other than UserError, a UserError that is not one printable line,
something unprintable on the terminal, the death of the process, memory or time beyond the limits, a
file that is written, renamed or removed, a program that is started, a connection.

An input depends on the format, the seed and its number alone.
"""

import contextlib
import functools
import importlib
import io
import json
import os
import pkgutil
import random
import re
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import tests.fuzz

PROJECT = Path(__file__).parents[2]
FORMATS = sorted(
    {module.name for module in pkgutil.iter_modules(tests.fuzz.__path__)}
    - {"__main__", "harness", "mutations"}
)
SECONDS = 5  # of the processor, for reading one input
PATIENCE = 60  # seconds until a reader is taken for hanging: the machine may be busy
PATIENCE_AT_START = 600  # a busy machine ends no hour of trials
MEGABYTES = 1024  # of address space, beyond what the child has at its start; modules may say more
INPUTS_PER_CHILD = 1000  # memory that is given back in pieces is not held against an input


@dataclass(frozen=True)
class Finding:
    """An input with which a reader did what it must not.

    Attributes:
        where: format, seed and number of the input.
        what: the kind of the finding and its text.
        kept: the folder of the input.
    """

    where: str
    what: str
    kept: Path

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n  kept in {self.kept}"


def run(
    name: str,
    seed: int,
    *,
    first: int = 0,
    number: int | None = None,
    seconds: float | None = None,
    keep: Path | None = None,
    most: int = 20,
) -> tuple[dict[str, int], list[Finding]]:
    """Try inputs of a format, one after another; findings are printed at once.

    Args:
        name: of the format.
        seed: of the inputs.
        first: number of the first input.
        number: of inputs; None = until `seconds` are over.
        seconds: to go on for; None = until `number` are tried.
        keep: folder for inputs that are findings; None = a new one in the temporary folder.
        most: findings to end after.

    Returns:
        How many inputs had which outcome ("read", "refused", "finding"); and the findings.
    """
    counts = {"read": 0, "refused": 0, "finding": 0}
    findings: list[Finding] = []
    end = None if seconds is None else time.monotonic() + seconds
    work = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    child = None
    try:
        while number is None or sum(counts.values()) < number:
            if (end is not None and time.monotonic() > end) or len(findings) >= most:
                break
            tried = sum(counts.values())
            if child is None or tried % INPUTS_PER_CHILD == 0:
                if child is not None:
                    child.close()
                    print(f"{name}, seed {seed}: {tried} inputs so far", flush=True)
                child = _Child(name, work)
            folder = work / "input"
            folder.mkdir()
            outcome, what = child.try_input(seed, first + tried)
            counts[outcome] += 1
            if outcome == "finding":
                keep = keep or Path(tempfile.mkdtemp(prefix="fuzz-kept-"))
                kept = keep / f"{name}-{seed}-{first + tried}"
                shutil.rmtree(kept, ignore_errors=True)
                shutil.move(folder, kept)
                where = f"{name}, --seed={seed} --input={first + tried}"
                findings.append(Finding(where, what, kept))
                print(findings[-1], flush=True)
                child.close()
                child = None
            else:
                shutil.rmtree(folder)
    finally:
        if child is not None:
            child.close()
        shutil.rmtree(work, ignore_errors=True)
    return counts, findings


class _Child:
    """The process that makes and reads inputs, one when it is asked to."""

    def __init__(self, name: str, work: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.harness", name, str(work / "input")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,  # `select` knows nothing of a line that lies in a buffer
            cwd=work,
            env=environment,
        )
        if self._answer(PATIENCE_AT_START) != ["ready", ""]:
            said = self._said()
            self.close()
            raise RuntimeError(f"the readers of {name} do not start: {said}")

    def try_input(self, seed: int, number: int) -> tuple[str, str]:
        """The outcome of an input, and what there is to say of it."""
        self._process.stdin.write(f"{seed} {number}\n".encode())
        self._process.stdin.flush()
        if self._answer(PATIENCE) != ["made", ""]:
            raise RuntimeError(f"input {number} of seed {seed} is not made: {self._said()}")
        answer = self._answer(PATIENCE)
        if answer is not None:
            return answer[0], answer[1]
        code = self._process.poll()
        if code is None:
            return "finding", f"takes more than {PATIENCE} s"
        return "finding", f"the process ends with {code}: {self._said()}"

    def _answer(self, seconds: float) -> list[str] | None:
        if select.select([self._process.stdout], [], [], seconds)[0]:
            line = self._process.stdout.readline()
            if line:
                return json.loads(line)
            self._process.wait()
        return None

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-2000:]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()


# What follows runs in the child.

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FORBIDDEN = re.compile(
    r"os\.(remove|rename|link|symlink|mkdir|rmdir|truncate|chmod|chown|exec|fork|posix_spawn|system)"
    r"|subprocess\.Popen|socket\.(connect|bind)|shutil\..*|pty\.spawn"
)


class _Watch:
    """Notes what a reader must not do, of what Python reports (sys.addaudithook)."""

    def __init__(self) -> None:
        self.active = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if not self.active:
            return
        if event == "open":
            flags = arguments[2]
            is_bad = isinstance(flags, int) and flags & _WRITING and arguments[0] != os.devnull
        else:
            is_bad = _FORBIDDEN.fullmatch(event)
        if is_bad:
            self.seen.append(f"{event} {arguments[:2]!r}"[:300])


def _outcome(module: object, watch: _Watch, folder: Path) -> list[str]:
    from util.errors import UserError

    said = io.StringIO()
    outcome = ["read", ""]
    start = time.process_time()
    watch.active, watch.seen = True, []
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            module.read(folder)
        except UserError as error:
            text = str(error)
            is_right = text and text.isprintable() and "Traceback" not in text
            outcome = ["refused", text] if is_right else ["finding", f"the message {text!r}"]
        except BaseException:
            outcome = ["finding", traceback.format_exc()[-4000:]]
        finally:
            watch.active = False
    taken = time.process_time() - start
    if taken > SECONDS:
        return ["finding", f"takes {taken:.1f} s, and then: {outcome}"]
    if watch.seen:
        return ["finding", f"does {watch.seen}"]
    raw = [line for line in said.getvalue().split("\n") if not line.isprintable()]
    if raw:
        return ["finding", f"prints {raw[0]!r}"]
    return outcome


def serve(name: str, folder: Path) -> None:
    """Answer each line "seed number" with ["made", ""] and [outcome, text], as lines of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    module = importlib.import_module(f"tests.fuzz.{name}")
    for number in range(3):  # imports and caches of the readers are not the inputs' doing
        scratch = Path(tempfile.mkdtemp(dir=folder.parent))
        module.generate(random.Random(number), scratch)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(Exception):
            module.read(scratch)
        shutil.rmtree(scratch)
    watch = _Watch()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    megabytes = getattr(module, "MEGABYTES", MEGABYTES)
    limit = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = functools.partial(print, file=answers, flush=True)
    answer(json.dumps(["ready", ""]))
    for line in sys.stdin:
        module.generate(random.Random(f"{module.__name__} {line}"), folder)
        answer(json.dumps(["made", ""]))
        answer(json.dumps(_outcome(module, watch, folder)))


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
