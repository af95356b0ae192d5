"""Split DeepFashion's img_highres into the train/ and test/ folders of the data set.

    python script/generate_fashion_datasets.py

reads train.lst and test.lst in ./dataset/fashion and copies the images that they list from
./dataset/fashion/img_highres. See dataset/README.md.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

if __name__ == "__main__":  # so that errors and Ctrl-C within the imports below are told in a line
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # where it is started as a file
    from util.command_line import run_program

    run_program("script.generate_fashion_datasets")

from data.image_names import normalised_name
from data.preparation import run_in_parallel
from data.tables import encoding_problem
from util.argument_types import worker_count
from util.command_line import Parser
from util.device import cpu_cores
from util.errors import UserError, printable
from util.files import LARGEST_TEXT, is_file_name, regular_file, written_whole
from util.images import IMAGE_SUFFIXES

HIGHRES_FOLDER = "img_highres"


@dataclass(frozen=True)
class SplitReport:
    """Outcome of one phase.

    Attributes:
        phase: "train" or "test".
        listed: images the list names.
        made: images copied or linked now; the rest of the found ones were there already.
        missing: listed names without an image, in the list's order.
    """

    phase: str
    listed: int
    made: int
    missing: list[str]

    @property
    def found(self) -> int:
        """Listed images that are in the phase's folder now."""
        return self.listed - len(self.missing)


def derived_name(path: PurePosixPath) -> str:
    """Give the data set's name of an image from its path below img_highres.

    `MEN/Denim/id_00000080/01_1_front.jpg` becomes `fashionMENDenimid0000008001_1front.jpg`:
    separators go, so do the underscores of the id and all but the first one of the file;
    those of the category (`Tees_Tanks`) stay.
    """
    *folders, file = path.parts
    if folders:
        folders[-1] = folders[-1].replace("_", "")
    first, underscore, rest = file.partition("_")
    return "fashion" + "".join(folders) + first + underscore + rest.replace("_", "")


def listed_name(line: str) -> str:
    """Give the data set's name for a line of a list: that name itself, or a path of the download.

    Paths may start above img_highres (`In-shop/img_highres/MEN/…`) or at `img/`; in front of the
    data set's name folders do not count (`train/fashionMEN….jpg`).
    """
    line = line.strip().replace("\\", "/")
    last = line.rpartition("/")[2]
    if last == line or last.startswith(("fashion", "fasion")):
        return last
    parts = PurePosixPath(line).parts
    for folder in (HIGHRES_FOLDER, "img"):
        if folder in parts:
            parts = parts[parts.index(folder) + 1 :]
    return derived_name(PurePosixPath(*parts))


def split_fashion(
    dataroot: str | Path,
    highres: str | Path | None = None,
    *,
    phases: tuple[str, ...] = ("train", "test"),
    link: bool = False,
    workers: int = 8,
) -> list[SplitReport]:
    """Put the images that `<dataroot>/<phase>.lst` lists into `<dataroot>/<phase>/`.

    Images are taken as they are, under the names the list gives them. Those already there are
    kept. A name that differs from the download's only in its `fasion` prefix or its underscores
    is found too. Missing names are written to `<dataroot>/missing-<phase>.txt`.

    Args:
        dataroot: folder of the data set.
        highres: the download's image folder; None = `<dataroot>/img_highres`.
        phases: the lists to work through.
        link: make hard links instead of copies.
        workers: threads.

    Raises:
        UserError: a list or the download is missing or empty, or a list names no image that is
            there; then nothing has been written.
    """
    root = Path(dataroot)
    highres = Path(highres) if highres is not None else root / HIGHRES_FOLDER
    lists = {phase: _read_list(root / f"{phase}.lst") for phase in phases}
    sources = _images_by_name(highres)
    matches = {phase: _match(names, sources) for phase, names in lists.items()}
    for phase, matched in matches.items():
        if not any(matched.values()):
            raise UserError(
                f"{highres}: holds none of the images listed in {root / f'{phase}.lst'}; e.g. "
                f"'{next(iter(sources))}' is there, '{next(iter(matched))}' is listed: use the "
                "published lists, and the download's img_highres"
            )
    return [_split_phase(root, phase, found, link, workers) for phase, found in matches.items()]


def _read_list(path: Path) -> list[str]:
    try:
        regular_file(path, LARGEST_TEXT)
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); "
            "put the published train.lst and test.lst into the folder given by --dataroot"
        ) from None
    except UnicodeDecodeError:
        told = encoding_problem(path, ".jpg")
        raise UserError(
            told or f"{path}: is not a text file with one image name per line"
        ) from None
    # UTF-16 without its mark can be UTF-8, too.
    if "\0" in text and (told := encoding_problem(path, ".jpg")):
        raise UserError(told)
    lines = text.splitlines()
    names = list(dict.fromkeys(listed_name(line) for line in lines if line.strip()))
    if not names:
        raise UserError(f"{path}: is empty; it must have one image name per line")
    return names


def _images_by_name(highres: Path) -> dict[str, Path]:
    """Map the derived name of every image below img_highres to its path; empty files are none."""
    if not highres.is_dir():
        raise UserError(
            f"{highres}: there is no such folder; unpack img_highres.zip of DeepFashion's in-shop "
            "download (its password comes with the download's agreement) there, "
            "or name its place with --img_highres"
        )
    sources: dict[str, Path] = {}
    for folder, _, files in os.walk(highres):
        for file in files:
            if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES:
                path = Path(folder, file)
                if not _is_filled(path):
                    continue
                name = derived_name(PurePosixPath(path.relative_to(highres).as_posix()))
                if sources.setdefault(name, path) != path:
                    raise UserError(
                        f"{sources[name]} and {path} would both become {name}: remove one of them"
                    )
    if not sources:
        raise UserError(f"{highres}: has no images; is the download unpacked there?")
    return sources


def _is_filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _match(names: list[str], sources: dict[str, Path]) -> dict[str, Path | None]:
    """Find the image of each name: that of the very name, else the only one spelt differently."""
    respelt: dict[str, list[Path]] = {}
    for name, path in sources.items():
        respelt.setdefault(normalised_name(name), []).append(path)

    found = {}
    for name in names:
        candidates = respelt.get(normalised_name(name), [])
        found[name] = sources.get(name, candidates[0] if len(candidates) == 1 else None)
        is_image = os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
        if not is_file_name(name) or not is_image:  # of an endless suffix, below the root; no file
            found[name] = None  # that is read
    return found


def _split_phase(
    root: Path, phase: str, sources: dict[str, Path | None], link: bool, workers: int
) -> SplitReport:
    missing = [name for name, source in sources.items() if source is None]
    places = {root / phase / name: source for name, source in sources.items() if source is not None}
    tasks = [(source, place) for place, source in places.items() if not _is_filled(place)]
    run_in_parallel(lambda task: _place(*task, link), tasks, workers, phase)
    missing_file = root / f"missing-{phase}.txt"
    if missing:
        missing_file.write_text("\n".join(missing) + "\n", encoding="utf-8")
    else:
        missing_file.unlink(missing_ok=True)
    return SplitReport(phase, len(sources), len(tasks), missing)


def _place(source: Path, target: Path, link: bool) -> None:
    with written_whole(target) as temporary:
        if link:
            os.link(source, temporary)
        else:
            shutil.copyfile(source, temporary)


def main(arguments: list[str] | None = None) -> int:
    """Split the download and say what was found and missing; give 1 when images are, else 0.

    Raises:
        UserError: bad options, no list or no download, or none of the listed images in it.
    """
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dataroot", default="./dataset/fashion", help="folder with train.lst and test.lst"
    )
    parser.add_argument(
        "--img_highres", help="the download's image folder; None is img_highres in --dataroot"
    )
    parser.add_argument(
        "--link", action="store_true", help="hard links instead of copies (same disk only)"
    )
    parser.add_argument("--workers", type=worker_count, default=cpu_cores(), help="threads")
    options = parser.parse_all(arguments)
    reports = split_fashion(
        options.dataroot, options.img_highres, link=options.link, workers=options.workers
    )
    for report in reports:
        print(
            f"{report.phase}: {report.listed} images listed, {report.found} found "
            f"({report.made} new), {len(report.missing)} missing"
        )
        if report.missing:
            print(
                f"  missing: {printable(', '.join(report.missing[:3]))}"
                f"{', …' if len(report.missing) > 3 else ''}; "
                f"all in {Path(options.dataroot) / f'missing-{report.phase}.txt'}"
            )
    missing = sum(len(report.missing) for report in reports)
    if missing:
        print(
            f"the data set is not whole, {missing} images are missing: is all of img_highres.zip "
            "unpacked, and are the lists the published ones?",
            file=sys.stderr,
        )
    return 1 if missing else 0
