"""Writing TFRecord files of tf.train.Example messages, see util/tensorflow/records.py."""

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from util.tensorflow.crc32c import masked_crc32c
from util.tensorflow.protobuf import encode_varints, length_delimited
from util.tensorflow.records import BYTES, CHECKSUM, FLOATS, INTEGERS, Feature


class RecordWriter:
    """Writes records to a file, one after another.

    Args:
        path: made or overwritten.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    def write(self, payload: bytes) -> None:
        """Append one record."""
        length = struct.pack("<Q", len(payload))
        for part in (length, payload):
            self._file.write(part)
            self._file.write(CHECKSUM.pack(masked_crc32c(part)))


def serialise_example(features: Mapping[str, Feature]) -> bytes:
    """Write an Example: lists of bytes, arrays [N] of integers or floats. Keys are sorted."""
    entries = []
    for key in sorted(features):
        feature = _serialise_feature(features[key])
        entry = length_delimited(1, key.encode()) + length_delimited(2, feature)
        entries.append(length_delimited(1, entry))
    return length_delimited(1, b"".join(entries))


def _serialise_feature(feature: Feature) -> bytes:
    if feature is None:
        return b""
    if isinstance(feature, list):
        return length_delimited(BYTES, b"".join(length_delimited(1, item) for item in feature))
    if feature.dtype.kind == "f":
        kind, values = FLOATS, feature.astype("<f4").tobytes()
    else:
        kind, values = INTEGERS, encode_varints(feature)
    # An empty list keeps its kind.
    return length_delimited(kind, length_delimited(1, values) if values else b"")
