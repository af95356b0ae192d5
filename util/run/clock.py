"""The time that training takes, for its log and its bar."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Seconds an iteration takes, and waits for data, since they were last read.

    Args:
        iteration: the last finished one.
    """

    def __init__(self, iteration: int) -> None:
        self._began, self._iteration = time.monotonic(), iteration
        self._waited = self._bar_time = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the block as waiting for data."""
        started = time.monotonic()
        yield
        self._waited += time.monotonic() - started

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the block out: saves and pictures are no part of an iteration."""
        started = time.monotonic()
        yield
        self._began += time.monotonic() - started

    def read(self, iteration: int) -> tuple[float, float]:
        """Seconds per iteration, and those of them that were waited for data; starts anew."""
        now, count = time.monotonic(), iteration - self._iteration
        seconds, waited = (now - self._began) / count, self._waited / count
        self._began, self._iteration, self._waited = now, iteration, 0.0
        return seconds, waited

    def bar_is_due(self) -> bool:
        """Whether half a second has passed: reading a loss for the bar waits for the GPU."""
        now = time.monotonic()
        is_due = now - self._bar_time > 0.5
        if is_due:
            self._bar_time = now
        return is_due
