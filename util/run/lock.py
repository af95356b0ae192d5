"""One writer at a time in an experiment's folder."""

import contextlib
import os
import socket
from pathlib import Path
from typing import IO

from util.errors import UserError
from util.files import real_path

_LOCKED_BYTE = 2**20
_LONGEST_HOLDER = 400  # characters that name who has it


class RunLock:
    """Holds the lock of an experiment's folder until `release`, or until the process ends.

    The lock is the operating system's, on a file beside the folder (which may be renamed): it
    cannot outlive the process that holds it, and data workers do not inherit it. Of a folder that
    is a link it lies beside the folder that is meant, whatever links lead there.

    Args:
        folder: the experiment's folder; it need not exist.

    Raises:
        UserError: another process holds the lock, or the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        folder = real_path(folder)
        self._path = folder.with_name(f".{folder.name}.lock")
        self._file: IO[str] | None = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            while self._file is None:
                self._file = self._take(folder)
        except OSError as error:
            if self._path.is_symlink() or (self._path.exists() and not self._path.is_file()):
                raise UserError(f"{self._path}: is no file, as a lock is; remove it") from None
            raise UserError(
                f"{self._path}: cannot be written ({error.strerror}); "
                "the folder of --checkpoints_dir must be writable"
            ) from None

    def _take(self, folder: Path) -> IO[str] | None:
        """The locked file; None when its holder was just removing it."""
        # Stays open while it is held.
        file = open(  # noqa: SIM115
            self._path, "a+", encoding="utf-8", errors="replace", opener=_not_through_links
        )
        try:
            _lock(file)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(_LONGEST_HOLDER).strip() or "another process"
            file.close()
            raise UserError(
                f"{folder}: another run is writing there ({holder}); wait for its end, stop it, or "
                "choose another --name"
            ) from None
        with contextlib.suppress(OSError):
            if os.fstat(file.fileno()).st_ino == self._path.stat().st_ino:
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
                return file
        file.close()
        return None

    def release(self) -> None:
        """Give the lock back and remove its file."""
        if self._file:
            with contextlib.suppress(OSError):  # Windows does not remove open files
                self._path.unlink()
            self._file.close()
            self._file = None

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _not_through_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _lock(file: IO[str]) -> None:
    """Lock an open file. Raises BlockingIOError where another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        # It locks from where the file stands, for whoever else reads, too: always the same byte,
        # far behind the text that names the holder.
        os.lseek(file.fileno(), _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
        finally:
            os.lseek(file.fileno(), 0, os.SEEK_END)
        return
    # POSIX record locks: unlike those of flock, a forked data worker does not hold them, so that
    # a run can go on at once when the process that trained was killed.
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:  # what some systems answer for EAGAIN
        raise BlockingIOError from error
