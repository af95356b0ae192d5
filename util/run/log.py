"""The record of a run on disk: logs, metrics.jsonl and web/ (see docs/record.md)."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from util.errors import UserError
from util.images import save_image
from util.run.display import Display
from util.run.history import History, plots_of
from util.run.page import write_run_page


class RunLog:
    """Writes what happens during training; every line is on disk when the call returns.

    Nothing but `stops_at_failure` ends a training here: what fails otherwise is said, too.

    Args:
        folder: the experiment's folder.
        model: name of the model: the stages of one experiment share the files.
        display: shows every record, too.
        stops_at_failure: whether a file that cannot be written (a full disk) raises UserError;
            else it is said once, and said again when it works again.
    """

    def __init__(
        self,
        folder: Path,
        model: str,
        display: Display | None = None,
        stops_at_failure: bool = True,
    ) -> None:
        self.folder = folder
        self.model = model
        self.display = display or Display()
        self.stops_at_failure = stops_at_failure
        self._failing: set[str] = set()
        self.history = History.read(folder)
        if self.history.left_out:
            tqdm.write(
                f"{folder / 'metrics.jsonl'}: {self.history.left_out} lines are damaged, the "
                "curves are shown without them"
            )
        started = time.strftime("%c")
        self.note(f"Training Loss ({started})")

    def losses(
        self,
        epoch: int,
        iteration: int,
        seconds: float,
        losses: Mapping[str, float],
        learning_rate: float,
        data_wait: float | None = None,
        stage: int | None = None,
    ) -> str:
        """Record the losses of an iteration.

        Args:
            epoch: from 1.
            iteration: from 1.
            seconds: time per iteration since the last record.
            losses: weighted losses by name.
            learning_rate: that of the first optimiser.
            data_wait: part of `seconds` in which the loop waited for the next batch.
            stage: of a model that trains in stages.

        Returns:
            The line of loss_log.txt.
        """
        stages = {} if stage is None else {"stage": stage}
        values = "".join(f"{name}: {value} " for name, value in stages.items())
        values += "".join(f"{name}: {value:.3f} " for name, value in losses.items())
        line = f"(epoch: {epoch}, iters: {iteration}, time: {seconds:.3f}) {values}"
        self._append("loss_log.txt", line)
        speed = {"iterations_per_second": round(1 / seconds, 4)} if seconds else {}
        if data_wait is not None:
            speed["data_wait_seconds"] = round(data_wait, 6)
        self._record(
            "train", iteration, **stages, epoch=epoch, seconds=seconds, **speed,
            learning_rate=learning_rate, **losses,
        )  # fmt: skip
        return line

    def note(self, text: str) -> None:
        """Record a line that is no loss, marked so that programs which plot the log pass it by."""
        self._append("loss_log.txt", f"================ {text} ================")

    def scores(self, iteration: int, scores: Mapping[str, float]) -> str:
        """Record an evaluation; returns the line of eval_log.txt."""
        values = ", ".join(
            f"{name}: {value:d}" if isinstance(value, int) else f"{name}: {value:.4f}"
            for name, value in scores.items()
        )
        line = f"(iters: {iteration}) {values}"
        self._append("eval_log.txt", line)
        self._record("eval", iteration, **scores)
        return line

    def snapshot(self, iteration: int, picture: np.ndarray) -> None:
        """Keep a picture sheet (uint8 HWC) as web/images/<model>_iter_<iteration>.jpg.

        web/index.html is written anew with it.
        """
        name = f"{self.model}_iter_{iteration:08d}.jpg"
        with self._attempt("web/images"):
            save_image(self.folder / "web" / "images" / name, picture, quality=90)
        self.write_page()

    def write_page(self) -> None:
        """Write web/index.html with everything recorded so far."""
        with self._attempt("web/index.html"):
            write_run_page(self.folder, self.history)

    def _record(self, kind: str, iteration: int, **values: float) -> None:
        # NaN and infinity are no JSON: a score that nothing had, a loss that blew up are left out.
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        when = {"model": self.model, "iteration": iteration, "unix_time": round(time.time(), 3)}
        record = {"kind": kind, **when, **known}
        self._append("metrics.jsonl", json.dumps(record))
        self.history.add(record)
        self.display.scalars(iteration, plots_of(record))

    def _append(self, file_name: str, line: str) -> None:
        path = self.folder / file_name
        with self._attempt(file_name):
            try:
                with open(path, "ab") as file:
                    if file.tell() and not _ends_with_newline(path):
                        file.write(b"\n")  # a killed run or a full disk left half a line
                    file.write(f"{line}\n".encode())
            except OSError as error:
                raise UserError(f"{path}: cannot be written ({error.strerror})") from error

    @contextlib.contextmanager
    def _attempt(self, what: str) -> Iterator[None]:
        """Write something; a failure raises or is said, as `stops_at_failure` has it."""
        try:
            yield
        except Exception as error:  # what shows a run is not to end it
            if self.stops_at_failure and isinstance(error, UserError):
                raise
            if what not in self._failing:
                if not isinstance(error, UserError):
                    error = f"{what} ({type(error).__name__}: {error})"
                tqdm.write(f"NOT RECORDED: {error}; training goes on")
            self._failing.add(what)
        else:
            if what in self._failing:
                tqdm.write(f"{what} is written again")
            self._failing.discard(what)


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
