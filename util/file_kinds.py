"""What a file is that was taken for weights, from its first bytes, and what to do about it."""

import json
import shlex
import zipfile
from pathlib import Path

from util.zip_archives import open_archive

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
}
_WEB_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")
_WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors", ".index")
_AGAIN = "download the file itself"


def foreign_kind(path: Path) -> str | None:
    """Say what a file is that cannot be a checkpoint, and what to do.

    Args:
        path: a file that exists.

    Returns:
        Text that follows "PATH is "; None where nothing is known that speaks against it.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    if not start:
        return "empty: copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return (
            "a pointer of Git LFS, not the file that it stands for: run 'git lfs pull' where it "
            f"was cloned, or {_AGAIN}"
        )
    # A page may begin with a mark of its encoding.
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_WEB_PAGES):
        return (
            "a web page, as a download leaves it that asked for a confirmation or failed: open the "
            f"address in a browser and {_AGAIN}"
        )
    for magic, program in _PACKED.items():
        if start.startswith(magic):
            return f"packed by {program}: unpack it and put what is inside in its place"
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it (tar -xf) and put the checkpoint inside in its place"
    if start.startswith(b"PK\x03\x04"):
        return _foreign_zip(path)
    if start.startswith(b"\x89HDF"):
        return "in HDF5, the format of Keras: PyTorch's weights are needed"
    text = start.decode("utf-8", "ignore")
    if all(letter.isprintable() or letter.isspace() for letter in text) and b"\0" not in start:
        shown = " ".join(text.split())[:60]
        return f"a text, which begins '{shown}', and holds no weights: {_AGAIN}"
    return None


def _foreign_zip(path: Path) -> str | None:
    """The same for a zip archive, which torch.save writes, too."""
    try:
        with open(path, "rb") as file, open_archive(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return None  # damaged: told where it is read
    last_parts = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last_parts:
        load = f"torch.jit.load({json.dumps(str(path))})"
        code = f'import torch; torch.save({load}.state_dict(), "weights.pth")'
        return f"in TorchScript: save its weights alone: {shlex.join(['python', '-c', code])}"
    if "data.pkl" in last_parts:
        return None
    inside = [name for name in names if name.endswith(_WEIGHTS)] or names
    shown = f"{', '.join(inside[:3])}{', …' if len(inside) > 3 else ''}" or "nothing"
    return f"a zip archive around {shown}: unpack it and put the checkpoint inside in its place"
