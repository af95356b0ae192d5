"""Opening zip archives of strangers."""

import zipfile
from typing import BinaryIO

MAX_DIRECTORY_BYTES = 1 << 21


def open_archive(file: BinaryIO) -> zipfile.ZipFile:
    """Open an archive whose directory is of a bearable size.

    Raises:
        Exception: zipfile raises many kinds for a garbled archive; ValueError for a directory of
            more than MAX_DIRECTORY_BYTES, some 20,000 records.
    """
    # ZipFile would make an object of some 600 bytes of each of the directory's 46.
    end = zipfile._EndRecData(file)
    if end and end[zipfile._ECD_SIZE] > MAX_DIRECTORY_BYTES:
        raise ValueError(f"its directory of records has more than {MAX_DIRECTORY_BYTES:,} bytes")
    return zipfile.ZipFile(file)
