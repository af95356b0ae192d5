"""Reading .npz files of strangers."""

import math
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from util.files import regular_file
from util.zip_archives import open_archive

LARGEST_ARRAYS = 1 << 28  # bytes, unpacked, of a file; FID's statistics have 34 MB


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file by name; none of objects, for which pickle would be run.

    What the archive's directory and the arrays' headers say of their sizes is looked at first.

    Raises:
        ValueError: it is no such file or damaged; arrays of objects; more than LARGEST_ARRAYS.
        UserError: it is no regular file.
        OSError: it is missing or cannot be read.
    """
    regular_file(path)
    arrays: dict[str, np.ndarray] = {}
    try:
        with open(path, "rb") as file, open_archive(file) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > LARGEST_ARRAYS:
                raise ValueError(f"it has more than {LARGEST_ARRAYS} bytes unpacked")
            for entry in entries:
                with archive.open(entry) as packed:
                    version = npy.read_magic(packed)
                    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
                    shape, _, dtype = readers[version](packed)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize > entry.file_size:
                    raise ValueError(f"{entry.filename} holds objects, or less than it says")
                with archive.open(entry) as packed:
                    values = npy.read_array(packed, allow_pickle=False)
                arrays[entry.filename.removesuffix(".npy")] = values
    except (OSError, ValueError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds for what is damaged
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return arrays
