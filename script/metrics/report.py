"""The report of `script.metrics`: a table on the terminal, metrics.json, metrics.csv, one line."""

import csv
import json
import math
import shutil
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from script.metrics.pairing import ResultFile
from util.errors import printable
from util.files import written_whole
from util.result_table import guarded

SCHEMA = 1
SHOWN_PROBLEMS = 10
KEY_COLUMNS = ("result", "source", "target")


@dataclass(frozen=True)
class Figure:
    """One number of the report.

    Attributes:
        value: the mean over the images for a per-image figure.
        std: population standard deviation over images, subsets (KID) or splits (IS); or None.
        better: "lower" or "higher".
        per_image: whether metrics.csv has a column of it.
        images: how many it is made from.
        protocol: everything that changes it.
    """

    value: float
    std: float | None
    better: str
    per_image: bool
    images: int
    protocol: str


def mean_figure(values: Iterable[float], better: str, protocol: str) -> tuple[Figure | None, str]:
    """The mean of per-image values, and what is to be said of it: why none, or which do not count.

    NaN (undefined for that picture) and infinite values (PSNR of identical pictures) are left out
    of the mean, and said.
    """
    values = np.array(list(values), dtype=np.float64)
    known = values[np.isfinite(values)]
    undefined, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if not known.size:
        return None, f"of {values.size} values {undefined} are undefined and {infinite} infinite"
    warning = ""
    if known.size < values.size:
        warning = f"{undefined} undefined and {infinite} infinite values do not count"
    figure = Figure(
        float(known.mean()), float(known.std()), better, True, int(known.size), protocol
    )
    return figure, warning


@dataclass
class Report:
    """Everything a run found; see docs/metrics.md for the files.

    Attributes:
        name: of the report.
        protocol: gfla or pg2.
        results: the pictures scored, in words and numbers.
        figures: by name, in the order they are shown.
        left_out: figures that could not be computed, with the reason.
        problems: pictures that lack a figure, one message each.
        warnings: what makes a figure less than it seems.
    """

    name: str
    protocol: str
    results: dict[str, object]
    figures: dict[str, Figure] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing that was asked for is missing."""
        return not self.left_out and not self.problems

    def write(
        self,
        folder: Path,
        summary_path: Path,
        results: Sequence[ResultFile],
        rows: Sequence[Mapping[str, float]],
    ) -> None:
        """Write metrics.json and metrics.csv into `folder`, and the one-line summary.

        Bytes of a file name that are no UTF-8 are escaped, in JSON's own way.

        Raises:
            UserError: a file cannot be written.
        """
        with written_whole(folder / "metrics.json") as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8", errors="backslashreplace")
        columns = [name for name, figure in self.figures.items() if figure.per_image]
        lines = (
            [
                *map(guarded, (result.path.name, *_image_names(result))),
                *(_cell(row.get(name)) for name in columns),
            ]
            for result, row in zip(results, rows, strict=True)
        )
        _write_csv(folder / "metrics.csv", [*KEY_COLUMNS, *columns], lines)
        values = [f"{figure.value:.6g}" for figure in self.figures.values()]
        line = [guarded(self.name), str(self.results["images"]), *values]
        _write_csv(summary_path, ["name", "images", *self.figures], [line])

    def to_json(self) -> str:
        """The content of metrics.json."""
        content = {
            "schema": SCHEMA,
            "name": self.name,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "protocol": self.protocol,
            "results": self.results,
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
            "left_out": [
                {"figure": name, "reason": reason} for name, reason in self.left_out.items()
            ],
            "problems": self.problems,
            "warnings": self.warnings,
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def table(self, width: int | None = None) -> str:
        """The report for the terminal: figures with their protocol, then what is missing.

        What the protocols of all figures share, the pictures scored, is said once.
        """
        shared = f"results: {self.results.get('description', '')}"
        width = max(width or shutil.get_terminal_size((120, 24)).columns, 80)
        rows = [("figure", "value", "std", "images", "protocol")]
        for name, figure in self.figures.items():
            arrow = "↓" if figure.better == "lower" else "↑"
            std = "" if figure.std is None else f"{figure.std:.4f}"
            rows.append((
                f"{name} {arrow}", f"{figure.value:.4f}", std, str(figure.images),
                figure.protocol.removesuffix(f"; {shared}"),
            ))  # fmt: skip
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        indent = sum(widths) + 2 * len(widths)
        lines = [shared]
        for row in rows:
            cells = [row[0].ljust(widths[0])]
            cells += [row[column].rjust(widths[column]) for column in (1, 2, 3)]
            text = textwrap.wrap(row[4], max(width - indent, 30)) or [""]
            lines.append("  ".join([*cells, text[0]]))
            lines += [" " * indent + more for more in text[1:]]
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            by_reason.setdefault(reason, []).append(name)
        lines += [f"left out: {', '.join(names)}: {why}" for why, names in by_reason.items()]
        lines += [f"left out: {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        if len(self.problems) > SHOWN_PROBLEMS:
            lines.append(f"left out: {len(self.problems) - SHOWN_PROBLEMS} more, see metrics.json")
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(map(printable, lines))


def _image_names(result: ResultFile) -> tuple[str, str]:
    """Source and target: the files; of those not in the ground-truth folder the bare names."""
    stems = result.stems or ("", "")
    files = result.source, result.target
    source, target = (file.name if file else stem for file, stem in zip(files, stems, strict=True))
    return source, target


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(float(value))


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with (
        written_whole(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
