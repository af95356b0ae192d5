"""Make the folders of resized images that the metric commands name.

    python -m script.resize_dataset --dataset_mode=fashion   (test_256, train_256)
    python -m script.resize_dataset --dataset_mode=market    (test_12864, train_12864)
    python -m script.resize_dataset --dataset_mode=tfrecord  (the images in the records)

Every image of the phase is resized, as the data set resizes it.
"""

import contextlib
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # so that errors and Ctrl-C within the imports below are told in a line
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # where it is started as a file
    from util.command_line import run_program

    run_program("script.resize_dataset")

from PIL import Image
from tqdm import tqdm

from data import dataset_names, find_dataset
from data.image_names import files_not_read, list_images
from data.preparation import run_in_parallel
from data.tfrecord_dataset import TFRecordDataset, stored_size
from util.argument_types import size, worker_count
from util.command_line import Parser
from util.device import cpu_cores
from util.errors import UserError, printable
from util.files import leftovers_told
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
        root, phase, load_size=size, old_size=stored_size(Path(root), phase), skip_bad_samples=True,
        trust_keypoints=True, missing=-1,  # which are not used
    )  # fmt: skip
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


def main(arguments: list[str] | None = None) -> int:
    """Resize the phases' folders; give 1 when images were unreadable, else 0.

    Raises:
        UserError: bad options, a folder without images, or one that cannot be written.
    """
    parser = Parser(prog="python -m script.resize_dataset", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset_mode", required=True, help=", ".join(dataset_names()))
    parser.add_argument("--dataroot", help="folder of the data set; None is ./dataset/MODE")
    parser.add_argument("--phases", default="test,train", help="image folders to resize")
    parser.add_argument("--size", type=size, help="height,width; None is the data set's load_size")
    parser.add_argument("--format", choices=("png", "jpg"), default="png", help="png loses nothing")
    parser.add_argument("--workers", type=worker_count, default=cpu_cores(), help="threads")
    options = parser.parse_all(arguments)

    dataset = find_dataset(options.dataset_mode)
    root = Path(options.dataroot or f"./dataset/{options.dataset_mode}")
    how = {"image_format": options.format, "workers": options.workers}
    unreadable = 0
    for phase in options.phases.split(","):
        new_size = options.size or dataset.default_load_size
        if dataset is TFRecordDataset:
            new_size = options.size or stored_size(root, phase)
            target = root / resized_folder_name(phase, new_size)
            report = resize_records(root, phase, target, new_size, **how)
        else:
            target = root / resized_folder_name(phase, new_size)
            report = resize_folder(root / phase, target, new_size, **how)
            if other_files := files_not_read(root / phase):
                print(printable(f"warning: {other_files}"), file=sys.stderr)
        print(
            f"{report.folder}: {report.found} images found, {report.written} written, "
            f"{report.skipped} there already, {len(report.unreadable)} unreadable"
        )
        for message in report.unreadable:
            print(f"error: {message}", file=sys.stderr)
        if report.foreign:
            print(
                f"warning: {len(report.foreign)} other images are in {report.folder}, such as "
                f"{printable(report.foreign[0])}: metrics would count them, too; remove them",
                file=sys.stderr,
            )
        if told := leftovers_told(report.folder):
            print(printable(f"warning: {told}"), file=sys.stderr)
        unreadable += len(report.unreadable)
    return 1 if unreadable else 0
