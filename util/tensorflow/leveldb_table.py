"""Reading LevelDB's tables, in which TensorFlow writes its checkpoints.

github.com/google/leveldb, doc/table_format.md. Every block has a checksum.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from util.errors import UserError
from util.file_kinds import foreign_kind
from util.files import regular_file
from util.tensorflow.crc32c import masked_crc32c
from util.tensorflow.protobuf import read_varint
from util.tensorflow.snappy import decompress

_FOOTER_BYTES = 48
_MAGIC = bytes.fromhex("57fb808b247547db")
_BLOCK_TRAILER_BYTES = 5
_SNAPPY, _ZSTANDARD = 1, 2
# Keys share their beginnings: written out they may be a thousand times what the file has.
_MAX_KEY_BYTES = 1 << 23
# Of all blocks, unpacked; names that resemble each other take an eighth, packed.
_UNPACKED_TIMES, _UNPACKED_BYTES = 8, 1 << 20


def is_table(path: Path) -> bool:
    """Whether a file ends as a table does."""
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with open(path, "rb") as file:
            file.seek(-len(_MAGIC), 2)
            return file.read() == _MAGIC
    except OSError:  # none, too short, a folder
        return False


def read_table(path: Path, limit: int | None = None) -> dict[bytes, bytes]:
    """Read all records of a table and check them.

    Args:
        path: the file.
        limit: bytes of the largest file that is read.

    Raises:
        UserError: no such file, no table, a damaged one, or one beyond the limits.
    """
    try:
        size = regular_file(path, limit).st_size
        with open(path, "rb") as file:
            file.seek(max(0, size - _FOOTER_BYTES))
            footer = file.read(_FOOTER_BYTES)
            file.seek(0)
            is_whole = len(footer) == _FOOTER_BYTES and footer.endswith(_MAGIC)
            table = file.read(size) if is_whole else b""
        kind = foreign_kind(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not is_whole:
        what = f"it is {kind}" if kind else "its last bytes are not those of a table: copy it again"
        raise UserError(f"{path}: is no file of a TensorFlow checkpoint, or is cut off ({what})")
    try:
        # The footer names two blocks: of meta data, which checkpoints lack, and of blocks.
        position = 0
        for _ in range(2):
            block_offset, position = read_varint(footer, position)
            block_size, position = read_varint(footer, position)
        records: dict[bytes, bytes] = {}
        end = key_bytes = 0
        left = _UNPACKED_TIMES * size + _UNPACKED_BYTES
        for _, handle in _block_records(_block(path, table, block_offset, block_size, left)):
            offset, length = _handle(handle)
            if offset < end:
                raise ValueError(f"the block at byte {offset} begins within another")
            end = offset + length
            content = _block(path, table, offset, length, left)
            left -= len(content)
            for key, value in _block_records(content):
                records[key] = value
                key_bytes += len(key)
                if key_bytes > _MAX_KEY_BYTES:
                    raise ValueError(f"its names have more than {_MAX_KEY_BYTES:,} bytes")
        return records
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}): copy it again") from None


def _handle(data: bytes) -> tuple[int, int]:
    offset, position = read_varint(data, 0)
    return offset, read_varint(data, position)[0]


def _block(path: Path, table: bytes, offset: int, size: int, most: int) -> bytes:
    """Give the content of a block, whose last bytes are its compression and its checksum.

    Args:
        path: the file, for messages.
        table: its bytes.
        offset: where the block begins.
        size: its bytes as they lie there.
        most: bytes that it may have unpacked.
    """
    end = offset + size
    if end + _BLOCK_TRAILER_BYTES > len(table) - _FOOTER_BYTES:
        raise ValueError(f"a block ends at byte {end}, the file has {len(table)}")
    compression, checksum = struct.unpack_from("<BI", table, end)
    if masked_crc32c(table[offset : end + 1]) != checksum:
        raise ValueError(f"the checksum of the block at byte {offset} does not fit")
    if compression == _SNAPPY:
        return decompress(table[offset:end], most)
    if compression:
        kind = "Zstandard" if compression == _ZSTANDARD else f"kind {compression}"
        raise UserError(
            f"{path}: the block at byte {offset} is compressed ({kind}), which is not read; save "
            "the checkpoint with TensorFlow's own Saver"
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
