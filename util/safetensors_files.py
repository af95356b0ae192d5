"""Weights in the format of the safetensors package, which only reading them needs."""

import struct
from pathlib import Path

from torch import Tensor

from util.errors import SpoiltFile, UserError

# Of the JSON text that a file begins with: some 20,000 tensors.
_MAX_HEADER_BYTES = 1 << 22


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as that format does: the length of a JSON text, and its brace."""
    with open(path, "rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] < 2**28


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors onto the CPU.

    Raises:
        UserError: the package is not installed, or the file is cut off, damaged or too large.
    """
    with open(path, "rb") as file:
        (header,) = struct.unpack("<Q", file.read(8))
    if header > _MAX_HEADER_BYTES:
        raise UserError(
            f"cannot read the checkpoint {path}: its header has {header:,} bytes, "
            f"{_MAX_HEADER_BYTES:,} is the most that is read"
        )
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(
            f"{path} is in the format of safetensors: install the package of that name (pip "
            "install safetensors)"
        ) from None
    try:
        return load_file(path)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise SpoiltFile(
            f"cannot read the checkpoint {path}: it is cut off or damaged ({error}); copy it again"
        ) from None
