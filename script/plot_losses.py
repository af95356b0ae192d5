"""Curves of one or several runs as a picture.

python -m script.plot_losses result/NAME [result/NAME2 ...] [--out losses.svg]
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # so that errors and Ctrl-C within the imports below are told in a line
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # where it is started as a file
    from util.command_line import run_program

    run_program("script.plot_losses")

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from util.argument_types import positive_int
from util.command_line import Parser
from util.errors import UserError
from util.files import real_path, written_whole
from util.run.history import plots_of, read_records

Losses = dict[str, dict[str, np.ndarray]]
_FORMATS = (".png", ".svg", ".pdf")


def read_losses(folders: Sequence[Path]) -> tuple[Losses, list[str]]:
    """Read the losses of runs.

    Where an iteration was trained more than once (a run went on from an older checkpoint), the last
    record counts.

    Args:
        folders: of the runs.

    Returns:
        [N, 2] of (iteration, value) by run, by loss: the run is called by its folder's name, with
        the stage when a run has several; and notes for the user on lines that were left out.

    Raises:
        UserError: there is no such folder, or it has no metrics.jsonl or no losses in it.
    """
    losses: Losses = {}
    notes = []
    labels = _labels(folders)
    for folder, label in zip(folders, labels, strict=True):
        path = folder / "metrics.jsonl"
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such run; give the folder result/NAME")
        if not path.exists():
            raise UserError(f"{folder}: has no metrics.jsonl: no folder of a run of train.py")
        bad_lines = 0
        values: dict[str, dict[str, dict[int, float]]] = {}
        for record in read_records(path):
            if record is None:
                bad_lines += 1
            elif record["kind"] == "train":
                curves = values.setdefault(record["model"], {})
                for name, value in plots_of(record).get("losses", {}).items():
                    curves.setdefault(name, {})[record["iteration"]] = value
        if bad_lines:
            count = f"{bad_lines} {'line' if bad_lines == 1 else 'lines'}"
            notes.append(f"{path}: {count} without a record left out")
        values = {model: curves for model, curves in values.items() if curves}
        if not values:
            raise UserError(f"{path}: has no losses yet (train.py writes them every --print_freq)")
        for model, curves in values.items():
            run = f"{label} ({model})" if len(values) > 1 else label
            for name, points in curves.items():
                losses.setdefault(name, {})[run] = np.array(sorted(points.items()))
    return losses, notes


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' names; the whole paths where two have the same."""
    names = [real_path(folder).name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def smoothed(values: np.ndarray, count: int) -> np.ndarray:
    """Centred moving mean over `count` values, over those that there are at the ends.

    Args:
        values: [N].
        count: at least 1.

    Returns:
        [N].
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low = np.maximum(index - (count - 1) // 2, 0)
    high = np.minimum(index + count // 2 + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def plot_losses(
    losses: Losses, path: Path, names: Sequence[str] | None = None, smooth: int = 1
) -> None:
    """Draw a panel per loss with a curve per run.

    Args:
        losses: from `read_losses`.
        path: of the picture; its suffix is the format.
        names: of the losses to draw; None: all.
        smooth: width of the moving mean in records; 1: none.

    Raises:
        UserError: an unknown loss or suffix, or the picture cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UserError(f"--out: '{path}' must end in {', '.join(_FORMATS)}")
    names = list(names or losses)
    for name in names:
        if name not in losses:
            raise UserError(f"--losses: there is no '{name}'; there are {', '.join(losses)}")
    columns = min(3, math.ceil(math.sqrt(len(names))))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(5 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    runs = list(dict.fromkeys(run for name in names for run in losses[name]))
    handles = {}
    for number, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, number + 1)
        for run, points in losses[name].items():
            color = f"C{runs.index(run)}"
            x, y = points.T
            marker = "." if len(x) == 1 else ""
            if smooth > 1:
                axes.plot(x, y, color=color, alpha=0.25, linewidth=0.8)
            (handles[run],) = axes.plot(
                x, smoothed(y, smooth), color=color, linewidth=1.2, marker=marker
            )
        axes.set_title(name, fontsize=10, parse_math=False)
        axes.set_xlabel("iteration", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.margins(x=0.02)
    legend = figure.legend(
        [handles[run] for run in runs], runs, loc="outside upper center", ncols=min(4, len(runs)),
        fontsize=9,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)  # a run's name may hold a $
    with written_whole(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=120)


def parse_plot_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="python -m script.plot_losses",
        description="Draw the losses of one or several runs from their metrics.jsonl.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="result/NAME")
    parser.add_argument(
        "--out", type=Path, default=Path("losses.png"), help="the picture: .png, .svg or .pdf"
    )
    parser.add_argument("--losses", help="only these, with commas between [all]")
    parser.add_argument(
        "--smooth",
        type=positive_int,
        default=1,
        help="draw the mean of so many records around each one, the record itself faint behind",
    )
    return parser.parse_all(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Draw the picture."""

    options = parse_plot_options(arguments)
    losses, notes = read_losses(options.folders)
    for note in notes:
        print(note)
    names = [name.strip() for name in options.losses.split(",")] if options.losses else None
    plot_losses(losses, options.out, names, options.smooth)
    print(options.out)
    return 0
