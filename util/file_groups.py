"""Files that belong together, as a checkpoint's do: readers get all of the old or all of the new.

A write goes through three steps, so that a crash, a kill or a full disk at any moment loses
nothing:

1. every file is written in full under a hidden name beside the one it will have;
2. a list of them, the commit, is renamed into place: from this moment on the new files count;
3. the files take their names, and the commit is removed.

After a crash before step 2 the old files are untouched; after it, `finish_writes` does the rest.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from util.errors import UserError


def write_group(
    folder: Path,
    group: str,
    files: Mapping[str, Callable[[BinaryIO], object]],
    remove: Iterable[str] = (),
) -> None:
    """Write files so that either all of them change or none.

    Args:
        folder: of the files, made when missing.
        group: name that tells this group from others in the folder.
        files: for every file name, what writes the content to an open binary file.
        remove: names of files that vanish at the same time.

    Raises:
        UserError: the operating system refuses (full disk, no permission); the old files stay.
    """
    finish_writes(folder)
    token = secrets.token_hex(4)  # a reader that finishes an older write finds none of these files
    commit = folder / f".{group}.commit"
    current = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for name, write in files.items():
                current = folder / name
                _write_to_disk(_hidden(folder, name, token), write)
            content = {"token": token, "files": list(files), "remove": list(remove)}
            listed = _hidden(folder, commit.name, token)
            _write_to_disk(listed, lambda file: file.write(json.dumps(content).encode()))
            os.replace(listed, commit)
        except BaseException:
            if not commit.exists():
                for name in (*files, commit.name):
                    _hidden(folder, name, token).unlink(missing_ok=True)
            raise
        _sync_folder(folder)
    except OSError as error:
        raise UserError(f"{current}: cannot be written ({error.strerror or error})") from None
    finish_writes(folder)


def finish_writes(folder: Path) -> None:
    """Do what is left of writes that were cut off after their commit; harmless at any time.

    Raises:
        UserError: the operating system refuses.
    """
    for commit in folder.glob(".*.commit"):
        try:
            content = json.loads(commit.read_bytes())
            for name in content["files"]:
                # Absent: renamed already, before the cut or by another process just now.
                with contextlib.suppress(FileNotFoundError):
                    os.replace(_hidden(folder, name, content["token"]), folder / name)
            for name in content["remove"]:
                (folder / name).unlink(missing_ok=True)
            _sync_folder(folder)
            commit.unlink(missing_ok=True)
        except FileNotFoundError:
            continue  # another process has finished it
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"{commit}: the save that it lists cannot be finished ({reason})"
            ) from None


def remove_leftovers(folder: Path) -> None:
    """Delete what writers that were killed left half written; only while no other can write."""
    finish_writes(folder)
    for path in [*folder.glob(".*.new"), *folder.glob(".*.part")]:
        path.unlink(missing_ok=True)


def _hidden(folder: Path, name: str, token: str) -> Path:
    return folder / f".{name}.{token}.new"


def _write_to_disk(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with open(path, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make renames last through a power cut; Windows has no such call."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
