"""Making the folders of resized images that the metric commands name."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data.image_names import list_images
from data.preparation import run_in_parallel
from util.errors import UserError
from util.images import read_image, resize_image, save_image


@dataclass(frozen=True)
class ResizeReport:
    """Outcome for one folder.

    Attributes:
        folder: where the resized images are.
        found: images of the source folder.
        written: images resized now.
        skipped: images that were there already, not older than their source.
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

    The same resize as the data set's, so that the ground truth is P2 as the model saw it. Images
    that are there already and not older than their source are kept. PNG loses nothing.

    Raises UserError when `source` is missing or empty, when two images would get one name, or
    when an image cannot be written.
    """
    source, target = Path(source), Path(target)
    names = list_images(source)
    if not names:
        raise UserError(f"{source}: has no images")
    tasks: dict[Path, Path] = {}
    for name in names:
        output = target / f"{Path(name).stem}.{image_format}"
        if output in tasks:
            raise UserError(
                f"{source / name} and {tasks[output].name} would both become {output.name}"
            )
        tasks[output] = source / name

    outcomes = run_in_parallel(
        partial(_resize_file, size=size), tasks.items(), workers, target.name
    )
    there = list_images(target) if target.is_dir() else []
    return ResizeReport(
        folder=target,
        found=len(names),
        written=outcomes.count("written"),
        skipped=outcomes.count("skipped"),
        unreadable=[text for text in outcomes if text not in ("written", "skipped")],
        foreign=sorted(set(there) - {path.name for path in tasks}),
    )


def _resize_file(task: tuple[Path, Path], size: tuple[int, int]) -> str:
    """Resize one image: "written", "skipped", or why it cannot be read."""
    output, source = task
    if output.exists() and output.stat().st_mtime >= source.stat().st_mtime:
        return "skipped"
    try:
        image = read_image(source)
    except UserError as error:
        return str(error)
    save_image(output, resize_image(image, size))
    return "written"
