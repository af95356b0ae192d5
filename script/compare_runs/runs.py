"""Reading the reports of `script.metrics` again."""

import csv
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from script.metrics.report import KEY_COLUMNS, SCHEMA, Figure
from util.errors import UserError
from util.files import LARGEST_TEXT, real_path, regular_file
from util.images import IMAGE_SUFFIXES
from util.json_files import read_json
from util.pair_names import RESULT_MARK, SEPARATOR, choose_cut, cuts
from util.result_table import unguarded

_WRITE_AGAIN = "run script.metrics again"


@dataclass(frozen=True)
class Run:
    """One report as `script.metrics` wrote it.

    Attributes:
        name: of the report; with its folder where several reports have one name.
        folder: as the user gave it.
        protocol: gfla or pg2.
        results: what metrics.json says of the results (folder, images, formats, sizes, …).
        figures: by name.
        left_out: reason by figure.
        problems: how many messages about pictures the report has.
        warnings: of the report.
        pairs: SOURCE_2_TARGET of every row of metrics.csv.
        images: stems of source and target of every row.
        scores: per-image figures by name, float64 [rows], NaN where there is no value.
    """

    name: str
    folder: Path
    protocol: str
    results: dict[str, object]
    figures: dict[str, Figure]
    left_out: dict[str, str]
    problems: int
    warnings: list[str]
    pairs: list[str]
    images: list[tuple[str, str]]
    scores: dict[str, np.ndarray]


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read reports, and name those of one name by their folders.

    Raises:
        UserError: as `read_run`, or a report is given twice.
    """
    runs: list[Run] = []
    seen: dict[Path, Path] = {}
    for path in paths:
        run = read_run(path)
        earlier = seen.setdefault(real_path(run.folder), path)
        if earlier is not path:
            raise UserError(f"{path}: this report is given twice (also as {earlier})")
        runs.append(run)
    names = Counter(run.name for run in runs)
    return [
        replace(run, name=f"{run.name} ({run.folder})") if names[run.name] > 1 else run
        for run in runs
    ]


def read_run(path: Path) -> Run:
    """Read one report.

    Args:
        path: the report's folder, or its metrics.json.

    Raises:
        UserError: a file is missing, damaged or of another schema, or the two do not belong
            together.
    """
    file = path if path.suffix == ".json" else path / "metrics.json"
    folder = file.parent
    if not file.is_file():
        what = "has no metrics.json" if path.exists() else "does not exist"
        raise UserError(
            f"{path}: {what}; name the folder of a report of script.metrics, such as "
            "eval_results/NAME_metrics"
        )
    content = _read_json(file)
    try:
        figures = {name: Figure(**entry) for name, entry in content["figures"].items()}
        for name, figure in figures.items():
            numbers = (figure.value, 0 if figure.std is None else figure.std)
            if (
                figure.better not in ("lower", "higher")
                or not all(type(number) in (int, float) for number in numbers)
                or type(figure.images) is not int
                or type(figure.per_image) is not bool
                or type(figure.protocol) is not str
            ):
                raise ValueError(f"figure {name}")
        run = Run(
            name=str(content["name"]),
            folder=folder,
            protocol=str(content["protocol"]),
            results=dict(content["results"]),
            figures=figures,
            left_out={item["figure"]: item["reason"] for item in content["left_out"]},
            problems=len(content.get("problems", [])),
            warnings=[str(text) for text in content["warnings"]],
            pairs=[],
            images=[],
            scores={},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{file}: is not as script.metrics writes it ({type(error).__name__}: {error}); "
            f"{_WRITE_AGAIN}"
        ) from None
    return _with_scores(run, folder / "metrics.csv")


def _read_json(file: Path) -> dict:
    content = read_json(file, _WRITE_AGAIN)
    schema = content.get("schema")
    if schema != SCHEMA:
        raise UserError(
            f"{file}: its schema is {schema!r}, this version reads {SCHEMA}; {_WRITE_AGAIN}"
        )
    return content


def _with_scores(run: Run, file: Path) -> Run:
    names = [name for name, figure in run.figures.items() if figure.per_image]
    try:
        regular_file(file, LARGEST_TEXT)
        with open(file, encoding="utf-8", newline="") as opened:
            reader = csv.reader(opened, strict=True)
            columns = next(reader, [])
            for name in (*KEY_COLUMNS, *names):
                if columns.count(name) != 1:
                    raise UserError(
                        f"{file}: has {'no' if name not in columns else 'several'} column "
                        f"'{name}', which metrics.json has; {_WRITE_AGAIN}"
                    )
            places = [columns.index(name) for name in names]
            pairs, named, values = [], [], []
            for row in reader:
                if len(row) != len(columns):
                    raise ValueError(f"{len(row)} cells, expected {len(columns)}")
                result, *images = (unguarded(row[columns.index(name)]) for name in KEY_COLUMNS)
                pairs.append(Path(result).stem.removesuffix(RESULT_MARK))
                named.append(tuple(map(_stem, images)))
                values.append([float(row[place] or "nan") for place in places])
    except FileNotFoundError:
        raise UserError(f"{file}: does not exist, metrics.json does; {_WRITE_AGAIN}") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: is no UTF-8 text; {_WRITE_AGAIN}") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}; {_WRITE_AGAIN}") from None

    for pair, count in Counter(pairs).items():
        if count > 1:
            raise UserError(f"{file}: has {count} rows of the pair {pair}; {_WRITE_AGAIN}")
    table = np.array(values, dtype=np.float64).reshape(len(pairs), len(names))
    scores = dict(zip(names, table.T, strict=True))
    for name, column in scores.items():
        known, figure = column[np.isfinite(column)], run.figures[name]
        if (
            not known.size
            or known.size != figure.images
            or not math.isclose(known.mean(), figure.value, rel_tol=1e-6, abs_tol=1e-9)
        ):
            raise UserError(
                f"{file}: {name} has {known.size} values"
                f"{f' of mean {known.mean():.6g}' if known.size else ''}, but metrics.json says "
                f"{figure.images} of mean {figure.value:.6g}; the two are not of one run: "
                f"{_WRITE_AGAIN}"
            )
    known = {stem for stems in named for stem in stems}
    try:
        images = [_images(*row, known) for row in zip(pairs, named, strict=True)]
    except UserError as error:
        raise UserError(f"{file}: {error}; {_WRITE_AGAIN}") from None
    return replace(run, pairs=pairs, images=images, scores=scores)


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _images(pair: str, named: tuple[str, str], known: set[str]) -> tuple[str, str]:
    """Stems of a pair's images: as they are written, else from the pair's name."""
    source, target = named
    if source and target:
        return source, target
    # Reports of earlier versions leave the source out where the ground-truth folder lacks it.
    if target and pair.endswith(SEPARATOR + target):
        return pair.removesuffix(SEPARATOR + target), target
    possible = cuts(pair)
    if len(possible) == 1:
        return possible[0]
    return choose_cut(pair, known.__contains__) or (pair, pair)


def find_run(runs: Sequence[Run], name: str) -> Run:
    """The run of a name or folder, for --baseline.

    Raises:
        UserError: none or several match.
    """
    folder = Path(name)
    folder = real_path(folder.parent if folder.suffix == ".json" else folder)
    found = [run for run in runs if real_path(run.folder) == folder] or [
        run for run in runs if name in (run.name, run.name.removesuffix(f" ({run.folder})"))
    ]
    if len(found) != 1:
        what = "is none" if not found else "is the name of several"
        known = ", ".join(str(run.folder) for run in runs)
        raise UserError(f"--baseline: '{name}' {what} of the reports given; name one of: {known}")
    return found[0]


def peculiarities(run: Run, figure: str) -> dict[str, object]:
    """What a figure depends on, by aspect; two runs' figures compare where all of it is equal.

    `protocol` is a tuple of the parts of its text. The number of images, `images`, does not
    matter to paired differences.
    """
    entry = run.figures[figure]
    # What the text says of the results is among the other aspects, apart from their number.
    parts = [part for part in entry.protocol.split("; ") if not part.startswith("results: ")]
    truth = run.results.get("ground_truth")
    return {
        "protocol": (f"--protocol={run.protocol}", f"{entry.better} is better", *parts),
        "format": _listed(run.results.get("formats")),
        "size": _listed(run.results.get("sizes")),
        "ground truth": os.path.normpath(str(truth)) if truth else "",
        "images": entry.images,
    }


def _listed(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values or "")
