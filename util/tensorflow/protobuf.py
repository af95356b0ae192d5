"""The wire format of protocol buffers: as much of it as checkpoints and TFRecords need.

protobuf.dev/programming-guides/encoding
"""

from collections.abc import Iterator

import numpy as np

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10


def read_varint(data: memoryview | bytes, position: int) -> tuple[int, int]:
    """Read an unsigned 64-bit number of 7 bits a byte, least significant first.

    Returns:
        The number, and the position behind it.

    Raises:
        ValueError: the data end within it, or it is longer than 64 bits.
    """
    value = 0
    for count, byte in enumerate(data[position : position + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + count + 1
    raise ValueError("a number does not end")


def read_fields(message: memoryview | bytes) -> Iterator[tuple[int, int, int | memoryview]]:
    """Read a message's fields in their order: (field number, wire type, value).

    The value is an unsigned number for VARINT, else the field's bytes, a view into `message`.

    Raises:
        ValueError: this is no message.
    """
    message = memoryview(message)
    position = 0
    while position < len(message):
        tag, position = read_varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, position = read_varint(message, position)
        else:
            if wire_type == LENGTH_DELIMITED:
                length, position = read_varint(message, position)
            elif wire_type in _FIXED_BYTES:
                length = _FIXED_BYTES[wire_type]
            else:
                raise ValueError(f"there is no wire type {wire_type}")
            if length > len(message) - position:
                raise ValueError("a field is longer than what holds it")
            value = message[position : position + length]
            position += length
        yield number, wire_type, value


def varint(value: int) -> bytes:
    """Encode an unsigned number."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def length_delimited(number: int, content: bytes) -> bytes:
    """Encode a field of bytes, text or a message."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(len(content)) + content


def decode_varints(data: bytes) -> np.ndarray:
    """Decode packed 64-bit numbers to int64 [N]. Raises ValueError when they do not end."""
    encoded = np.frombuffer(data, np.uint8)
    is_last = encoded < 0x80
    if is_last.all():
        return encoded.astype(np.int64)
    ends = np.flatnonzero(is_last) + 1
    starts = np.concatenate(([0], ends[:-1]))
    if not is_last[-1] or (ends - starts).max() > 10:
        raise ValueError("a number does not end")
    values = np.zeros(len(ends), np.uint64)
    for count in range((ends - starts).max()):
        longer = np.flatnonzero(ends - starts > count)
        group = encoded[starts[longer] + count].astype(np.uint64) & np.uint64(0x7F)
        values[longer] |= group << np.uint64(7 * count)
    return values.view(np.int64)


def encode_varints(values: np.ndarray) -> bytes:
    """Encode integers [N] as packed 64-bit numbers; negative ones take ten bytes."""
    if not len(values) or (values.min() >= 0 and values.max() < 0x80):
        return values.astype(np.uint8).tobytes()
    rest = values.astype(np.int64).view(np.uint64)
    groups, counts = [], np.ones(len(rest), np.int64)
    while True:
        groups.append((rest & np.uint64(0x7F)).astype(np.uint8))
        rest = rest >> np.uint64(7)
        if not rest.any():
            break
        counts += rest != 0
    columns = np.stack(groups, axis=1)
    position = np.arange(columns.shape[1])
    columns[position < counts[:, None] - 1] |= 0x80
    return columns[position < counts[:, None]].tobytes()
