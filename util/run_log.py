"""The record of a run on disk: loss_log.txt, eval_log.txt, metrics.jsonl and web/images."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from util.errors import UserError
from util.images import save_image


class RunLog:
    """Writes what happens during training; every line is on disk when the call returns.

    Args:
        folder: the experiment's folder.
        model: name of the model: the stages of one experiment share the files.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.folder = folder
        self.model = model
        started = time.strftime("%c")
        self._append("loss_log.txt", f"================ Training Loss ({started}) ================")

    def losses(
        self,
        epoch: int,
        iteration: int,
        seconds: float,
        losses: Mapping[str, float],
        learning_rate: float,
        stage: int | None = None,
    ) -> str:
        """Record the losses of an iteration.

        Args:
            epoch: from 1.
            iteration: from 1.
            seconds: time per iteration since the last record.
            losses: weighted losses by name.
            learning_rate: that of the first optimiser.
            stage: of a model that trains in stages.

        Returns:
            The line of loss_log.txt.
        """
        stages = {} if stage is None else {"stage": stage}
        values = "".join(f"{name}: {value} " for name, value in stages.items())
        values += "".join(f"{name}: {value:.3f} " for name, value in losses.items())
        line = f"(epoch: {epoch}, iters: {iteration}, time: {seconds:.3f}) {values}"
        self._append("loss_log.txt", line)
        self._record(
            "train",
            iteration,
            **stages,
            epoch=epoch,
            seconds=seconds,
            learning_rate=learning_rate,
            **losses,
        )
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
        """Keep a picture sheet (uint8 HWC) as web/images/<model>_iter_<iteration>.jpg."""
        name = f"{self.model}_iter_{iteration:08d}.jpg"
        save_image(self.folder / "web" / "images" / name, picture, quality=90)

    def _record(self, kind: str, iteration: int, **values: float) -> None:
        # NaN and infinity are no JSON: a score that nothing had, a loss that blew up are left out.
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        when = {"model": self.model, "iteration": iteration, "unix_time": round(time.time(), 3)}
        self._append("metrics.jsonl", json.dumps({"kind": kind, **when, **known}))

    def _append(self, file_name: str, line: str) -> None:
        path = self.folder / file_name
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
