"""Snappy's compressed form (google.github.io/snappy, format_description.txt), read only.

A dozen lines of a format that never changes; the packages that read it need a compiler or more.
"""

from util.tensorflow.protobuf import read_varint


def decompress(data: bytes, most: int) -> bytes:
    """Decompress a block.

    Raises:
        ValueError: the data are damaged, or would be more than `most` bytes.
    """
    length, position = read_varint(data, 0)
    if length > most:
        raise ValueError(f"compressed data would have {length:,} bytes, at most {most:,} are read")
    result = bytearray()
    while position < len(data) and len(result) <= length:
        tag = data[position]
        position += 1
        kind, size = tag & 3, (tag >> 2) + 1
        if kind == 0:  # literal bytes; long ones have their length in the 1 to 4 bytes that follow
            if size > 60:
                extra = size - 60
                size = int.from_bytes(data[position : position + extra], "little") + 1
                position += extra
            result += data[position : position + size]
            position += size
            continue
        if kind == 1:  # a short copy from up to 2047 bytes back
            size = (tag >> 2 & 7) + 4
            offset = tag >> 5 << 8 | int.from_bytes(data[position : position + 1], "little")
            position += 1
        else:
            width = 2 if kind == 2 else 4
            offset = int.from_bytes(data[position : position + width], "little")
            position += width
        if not 0 < offset <= len(result):
            raise ValueError("compressed data refer to what is not there")
        # A copy may reach into what it writes, and repeats it then.
        copied = bytes(result[-offset : len(result) - offset + size])
        result += (copied * (size // len(copied) + 1))[:size]
    if len(result) != length:
        raise ValueError("compressed data have another length than they say")
    return bytes(result)
