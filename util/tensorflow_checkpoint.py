"""Reading TensorFlow V2 checkpoints ("tensor bundles") without TensorFlow.

`PREFIX.index` is a table of LevelDB's format (github.com/google/leveldb, doc/table_format.md), from
names to entries (BundleEntryProto); `PREFIX.data-00000-of-00001` has the values one after another,
as they lie in memory, little endian. Every block of the table and every value has a checksum.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.crc32c import masked_crc32c
from util.errors import UserError
from util.protobuf import read_fields, read_varint

_FOOTER_BYTES = 48
_TABLE_MAGIC = bytes.fromhex("57fb808b247547db")
_BLOCK_TRAILER_BYTES = 5
_COMPRESSIONS = {1: "Snappy", 2: "Zstandard"}
_HEADER_NAME = ""

# tensorflow/core/framework/types.proto; types that NumPy has not, and text, are named only.
_DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64",
    9: "int64", 10: "bool", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32",
    23: "uint64",
}  # fmt: skip
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


@dataclass(frozen=True)
class _Entry:
    variable: Variable
    is_whole: bool
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
        records = _read_table(self._index_path)
        try:
            if _HEADER_NAME not in records:
                raise ValueError("its table has no header")
            self._shard_count = _read_header(records.pop(_HEADER_NAME))
            self._entries = {name: _read_entry(value) for name, value in records.items()}
        except (ValueError, TypeError, struct.error) as error:  # a table with other content
            raise UserError(
                f"{self._index_path}: is no index of a TensorFlow checkpoint ({error})"
            ) from None
        self._check_data_files()
        self.variables = {name: entry.variable for name, entry in self._entries.items()}

    def read(self, name: str) -> np.ndarray:
        """Read the value of a variable and check it against its checksum; read-only.

        Raises:
            UserError: no such variable, a type that NumPy has not, or damaged data.
        """
        if name not in self._entries:
            raise UserError(
                f"{self._index_path}: there is no variable '{name}'; "
                f"it has {len(self._entries)} others, such as {', '.join(list(self._entries)[:3])}"
            )
        entry = self._entries[name]
        shape, dtype = entry.variable.shape, entry.variable.dtype
        if not entry.is_whole or dtype not in _DTYPES.values():
            form = "in slices" if not entry.is_whole else f"as {dtype}"
            raise UserError(f"{self._index_path}: '{name}' is stored {form}, which is not read")
        path = self._data_path(entry.shard)
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
        try:
            return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)
        except ValueError:
            raise UserError(
                f"{self._index_path}: '{name}' has shape {list(shape)} of {dtype}, "
                f"which does not fit its {entry.size} bytes"
            ) from None

    def _data_path(self, shard: int) -> Path:
        return Path(f"{self.prefix}.data-{shard:05d}-of-{self._shard_count:05d}")

    def _check_data_files(self) -> None:
        needed: dict[int, tuple[int, str]] = {}
        for name, entry in self._entries.items():
            end = (entry.offset + entry.size, name)
            needed[entry.shard] = max(needed.get(entry.shard, end), end)
        for shard, (end, name) in sorted(needed.items()):
            path = self._data_path(shard)
            try:
                size = path.stat().st_size
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror})") from None
            if size < end:
                raise UserError(
                    f"{path}: has {size} bytes, but '{name}' ends at byte {end}: it is cut off or "
                    f"belongs to another index than {self._index_path.name}; copy it again"
                )


def _without_ending(path: str) -> str:
    stem, dot, ending = path.rpartition(".")
    return stem if dot and ending.startswith(("index", "data-", "meta")) else path


def _read_table(path: Path) -> dict[str, bytes]:
    """Read all records of a LevelDB table, with its checksums."""
    try:
        table = path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such file; name a checkpoint by its path without .index, such "
            "as model.ckpt-5999"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    footer = table[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or not footer.endswith(_TABLE_MAGIC):
        raise UserError(
            f"{path}: is no index of a TensorFlow V2 checkpoint, or is cut off "
            "(its last bytes are not those of a table): copy it again"
        )
    try:
        # The footer names two blocks: of meta data, which checkpoints lack, and of blocks.
        position = 0
        for _ in range(2):
            block_offset, position = read_varint(footer, position)
            block_size, position = read_varint(footer, position)
        records = {}
        for _, handle in _block_records(_block(path, table, block_offset, block_size)):
            offset, position = read_varint(handle, 0)
            size, _ = read_varint(handle, position)
            for key, value in _block_records(_block(path, table, offset, size)):
                records[key.decode()] = value
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}): copy it again") from None
    return records


def _block(path: Path, table: bytes, offset: int, size: int) -> bytes:
    """Give the content of a block, whose last bytes are its compression and its checksum."""
    end = offset + size
    if end + _BLOCK_TRAILER_BYTES > len(table) - _FOOTER_BYTES:
        raise ValueError(f"a block ends at byte {end}, the file has {len(table)}")
    compression, checksum = struct.unpack_from("<BI", table, end)
    if masked_crc32c(table[offset : end + 1]) != checksum:
        raise ValueError(f"the checksum of the block at byte {offset} does not fit")
    if compression:
        kind = _COMPRESSIONS.get(compression, f"kind {compression}")
        raise UserError(
            f"{path}: the block at byte {offset} is compressed ({kind}), which is not read; save "
            "the checkpoint with TensorFlow's own Saver, which does not compress"
        )
    return table[offset:end]


def _block_records(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Read (key, value) of a block; a key shares its first bytes with the key before it."""
    if len(block) < 4:
        raise ValueError("a block is too short")
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 * (restarts + 1)
    position, key = 0, b""
    while position < end:
        shared, position = read_varint(block, position)
        own, position = read_varint(block, position)
        length, position = read_varint(block, position)
        value = position + own
        if shared > len(key) or value + length > end:
            raise ValueError("a record is longer than its block")
        key = key[:shared] + block[position:value]
        position = value + length
        yield key, block[value:position]


def _read_header(message: bytes) -> int:
    """Read a BundleHeaderProto: the number of data files."""
    header = {number: value for number, _, value in read_fields(message)}
    if header.get(2, 0):
        raise ValueError("it is of a big-endian machine")
    return int(header.get(1, 1))


def _read_entry(message: bytes) -> _Entry:
    """Read a BundleEntryProto."""
    values: dict[int, int] = {}
    shape: tuple[int, ...] = ()
    checksum, is_whole = 0, True
    for number, _, value in read_fields(message):
        if number == 2:
            shape = tuple(_dimensions(value))
        elif number == 6:
            (checksum,) = struct.unpack("<I", value)
        elif number == 7:
            is_whole = False
        else:
            values[number] = int(value)
    kind = values.get(1, 0)
    dtype = _DTYPES.get(kind) or _OTHER_TYPES.get(kind, f"type {kind}")
    return _Entry(
        Variable(shape, dtype),
        is_whole,
        shard=values.get(3, 0),
        offset=values.get(4, 0),
        size=values.get(5, 0),
        checksum=checksum,
    )


def _dimensions(shape: memoryview) -> Iterator[int]:
    """Read the sizes in a TensorShapeProto; a size of 0 is not written."""
    for number, _, dimension in read_fields(shape):
        if number == 2:
            yield {field: value for field, _, value in read_fields(dimension)}.get(1, 0)
