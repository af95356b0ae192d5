"""Reading and checking the two tables of a data set: image pairs and key-point annotations.

Row numbers in messages are lines of the file; the header is row 1.
"""

import contextlib
import itertools
import json
import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.body_mask import KEYPOINT_COUNTS, without_feet
from data.frame_check import Frame, ImageSize, check_frame
from data.image_names import NameMatcher, files_not_read, list_images
from data.tables import read_rows, shortened
from util.errors import UserError
from util.images import IMAGE_SUFFIXES, read_image, read_image_size, tell_turned

PAIR_COLUMNS = ("from", "to")
ANNOTATION_COLUMNS = ("name", "keypoints_y", "keypoints_x")
_LARGEST = 1e6  # pixels; no image is larger
MISSING = -1
_LOOKED_AT = 100  # images whose headers are read


@dataclass
class PairTable:
    """The pairs of one phase, checked against its annotations and its image folder.

    Attributes:
        files: file names of the images that pairs use, as they are in the folder.
        poses: float64 [len(files), K, 2], (x, y) in pixels of the frame; NaN = missing.
        pairs: int64 [N, 2], (source, target) as positions in `files`.
        rows: int64 [N], each pair's row in the pairs table.
        bad: one message per pair that was left out, with file and row.
        notices: what the user should be told once, such as names matched across spellings.
    """

    files: list[str]
    poses: np.ndarray
    pairs: np.ndarray
    rows: np.ndarray
    bad: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def read_pair_table(
    pairs_path: Path,
    annotation_path: Path,
    image_folder: Path,
    *,
    frame: Frame,
    usual_frame: tuple[int, int] | None = None,
    load_size: tuple[int, int] | None = None,
    keypoint_count: int = 18,
    missing: int | None = None,
    trust: bool = False,
    skip_bad_samples: bool = False,
    has_network_options: bool = True,
) -> PairTable:
    """Read and check both tables; only annotations that a pair needs are looked at.

    Args:
        pairs_path: table `from,to` of image names.
        annotation_path: table `name:keypoints_y:keypoints_x` of JSON lists, -1 = missing.
        image_folder: the folder of the images.
        frame: (height, width) in pixels that key points refer to, or "image" (--old_size).
        usual_frame: that of the data set, to advise it; None: none.
        load_size: (height, width) that images get; None: not compared with theirs.
        keypoint_count: key points a row must have.
        missing: 0: key points at (0, 0) are missing, -1: they are there; None: there may be none.
        trust: look neither at how key points fit the frame nor at the images' sizes.
        skip_bad_samples: leave pairs with a problem out and list them, instead of raising.
        has_network_options: whether messages may name --load_size and --structure_nc.

    Raises:
        UserError: a table or folder is missing, empty or of another form; a pair has a problem
            and skip_bad_samples is off; no good pair is left; key points are at (0, 0) and
            `missing` is None; or key points do not fit `frame`, with skip_bad_samples in so many
            images that the frame must be wrong.
    """
    rows_read = list(read_rows(pairs_path, PAIR_COLUMNS, ","))
    wanted = {name for _, values in rows_read if not isinstance(values, str) for name in values}
    annotations = _Annotations(
        annotation_path, (keypoint_count,), missing, wanted, has_network_options
    )
    in_folder = NameMatcher(list_images(image_folder), wanted)

    images: dict[str, int | str] = {}  # name in the pairs table -> position, or what is wrong
    files: list[str] = []
    places: list[str] = []  # of the annotations of `files`, for messages
    poses: list[list[tuple[float, float]]] = []
    found_pairs: list[tuple[int, list[int]]] = []
    problems: dict[int, str] = {}  # row of the pairs table -> what is wrong

    def look_up(name: str) -> int | str:
        file_name = in_folder.find(name)
        if file_name is None:
            suffix = os.path.splitext(name)[1]
            # (`isfile` takes what can be no name.)
            if suffix.lower() not in IMAGE_SUFFIXES and os.path.isfile(image_folder / name):
                return f"{image_folder / name}: is not of a type that is read; save it as .png"
            return f"image '{name}' is not in {image_folder}{in_folder.other_case(name)}"
        pose = annotations.find(name)
        if isinstance(pose, str):
            return pose
        if all(map(math.isnan, itertools.chain.from_iterable(pose))):
            value = "(0, 0)" if missing == 0 else MISSING
            return f"{annotations.place(name)}: no key point is there (all are {value})"
        places.append(annotations.place(name))
        files.append(file_name)
        poses.append(pose)
        return len(files) - 1

    for row, values in rows_read:
        problem = values if isinstance(values, str) else None
        pair = []
        for name in () if problem else values:
            if name not in images:
                images[name] = look_up(name)
            found = images[name]
            if isinstance(found, str):
                problem = found
                break
            pair.append(found)
        if problem:
            problems[row] = problem
        else:
            found_pairs.append((row, pair))

    found_poses = np.array(poses, dtype=np.float64).reshape(len(poses), keypoint_count, 2)
    outside, frame_notices = _check_poses(
        found_poses,
        [image_folder / name for name in files],
        places,
        annotation_path,
        frame=frame,
        usual_frame=usual_frame,
        load_size=load_size,
        missing=missing,
        trust=trust,
        skip_bad_samples=skip_bad_samples,
        names_load_size=has_network_options,
    )
    pairs: list[list[int]] = []
    rows: list[int] = []
    for row, pair in found_pairs:
        problem = next((outside[position] for position in pair if position in outside), None)
        if problem:
            problems[row] = problem
        else:
            pairs.append(pair)
            rows.append(row)
    bad = [f"{pairs_path}, row {row}: {problems[row]}" for row in sorted(problems)]

    if not pairs:
        raise UserError(f"{bad[0]}; none of the {len(bad)} pairs can be used")
    if bad and not skip_bad_samples:
        more = f" ({len(bad) - 1} more rows have problems)" if len(bad) > 1 else ""
        raise UserError(f"{bad[0]}{more}; mend it, or leave bad rows out with --skip_bad_samples")

    table = PairTable(
        files=files,
        poses=found_poses,
        pairs=np.array(pairs, dtype=np.int64),
        rows=np.array(rows, dtype=np.int64),
        bad=bad,
        notices=frame_notices,
    )
    if bad:
        table.notices.insert(
            0,
            f"left out {len(bad)} of {len(pairs) + len(bad)} pairs (--skip_bad_samples), "
            f"the first: {bad[0]}",
        )
    first: dict[tuple[int, ...], int] = {}
    again = [row for row, pair in zip(rows, pairs, strict=True)
             if first.setdefault(tuple(pair), row) != row]  # fmt: skip
    more_notices = (
        f"{pairs_path}: {len(again)} rows repeat a pair, the first: row {again[0]}; training takes "
        "such a pair more often than others"
        if again
        else "",
        in_folder.notice(pairs_path.name, image_folder),
        annotations.names.notice(pairs_path.name, annotation_path),
        files_not_read(image_folder),
    )
    table.notices += filter(None, more_notices)
    return table


def _check_poses(
    poses: np.ndarray,
    images: list[Path | None],
    places: list[str],
    path: Path,
    *,
    frame: Frame,
    usual_frame: tuple[int, int] | None,
    load_size: tuple[int, int] | None,
    missing: int | None,
    trust: bool,
    skip_bad_samples: bool,
    names_load_size: bool = False,
) -> tuple[dict[int, str], list[str]]:
    """Look for key points at (0, 0) and for those that do not fit; arguments as of `check_frame`.

    Returns:
        By position: why a pose cannot be used. And notices.

    Raises:
        UserError: `missing` is None and key points are at (0, 0), or the frame seems to be wrong.
    """
    outside, notices = {}, []
    zeros = "" if missing is not None else zero_text(poses)
    if not trust:
        try:
            outside, notices = check_frame(
                _without_zeros(poses) if zeros else poses,
                frame,
                usual_frame,
                load_size,
                _image_sizes(images[:_LOOKED_AT]),
                lambda k: _pixels(images[k]),
                places,
                path,
                skip_bad_samples,
                names_load_size,
            )
        except UserError as error:
            if zeros:
                raise UserError(f"{error}; moreover, {zeros}") from None
            raise
    if zeros:
        raise UserError(f"{path}: {zeros}")
    return outside, notices


def _image_sizes(images: list[Path | None]) -> list[ImageSize | None]:
    """Sizes by the files' headers; None for what cannot be read, which is told when it is."""
    sizes: list[ImageSize | None] = []
    for path in images:
        sizes.append(None)
        if path is None:
            continue
        with contextlib.suppress(UserError):
            sizes[-1] = ImageSize(*read_image_size(path))
            if sizes[-1].turned:
                tell_turned(path)
    return sizes


def _pixels(path: Path) -> np.ndarray | None:
    with contextlib.suppress(UserError):
        return np.array(read_image(path))
    return None


def _zeros(poses: np.ndarray) -> np.ndarray:
    return (poses == 0).all(axis=2)


def _without_zeros(poses: np.ndarray) -> np.ndarray:
    return np.where(_zeros(poses)[..., None], np.nan, poses)


def zero_text(poses: np.ndarray) -> str:
    """Say how many key points of poses [N, K, 2] are at (0, 0) and what to do; else an empty text.

    No published table has one there, but OpenPose, COCO and AlphaPose write a lost joint so.
    """
    zeros = _zeros(poses)
    if not zeros.any():
        return ""
    there = np.isfinite(poses).all(axis=2)
    return (
        f"{zeros.sum()} of {there.sum()} key points ({zeros.sum() / there.sum():.1%}) are at "
        "(0, 0), as many programs write a missing one: take them as missing with --missing 0, or "
        "as they are with --missing=-1"
    )


def read_poses(
    path: Path,
    images: Mapping[str, Path | None],
    *,
    frame: Frame,
    usual_frame: tuple[int, int] | None = None,
    missing: int | None = None,
    trust: bool = False,
) -> tuple[dict[str, np.ndarray | str], list[str]]:
    """Key points of images, known by their names without suffix, from an annotation table.

    Args:
        path: table `name:keypoints_y:keypoints_x`.
        images: by name without the image suffix: the image, None where there is none. A row of
            that very name counts, else the only one that is spelt differently.
        frame, usual_frame, missing, trust: as of `read_pair_table`.

    Returns:
        By name: float64 [18, 2] (of 25 key points those of OpenPose-18), (x, y) in pixels of the
        frame, NaN = missing; or what is wrong with that image's row. And notices.

    Raises:
        UserError: the table is missing, empty or of another form, has key points at (0, 0) and
            `missing` is None, or so many key points do not fit `frame` that it must be wrong.
    """
    annotations = _Annotations(path, KEYPOINT_COUNTS, missing)
    rows: dict[str, str] = {}
    for name in annotations.row_names:
        stem, suffix = os.path.splitext(name)
        rows.setdefault(stem if suffix.lower() in IMAGE_SUFFIXES else name, name)
    poses: dict[str, np.ndarray | str] = {}
    for stem in images:
        pose = annotations.find(rows.get(stem, f"{stem}.jpg"))
        is_there = not isinstance(pose, str)
        poses[stem] = without_feet(np.array(pose, dtype=np.float64)) if is_there else pose
    found = {stem: pose for stem, pose in poses.items() if not isinstance(pose, str)}
    bad, notices = _check_poses(
        np.array([*found.values()]).reshape(len(found), KEYPOINT_COUNTS[0], 2),
        [images[stem] for stem in found],
        [annotations.place(rows.get(stem, f"{stem}.jpg")) for stem in found],
        path,
        frame=frame,
        usual_frame=usual_frame,
        load_size=None,
        missing=missing,
        trust=trust,
        skip_bad_samples=True,
    )
    poses |= {stem: bad[k] for k, stem in enumerate(found) if k in bad}
    respelt = annotations.names.notice("the pictures", path)
    return poses, [*notices, *filter(None, [respelt])]


class _Annotations:
    """The annotation table; a row's JSON is read when a pair asks for it."""

    def __init__(
        self,
        path: Path,
        keypoint_counts: Collection[int],
        missing: int | None = None,
        wanted: Iterable[str] = (),
        names_structure_nc: bool = False,
    ) -> None:
        self._path = path
        self._missing = missing
        self._keypoint_counts = keypoint_counts
        self._names_structure_nc = names_structure_nc
        self._rows: dict[str, tuple[int, str, str]] = {}
        self._bad: dict[str, str] = {}
        unnamed = []
        for row, values in read_rows(path, ANNOTATION_COLUMNS, ":"):
            if isinstance(values, str):
                unnamed.append(f"{path}, row {row}: {values}")
                continue
            name, y, x = values
            earlier = self._rows.setdefault(name, (row, y, x))
            if earlier[1:] != (y, x):
                self._bad[name] = (
                    f"{path}, row {row}: '{name}' has other key points than in row {earlier[0]}"
                )
        self._unnamed_hint = f" (unreadable there: {unnamed[0]})" if unnamed else ""
        self.row_names = list(self._rows)
        self.names = NameMatcher(self.row_names, wanted)

    def place(self, name: str) -> str:
        """Say where the annotation of `name`, which `find` has found, is: file, row and name."""
        found = self.names.find(name)
        return f"{self._path}, row {self._rows[found][0]} ('{found}')"

    def find(self, name: str) -> list[tuple[float, float]] | str:
        """Give the (x, y) of each key point, NaN = missing; or say what is wrong."""
        found = self.names.find(name)
        if found is None:
            near = self.names.other_case(name)
            return f"'{name}' has no row in {self._path}{near or self._unnamed_hint}"
        if found in self._bad:
            return self._bad[found]
        row, text_y, text_x = self._rows[found]
        lists = []
        for column, text in zip(ANNOTATION_COLUMNS[1:], (text_y, text_x), strict=True):
            values = _read_coordinates(text)
            if not isinstance(values, str) and len(values) not in self._keypoint_counts:
                count, needed = len(values), " or ".join(map(str, self._keypoint_counts))
                values = f"has {count} values, {needed} are needed"
                if self._names_structure_nc and count:
                    values += f" (if all rows have {count}: --structure_nc={count})"
            if isinstance(values, str):
                return f"{self._path}, row {row}: {column} of '{found}' {values}"
            lists.append(values)
        return [
            (math.nan, math.nan)
            if MISSING in (y, x) or (self._missing == 0 and y == x == 0)
            else (x, y)
            for y, x in zip(*lists, strict=True)
        ]


def _read_coordinates(text: str) -> list[float] | str:
    """Read one JSON list of coordinates, or say what is wrong with it."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return f"is not a JSON list: {shortened(text)}"
    if not isinstance(values, list):
        return f"is not a JSON list: {shortened(text)}"
    for value in values:
        number = type(value) in (int, float)
        if not number or not (0 <= value < _LARGEST or value == MISSING):
            return f"holds {json.dumps(value)}, neither a coordinate of at least 0 nor -1 (missing)"
    return values
