"""What became of a data worker that died, in words; and when the program hears of it."""

import atexit
import contextlib
import re
import signal
import threading
import weakref
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess
from types import FrameType

from util.errors import UserError, is_out_of_memory, out_of_memory_text

# A full /dev/shm kills a worker (Bus error), or fails its call.
_SHARED_MEMORY = ("Bus error", "bus error", "shared memory", "</torch_", "No space left on device")
_TOO_MANY_FILES = ("Too many open files", "received 0 items of ancdata")


def explain_failure(error: Exception) -> UserError | None:
    """Turn what a loader with workers raised into the one line of a UserError.

    Returns:
        None where it is neither a worker's death nor a lack of memory.
    """
    if isinstance(error, UserError):
        # From a worker the text comes wrapped in its traceback, which ends "…UserError: text".
        # (`args`: as text it has no line breaks.)
        last_line = str(error.args[0] if error.args else "").rstrip().rsplit("\n", 1)[-1]
        return UserError(last_line.removeprefix("util.errors.UserError: "))
    if not isinstance(error, MemoryError | RuntimeError | OSError | EOFError):
        return None
    # Which of them knows the signal depends on timing.
    text = " ".join(map(str, error_chain(error)))
    if any(part in text for part in _SHARED_MEMORY):
        return UserError(
            "a data worker could not hand over a batch: the shared memory (/dev/shm) may be full: "
            "make it larger (docker run --shm-size=8g), take a smaller --batchSize, or load "
            "without workers (--nThreads=0)"
        )
    # Batches are fetched through a socket from the worker that made them: it breaks with a death.
    is_broken = isinstance(error, EOFError | ConnectionError | FileNotFoundError)
    if "DataLoader worker (pid" in text or (is_broken and "Traceback" not in text):
        name = re.search(r"killed by signal: ([\w ]+)", text)
        return UserError(
            f"a data worker {f'was killed ({name[1].strip()})' if name else 'ended unexpectedly'}: "
            "the machine may have run out of memory; take fewer --nThreads or a smaller "
            "--batchSize or --load_size, or load without workers (--nThreads=0)"
        )
    if is_out_of_memory(error):
        return UserError(
            f"{out_of_memory_text(error)} while data was loaded: take fewer --nThreads, or a "
            "smaller --batchSize or --load_size"
        )
    if any(part in text for part in _TOO_MANY_FILES):
        return UserError(
            "too many files are open: raise the limit (ulimit -n 4096), or take fewer --nThreads"
        )
    return None


def error_chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_to_end: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


def end_with_program(workers: Iterable[BaseProcess]) -> None:
    """End workers when the program ends, if they are there still, as after an error.

    Without this the program would wait for them without end: Python asks them by SIGTERM, which
    they ignore, as one to the whole group is for the main process alone.
    """
    if not _to_end:  # now: what is registered later runs earlier, here before multiprocessing's
        atexit.unregister(_end_workers)
        atexit.register(_end_workers)
    _to_end.update(workers)


def _end_workers() -> None:
    for worker in list(_to_end):
        with contextlib.suppress(ValueError, AssertionError):  # closed; another process's
            worker.kill()


class WorkerDeaths:
    """Makes the death of a worker known only while a batch is waited for.

    PyTorch raises it in a signal's handler, thus in the midst of whatever the program does then: a
    half-taken step, or half-written checkpoint.
    """

    def __init__(self) -> None:
        self._raise = None  # PyTorch's handler
        self._waiting = 0
        self._pending = False

    def watch(self) -> None:
        """Take over PyTorch's handler, which it sets when workers are started."""
        if not hasattr(signal, "SIGCHLD"):
            return
        if threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGCHLD)
        if callable(handler) and handler != self._handle:
            self._raise = handler
            signal.signal(signal.SIGCHLD, self._handle)

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Within this block a death is raised: one that happened before, at its start."""
        self._waiting += 1
        try:
            if self._pending and self._raise is not None:
                self._pending = False
                self._raise(signal.SIGCHLD, None)
            yield
        finally:
            self._waiting -= 1

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._waiting and self._raise is not None:
            self._raise(number, frame)
        else:
            self._pending = True
