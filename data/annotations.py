"""Reading and checking the two tables of a data set: image pairs and key-point annotations.

Row numbers in messages are lines of the file; the header is row 1.
"""

import csv
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from util.errors import UserError
from util.images import IMAGE_SUFFIXES

PAIR_COLUMNS = ("from", "to")
ANNOTATION_COLUMNS = ("name", "keypoints_y", "keypoints_x")
_LARGEST = 1e6  # pixels; no image is larger
MISSING = -1

# Of the published annotations a few lie a little outside their frame (1 of 295, by 5 %).
# From this share of images on, or so far outside, it is a mistake: a wrong frame, or a wrong row.
_OUTSIDE_SHARE = 0.01
_FAR_OUTSIDE = 1.25
# With so many it is the frame, and going on without those rows would scale the others wrongly.
# DeepFashion's key points in a frame of 256×256, taken for 256×176: 27 and 34 % of two samples.
_WRONG_FRAME_SHARE = 0.1
_WRONG_FRAME_COUNT = 5
# People that reach no further than this share of the frame, in so many images, are worth a notice.
_REACHED_SHARE = 0.8
_REACHED_COUNT = 100


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
    frame: tuple[int, int],
    keypoint_count: int = 18,
    skip_bad_samples: bool = False,
) -> PairTable:
    """Read and check both tables; only annotations that a pair needs are looked at.

    Args:
        pairs_path: table `from,to` of image names.
        annotation_path: table `name:keypoints_y:keypoints_x` of JSON lists, -1 = missing.
        image_folder: the folder of the images.
        frame: (height, width) in pixels that key points refer to (--old_size).
        keypoint_count: key points a row must have.
        skip_bad_samples: leave pairs with a problem out and list them, instead of raising.

    Raises:
        UserError: a table or folder is missing, empty or of another form; a pair has a problem
            and skip_bad_samples is off; no good pair is left; or key points lie outside `frame`,
            with skip_bad_samples in so many images that the frame must be wrong.
    """
    annotations = _Annotations(annotation_path, keypoint_count)
    in_folder = _NameMatcher(list_images(image_folder))

    images: dict[str, int | str] = {}  # name in the pairs table -> position, or what is wrong
    files: list[str] = []
    places: list[str] = []  # of the annotations of `files`, for messages
    poses: list[list[tuple[float, float]]] = []
    found_pairs: list[tuple[int, list[int]]] = []
    problems: dict[int, str] = {}  # row of the pairs table -> what is wrong

    def look_up(name: str) -> int | str:
        file_name = in_folder.find(name)
        if file_name is None:
            return f"image '{name}' is not in {image_folder}"
        pose = annotations.find(name)
        if isinstance(pose, str):
            return pose
        if all(map(math.isnan, itertools.chain.from_iterable(pose))):
            return f"{annotations.place(name)}: no key point is there (all are {MISSING})"
        places.append(annotations.place(name))
        files.append(file_name)
        poses.append(pose)
        return len(files) - 1

    for row, values in _read_rows(pairs_path, PAIR_COLUMNS, ","):
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
    outside, frame_notices = _check_frame(
        found_poses, frame, places, annotation_path, skip_bad_samples
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

    if bad and not skip_bad_samples:
        more = f" ({len(bad) - 1} more rows have problems)" if len(bad) > 1 else ""
        raise UserError(f"{bad[0]}{more}; mend it, or leave bad rows out with --skip_bad_samples")
    if not pairs:
        raise UserError(f"{bad[0]}; none of the {len(bad)} pairs can be used")

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
    for matcher, where in ((in_folder, image_folder), (annotations.names, annotation_path)):
        notice = _respelling_notice(matcher, pairs_path.name, where)
        if notice:
            table.notices.append(notice)
    return table


def read_poses(
    path: Path, stems: Iterable[str], keypoint_count: int = 18
) -> tuple[dict[str, np.ndarray | str], str]:
    """Key points of images, known by their names without suffix, from an annotation table.

    Args:
        path: table `name:keypoints_y:keypoints_x`.
        stems: names without the image suffix; a row of that very name counts, else the only one
            that is spelt differently.
        keypoint_count: key points a row must have.

    Returns:
        By stem: float64 [K, 2], (x, y) in pixels of the annotation's frame, NaN = missing; or
        what is wrong with that image's row. And a notice on names matched across spellings, or
        an empty text.

    Raises:
        UserError: the table is missing, empty or of another form.
    """
    annotations = _Annotations(path, keypoint_count)
    rows: dict[str, str] = {}
    for name in annotations.row_names:
        stem, suffix = os.path.splitext(name)
        rows.setdefault(stem if suffix.lower() in IMAGE_SUFFIXES else name, name)
    poses: dict[str, np.ndarray | str] = {}
    for stem in stems:
        pose = annotations.find(rows.get(stem, f"{stem}.jpg"))
        poses[stem] = pose if isinstance(pose, str) else np.array(pose, dtype=np.float64)
    return poses, _respelling_notice(annotations.names, "the pictures", path)


def _respelling_notice(matcher: "_NameMatcher", whose: str, where: Path) -> str:
    if not matcher.respelt:
        return ""
    name, match = next(iter(matcher.respelt.items()))
    return (
        f"{len(matcher.respelt)} image names of {whose} are spelt differently "
        f"in {where} and were matched, e.g. '{name}' with '{match}'"
    )


def list_images(folder: Path) -> list[str]:
    """List the image files of a folder, sorted. Raises UserError when it is missing."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
                and not entry.name.startswith(".")
            )
    except OSError as error:
        raise UserError(f"{folder}: cannot list the images ({error.strerror})") from None


def normalised_name(name: str) -> str:
    """Reduce an image name to what all its circulating spellings share.

    `fasionWOMENTeesTanks…_1front.jpg` and `fashionWOMENTees_Tanks…_1front.png` become one.
    """
    stem = os.path.splitext(name)[0]
    return re.sub(r"^fash?ion", "fashion", stem).replace("_", "")


class _NameMatcher:
    """Finds names among known ones: as they are, else by their only differently spelt match."""

    def __init__(self, known: list[str]) -> None:
        self._known = set(known)
        self._by_normalised: dict[str, list[str]] | None = None
        self.respelt: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        if name in self._known:
            return name
        # A name without its suffix is a piece of one, as at the end of a table that is cut off:
        # p1 can be all that is there of p12.png.
        if os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
            return None
        if self._by_normalised is None:
            self._by_normalised = {}
            for known in self._known:
                self._by_normalised.setdefault(normalised_name(known), []).append(known)
        matches = self._by_normalised.get(normalised_name(name), [])
        if len(matches) != 1:
            return None
        self.respelt[name] = matches[0]
        return matches[0]


class _Annotations:
    """The annotation table; a row's JSON is read when a pair asks for it."""

    def __init__(self, path: Path, keypoint_count: int) -> None:
        self._path = path
        self._keypoint_count = keypoint_count
        self._rows: dict[str, tuple[int, str, str]] = {}
        self._bad: dict[str, str] = {}
        unnamed = []
        for row, values in _read_rows(path, ANNOTATION_COLUMNS, ":"):
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
        self.names = _NameMatcher(self.row_names)

    def place(self, name: str) -> str:
        """Say where the annotation of `name`, which `find` has found, is: file, row and name."""
        found = self.names.find(name)
        return f"{self._path}, row {self._rows[found][0]} ('{found}')"

    def find(self, name: str) -> list[tuple[float, float]] | str:
        """Give the (x, y) of each key point, NaN = missing; or say what is wrong."""
        found = self.names.find(name)
        if found is None:
            return f"'{name}' has no row in {self._path}{self._unnamed_hint}"
        if found in self._bad:
            return self._bad[found]
        row, text_y, text_x = self._rows[found]
        lists = []
        for column, text in zip(ANNOTATION_COLUMNS[1:], (text_y, text_x), strict=True):
            values = _read_coordinates(text, self._keypoint_count)
            if isinstance(values, str):
                return f"{self._path}, row {row}: {column} of '{found}' {values}"
            lists.append(values)
        return [
            (math.nan, math.nan) if MISSING in (y, x) else (x, y)
            for y, x in zip(*lists, strict=True)
        ]


def _read_coordinates(text: str, count: int) -> list[float] | str:
    """Read one JSON list of coordinates, or say what is wrong with it."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return f"is not a JSON list: {_shortened(text)}"
    if not isinstance(values, list):
        return f"is not a JSON list: {_shortened(text)}"
    if len(values) != count:
        return f"has {len(values)} values, {count} are needed"
    for value in values:
        number = type(value) in (int, float)
        if not number or not (0 <= value < _LARGEST or value == MISSING):
            return f"holds {json.dumps(value)}, neither a coordinate of at least 0 nor -1 (missing)"
    return values


def _read_rows(
    path: Path, columns: tuple[str, ...], separator: str
) -> Iterator[tuple[int, list[str] | str]]:
    """Read a table: (row, values of `columns`) or (row, what is wrong with that row).

    Raises UserError when the file is missing, empty, has another header or separator, or no rows.
    """
    wanted = separator.join(columns)
    header: list[str] | None = None
    row_count = 0
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
            for values in reader:
                if not "".join(values).strip():
                    continue
                if header is None:
                    header = [name.strip() for name in values]
                    positions = _column_positions(path, header, columns, separator)
                    continue
                row_count += 1
                if len(values) == len(header):
                    yield reader.line_num, [values[position].strip() for position in positions]
                else:
                    problem = f"has {len(values)} fields instead of {len(header)} ({wanted})"
                    yield reader.line_num, problem
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is not a text table with the header {wanted} ({error})") from None
    if header is None:
        raise UserError(f"{path}: is empty; it needs the header {wanted} and one row per line")
    if row_count == 0:
        raise UserError(f"{path}: has a header but no rows")


def _column_positions(
    path: Path, header: list[str], columns: tuple[str, ...], separator: str
) -> list[int]:
    if not set(columns) <= set(header):
        raise UserError(
            f"{path}: the header is '{_shortened(separator.join(header))}', "
            f"it must be {separator.join(columns)} (separated by '{separator}')"
        )
    return [header.index(column) for column in columns]


def _check_frame(
    poses: np.ndarray,
    frame: tuple[int, int],
    places: list[str],
    path: Path,
    skip_bad_samples: bool,
) -> tuple[dict[int, str], list[str]]:
    """Find the poses [N, K, 2] that do not fit the frame, and what the user should be told.

    Returns:
        By position: why a pose cannot be used. And notices.

    Raises:
        UserError: the frame, rather than single poses, seems to be wrong.
    """
    if not len(poses):
        return {}, []
    height, width = frame
    reach = np.nanmax(poses / (width, height), axis=1)  # [N, 2]; 1 = the frame's last edge
    outside = np.flatnonzero((reach > 1).any(axis=1))
    where = f"outside the frame of {height}×{width} (height×width) set by --old_size"
    if not len(outside):
        if len(poses) < _REACHED_COUNT or (reach.max(axis=0) >= _REACHED_SHARE).all():
            return {}, []
        x, y = np.nanmax(poses, axis=(0, 1))
        notice = (
            f"{path}: key points reach only x = {x:g}, y = {y:g} in a frame of {height}×{width} "
            "(height×width): is --old_size the frame they were made in?"
        )
        return {}, [notice]
    many = len(outside) >= _OUTSIDE_SHARE * len(poses)
    certain = len(outside) >= max(_WRONG_FRAME_SHARE * len(poses), _WRONG_FRAME_COUNT)
    if many and (certain or not skip_bad_samples):
        x, y = np.nanmax(poses, axis=(0, 1))
        raise UserError(
            f"{path}: key points reach x = {x:g}, y = {y:g}, {where}, those of {len(outside)} of "
            f"{len(poses)} images, such as {_row_and_name(places[outside[0]])}; name the frame "
            f"they were made in, such as --old_size {_frame_of(x, y)}"
            + ("" if certain else ", mend such rows, or leave them out with --skip_bad_samples")
        )
    bad = outside if many else outside[(reach[outside] > _FAR_OUTSIDE).any(axis=1)]
    reasons = {}
    for position in bad.tolist():
        x, y = np.nanmax(poses[position], axis=0)
        reasons[position] = f"{places[position]}: key points reach x = {x:g}, y = {y:g}, {where}"
    kept = [places[position] for position in outside.tolist() if position not in reasons]
    if not kept:
        return reasons, []
    notice = f"key points of {len(kept)} images lie a little {where}; kept, the first: {kept[0]}"
    return reasons, [notice]


def _row_and_name(place: str) -> str:
    return place[place.rindex(", row ") + 2 :]


def _frame_of(x: float, y: float) -> str:
    return "256,256" if max(x, y) <= 256 else "height,width"


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
