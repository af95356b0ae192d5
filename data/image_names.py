"""The images of a folder, and finding them by names that are spelt differently."""

import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from util.errors import UserError
from util.images import IMAGE_SUFFIXES

# Files that lie beside pictures and are none; what else is not read may be pictures, and is told.
_NO_PICTURES = frozenset((
    ".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".log", ".lst",
    ".npz", ".npy", ".pkl", ".pth", ".zip", ".tfrecord", ".db", ".ini", ".py", ".sh",
))  # fmt: skip
# fashionWOMENTees_Tanksid0000000401_1front: numbers of so many digits, so that without underscores
# no two of them become one.
_DEEPFASHION = re.compile(r"fash?ion((?:WO)?MEN.*?id)_?(\d{8})_?(\d{2})_?(\d)_?([A-Za-z]+)")
_HALF_READ = re.compile("[\udc80-\udcff]")  # bytes that are no text in the system's encoding


def list_images(folder: Path) -> list[str]:
    """List the image files of a folder, sorted. Raises UserError when it is missing."""
    return sorted(
        name for name in _files(folder) if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
    )


def files_not_read(folder: Path) -> str:
    """Count the files of a folder that may be pictures of types that are not read.

    Returns:
        `FOLDER: 3 files are of types that are not read: .heic (2), none (1)`, or an empty text.
    """
    suffixes = Counter(os.path.splitext(name)[1].lower() for name in _files(folder))
    others = {k: n for k, n in suffixes.items() if k not in IMAGE_SUFFIXES | _NO_PICTURES}
    if not others:
        return ""
    kinds = ", ".join(f"{kind or 'no suffix'} ({n})" for kind, n in sorted(others.items()))
    count = sum(others.values())
    return (
        f"{folder}: files of types that are not read: {count}, namely {kinds}; save pictures as "
        ".png or .jpg"
    )


def _files(folder: Path) -> Iterable[str]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and not e.is_dir()]
    except OSError as error:
        raise UserError(f"{folder}: cannot list the images ({error.strerror})") from None
    encoding = sys.getfilesystemencoding()
    half_read = next(filter(_HALF_READ.search, names), None)
    if half_read and encoding != "utf-8":  # no table could name them
        raise UserError(
            f"{folder}: Python takes the names of files for {encoding} here, which one is not: "
            f"{os.fsencode(half_read).decode(errors='replace')}; set PYTHONUTF8=1 in the "
            "environment"
        )
    return names


def normalised_name(name: str) -> str:
    """Reduce an image name to what all its circulating spellings share.

    Folders in front and the file type go; Unicode is composed (macOS decomposes it). In names of
    DeepFashion, and only there, the underscores go, too: `fasionWOMENTeesTanks…_1front.jpg` and
    `fashionWOMENTees_Tanks…_1front.png` become one.
    """
    stem = os.path.splitext(_split(name)[1])[0]
    match = _DEEPFASHION.fullmatch(stem)
    return "fashion" + "".join(match.groups()).replace("_", "") if match else stem


def _split(name: str) -> tuple[str, str]:
    """(folders, name) of a path with slashes or back slashes; `./` in front is no folder."""
    composed = unicodedata.normalize("NFC", name)
    folders, _, last = composed.replace("\\", "/").rpartition("/")
    return "/".join(part for part in folders.split("/") if part not in ("", ".")), last


def _place(name: str) -> tuple[str, str]:
    """What names of one picture share, apart from their spelling: folders and file type."""
    folders, last = _split(name)
    stem, suffix = os.path.splitext(last)
    return folders, "" if _DEEPFASHION.fullmatch(stem) else suffix


class NameMatcher:
    """Finds names among known ones: as they are, else by their only differently spelt match.

    Args:
        known: the names to find.
        wanted: all names that will be looked for: two that differ in more than their spelling must
            not become one.

    Attributes:
        respelt: what was found for names that are spelt differently.
    """

    def __init__(self, known: Iterable[str], wanted: Iterable[str] = ()) -> None:
        self._known = set(known)
        self._wanted = wanted
        self._by_normalised: dict[str, list[str]] | None = None
        self._by_lower: dict[str, str] | None = None
        self._rivals: dict[str, set[tuple[str, str]]] = {}
        self.respelt: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        """Give the known name that `name` stands for, or None."""
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
            for other in self._wanted:
                self._rivals.setdefault(normalised_name(other), set()).add(_place(other))
        normalised = normalised_name(name)
        matches = self._by_normalised.get(normalised, [])
        if len(matches) > 1:  # the folder and the file type may tell
            matches = [known for known in matches if _split(known) == _split(name)]
        # a/p1.jpg and b/p1.jpg are two pictures, and p1.jpg is only one.
        if len(matches) != 1 or len(self._rivals.get(normalised, ())) > 1:
            return None
        self.respelt[name] = matches[0]
        return matches[0]

    def other_case(self, name: str) -> str:
        """Say which name differs from one that was not found in letter case alone; else nothing."""
        if self._by_lower is None:
            self._by_lower = {normalised_name(known).lower(): known for known in self._known}
        near = self._by_lower.get(normalised_name(name).lower())
        return f" ('{near}' is there: write upper and lower case alike)" if near else ""

    def notice(self, whose: str, where: Path) -> str:
        """Say that names of `whose` were matched with others in `where`, if so."""
        if not self.respelt:
            return ""
        name, match = next(iter(self.respelt.items()))
        return (
            f"{len(self.respelt)} image names of {whose} are spelt differently "
            f"in {where} and were matched, e.g. '{name}' with '{match}'"
        )
