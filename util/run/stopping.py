"""Ctrl-C and SIGTERM as a wish to stop at the next good moment."""

import contextlib
import os
import signal
from types import FrameType


class StopRequest:
    """Within its `with` block the first Ctrl-C or SIGTERM is remembered, the second stops at once.

    Attributes:
        signal: the one that came, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as a shell has it: 130 or 143; 0 without a signal."""
        return 128 + self.signal if self.signal else 0

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._receive) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            raise SystemExit(128 + number)
        self.signal = signal.Signals(number)
        # No print: the signal may have come within one.
        with contextlib.suppress(OSError):
            os.write(2, b"\nstopping after this iteration and saving; once more stops at once\n")
