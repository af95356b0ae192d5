"""Writing files so that they are never seen half done."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from util.errors import UserError


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`, renamed to it when the block succeeds.

    The folder is made when missing; after a failure nothing stays behind.
    Raises UserError when the operating system refuses (full disk, no permission).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
