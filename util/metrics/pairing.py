"""Which generated picture is compared with which ground truth."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.image_names import list_images
from util.errors import UserError
from util.pair_names import RESULT_MARK, SEPARATOR, choose_cut, cuts, pair_name
from util.result_table import TABLE_NAME, ResultRow, read_table


@dataclass(frozen=True)
class ResultFile:
    """A generated picture and what belongs to it.

    Attributes:
        path: the picture, `<source stem>_2_<target stem>_vis.<suffix>`.
        pair: `<source stem>_2_<target stem>`.
        target: the ground truth, None when there is none.
        source: the picture it was made from, None when the ground-truth folder lacks it.
        problem: why there is no ground truth, empty when there is one.
        stems: of source and target, None when they are not known.
        checkpoint: hash of the weights it was made with, empty when it is not known.
    """

    path: Path
    pair: str
    target: Path | None
    source: Path | None
    problem: str = ""
    stems: tuple[str, str] | None = None
    checkpoint: str = ""


@dataclass
class FoundResults:
    """The results of a folder.

    Attributes:
        files: sorted by name.
        problems: what is missing.
        warnings: what the user must know of them.
    """

    files: list[ResultFile]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find_results(results_folder: Path, truth_folder: Path, mixed: bool = False) -> FoundResults:
    """Every picture of `results_folder` with its ground truth.

    `results.csv`, which test.py leaves there, tells the pairs. Without it they are told by the
    names: `A_2_B_vis.jpg` is compared with `B.jpg`, `B.png` or another image suffix; where names
    hold `_2_` themselves, by which images there are (see `choose_cut`).

    Args:
        results_folder: the generated pictures.
        truth_folder: the ground truth.
        mixed: take results of several checkpoints or options, or that the table does not list.

    Raises:
        UserError: a folder is missing or empty, a pair has two results or two ground truths, a
            name can be cut in several ways, or results are mixed without `mixed`.
    """
    for option, folder in (("--distorated_path", results_folder), ("--gt_path", truth_folder)):
        if not folder.is_dir():
            raise UserError(f"{option}: there is no folder {folder}")
    names = list_images(results_folder)
    if not names:
        raise UserError(f"--distorated_path: {results_folder} has no images")
    truths = _by_stem(truth_folder)
    found = FoundResults([])
    table = _read_table(results_folder, found)
    found.files = [
        _match(results_folder / name, truth_folder, truths, (table or {}).get(_key(name)))
        for name in names
    ]
    earlier: dict[str, Path] = {}
    for result in found.files:
        other = earlier.setdefault(result.pair, result.path)
        if other != result.path:
            raise UserError(
                f"--distorated_path: {other} and {result.path.name} are results of one pair: "
                "remove one of them, or score the formats in folders of their own"
            )
    if table is not None:  # last: --mixed_results, which it advises, would be refused by the others
        _check_mixed(results_folder, names, table, mixed, found)
    return found


def _key(name: str) -> str:
    """Names that differ only in how letters are composed are one: macOS stores them apart."""
    return unicodedata.normalize("NFC", name)


def _read_table(folder: Path, found: FoundResults) -> dict[str, ResultRow] | None:
    table = read_table(folder)
    if table is None and (folder / TABLE_NAME).exists():
        found.warnings.append(
            f"{folder / TABLE_NAME} is not a table of test.py; the names tell the pairs"
        )
    return None if table is None else {_key(name): row for name, row in table.items()}


def _check_mixed(
    folder: Path,
    names: Sequence[str],
    table: Mapping[str, ResultRow],
    mixed: bool,
    found: FoundResults,
) -> None:
    keys = {_key(name) for name in names}
    lost = sorted(table.keys() - keys)
    if lost:
        found.problems.append(
            f"{len(lost)} results of {folder / TABLE_NAME} are not there, such as {lost[0]}"
        )
    mixtures = []
    is_cut = not (folder / TABLE_NAME).read_bytes().endswith(b"\n")
    unlisted = [
        name for name in names if _key(name) not in table and Path(name).stem.endswith(RESULT_MARK)
    ]
    if unlisted and is_cut and not mixed:
        raise UserError(
            f"{folder / TABLE_NAME}: is cut in the middle of its last row, and does not list "
            f"{len(unlisted)} of {len(names)} pictures, such as {unlisted[0]}: copy it anew, or "
            "run test.py again with --skip_existing; --mixed_results goes on by their names"
        )
    if unlisted:
        mixtures.append(
            f"{len(unlisted)} of {len(names)} pictures are not in {TABLE_NAME}, as of an earlier "
            f"run, such as {unlisted[0]}"
        )
    listed = [table[key] for key in sorted(keys & table.keys())]
    ways: list[ResultRow] = []  # one of each way that results were made in
    counts: Counter[int] = Counter()
    seen: dict[tuple[str, str], int] = {}
    for row in listed:
        made = row.options, row.checkpoint
        if made not in seen:
            same = [k for k, way in enumerate(ways) if not row.differences(way)]
            seen[made] = same[0] if same else len(ways)
            ways += [] if same else [row]
        counts[seen[made]] += 1
    if len(ways) > 1:
        mixtures.append(
            f"{counts[0]} results are made in one way, {len(listed) - counts[0]} otherwise, such "
            f"as {ways[1].result}: {'; '.join(ways[1].differences(ways[0]))}"
        )
    if mixtures and not mixed:
        raise UserError(
            f"--distorated_path: {folder} holds results of several runs: {'; '.join(mixtures)}: "
            "remove what is not to be scored, or make all of them with test.py in a new "
            "--results_dir; --mixed_results scores them together"
        )
    found.warnings += [f"--mixed_results: {text}" for text in mixtures]


def _by_stem(folder: Path) -> dict[str, list[str]]:
    names = list_images(folder)
    if not names:
        raise UserError(f"--gt_path: {folder} has no images")
    by_stem = defaultdict(list)
    for name in names:
        by_stem[_key(Path(name).stem)].append(name)
    return dict(by_stem)


def _match(
    path: Path, truth_folder: Path, truths: Mapping[str, list[str]], row: ResultRow | None
) -> ResultFile:
    if row is not None:
        stems = Path(row.source).stem, Path(row.target).stem
        return _with_truth(path, pair_name(*stems), stems, truth_folder, truths, row.checkpoint)
    if not path.stem.endswith(RESULT_MARK):
        return ResultFile(path, path.stem, None, None, f"its name does not end in {RESULT_MARK}")
    pair = path.stem.removesuffix(RESULT_MARK)
    possible = cuts(pair)
    if not possible:
        problem = f"its name is not of the form SOURCE{SEPARATOR}TARGET{RESULT_MARK}"
        return ResultFile(path, pair, None, None, problem)
    try:
        stems = choose_cut(pair, lambda stem: _key(stem) in truths)
    except UserError as error:
        raise UserError(
            f"--gt_path: {path.name}: {error}, by the images of {truth_folder}; put both images of "
            f"each pair there, or make the results with test.py, whose {TABLE_NAME} tells"
        ) from None
    if stems is None and len(possible) > 1:
        targets = " or ".join(target for _, target in possible)
        problem = f"no ground truth {targets} (.jpg or .png) in {truth_folder}"
        return ResultFile(path, pair, None, None, problem)
    return _with_truth(path, pair, stems or possible[0], truth_folder, truths)


def _with_truth(
    path: Path,
    pair: str,
    stems: tuple[str, str],
    truth_folder: Path,
    truths: Mapping[str, list[str]],
    checkpoint: str = "",
) -> ResultFile:
    sources, targets = (truths.get(_key(stem), []) for stem in stems)
    if len(targets) > 1:
        raise UserError(
            f"--gt_path: {truth_folder} has {' and '.join(targets)}: which one is the ground truth "
            f"of {path.name}? Remove the other"
        )
    source = truth_folder / sources[0] if sources else None
    target = truth_folder / targets[0] if targets else None
    problem = "" if target else f"no ground truth {stems[1]}.jpg or .png in {truth_folder}"
    return ResultFile(path, pair, target, source, problem, stems, checkpoint)
