"""Pairs and annotations: what is read is what a slow reader, written apart, says that it is."""

import functools
import json
import os
import random
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data.annotations import read_pair_table
from data.image_names import list_images
from tests.fuzz.mutations import NASTY_TEXTS, make_no_file, mutate_bytes
from tests.support.market_folder import Folder, annotation_row

VALUES = (
    *NASTY_TEXTS, "[]", "[1]", '"', "null", "é", "../p0.png", "p0.png", "P0.PNG", "[[1]]",
    "[" * 3000,
    "9" * 3000, *(json.dumps([value] * 18) for value in (1e300, -1, True, 50, 12.5, "x", None, {})),
    json.dumps([-1, *range(17)]), "[NaN" + ", NaN" * 17 + "]", "[1e999" + ", 1" * 17 + "]",
    "[" + "9" * 5000 + ", 1" * 17 + "]", "[50" + ", 50" * 200000 + "]",
)  # fmt: skip
NAMES = ("market-pairs-train.csv", "market-annotation-train.csv")


@functools.cache
def honest_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        folder = Folder(Path(place) / "market")
        numbers = np.random.default_rng(1)
        rows = [
            annotation_row(
                name, numbers.integers(0, 128, 18).tolist(), numbers.integers(0, 64, 18).tolist()
            )
            for name in folder.names
        ]
        folder.write_annotation(rows)
        paths = [path for path in folder.root.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder.root)): path.read_bytes() for path in paths}


def generate(rng: random.Random, folder: Path) -> None:
    files = honest_files()
    (folder / "train").mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    k = rng.randrange(2)
    path = folder / NAMES[k]
    if rng.random() < 0.02:
        path.unlink()
        make_no_file(rng, path)
        return
    data = files[NAMES[k]]
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        data = _mutate(rng, data, ",:"[k], files[NAMES[1 - k]])
    path.write_bytes(data)


def _mutate(rng: random.Random, data: bytes, separator: str, other: bytes) -> bytes:
    """A change of bytes; or of the structure: rows, fields, separators, values."""
    if rng.random() < 0.5:
        return mutate_bytes(rng, data, other)
    text = data.decode("utf-8", errors="surrogateescape")
    rows = [line.split(separator) for line in text.split("\n")]
    row = rng.randrange(len(rows))
    kind = rng.randrange(10)
    if kind == 0:
        del rows[row]
    elif kind == 1:
        rows.insert(rng.randrange(len(rows)), rows[row])
    elif kind == 2:
        rng.shuffle(rows[row])
    elif kind == 3:
        rows[row] = rows[row][:-1]
    elif kind == 4:
        rows[row] = rows[row] + [rng.choice(["", "x", "0"])] * rng.choice([1, 1, 20000])
    elif kind == 5:
        rng.shuffle(rows)
    elif kind == 6:
        separator = rng.choice([";", "\t", ",", ":", " "])
    elif kind in (7, 8):
        field = rng.randrange(len(rows[row]))
        rows[row][field] = rng.choice(VALUES)
    else:
        rows = [rows[0]] if rng.random() < 0.2 else rows[1:]
    text = "\n".join(separator.join(fields) for fields in rows)
    return text.encode("utf-8", errors="surrogatepass" if rng.random() < 0.1 else "replace")


def read(folder: Path) -> None:
    content = _content(folder)
    pairs, annotation = ((folder / name).read_bytes() for name in NAMES)
    said = slow_pairs(pairs, annotation, set(list_images(folder / "train")))
    assert content == said, f"read as {content}, but it says {said}"


def _content(folder: Path) -> list:
    table = read_pair_table(*(folder / name for name in NAMES), folder / "train", frame=(128, 64))
    found = []
    for a, b in table.pairs.tolist():
        poses = [
            [None if np.isnan(point).any() else tuple(point.tolist()) for point in table.poses[k]]
            for k in (a, b)
        ]
        found.append([table.files[a], table.files[b], *poses])
    return found


def slow_fields(text: str, separator: str) -> list[str]:
    """The fields of a line, character by character: quotes only where a field begins with one."""
    fields, field, quoted, k = [], "", False, 0
    while k < len(text):
        character = text[k]
        if quoted:
            if character == '"' and text[k + 1 : k + 2] == '"':
                field, k = field + '"', k + 1
            elif character == '"':
                quoted = False
            else:
                field += character
        elif character == '"' and not field:
            quoted = True
        elif character == separator:
            fields.append(field)
            field = ""
        elif character != " " or field:  # blanks after a separator do not count
            field += character
        k += 1
    assert not (quoted and field), "a quoted line break"
    return [part.strip() for part in [*fields, field]]


def slow_rows(data: bytes, separator: str, columns: list[str]) -> list[list[str]]:
    text = data.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    rows = [slow_fields(line, separator) for line in text.split("\n")]
    header, *rows = [row for row in rows if "".join(row)]
    return [
        [row[header.index(name)] for name in columns] for row in rows if len(row) == len(header)
    ]


def slow_find(name: str, known: Iterable[str]) -> str:
    """The name itself, else the only one that differs in its suffix and folders alone."""

    def stem(text: str) -> str:
        return os.path.splitext(text.replace("\\", "/").rpartition("/")[2])[0]

    (found,) = {name} & set(known) or [k for k in known if stem(k) == stem(name)]
    assert name == found or name.lower().endswith((".png", ".jpg"))
    return found


def slow_pairs(pairs: bytes, annotation: bytes, images: set[str]) -> list:
    """(source, target, their key points) of all pairs, as the two files say."""
    poses = {}
    for name, y, x in slow_rows(annotation, ":", ["name", "keypoints_y", "keypoints_x"]):
        poses.setdefault(name, []).append((y, x))
    found = []
    for source, target in slow_rows(pairs, ",", ["from", "to"]):
        one = [slow_find(name, images) for name in (source, target)]
        for name in (source, target):
            (y, x), *others = poses[slow_find(name, poses)]
            assert all(other == (y, x) for other in others)
            points = []
            for y1, x1 in zip(json.loads(y), json.loads(x), strict=True):
                is_there = y1 != -1 and x1 != -1
                assert not is_there or (0 <= x1 <= 64 and 0 <= y1 <= 128)
                points.append((float(x1), float(y1)) if is_there else None)
            assert len(points) == 18 and any(points)
            one.append(points)
        found.append(one)
    return found
