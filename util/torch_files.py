"""Reading files of torch.save as data, within limits, and without running what they hold.

torch.load(weights_only=True) runs nothing either, but believes sizes, expands compressed records,
compares no checksums (a flipped bit would load as another weight), and makes tensors of kinds that
no network here takes.

A file is a zip archive: `NAME/data.pkl` has the structure, `NAME/data/KEY` the numbers, each record
with a CRC-32. Before PyTorch 1.6 (and with _use_new_zipfile_serialization=False) it was a row of
pickles and then the numbers; these have no checksums, so damage to weights cannot be noticed.
"""

import io
import math
import mmap
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from util.errors import SpoiltFile, UserError
from util.plain_pickle import (
    MAX_BYTES,
    MAX_OPERATIONS,
    ForeignName,
    Maker,
    Named,
    read_pickle,
    set_items,
)
from util.zip_archives import open_archive

_ZIP_START = b"PK\x03\x04"
_OLD_START = 0x1950A86A20F9469CFC6C
_OLD_VERSION = 1001
_CHUNK = 1 << 20

_STORAGE_TYPES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32, "Double": torch.float64, "Half": torch.float16,
        "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
        "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
        "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
    }.items()
} | {"torch.storage.UntypedStorage": torch.uint8}  # fmt: skip
_DTYPES = {
    str(value): value
    for value in vars(torch).values()
    if isinstance(value, torch.dtype) and not str(value).startswith(("torch.q", "torch.bits"))
}
# What trainers save beside the weights: options, counters, losses. Nothing reads them.
_NOT_MADE = [
    "argparse.Namespace", "collections.Counter", "collections.defaultdict", "_codecs.encode",
    "builtins.set", "builtins.bytearray", "builtins.complex", "builtins.slice", "__builtin__.set",
    "__builtin__.bytearray", "__builtin__.complex", "torch.device", "torch.Generator",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core")  # of NumPy 1 and 2
      for name in ("scalar", "_reconstruct")),
    "numpy.ndarray", "numpy.dtype",
    *(f"numpy.dtypes.{type(np.dtype(code)).__name__}" for code in np.typecodes["All"]),
    *_STORAGE_TYPES, *_DTYPES,
]  # fmt: skip
_OTHER_TENSORS = {
    "_rebuild_meta_tensor_no_storage": "a tensor without its numbers (meta)",
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_nested_tensor": "a nested tensor",
}


@dataclass(frozen=True)
class _Storage:
    """Numbers of tensors; without `content` only the structure is wanted."""

    dtype: torch.dtype
    content: torch.UntypedStorage | None


def read_torch_file(path: Path, only_structure: bool = False) -> object:
    """Read a file of torch.save: dictionaries, lists, plain values, and tensors on the CPU.

    What is none of these, such as options of trainers, is a `Named`.

    Args:
        path: an existing file.
        only_structure: None stands where tensors are, whose numbers are not read.

    Raises:
        UserError: it is cut off, damaged, compressed, beyond the limits or holds something else.
    """
    try:
        with open(path, "rb") as file:
            is_archive = file.read(len(_ZIP_START)) == _ZIP_START
            file.seek(0)
            return (_read_archive if is_archive else _read_old_form)(file, only_structure)
    except MemoryError:
        raise
    except ForeignName as error:
        what = _OTHER_TENSORS.get(error.name.rpartition(".")[2])
        raise UserError(
            f"cannot read the checkpoint {path}: it holds {what}: save its weights as plain tensors"
            if what
            else f"cannot read the checkpoint {path}: it is no PyTorch file, or holds more than "
            f"tensors ({error.name}): ask its author for the state dict alone"
        ) from None
    except Exception as error:  # many kinds for a garbled archive or pickle
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        # Python's own words for what a garbled structure runs into tell nothing.
        is_told = isinstance(error, ValueError | EOFError | zipfile.BadZipFile)
        reason = " ".join(str(error).split()) if is_told else "its structure is garbled"
        raise SpoiltFile(
            f"cannot read the checkpoint {path}: it is cut off or damaged ({reason[:120]}); "
            "copy it again"
        ) from None


def _makers() -> dict[str, Maker | None]:
    left = MAX_OPERATIONS

    def dictionary(pairs: list | tuple = ()) -> dict:
        """Python 2 gives the content here; one list, given often, must not grow without end."""
        nonlocal left
        left -= len(pairs)
        if left < 0 or any(len(pair) != 2 for pair in pairs):
            raise ValueError("its dictionaries have too many entries, or garbled ones")
        return set_items({}, [one for pair in pairs for one in pair])

    return {
        **dict.fromkeys(_NOT_MADE),
        "collections.OrderedDict": dictionary,
        "torch.Size": lambda sizes: sizes,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": lambda *arguments: _tensor(*arguments[:4]),
        "torch._utils._rebuild_tensor_v3": _tensor_of_type,
        "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
        "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    }


def _tensor_of_type(
    storage: _Storage, offset: int, size: tuple, stride: tuple, _: bool, hooks: Any, dtype: Named,
    *metadata: Any,
) -> Tensor | None:  # fmt: skip
    return _tensor(_Storage(_DTYPES[dtype.name], storage.content), offset, size, stride)


def _tensor(storage: _Storage, offset: int, size: tuple, stride: tuple) -> Tensor | None:
    if storage.content is None:
        return None
    count = storage.content.nbytes() // storage.dtype.itemsize
    numbers = (offset, *size, *stride)
    if any(type(number) is not int or number < 0 for number in numbers) or len(size) > 64:
        raise ValueError("a tensor's shape is none")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    elements = math.prod(size)  # with steps of 0 there could be any number, for all who go on
    if elements > count - offset or (elements and last >= count):
        raise ValueError("a tensor is larger than its record")
    return torch.empty(0, dtype=storage.dtype).set_(storage.content, offset, size, stride)


def _persistent(
    read_numbers: Callable[[str, int], torch.UntypedStorage | None],
) -> Callable[[tuple], _Storage]:
    """Makes storages of the ids that torch.save writes, each record being read once.

    Args:
        read_numbers: gives the record of a key, which has to have that many bytes.
    """
    known: dict[str, tuple[int, torch.UntypedStorage | None]] = {}

    def make(identifier: tuple) -> _Storage:
        kind, storage_type, key, _, count, *view = identifier
        if kind != "storage" or type(key) is not str or type(count) is not int or any(view):
            raise ValueError("it refers to what torch.save does not write")
        dtype = _STORAGE_TYPES[storage_type.name]
        size = count * dtype.itemsize
        if key not in known:
            known[key] = size, read_numbers(key, size)
        if known[key][0] != size:
            raise ValueError(f"the record {key} has two sizes")
        return _Storage(dtype, known[key][1])

    return make


def _read_archive(file: BinaryIO, only_structure: bool) -> object:
    file_size = os.fstat(file.fileno()).st_size
    with open_archive(file) as archive:
        records = {record.filename: record for record in archive.infolist()}
        if len(records) != len(archive.infolist()):
            raise ValueError("two of its records have one name")
        for record in records.values():
            if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
                raise ValueError(f"its record {record.filename} is packed, torch.save packs none")
        # Before memory is asked for: a directory can say what it likes.
        if sum(record.file_size for record in records.values()) > file_size or any(
            record.file_size != record.compress_size for record in records.values()
        ):
            raise ValueError("its records are larger than the file")
        structures = [name for name in records if name.partition("/")[2] == "data.pkl"]
        if len(structures) != 1:
            raise ValueError("it has no record data.pkl")
        folder = structures[0].partition("/")[0]

        def read(name: str) -> np.ndarray:
            content = np.empty(records[name].file_size, np.uint8)
            _read_record(archive, name, content)
            return content

        def numbers(key: str, size: int) -> torch.UntypedStorage | None:
            name = f"{folder}/data/{key}"
            if name not in records or records[name].file_size != size:
                raise ValueError(f"its record {name} is absent or not of {size} bytes")
            if only_structure:
                return None
            was_read.add(name)
            return torch.from_numpy(read(name)).untyped_storage()

        order = f"{folder}/byteorder"
        if order in records and (records[order].file_size != 6 or bytes(read(order)) != b"little"):
            raise ValueError("it is of a big-endian machine")
        if records[structures[0]].file_size > MAX_BYTES:
            raise ValueError(f"its record data.pkl has more than {MAX_BYTES:,} bytes")
        was_read = {structures[0]}
        structure = io.BytesIO(read(structures[0]))
        content = read_pickle(structure, _makers(), _persistent(numbers))
        if not only_structure:  # damage anywhere makes the file one not to be trusted
            for name in records.keys() - was_read:
                _read_record(archive, name)
        return content


def _read_record(archive: zipfile.ZipFile, name: str, content: np.ndarray | None = None) -> None:
    """Compare a record with its checksum, and keep it where there is a place for it."""
    position = 0
    try:
        with archive.open(name) as record:
            while part := record.read(_CHUNK):
                if content is not None:
                    content[position : position + len(part)] = np.frombuffer(part, np.uint8)
                position += len(part)
    except zipfile.BadZipFile as error:
        if "CRC" not in str(error):
            raise
        raise ValueError(f"the checksum of its record {name} does not fit") from None
    if content is not None and position != len(content):
        raise EOFError(f"its record {name} is cut off")


def _read_old_form(file: BinaryIO, only_structure: bool) -> object:
    # Mapped, so that no length that a pickle names is asked of the memory.
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _read_row(content, only_structure)


def _read_row(file: mmap.mmap, only_structure: bool) -> object:
    def no_ids(identifier: object) -> None:
        raise ValueError("it refers to what torch.save does not write")

    start, version, system = (read_pickle(file, _makers(), no_ids) for _ in range(3))
    if start != _OLD_START or version != _OLD_VERSION or not system.get("little_endian"):
        raise ValueError("it does not begin as a file of torch.save")
    left = len(file) - file.tell()
    storages: dict[str, torch.UntypedStorage] = {}

    def numbers(key: str, size: int) -> torch.UntypedStorage | None:
        nonlocal left
        left -= size
        if size < 0 or left < 0:
            raise ValueError("its tensors are larger than the file")
        if only_structure:
            return None
        storages[key] = torch.UntypedStorage(size)
        return storages[key]

    content = read_pickle(file, _makers(), _persistent(numbers))
    if only_structure:
        return content
    keys = read_pickle(file, _makers(), no_ids)
    if not isinstance(keys, list) or set(keys) != storages.keys() or len(keys) != len(storages):
        raise ValueError("its list of records is not that of its tensors")
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        size = storages[key].nbytes()
        if count < 0 or size % max(count, 1) or len(part := file.read(size)) != size:
            raise ValueError(f"its record {key} is cut off")
        torch.empty(0, dtype=torch.uint8).set_(storages[key]).numpy()[:] = np.frombuffer(
            part, np.uint8
        )
    return content
