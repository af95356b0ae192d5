"""Reading TensorFlow checkpoints without TensorFlow.

V2 ("tensor bundles"): `PREFIX.index` is a table from names to entries (BundleEntryProto);
`PREFIX.data-00000-of-00001` has the values one after another, as they lie in memory, little endian,
each with a checksum. V1 (Saver's form before TensorFlow 1.0): `PREFIX`, or several files
`PREFIX-00000-of-00002`, are tables that hold the values themselves (SavedTensorSlices).

In both a variable may be stored in slices, as one that was partitioned is.
"""

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.errors import UserError
from util.file_kinds import foreign_kind
from util.files import is_file_name, regular_file
from util.tensorflow.crc32c import masked_crc32c
from util.tensorflow.leveldb_table import is_table, read_table
from util.tensorflow.protobuf import VARINT, decode_varints, read_fields, varint

_HEADER_KEY = b""

# tensorflow/core/framework/types.proto; types that NumPy has not, and text, are named only.
_DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64",
    9: "int64", 10: "bool", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32",
    23: "uint64",
}  # fmt: skip
# In TensorProto: the field of the values, and how they lie in it where they are no varints.
_VALUE_FIELDS = {
    "float32": (5, "<f4"), "float64": (6, "<f8"), "complex64": (9, "<c8"),
    "complex128": (12, "<c16"), "int64": (10, None), "bool": (11, None), "float16": (13, None),
    "uint32": (16, None), "uint64": (17, None),
    **dict.fromkeys(("int32", "uint8", "int16", "int8", "uint16"), (7, None)),
}  # fmt: skip
_MAX_INDEX_BYTES = 1 << 20  # some 10,000 variables
_MAX_NOTE_BYTES = 1 << 20
_MAX_FIELDS = 1 << 18  # of all messages; numbers are packed, many in a field
_MAX_DIMENSIONS = 32
_TOO_LARGE = 1 << 55  # for the keys of slices, which `_slice_key` writes
_OTHER_TYPES = {7: "string", 14: "bfloat16"}


@dataclass(frozen=True)
class Variable:
    """A variable as the index describes it.

    Attributes:
        shape: in TensorFlow's order.
        dtype: NumPy's name of the type, or another name where NumPy has none.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers; 0 for a type that NumPy has not."""
        is_known = self.dtype in _DTYPES.values()
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize if is_known else 0


# (start, length) of a slice in every dimension; without a length it is all of that dimension.
_Extents = tuple[tuple[int, int | None], ...]


@dataclass(frozen=True)
class _Entry:
    variable: Variable
    slices: tuple[_Extents, ...]
    shard: int
    offset: int
    size: int
    checksum: int


class TensorFlowCheckpoint:
    """A checkpoint whose index has been read and checked; values are read when asked for.

    Args:
        prefix: path of the files without `.index` and `.data-…`; either of them will do, too.

    Attributes:
        prefix: the same, without such an ending.
        variables: by name, in the index's (alphabetical) order.

    Raises:
        UserError: a file is missing, cut off, damaged, compressed or something else.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = _without_ending(str(prefix))
        self._index_path = Path(f"{self.prefix}.index")
        records = read_table(self._index_path, _MAX_INDEX_BYTES)
        try:
            if _HEADER_KEY not in records:
                raise ValueError("its table has no header")
            fields = _Fields()
            self._shard_count = _read_header(fields, records.pop(_HEADER_KEY))
            self._entries = {key: _read_entry(fields, value) for key, value in records.items()}
            # The entries of slices have keys of their own, which begin with a zero.
            self.variables = {
                key.decode(): entry.variable
                for key, entry in self._entries.items()
                if not key.startswith(b"\0")
            }
        except (ValueError, TypeError, struct.error) as error:  # a table with other content
            raise UserError(
                f"{self._index_path}: is no index of a TensorFlow checkpoint ({error})"
            ) from None
        self._check_data_files()

    def read(self, name: str) -> np.ndarray:
        """Read the value of a variable and check it against its checksum; read-only.

        Raises:
            UserError: no such variable, a type that NumPy has not, or damaged data.
        """
        if name not in self.variables:
            raise UserError(_no_variable(self._index_path, name, self.variables))
        entry = self._entries[name.encode()]
        if not entry.slices:
            return self._value(name, entry)
        parts = []
        for extents in dict.fromkeys(entry.slices):
            key = _slice_key(name, extents)
            if key not in self._entries:
                raise UserError(f"{self._index_path}: a slice of '{name}' is not in it")
            parts.append((extents, self._value(name, self._entries[key])))
        return _assembled(self._index_path, name, entry.variable, parts)

    def _value(self, name: str, entry: _Entry) -> np.ndarray:
        shape, dtype = entry.variable.shape, entry.variable.dtype
        _check_type(self._index_path, name, dtype)
        path = self._data_path(entry.shard)
        if entry.size != entry.variable.nbytes:
            raise UserError(
                f"{self._index_path}: '{name}' has shape {list(shape)} of {dtype}, "
                f"which does not fit its {entry.size} bytes"
            )
        try:
            with open(path, "rb") as file:
                file.seek(entry.offset)
                data = file.read(entry.size)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        if masked_crc32c(data) != entry.checksum:
            raise UserError(
                f"{path}: '{name}', {entry.size} bytes from byte {entry.offset}, is damaged (its "
                "checksum does not fit): copy or download the file again"
            )
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)

    def _data_path(self, shard: int) -> Path:
        return Path(f"{self.prefix}.data-{shard:05d}-of-{self._shard_count:05d}")

    def _check_data_files(self) -> None:
        needed: dict[int, tuple[int, str]] = {}
        held = [(entry.shard, entry.offset, entry.size, key)
                for key, entry in self._entries.items() if not entry.slices]  # fmt: skip
        for shard, offset, size, key in sorted(held):
            name = key.lstrip(b"\0").partition(b"\0")[0].decode(errors="replace")
            if size and offset < needed.get(shard, (0, ""))[0]:
                raise UserError(
                    f"{self._index_path}: '{name}' and '{needed[shard][1]}' have the same bytes: "
                    "it is damaged, copy it again"
                )
            needed[shard] = max(needed.get(shard, (0, "")), (offset + size, name))
        for shard, (end, name) in sorted(needed.items()):
            path = self._data_path(shard)
            try:
                size = regular_file(path).st_size
            except FileNotFoundError:
                raise UserError(
                    f"{path}: is not there; copy it from where {self._index_path.name} is from"
                ) from None
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror})") from None
            if size < end:
                if kind := foreign_kind(path):
                    raise UserError(f"{path}: is {kind}")
                raise UserError(
                    f"{path}: has {size} bytes, but '{name}' ends at byte {end}: it is cut off or "
                    f"belongs to another index than {self._index_path.name}; copy it again"
                )


class TensorFlowV1Checkpoint:
    """A checkpoint of the older form, all of it read and checked; see `TensorFlowCheckpoint`.

    Args:
        prefix: path of the file, or of several without `-00000-of-…`.

    Raises:
        UserError: a file is missing, cut off, damaged or something else.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = str(prefix)
        self.variables: dict[str, Variable] = {}
        self._parts: dict[str, list[tuple[_Extents, memoryview]]] = {}
        self._fields = _Fields()
        for path in _v1_files(self.prefix):
            try:
                self._take(read_table(path))
            except (ValueError, TypeError, struct.error) as error:  # a table with other content
                raise UserError(f"{path}: is no TensorFlow checkpoint ({error})") from None

    def _take(self, records: dict[bytes, bytes]) -> None:
        if _HEADER_KEY not in records:
            raise ValueError("its table has no header")
        fields = self._fields
        (meta,) = fields.all(records.pop(_HEADER_KEY), 1)
        for message in fields.all(meta, 1):
            values = {number: value for number, _, value in fields(message)}
            shape = _shape(fields, values.get(2, b""))
            name = bytes(values[1]).decode() if 1 in values else ""
            self.variables[name] = Variable(shape, _type_name(_number(values.get(3))))
        for record in records.values():
            for message in fields.all(record, 2):
                values = {number: value for number, _, value in fields(message)}
                parts = self._parts.setdefault(bytes(values.get(1, b"")).decode(), [])
                parts.append((_extents(fields, values.get(2, b"")), values.get(3, b"")))

    def read(self, name: str) -> np.ndarray:
        """Give the value of a variable; see `TensorFlowCheckpoint.read`."""
        path = Path(self.prefix)
        if name not in self.variables:
            raise UserError(_no_variable(path, name, self.variables))
        variable = self.variables[name]
        _check_type(path, name, variable.dtype)
        parts = []
        for extents, message in self._parts.get(name, []):
            try:
                sizes = _sizes(variable.shape, extents)
                value = _tensor_values(self._fields, message, variable.dtype, math.prod(sizes))
                value = value.reshape(sizes)
            except (ValueError, TypeError) as error:
                raise UserError(f"{path}: '{name}' is damaged ({error}): copy it again") from None
            parts.append((extents, value))
        return _assembled(path, name, variable, parts)


def open_checkpoint(path: str | Path) -> TensorFlowCheckpoint | TensorFlowV1Checkpoint:
    """Open a checkpoint of either form.

    Args:
        path: the files' path without their endings, one of the files, the file `checkpoint` in
            which TensorFlow notes the newest, or a folder with one checkpoint or that file.

    Raises:
        UserError: none there, several, or files that cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        path = _in_folder(path)
    if path.name == "checkpoint" and path.is_file() and not is_table(path):
        path = _noted(path)
    prefix = _without_ending(str(path))
    if not Path(f"{prefix}.index").exists():
        if _v1_files(prefix) and not prefix.endswith(".data"):
            return TensorFlowV1Checkpoint(prefix)
        if Path(prefix).is_file():
            read_table(Path(prefix))  # says what it is instead
        others = ", ".join(map(str, _prefixes(path.parent)[-8:]))
        raise UserError(
            f"{prefix}.index: there is no such file; "
            + (
                f"the folder has {others}"
                if others
                else "name a checkpoint by its path without .index, such as model.ckpt-5999"
            )
        )
    return TensorFlowCheckpoint(prefix)


def _v1_files(prefix: str) -> list[Path]:
    path = Path(prefix)
    if is_table(path):
        return [path]
    pattern = re.compile(re.escape(path.name) + r"-\d{5}-of-(\d{5})")
    entries = path.parent.iterdir() if path.parent.is_dir() else ()
    files = sorted(entry for entry in entries if pattern.fullmatch(entry.name))
    if files and len(files) != int(files[-1].name[-5:]):
        count = int(files[-1].name[-5:])
        raise UserError(f"{files[0]}: {len(files)} files of {count} are there; copy all of them")
    return files


def _prefixes(folder: Path) -> list[Path]:
    """Checkpoints in a folder, by the paths that name them."""
    if not folder.is_dir():
        return []
    found = {
        Path(_without_ending(str(entry)))
        for entry in folder.iterdir()
        if entry.is_file() and is_table(entry)
    }
    shards = re.compile(r"-\d{5}-of-\d{5}$")
    return sorted({path.with_name(shards.sub("", path.name)) for path in found})


def _in_folder(folder: Path) -> Path:
    """The note of the newest checkpoint, or the only checkpoint."""
    for place in (folder, folder / "variables"):  # where a SavedModel has them
        if (place / "checkpoint").is_file():
            return place / "checkpoint"
        found = _prefixes(place)
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{folder}: choose one of {', '.join(map(str, found[-8:]))}")
    raise UserError(f"{folder}: there is no TensorFlow checkpoint in it (model.ckpt-….index)")


def _noted(path: Path) -> Path:
    """The newest checkpoint as the file `checkpoint` has it; the folder may have been moved."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(_MAX_NOTE_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    found = re.search(r'^model_checkpoint_path:\s*"(.*)"', text, re.MULTILINE)
    there = ", ".join(map(str, _prefixes(path.parent)[-8:]))
    if not found:
        raise UserError(
            f"{path}: names no checkpoint (model_checkpoint_path)"
            + (f"; give one of {there}" if there else "")
        )
    # Never where it points out of its folder, but to what has been moved with it.
    names = [Path(found[1]), Path(re.split(r"[/\\]+", found[1])[-1])]
    for name in names:
        prefix = path.parent / name
        if not name.is_absolute() and ".." not in name.parts and is_file_name(name.name) and (
            Path(f"{prefix}.index").exists() or _v1_files(str(prefix))
        ):  # fmt: skip
            return prefix
    raise UserError(
        f"{path}: names {found[1]}, which is not in its folder; "
        + (f"give one of {there}" if there else "copy its files, too")
    )


def _without_ending(path: str) -> str:
    stem, dot, ending = path.rpartition(".")
    return stem if dot and ending.startswith(("index", "data-", "meta")) else path


def _no_variable(path: Path, name: str, variables: dict[str, Variable]) -> str:
    return (
        f"{path}: there is no variable '{name}'; it has {len(variables)} others, such as "
        f"{', '.join(list(variables)[:3])}"
    )


def _check_type(path: Path, name: str, dtype: str) -> None:
    if dtype not in _DTYPES.values():
        raise UserError(f"{path}: '{name}' is stored as {dtype}, which is not read")


def _sizes(shape: tuple[int, ...], extents: _Extents) -> tuple[int, ...]:
    return tuple(
        whole - start if length is None else length
        for whole, (start, length) in zip(shape, extents or [(0, None)] * len(shape), strict=True)
    )


def _assembled(
    path: Path, name: str, variable: Variable, parts: list[tuple[_Extents, np.ndarray]]
) -> np.ndarray:
    """Put the slices of a variable together."""
    missing = UserError(f"{path}: a slice of '{name}' is not in it: copy all files again")
    if sum(part.size for _, part in parts) != math.prod(variable.shape):
        raise missing
    value = np.zeros(variable.shape, variable.dtype)
    is_there = np.zeros(variable.shape, bool)
    try:
        for extents, part in parts:
            sizes = _sizes(variable.shape, extents)
            starts = [start for start, _ in extents] or [0] * len(sizes)
            place = tuple(slice(a, a + size) for a, size in zip(starts, sizes, strict=True))
            value[place] = part.reshape(sizes)
            is_there[place] = True
    except ValueError:
        raise UserError(f"{path}: a slice of '{name}' does not fit its shape") from None
    if not is_there.all():
        raise missing
    return value


class _Fields:
    """`read_fields` of a checkpoint's messages, which have a bearable number of them in all."""

    def __init__(self) -> None:
        self._left = _MAX_FIELDS

    def __call__(self, message: bytes | memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
        for field in read_fields(message):
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"its messages have more than {_MAX_FIELDS:,} fields")
            yield field

    def all(self, message: bytes | memoryview, field: int) -> list[memoryview]:
        """The messages, texts or bytes of a field."""
        found = [value for number, _, value in self(message) if number == field]
        if not all(isinstance(value, memoryview) for value in found):
            raise ValueError("a number stands for a message")
        return found


def _number(value: int | memoryview | None) -> int:
    if isinstance(value, memoryview):  # int() would read digits in it
        raise ValueError("a text stands for a number")
    return value or 0


def _type_name(kind: int) -> str:
    return _DTYPES.get(kind) or _OTHER_TYPES.get(kind, f"type {kind}")


def _extents(fields: _Fields, message: bytes | memoryview) -> _Extents:
    """Read a TensorSliceProto."""
    found = []
    for extent in fields.all(message, 1):
        values = {number: _number(value) for number, _, value in fields(extent)}
        numbers = [values.get(number) for number in (1, 2)]
        if len(found) == _MAX_DIMENSIONS or any((number or 0) >= _TOO_LARGE for number in numbers):
            raise ValueError("a slice has too many dimensions, or is too large")
        found.append((numbers[0] or 0, numbers[1]))
    return tuple(found)


def _slice_key(name: str, extents: _Extents) -> bytes:
    """The key of a slice: numbers and names in a form that sorts as they do (OrderedCode)."""
    key = b"\0" + name.encode() + b"\0\1" + b"\1" + bytes([len(extents)])
    for start, length in extents:
        for number in (start, -1 if length is None else length):
            count = next(n for n in range(1, 9) if -(1 << 7 * n - 1) <= number < 1 << 7 * n - 1)
            header = (0xFF << 8 - count & 0xFF) << 8 * (count - 1)
            key += (number % (1 << 8 * count) ^ header).to_bytes(count, "big")
    return key


def _tensor_values(
    fields: _Fields, message: bytes | memoryview, dtype: str, most: int
) -> np.ndarray:
    """Read the numbers of a TensorProto, flat; `most` are known to be wanted."""
    field, kind = _VALUE_FIELDS[dtype]
    if content := fields.all(message, 4):  # as they lie in memory
        return np.frombuffer(content[0], np.dtype(dtype).newbyteorder("<"))
    data = b"".join(
        varint(value) if wire_type == VARINT else value
        for number, wire_type, value in fields(message)
        if number == field
    )
    if kind:
        return np.frombuffer(data, kind).astype(dtype)
    count = np.count_nonzero(np.frombuffer(data, np.uint8) < 0x80)
    if count > most:  # decoded they take ten times the room
        raise ValueError(f"{count} numbers stand where {most} are wanted")
    values = decode_varints(data)
    if dtype == "float16":  # its bits
        return values.astype(np.uint16).view(np.float16)
    return values.astype(dtype)


def _read_header(fields: _Fields, message: bytes) -> int:
    """Read a BundleHeaderProto: the number of data files."""
    header = {number: _number(value) for number, _, value in fields(message) if number < 3}
    if header.get(2, 0):
        raise ValueError("it is of a big-endian machine")
    return header.get(1, 1)


def _read_entry(fields: _Fields, message: bytes) -> _Entry:
    """Read a BundleEntryProto."""
    values: dict[int, int] = {}
    shape: tuple[int, ...] = ()
    checksum, slices = 0, []
    for number, _, value in fields(message):
        if number == 2:
            shape = _shape(fields, value)
        elif number == 6:
            (checksum,) = struct.unpack("<I", value)
        elif number == 7:
            slices.append(_extents(fields, value))
        else:
            values[number] = _number(value)
    return _Entry(
        Variable(shape, _type_name(values.get(1, 0))),
        tuple(slices),
        shard=values.get(3, 0),
        offset=values.get(4, 0),
        size=values.get(5, 0),
        checksum=checksum,
    )


def _shape(fields: _Fields, message: bytes | memoryview) -> tuple[int, ...]:
    """Read a TensorShapeProto; a size of 0 is not written."""
    sizes = tuple(
        _number({field: value for field, _, value in fields(dimension)}.get(1))
        for dimension in fields.all(message, 2)
    )
    if len(sizes) > _MAX_DIMENSIONS:
        raise ValueError(f"a shape has {len(sizes)} dimensions")
    return sizes
