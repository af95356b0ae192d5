"""Which files are read, and writing files so that they are never seen half done."""

import contextlib
import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from util.errors import UserError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISREG, ""),
)


LARGEST_TEXT = 1 << 28  # bytes of a text file that is read as a whole: tables of a million results


def regular_file(path: str | os.PathLike, most: int | None = None) -> os.stat_result:
    """What the system says of a file that is to be read, such as its size in bytes.

    Opening a pipe waits for someone to write into it, and a device such as /dev/zero never ends:
    every reader asks here first.

    Args:
        path: of the file.
        most: bytes that are read of such a file.

    Raises:
        UserError: it is a folder, pipe, socket or device, or larger; or its name holds a NUL.
        OSError: it is missing or cannot be looked at.
    """
    try:
        found = os.stat(path)
    except ValueError:
        raise UserError(f"{path}: is no name of a file; give one without NUL characters") from None
    kind = next((kind for is_kind, kind in _KINDS if is_kind(found.st_mode)), "a device")
    if kind:
        raise UserError(f"{path}: is {kind}, not a file; give a regular file")
    if most is not None and found.st_size > most:
        raise UserError(f"{path}: has {found.st_size:,} bytes, {most:,} is the most that is read")
    return found


def real_path(path: Path) -> Path:
    """A path without links, absolute; one that leads to itself stays, where `resolve` raises."""
    return Path(os.path.realpath(path))


def is_file_name(name: object) -> bool:
    """Whether something that a file holds may be joined to a folder: the plain name of a file.

    It has no slashes of either kind and no NUL, is not empty, `.` or `..`, and has no more than
    255 bytes.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
        return False
    try:
        return len(os.fsencode(name)) <= 255
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def name_limit(folder: Path) -> int:
    """How many bytes a file name may have in a folder; where none says, what is usual."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        return os.pathconf(there, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows
        return 255


def _temporary_path(path: Path) -> Path:
    """A name beside `path` of this thread's own that says whose it is, as far as it may be long."""
    ending = f".{os.getpid()}-{threading.get_ident()}.part"
    name = f".{path.name}{ending}"
    # Half the usual limit leaves room on every file system.
    if len(os.fsencode(name)) > 127:
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
        name = f".{digest}{path.suffix[:16]}{ending}"
    return path.with_name(name)


@contextlib.contextmanager
def written_whole(path: Path, lasting: bool = False) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`, renamed to it when the block succeeds.

    The folder is made when missing; after a failure nothing stays behind.

    Args:
        path: where the file is to be.
        lasting: whether it is to outlive a power cut, which takes longer: the folder is flushed to
            the disk after the renaming. The block flushes what it writes.

    Raises:
        UserError: the operating system refuses (full disk, no permission).
    """
    temporary = _temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if lasting and os.name == "posix":  # Windows has no such call
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None


def remove_leftovers(folder: Path, ending: str) -> None:
    """Delete what `written_whole` left in a folder when its process was killed.

    Only for who holds the folder's lock: another writer's file must not vanish.

    Args:
        folder: only the files in it, not those in folders below.
        ending: of the names that the files were to have, such as `.pth`.

    Raises:
        UserError: the operating system refuses.
    """
    try:
        for path in _leftovers(folder, ending):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be tidied up ({error.strerror or error})") from None


def leftovers_told(folder: Path) -> str:
    """What to say of files that `written_whole` may have left in a folder without a lock, if any.

    They may be another program's that is writing there now, so they stay.
    """
    found = [] if not folder.is_dir() else sorted(_leftovers(folder, ""))
    if not found:
        return ""
    return (
        f"{folder}: holds {len(found)} hidden files that a killed program left half written, such "
        f"as {found[0].name}: remove them, unless another program writes there now"
    )


def _leftovers(folder: Path, ending: str) -> list[Path]:
    temporary = re.compile(rf"\.[^/]+{re.escape(ending)}\.\d+-\d+\.part")
    return [path for path in folder.iterdir() if temporary.fullmatch(path.name) and path.is_file()]
