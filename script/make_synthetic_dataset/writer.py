"""Writes data sets in the layout of Market-1501 or DeepFashion, with true flow of test pairs."""

import json
import math
import multiprocessing
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from script.make_synthetic_dataset.flow import true_flow
from script.make_synthetic_dataset.render import surface
from script.make_synthetic_dataset.scene import (
    IMAGE_SIZE,
    Picture,
    fashion_view,
    make_person,
    render_picture,
)
from util.errors import UserError
from util.files import written_whole
from util.json_files import read_json
from util.pair_names import pair_name

LAYOUTS = tuple(IMAGE_SIZE)
MARKER = "synthetic.json"  # marks a folder that this module may overwrite
_VERSION = 1
_TABLE_PREFIX = {"market": "market", "fashion": "fasion"}  # the published files are spelt so
_FASHION_KINDS = {
    True: ("WOMENDresses", "WOMENTees_Tanks", "WOMENBlouses_Shirts", "WOMENJackets_Coats"),
    False: ("MENShirts_Polos", "MENTees_Tanks", "MENShirts_Polos", "MENJackets_Vests"),
}


@dataclass
class DatasetOptions:
    """Everything that decides the content of a data set (the number of workers does not).

    Attributes:
        layout: "market" (128 x 64) or "fashion" (256 x 176).
        identities: people in all.
        poses_per_identity: pictures of each.
        seed: decides every file.
        test_identities: so many, the last ones, are the test phase; None becomes a fifth.
        pairs_per_identity: at most so many (from, to) pairs of each person, drawn at random; None
            is all ordered pairs.
        flow: write `flow/<from stem>_2_<to stem>.npz` for the test pairs.

    Raises:
        UserError: one of them is out of range.
    """

    layout: str
    identities: int = 100
    poses_per_identity: int = 5
    seed: int = 0
    test_identities: int | None = None
    pairs_per_identity: int | None = None
    flow: bool = True

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise UserError(f"--layout must be one of {', '.join(LAYOUTS)}, got {self.layout!r}")
        if self.test_identities is None:
            self.test_identities = max(1, self.identities // 5)
        for name, least, most, why in (
            ("identities", 2, 9999, " (train and test share no one)"),
            ("poses_per_identity", 2, 99, " (a pair needs two)"),
            ("seed", 0, math.inf, ""),
            ("test_identities", 1, self.identities - 1, f" (--identities is {self.identities})"),
            ("pairs_per_identity", 1, math.inf, ""),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                limits = f"from {least} to {most}" if most < math.inf else f"at least {least}"
                raise UserError(f"--{name} must be {limits}{why}, got {value}")


@dataclass
class DatasetSummary:
    """What was written: counts per phase."""

    out: Path
    train_images: int
    test_images: int
    train_pairs: int
    test_pairs: int
    flow_files: int


def make_dataset(
    options: DatasetOptions, out: Path | str, workers: int = 1, progress: bool = True
) -> DatasetSummary:
    """Write a synthetic data set into the folder `out`.

    The tables are written last: a folder with all four is complete. A folder that this function
    has written, whole or not, is made anew: its marker file says that it can be.

    Args:
        options: what it holds.
        out: the folder.
        workers: processes; the files do not depend on it. With more than one, a script must call
            this under `if __name__ == "__main__"` (processes are spawned).
        progress: show a bar.

    Raises:
        UserError: `out` holds anything else than such a data set, or cannot be written.
    """
    if workers < 1:
        raise UserError(f"--workers must be at least 1, got {workers}")
    out = Path(out)
    try:
        _prepare(out, options)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror})") from error
    tables: dict[str, dict[str, list[str]]] = {
        phase: {"pairs": [], "annotation": []} for phase in ("train", "test")
    }
    images, flows = {"train": 0, "test": 0}, 0
    jobs = [(str(out), options, index) for index in range(options.identities)]
    results = _run(jobs, min(workers, options.identities))
    with tqdm(
        total=options.identities * options.poses_per_identity,
        unit="image",
        desc=options.layout,
        disable=None if progress else True,
    ) as bar:
        for result in results:
            table = tables[result.phase]
            table["annotation"] += result.annotation
            table["pairs"] += result.pairs
            images[result.phase] += len(result.annotation)
            flows += result.flow_files
            bar.update(len(result.annotation))
    headers = {"annotation": "name:keypoints_y:keypoints_x", "pairs": "from,to"}
    for phase, table in tables.items():
        for kind, rows in table.items():
            text = "\n".join([headers[kind], *rows]) + "\n"
            _write(out / f"{_TABLE_PREFIX[options.layout]}-{kind}-{phase}.csv", text.encode())
    return DatasetSummary(
        out,
        images["train"],
        images["test"],
        len(tables["train"]["pairs"]),
        len(tables["test"]["pairs"]),
        flows,
    )


def _prepare(out: Path, options: DatasetOptions) -> None:
    """Make `out` a data set without pictures, with its marker; what an earlier run left goes."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")
    settings = {"program": "make_synthetic_dataset", "version": _VERSION, **asdict(options)}
    marker = out / MARKER
    if out.exists() and any(out.iterdir()):
        try:
            found = read_json(marker, "")
        except UserError:
            found = {}
        if found.get("program") != settings["program"]:
            raise UserError(
                f"--out {out} is not empty and holds no synthetic data set; name a new folder"
            )
        print(f"{out}: the earlier set of seed {found.get('seed')} is made anew", flush=True)
    for prefix in _TABLE_PREFIX.values():
        for kind in ("pairs", "annotation"):
            for phase in ("train", "test"):
                (out / f"{prefix}-{kind}-{phase}.csv").unlink(missing_ok=True)
    for folder in ("train", "test", "flow"):
        shutil.rmtree(out / folder, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    _write(marker, (json.dumps(settings, indent=2) + "\n").encode())
    for folder in ("train", "test", *(["flow"] if options.flow else [])):
        (out / folder).mkdir()


def _write(path: Path, data: bytes) -> None:
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


@dataclass
class _IdentityResult:
    phase: str
    annotation: list[str]
    pairs: list[str]
    flow_files: int


def _run(jobs: list[tuple], workers: int) -> Iterator[_IdentityResult]:
    if workers == 1:
        yield from map(_write_identity, jobs)
        return
    # spawn: the parent may hold threads (torch) that a forked child must not inherit
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_write_identity, jobs, chunksize=1)


def _write_identity(job: tuple[str, DatasetOptions, int]) -> _IdentityResult:
    """All files of one person; returns the rows of the tables."""
    out, options, index = Path(job[0]), job[1], job[2]
    phase = "test" if index >= options.identities - options.test_identities else "train"
    person = make_person(options.layout, options.seed, index)
    pictures: list[Picture] = []
    names: list[str] = []
    annotation = []
    for number in range(options.poses_per_identity):
        picture = render_picture(person, number)
        if options.layout == "market":
            name = _market_name(options.seed, index, number, picture.camera)
        else:
            name = _fashion_name(person.identity.female, options.seed, index, number)
        pictures.append(picture)
        names.append(name)
        Image.fromarray(picture.image).save(
            out / phase / name, "JPEG", quality=picture.jpeg_quality
        )
        columns = [json.dumps(picture.key_points[:, axis].tolist()) for axis in (1, 0)]
        annotation.append(": ".join([name, *columns]))
    order = sorted(range(len(names)), key=lambda number: names[number])
    annotation = [annotation[number] for number in order]
    pairs = [(a, b) for a in order for b in order if a != b]
    if options.pairs_per_identity is not None and options.pairs_per_identity < len(pairs):
        rng = np.random.default_rng([options.seed, 5, index])
        chosen = rng.choice(len(pairs), options.pairs_per_identity, replace=False)
        pairs = [pairs[k] for k in sorted(chosen)]
    flow_files = 0
    if phase == "test" and options.flow:
        fine = [surface(picture.view, 3) for picture in pictures]
        for a, b in pairs:
            flow, visible = true_flow(pictures[a].view, pictures[b].view, fine[a], pictures[b].seen)
            path = out / "flow" / f"{pair_name(names[a], names[b])}.npz"
            with path.open("wb") as file:
                np.savez_compressed(file, flow=flow, visible=visible)
            flow_files += 1
    rows = [f"{names[a]},{names[b]}" for a, b in pairs]
    return _IdentityResult(phase, annotation, rows, flow_files)


def _market_name(seed: int, index: int, number: int, camera: int) -> str:
    """`0001_c1s1_000151_01.jpg`: person, camera, sequence, frame, box."""
    rng = np.random.default_rng([seed, 6, index, number])
    frame = int(rng.integers(1, 9990)) * 100 + number  # unique within a person
    return f"{index + 1:04d}_c{camera}s{int(rng.integers(1, 7))}_{frame:06d}_01.jpg"


def _fashion_name(female: bool, seed: int, index: int, number: int) -> str:
    """`fashionWOMENDressesid0000276802_4full.jpg`: kind, item, variant, view."""
    kinds = _FASHION_KINDS[female]
    kind = kinds[int(np.random.default_rng([seed, 6, index]).integers(len(kinds)))]
    shot = number + 1 if number < 4 else number + 3  # the real sets jump from 4full to 7additional
    return f"fashion{kind}id{index + 1:08d}01_{shot}{fashion_view(number)}.jpg"
