"""Which generated picture is compared with which ground truth."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from data.annotations import list_images
from util.errors import UserError

RESULT_MARK = "_vis"
SEPARATOR = "_2_"


@dataclass(frozen=True)
class ResultFile:
    """A generated picture and what belongs to it.

    Attributes:
        path: the picture, `<source stem>_2_<target stem>_vis.<suffix>`.
        pair: `<source stem>_2_<target stem>`.
        target: the ground truth, None when there is none.
        source: the picture it was made from, None when the ground-truth folder lacks it.
        problem: why there is no ground truth, empty when there is one.
    """

    path: Path
    pair: str
    target: Path | None
    source: Path | None
    problem: str = ""


def find_results(results_folder: Path, truth_folder: Path) -> list[ResultFile]:
    """Every picture of `results_folder` with its ground truth, sorted by name.

    `A_2_B_vis.jpg` is compared with `B.jpg`, `B.png` or another image suffix. Names may contain
    `_2_` themselves: the last one counts.

    Raises:
        UserError: a folder is missing or empty, or a pair has two results or two ground truths.
    """
    names = list_images(results_folder)
    if not names:
        raise UserError(f"--distorated_path: {results_folder} has no images")
    truths = _by_stem(truth_folder)
    results = [_match(results_folder / name, truth_folder, truths) for name in names]
    earlier: dict[str, Path] = {}
    for result in results:
        other = earlier.setdefault(result.pair, result.path)
        if other != result.path:
            raise UserError(
                f"--distorated_path: {other} and {result.path.name} are results of one pair: "
                "remove one of them, or score the formats in folders of their own"
            )
    return results


def _by_stem(folder: Path) -> dict[str, list[str]]:
    names = list_images(folder)
    if not names:
        raise UserError(f"--gt_path: {folder} has no images")
    by_stem = defaultdict(list)
    for name in names:
        by_stem[Path(name).stem].append(name)
    return by_stem


def _match(path: Path, truth_folder: Path, truths: dict[str, list[str]]) -> ResultFile:
    if not path.stem.endswith(RESULT_MARK):
        return ResultFile(path, path.stem, None, None, f"its name does not end in {RESULT_MARK}")
    pair = path.stem.removesuffix(RESULT_MARK)
    source_stem, separator, target_stem = pair.rpartition(SEPARATOR)
    if not separator:
        problem = f"its name is not of the form SOURCE{SEPARATOR}TARGET{RESULT_MARK}"
        return ResultFile(path, pair, None, None, problem)
    found = truths.get(target_stem, [])
    if len(found) > 1:
        raise UserError(
            f"--gt_path: {truth_folder} has {' and '.join(found)}: which one is the ground truth "
            f"of {path.name}? Remove the other"
        )
    sources = truths.get(source_stem)
    source = truth_folder / sources[0] if sources else None
    if not found:
        problem = f"no ground truth {target_stem}.jpg or .png in {truth_folder}"
        return ResultFile(path, pair, None, source, problem)
    return ResultFile(path, pair, truth_folder / found[0], source)
