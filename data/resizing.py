"""Making the folders of resized images that the metric commands name."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from data.image_names import list_images
from data.preparation import run_in_parallel
from data.tfrecord_dataset import TFRecordDataset, stored_size
from util.errors import UserError
from util.images import read_image, read_image_size, resize_image, save_image


@dataclass(frozen=True)
class ResizeReport:
    """Outcome for one folder.

    Attributes:
        folder: where the resized images are.
        found: images of the source folder.
        written: images resized now.
        skipped: images that were there already, of that size and not older than their source.
        unreadable: one message per image that cannot be read.
        foreign: images in the folder that come from none of the source's.
    """

    folder: Path
    found: int
    written: int
    skipped: int
    unreadable: list[str]
    foreign: list[str]


def resized_folder_name(phase: str, size: tuple[int, int]) -> str:
    """Name the folder of a phase: test_256 for 256×256, test_12864 for (height, width) 128×64."""
    height, width = size
    return f"{phase}_{height}" if height == width else f"{phase}_{height}{width}"


def resize_folder(
    source: str | Path,
    target: str | Path,
    size: tuple[int, int],
    *,
    image_format: str = "png",
    workers: int = 8,
) -> ResizeReport:
    """Resize every image of `source` to exactly `size` (height, width) into `target`.

    The same resize as the data set's, so that the ground truth is P2 as the model saw it. Images of
    that size that are there already and not older than their source are kept. PNG loses nothing.

    Raises UserError when `source` is missing or empty, when two images would get one name, or
    when an image cannot be written.
    """
    source, target = Path(source), Path(target)
    names = list_images(source)
    if not names:
        raise UserError(f"{source}: has no images")
    images = [_Image(source / name, source / name, partial(_read_file, source / name, size))
              for name in names]  # fmt: skip
    return _resize(images, [], target, size, image_format, workers)


def resize_records(
    root: str | Path,
    phase: str,
    target: str | Path,
    size: tuple[int, int],
    *,
    image_format: str = "png",
    workers: int = 8,
) -> ResizeReport:
    """As `resize_folder`, for the images in the records of a phase (--dataset_mode=tfrecord).

    An image that is in several records is written once, under its name there.

    Args:
        root: folder of the records.
        phase: theirs.
        target: folder of the images.
        size: (height, width).
        image_format: "png" or "jpg".
        workers: threads.

    Raises:
        UserError: as `resize_folder`; two different images have one name.
    """
    dataset = TFRecordDataset(
        root, phase, load_size=size, old_size=stored_size(Path(root), phase), skip_bad_samples=True
    )
    digests: dict[str, bytes] = {}
    images: list[_Image] = []
    unreadable: list[str] = []
    for index in tqdm(range(len(dataset)), desc="records", unit="pair", disable=None):
        try:
            people = dataset.stored_images(index)
        except UserError as error:
            unreadable.append(str(error))
            continue
        for number, (name, encoded) in enumerate(people):
            digest = hashlib.sha256(encoded).digest()
            if name not in digests:
                path = dataset.record_path(index)
                read = partial(_read_record, dataset, index, number)
                images.append(_Image(path.with_name(name), path, read))
            if digests.setdefault(name, digest) != digest:
                raise UserError(
                    f"{dataset.record_path(index)}: holds different images of the name {name}: "
                    "which one is the ground truth? Convert the data set again"
                )
    return _resize(images, unreadable, Path(target), size, image_format, workers)


@dataclass(frozen=True)
class _Image:
    """An image to resize: what it is called, the file it lies in, how to get it resized."""

    name: Path
    file: Path
    read: Callable[[], Image.Image]


def _resize(
    images: Sequence[_Image],
    unreadable: Sequence[str],
    target: Path,
    size: tuple[int, int],
    image_format: str,
    workers: int,
) -> ResizeReport:
    tasks: dict[Path, _Image] = {}
    for image in images:
        output = target / f"{image.name.stem}.{image_format}"
        if output in tasks:
            raise UserError(
                f"{image.name} and {tasks[output].name.name} would both become {output.name}"
            )
        tasks[output] = image
    outcomes = run_in_parallel(partial(_make, size), tasks.items(), workers, target.name)
    there = list_images(target) if target.is_dir() else []
    return ResizeReport(
        folder=target,
        found=len(images),
        written=outcomes.count("written"),
        skipped=outcomes.count("skipped"),
        unreadable=[*unreadable, *(o for o in outcomes if o not in ("written", "skipped"))],
        foreign=sorted(set(there) - {path.name for path in tasks}),
    )


def _make(size: tuple[int, int], task: tuple[Path, _Image]) -> str:
    """Write one resized image: "written", "skipped", or why it cannot be read."""
    output, image = task
    if output.exists() and output.stat().st_mtime >= image.file.stat().st_mtime:
        with contextlib.suppress(UserError):  # one that cannot be read is made anew
            if read_image_size(output)[0] == size:
                return "skipped"
    try:
        resized = image.read()
    except UserError as error:
        return str(error)
    save_image(output, resized)
    return "written"


def _read_file(path: Path, size: tuple[int, int]) -> Image.Image:
    return resize_image(read_image(path), size)


def _read_record(dataset: TFRecordDataset, index: int, number: int) -> Image.Image:
    return dataset.read_people(index)[number][1]
