"""TensorFlow's files for tests: the golden checkpoint and records, and checkpoints made here."""

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np

from util.crc32c import masked_crc32c
from util.protobuf import length_delimited, varint

GOLDEN = Path(__file__).parent / "golden" / "pg2"
WHOLE = Path(__file__).parents[2] / "shared" / "golden" / "pg2" / "ckpt" / "model.ckpt-5999"
DATA = "model.ckpt-5999.data-00000-of-00001"
RECORDS = {
    "market": "Market1501/Market1501_test_00000-of-00001.tfrecord",
    "fashion": "DeepFashion/DeepFashion_test_00000-of-00001.tfrecord",
}
KINDS = {"float32": 1, "float64": 2, "int32": 3, "string": 7, "int64": 9, "float16": 19}


def golden_json(name: str) -> dict:
    return json.loads((GOLDEN / name).read_text())


def golden_arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as arrays:
        return dict(arrays)


def golden_checkpoint(folder: Path) -> Path:
    """Write the golden checkpoint into `folder`, give its prefix.

    The optimiser's variables, two thirds of its bytes, are not kept here: their bytes are zero.
    """
    kept = golden_arrays("ckpt/data_of_the_model.npz")
    data, position = bytearray(int(kept["total"])), 0
    for offset, size in zip(kept["offset"], kept["size"], strict=True):
        data[offset : offset + size] = kept["data"][position : position + size].tobytes()
        position += size
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DATA).write_bytes(data)
    index = GOLDEN / "ckpt" / "model.ckpt-5999.index"
    (folder / index.name).write_bytes(index.read_bytes())
    return folder / "model.ckpt-5999"


def golden_records(folder: Path) -> Path:
    """Write the golden record files into `folder`, one folder for each data set; give `folder`."""
    with zipfile.ZipFile(GOLDEN / "tfrecord" / "records.zip") as archive:
        for name in archive.namelist():
            place = folder / name.split("_")[0]
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(archive.read(name))
    return folder


def block(records: list[tuple[bytes, bytes]], compression: int = 0) -> bytes:
    """A block of a table, with its trailer; keys share what they can."""
    content, before = io.BytesIO(), b""
    for key, value in records:
        shared = 0
        while shared < min(len(before), len(key)) and before[shared] == key[shared]:
            shared += 1
        content.write(varint(shared) + varint(len(key) - shared) + varint(len(value)))
        content.write(key[shared:] + value)
        before = key
    content.write(struct.pack("<II", 0, 1) + bytes([compression]))
    checked = content.getvalue()
    return checked + struct.pack("<I", masked_crc32c(checked))


def entry(array: np.ndarray, offset: int, shard: int = 0, kind: str | None = None) -> bytes:
    """A BundleEntryProto."""
    shape = b"".join(length_delimited(2, b"\x08" + varint(side)) for side in array.shape)
    message = b"\x08" + varint(KINDS[kind or str(array.dtype)]) + length_delimited(2, shape)
    message += b"\x18" + varint(shard) + b"\x20" + varint(offset) + b"\x28" + varint(array.nbytes)
    return message + b"\x35" + struct.pack("<I", masked_crc32c(array.tobytes()))


def write_table(path: Path, records: dict[str, bytes], compression: int = 0, per_block=3) -> None:
    """A LevelDB table of a few records in every block."""
    ordered = sorted((name.encode(), value) for name, value in records.items())
    table, handles = b"", []
    for first in range(0, len(ordered), per_block):
        part = block(ordered[first : first + per_block], compression)
        handles.append((ordered[first][0], varint(len(table)) + varint(len(part) - 5)))
        table += part
    ends = []
    for part in (block([]), block(handles)):
        ends.append(varint(len(table)) + varint(len(part) - 5))
        table += part
    path.write_bytes(table + b"".join(ends).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db"))


def write_checkpoint(
    prefix: Path, variables: dict[str, np.ndarray], shards: int = 1, header: bytes = b""
) -> Path:
    """A checkpoint of these variables, spread over data files in turn."""
    data = [b""] * shards
    records = {"": header or b"\x08" + varint(shards)}
    for number, (name, array) in enumerate(sorted(variables.items())):
        shard = number % shards
        records[name] = entry(array, len(data[shard]), shard)
        data[shard] += array.tobytes()
    write_table(Path(f"{prefix}.index"), records)
    for shard, content in enumerate(data):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    return prefix
