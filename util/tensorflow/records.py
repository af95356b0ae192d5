"""TFRecord files of tf.train.Example messages, read without TensorFlow.

A record is its length (8 bytes, little endian), the length's checksum, the payload and the
payload's checksum (masked CRC-32C both). The payload of an Example is one map from keys to lists
of bytes, floats or integers (tensorflow/core/example/example.proto, feature.proto).

The `tfrecord` package reads neither checksum, so that damage would pass for data; and protobuf's
generated classes turn every number into a Python object, here over a million in a record.
"""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from util.errors import UserError
from util.files import regular_file
from util.tensorflow.crc32c import masked_crc32c
from util.tensorflow.protobuf import (
    FIXED32,
    LENGTH_DELIMITED,
    VARINT,
    decode_varints,
    read_fields,
    varint,
)

# A feature: bytes, float32 [N] or int64 [N]; None where it has not even a kind.
Feature = list[bytes] | np.ndarray | None

LARGEST_RECORD = 1 << 26  # bytes; DeepFashion's have some millions
MOST_RECORDS = 1_000_000  # of a file; Market-1501 has 263 631

_HEADER = struct.Struct("<QI")
CHECKSUM = struct.Struct("<I")
_MOST_FIELDS = 100_000  # of a message; an honest one packs its numbers into one
BYTES, FLOATS, INTEGERS = 1, 2, 3  # fields of the Feature message


@dataclass(frozen=True)
class RecordPlace:
    """Where a record lies.

    Attributes:
        path: of the file.
        number: of the record in the file, from 1.
        offset: of the record's first byte in the file.
        size: of the payload in bytes.
    """

    path: Path
    number: int
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.path}, record {self.number} at byte {self.offset}"


def find_records(path: Path, count: int | None = None) -> list[RecordPlace]:
    """Find where the records of a file lie, by their lengths alone: the payloads are not read.

    Args:
        path: of the file.
        count: look for the first so many; None = all, with a progress bar on terminals.

    Raises:
        UserError: the file cannot be read, is empty or cut off, or a length is damaged or not one;
            a record has more than LARGEST_RECORD bytes, or the file more than MOST_RECORDS.
    """
    places: list[RecordPlace] = []
    hidden = None if count is None else True
    try:
        size = regular_file(path).st_size
        if size == 0:
            raise UserError(f"{path}: is empty (0 bytes): copy the file again")
        with (
            open(path, "rb", buffering=0) as file,
            tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=hidden) as bar,
        ):
            offset = 0
            while offset < size and len(places) != count:
                place = RecordPlace(path, len(places) + 1, offset, 0)
                header = file.read(_HEADER.size)
                if len(header) < _HEADER.size:
                    raise _cut_off(place, size)
                length, checksum = _HEADER.unpack(header)
                if masked_crc32c(header[:8]) != checksum:
                    raise UserError(
                        f"{place}: the checksum of its length does not fit: "
                        + (
                            "it is damaged, and records behind it cannot be found: copy the file "
                            "again"
                            if places
                            else "this is no TFRecord file, or it is compressed or damaged: unpack "
                            "it (gunzip), or copy it again"
                        )
                    )
                end = offset + _HEADER.size + length + CHECKSUM.size
                if end > size:
                    raise _cut_off(place, size)
                if length > LARGEST_RECORD or len(places) >= MOST_RECORDS:
                    raise UserError(
                        f"{place}: at most {MOST_RECORDS} records of {LARGEST_RECORD} bytes are "
                        "read from a file; spread them over several"
                    )
                places.append(RecordPlace(path, place.number, offset, length))
                bar.update(end - offset)
                offset = file.seek(end)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return places


def _cut_off(place: RecordPlace, size: int) -> UserError:
    return UserError(f"{place}: the file ends within it, at byte {size}: copy the file again")


def read_record(place: RecordPlace) -> bytes:
    """Read the payload of a record. Raises UserError when it is damaged or cannot be read."""
    data = _read_bytes(place, 0, place.size + CHECKSUM.size)
    payload, checksum = data[: place.size], data[place.size :]
    if checksum != CHECKSUM.pack(masked_crc32c(payload)):
        raise UserError(f"{place}: is damaged (its checksum does not fit): copy the file again")
    return payload


def read_checksum(place: RecordPlace) -> str:
    """Read the checksum of a record alone, which changes with its payload; hexadecimal digits."""
    return _read_bytes(place, place.size, CHECKSUM.size).hex()


def _read_bytes(place: RecordPlace, start: int, count: int) -> bytes:
    """Bytes of a record, counted from the start of its payload."""
    try:
        with open(place.path, "rb", buffering=0) as file:
            file.seek(place.offset + _HEADER.size + start)
            return file.read(count)
    except OSError as error:
        raise UserError(f"{place.path}: cannot be read ({error.strerror})") from None


def parse_example(payload: bytes, keys: Collection[str] | None = None) -> dict[str, Feature]:
    """Read an Example: its features by key, or those of `keys` that it has.

    Raises:
        ValueError: this is no Example.
    """
    features: dict[str, Feature] = {}
    try:
        for feature_map in _submessages(payload):
            for entry in _submessages(feature_map):
                parts = {number: _content(value) for number, _, value in _fields(entry)}
                key = bytes(parts[1]).decode()
                if key in features:
                    raise ValueError("it has a key twice")
                if keys is None or key in keys:
                    features[key] = _parse_feature(parts.get(2, b""))
    except (ValueError, KeyError) as error:
        raise ValueError(f"is no tf.train.Example ({error})") from None
    return features


def _submessages(message: bytes | memoryview) -> list[memoryview]:
    """Give the contents of all fields 1, which must be messages."""
    contents = []
    for number, _, value in _fields(message):
        if number == 1:
            contents.append(_content(value))
    return contents


def _fields(message: bytes | memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    for count, field in enumerate(read_fields(message)):
        if count == _MOST_FIELDS:
            raise ValueError(f"it has a message of more than {_MOST_FIELDS} fields")
        yield field


def _content(value: int | memoryview) -> memoryview:
    """The value of a field that must be no number, of which `bytes` would make so many zeros."""
    if isinstance(value, int):
        raise ValueError("a number is where a message should be")
    return value


def _parse_feature(message: bytes | memoryview) -> Feature:
    feature: Feature = None
    for kind, _, value in _fields(message):
        values = _content(value)
        if kind == BYTES:
            feature = [bytes(value) for value in _submessages(values)]
        elif kind == FLOATS:
            feature = np.frombuffer(_joined(values, FIXED32), "<f4")
        elif kind == INTEGERS:
            feature = decode_varints(_joined(values, VARINT))
    return feature


def _joined(message: memoryview, wire_type: int) -> bytes:
    """Join the encoded numbers of a list, which stand packed in one field or each in its own."""
    chunks = []
    for _, found, value in _fields(message):
        if found == VARINT == wire_type:
            chunks.append(varint(value))
        elif found in (LENGTH_DELIMITED, wire_type):
            chunks.append(bytes(value))
        else:
            raise ValueError("a list holds another kind of numbers")
    return b"".join(chunks)
