"""The record of a run on disk: logs, metrics.jsonl and web/ (see docs/record.md)."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from util.display import Display
from util.errors import UserError
from util.history import History, plots_of
from util.images import save_image
from util.run_page import write_run_page


class RunLog:
    """Writes what happens during training; every line is on disk when the call returns.

    Args:
        folder: the experiment's folder.
        model: name of the model: the stages of one experiment share the files.
        display: shows every record, too.
    """

    def __init__(self, folder: Path, model: str, display: Display | None = None) -> None:
        self.folder = folder
        self.model = model
        self.display = display or Display()
        self.history = History.read(folder)
        self._end_broken_line("metrics.jsonl")
        started = time.strftime("%c")
        self._append("loss_log.txt", f"================ Training Loss ({started}) ================")

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
        save_image(self.folder / "web" / "images" / name, picture, quality=90)
        self.write_page()

    def write_page(self) -> None:
        """Write web/index.html with everything recorded so far."""
        write_run_page(self.folder, self.history)

    def _record(self, kind: str, iteration: int, **values: float) -> None:
        # NaN and infinity are no JSON: a score that nothing had, a loss that blew up are left out.
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        when = {"model": self.model, "iteration": iteration, "unix_time": round(time.time(), 3)}
        record = {"kind": kind, **when, **known}
        self._append("metrics.jsonl", json.dumps(record))
        self.history.add(record)
        self.display.scalars(iteration, plots_of(record))

    def _end_broken_line(self, file_name: str) -> None:
        """A killed run can leave half a line: the next record must not become part of it."""
        path = self.folder / file_name
        if path.exists() and path.stat().st_size:
            with open(path, "rb") as file:
                file.seek(-1, os.SEEK_END)
                is_whole = file.read() == b"\n"
            if not is_whole:
                self._append(file_name, "")

    def _append(self, file_name: str, line: str) -> None:
        path = self.folder / file_name
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
