"""The curves of a run: read from metrics.jsonl, grouped for plots, thinned out."""

import bisect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from util.json_files import read_json_lines

# Fields of a record that are no curve of their own (docs/record.md).
_NOT_PLOTTED = frozenset(
    {"kind", "model", "iteration", "unix_time", "epoch", "seconds", "stage", "pairs"}
)
_PLACES = {
    "learning_rate": ("learning rate", "learning rate", 1),
    "iterations_per_second": ("iterations per second", "iterations per second", 1),
    "data_wait_seconds": ("data wait (ms per iteration)", "data wait", 1000),
}
_KEPT_POINTS = 4000
_CHUNK, _FEW = 20_000, 100
_MOST_NAMES = 1000
_NUMBERS = {int, float}
_LAST_ITERATION = 2**53  # a float holds those before exactly: no two points share a place

Plots = dict[str, dict[str, float]]


def plots_of(record: Mapping) -> Plots:
    """Group a record of metrics.jsonl for plotting.

    Args:
        record: one line's object, of kind "train" or "eval".

    Returns:
        Values by name, by the title of the plot they belong to: `losses`, `learning rate`,
        `iterations per second`, `data wait (ms per iteration)`, `test pairs: <score>`.
    """
    plots: Plots = {"losses": {}}  # first on every page
    for name, value in record.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and name not in _NOT_PLOTTED:
            title, curve, factor = _place(name, record.get("kind") == "eval")
            plots.setdefault(title, {})[curve] = value * factor
    return {title: values for title, values in plots.items() if values}


def _place(name: str, is_score: bool) -> tuple[str, str, int]:
    """Title of the plot, name of the curve, and what the values are multiplied by."""
    if is_score:
        return f"test pairs: {name}", name, 1
    return _PLACES.get(name, ("losses", name, 1))


def read_records(path: Path) -> Iterator[dict | None]:
    """Read metrics.jsonl line by line.

    Yields:
        The record of each line; None for one that is none, such as the half line that a killed run
        leaves, or that would bring more than 1000 names of fields and models into the file.

    Raises:
        UserError: the file cannot be read.
    """
    names: set[str] = set()
    for record in read_json_lines(path):
        if record is not None and _is_record(record):
            if not (record.keys() <= names and record["model"] in names):
                more = record.keys() | {record["model"]} | names
                if len(more) > _MOST_NAMES:
                    yield None
                    continue
                names = more
            yield record
            continue
        yield None


def read_metrics(path: Path) -> tuple[list[dict], int]:
    """The records of metrics.jsonl, in order, and the number of lines that are none.

    Raises:
        UserError: the file cannot be read.
    """
    lines = list(read_records(path))
    records = [record for record in lines if record is not None]
    return records, len(lines) - len(records)


def _is_record(record: Mapping) -> bool:
    return (
        isinstance(record.get("model"), str)
        and isinstance(record.get("kind"), str)
        and type(record.get("iteration")) is int
        and abs(record["iteration"]) <= _LAST_ITERATION
    )


def decimate(points: npt.ArrayLike, limit: int) -> np.ndarray:
    """Thin a curve out so that it looks the same: spikes stay.

    The range of x is cut into equal intervals; of each, the points with the lowest and the highest
    value stay, and so do the first and the last point of the curve.

    Args:
        points: [N, 2], x (strictly increasing) and y.
        limit: the most points to keep, at least 4.

    Returns:
        [M, 2], M <= limit, rows of `points` in order; all of them when N <= limit.
    """
    points = np.asarray(points, float)
    if len(points) <= limit:
        return points
    x, y = points.T
    intervals = (limit - 2) // 2
    interval = ((x - x[0]) / (x[-1] - x[0]) * intervals).astype(int).clip(max=intervals - 1)
    starts = np.flatnonzero(np.diff(interval, prepend=-1))
    by_value = np.lexsort((y, interval))
    highest = np.append(starts[1:], len(points)) - 1
    kept = np.unique(np.concatenate([[0], by_value[starts], by_value[highest], [len(points) - 1]]))
    return points[kept]


def _thin(curve: list[tuple[int, float]]) -> None:
    if len(curve) > _KEPT_POINTS:
        curve[:] = map(tuple, decimate(curve, _KEPT_POINTS // 2).tolist())


class History:
    """The curves of all stages of a run.

    Memory is bounded: a curve of more than 4000 points is thinned out to half of that. An iteration
    that is trained again, after going back to an older checkpoint, replaces what was there from it.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._curves: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = {}

    @classmethod
    def read(cls, folder: Path) -> "History":
        """The history of a run's folder; empty where there is no metrics.jsonl yet.

        Raises:
            UserError: the file is there, but cannot be read.
        """
        history = cls()
        path = folder / "metrics.jsonl"
        # Records of one model and kind with growing iterations, as `_add_chunks` wants them.
        chunks: dict[tuple[str, bool], list[dict]] = {}
        for record in read_records(path) if path.exists() else ():
            if record is None:
                history.left_out += 1
                continue
            key = record["model"], record["kind"] == "eval"
            chunk = chunks.get(key)
            if chunk and (len(chunk) == _CHUNK or record["iteration"] <= chunk[-1]["iteration"]):
                history._add_chunks(chunks)
                chunks.clear()
            chunks.setdefault(key, []).append(record)
        history._add_chunks(chunks)
        return history

    def _add_chunks(self, chunks: Mapping[tuple[str, bool], Sequence[Mapping]]) -> None:
        """As `add` of each, but faster for many: they are thinned out before they are added."""
        for (model, is_score), records in chunks.items():
            if len(records) < _FEW:
                for record in records:
                    self.add(record)
            else:
                self._add_all(model, is_score, records)

    def _add_all(self, model: str, is_score: bool, records: Sequence[Mapping]) -> None:
        added: dict[str, dict[str, np.ndarray]] = {"losses": {}}  # as `plots_of`
        iterations = np.array([record["iteration"] for record in records], float)
        for name in dict.fromkeys(itertools.chain.from_iterable(records)):
            if name in _NOT_PLOTTED:
                continue
            values = [record.get(name) for record in records]
            is_number = np.ones(len(values), bool)
            if not set(map(type, values)) <= _NUMBERS:
                is_number = np.array([type(value) in _NUMBERS for value in values])
            if not is_number.any():
                continue
            title, curve, factor = _place(name, is_score)
            numbers = np.array(list(itertools.compress(values, is_number)), float)
            points = np.stack([iterations[is_number], numbers * factor], axis=1)
            points = decimate(points, _KEPT_POINTS // 2)
            added.setdefault(title, {})[curve] = points
        for title, curves in added.items():
            if not curves:
                continue
            self._cut(model, title, int(min(points[0, 0] for points in curves.values())))
            for name, points in curves.items():
                whole = self._curves[model, title].setdefault(name, [])
                whole += map(tuple, points.tolist())
                _thin(whole)

    def add(self, record: Mapping) -> None:
        """Add a record of metrics.jsonl."""
        self.add_plots(record["model"], record["iteration"], plots_of(record))

    def add_plots(self, model: str, iteration: int, plots: Plots) -> None:
        """Add what `plots_of` made of a record of this model."""
        for title, values in plots.items():
            self._cut(model, title, iteration)
            for name, value in values.items():
                curve = self._curves[model, title].setdefault(name, [])
                curve.append((iteration, value))
                _thin(curve)

    def _cut(self, model: str, title: str, iteration: int) -> None:
        """Take what a plot has from this iteration on away, to be replaced."""
        for curve in self._curves.setdefault((model, title), {}).values():
            if curve and curve[-1][0] >= iteration:
                del curve[bisect.bisect_left(curve, (iteration,)) :]

    def titles(self) -> list[tuple[str, str]]:
        """(model, title) of every plot, in the order in which they came up."""
        return list(self._curves)

    def curves(self, model: str, title: str) -> dict[str, list[tuple[int, float]]]:
        """The curves of one plot by name, each a new list of (iteration, value); none is empty."""
        return {name: list(curve) for name, curve in self._curves[model, title].items() if curve}
