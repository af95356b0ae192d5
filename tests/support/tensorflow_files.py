"""TensorFlow's files for tests: the golden checkpoint and records, and checkpoints made here."""

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np

from tests.support import helpers
from util.tensorflow.crc32c import masked_crc32c
from util.tensorflow.protobuf import length_delimited, varint

GOLDEN = helpers.GOLDEN / "pg2"
WHOLE = helpers.SHARED / "golden" / "pg2" / "ckpt" / "model.ckpt-5999"
DATA = "model.ckpt-5999.data-00000-of-00001"
RECORDS = {
    "market": "Market1501/Market1501_test_00000-of-00001.tfrecord",
    "fashion": "DeepFashion/DeepFashion_test_00000-of-00001.tfrecord",
}
KINDS = {"float32": 1, "float64": 2, "int32": 3, "string": 7, "int64": 9, "bool": 10, "float16": 19}


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


def block(
    records: list[tuple[bytes, bytes]], compression: int = 0, compress=lambda content: content
) -> bytes:
    """A block of a table, with its trailer; keys share what they can."""
    content, before = io.BytesIO(), b""
    for key, value in records:
        shared = 0
        while shared < min(len(before), len(key)) and before[shared] == key[shared]:
            shared += 1
        content.write(varint(shared) + varint(len(key) - shared) + varint(len(value)))
        content.write(key[shared:] + value)
        before = key
    content.write(struct.pack("<II", 0, 1))
    checked = compress(content.getvalue()) + bytes([compression])
    return checked + struct.pack("<I", masked_crc32c(checked))


def entry(array: np.ndarray, offset: int, shard: int = 0, kind: str | None = None) -> bytes:
    """A BundleEntryProto."""
    shape = b"".join(length_delimited(2, b"\x08" + varint(side)) for side in array.shape)
    message = b"\x08" + varint(KINDS[kind or str(array.dtype)]) + length_delimited(2, shape)
    message += b"\x18" + varint(shard) + b"\x20" + varint(offset) + b"\x28" + varint(array.nbytes)
    return message + b"\x35" + struct.pack("<I", masked_crc32c(array.tobytes()))


def snappy(content: bytes) -> bytes:
    """Compress as Snappy does, if less well: literals of 100 bytes, and short copies of 4."""
    compressed, position = varint(len(content)), 0
    while position < len(content):
        part = content[position : position + 4]
        before = content.rfind(part, max(0, position - 2000), position) if len(part) == 4 else -1
        if before >= 0:
            offset = position - before
            compressed += bytes([1 | offset >> 8 << 5, offset & 0xFF])
            position += 4
        else:
            part = content[position : position + 100]
            compressed += bytes([60 << 2, len(part) - 1]) + part
            position += 100
    return compressed


def write_table(path: Path, records, compression: int = 0, per_block=3, compress=None) -> None:
    """A LevelDB table of a few records in every block; names are text or bytes."""
    ordered = sorted(
        (name.encode() if isinstance(name, str) else name, value) for name, value in records.items()
    )
    form = (1, compress) if compress else (compression,)
    parts, handles, position = [], [], 0
    for first in range(0, len(ordered), per_block):
        parts.append(block(ordered[first : first + per_block], *form))
        handles.append((ordered[first][0], varint(position) + varint(len(parts[-1]) - 5)))
        position += len(parts[-1])
    path.write_bytes(sealed_table(parts, handles))


def sealed_table(parts: list[bytes], handles: list[tuple[bytes, bytes]]) -> bytes:
    """A table of finished blocks, whose index has these handles."""
    table, ends = b"".join(parts), []
    for part in (block([]), block(handles)):
        ends.append(varint(len(table)) + varint(len(part) - 5))
        table += part
    return table + b"".join(ends).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def write_checkpoint(
    prefix: Path,
    variables: dict[str, np.ndarray],
    shards: int = 1,
    header: bytes = b"",
    compress=None,
) -> Path:
    """A checkpoint of these variables, spread over data files in turn."""
    data = [b""] * shards
    records = {"": header or b"\x08" + varint(shards)}
    for number, (name, array) in enumerate(sorted(variables.items())):
        shard = number % shards
        records[name] = entry(array, len(data[shard]), shard)
        data[shard] += array.tobytes()
    write_table(Path(f"{prefix}.index"), records, compress=compress)
    for shard, content in enumerate(data):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    return prefix


def slice_message(cut) -> bytes:
    """A TensorSliceProto; a cut has (start, length) or None, for all, per dimension."""
    message = b""
    for extent in cut:
        fields = (
            b"" if extent is None else b"\x08" + varint(extent[0]) + b"\x10" + varint(extent[1])
        )
        message += length_delimited(1, fields)
    return message


def part_of(array: np.ndarray, cut) -> np.ndarray:
    places = tuple(slice(None) if c is None else slice(c[0], c[0] + c[1]) for c in cut)
    return np.ascontiguousarray(array[places])


def write_partitioned(prefix: Path, others, name: str, array: np.ndarray, cuts) -> Path:
    """A checkpoint with one variable in slices. The keys of these cuts are written out below."""
    write_checkpoint(prefix, others)
    data = Path(f"{prefix}.data-00000-of-00001")
    content = b"".join(value.tobytes() for _, value in sorted(others.items()))
    records, offset = {"": b"\x08\x01"}, 0
    for key, value in sorted(others.items()):
        records[key] = entry(value, offset)
        offset += value.nbytes
    start = b"\0" + name.encode() + b"\0\x01\x01" + bytes([array.ndim])
    # OrderedCode: one byte up to 63, with the sign turned; 64 is c0 40, 136 is c0 88.
    keys = {
        None: b"\x80\x7f", (0, 64): b"\x80\xc0\x40", (64, 136): b"\xc0\x40\xc0\x88",
        (0, 2): b"\x80\x82", (2, 4): b"\x82\x84",
    }  # fmt: skip
    shape = b"".join(length_delimited(2, b"\x08" + varint(side)) for side in array.shape)
    whole = b"\x08" + varint(KINDS[str(array.dtype)]) + length_delimited(2, shape)
    for cut in cuts:
        part = part_of(array, cut)
        records[start + b"".join(keys[extent] for extent in cut)] = entry(part, offset)
        whole += length_delimited(7, slice_message(cut))
        content += part.tobytes()
        offset += part.nbytes
    records[name] = whole
    write_table(Path(f"{prefix}.index"), records)
    data.write_bytes(content)
    return prefix


def tensor_message(array: np.ndarray, packed: bool) -> bytes:
    """A TensorProto as V1 has it: numbers in the field of their type."""
    kind = str(array.dtype)
    fixed = {"float32": (5, 5), "float64": (6, 1)}
    if kind in fixed:
        number, wire_type = fixed[kind]
        if packed:
            return length_delimited(number, array.tobytes())
        values = [value.tobytes() for value in array.ravel()]
    else:
        number, wire_type = {"int32": 7, "int64": 10, "bool": 11, "float16": 13}[kind], 0
        bits = array.view(np.uint16) if kind == "float16" else array
        values = [varint(int(value) % 2**64) for value in bits.ravel()]
        if packed:
            return length_delimited(number, b"".join(values))
    return b"".join(varint(number << 3 | wire_type) + value for value in values)


def write_v1(prefix: Path, variables, shards: int = 0, packed=True, cuts=None, lacking=0) -> Path:
    """A checkpoint of the older form; the last `lacking` numbers of each value are left out."""
    for shard in range(shards or 1):
        metas, records = [], {}
        for number, (name, array) in enumerate(sorted(variables.items())):
            if shards and number % shards != shard:
                continue
            shape = b"".join(length_delimited(2, b"\x08" + varint(side)) for side in array.shape)
            own_cuts = (cuts or {}).get(name, [(None,) * array.ndim])
            if lacking:
                own_cuts = [((0, len(array) - lacking), *[None] * (array.ndim - 1))]
            slices = [slice_message(cut) for cut in own_cuts]
            metas.append(
                length_delimited(1, name.encode()) + length_delimited(2, shape)
                + b"\x18" + varint(KINDS[str(array.dtype)])
                + b"".join(length_delimited(4, one) for one in slices)
            )  # fmt: skip
            for count, (cut, one) in enumerate(zip(own_cuts, slices, strict=True)):
                saved = length_delimited(1, name.encode()) + length_delimited(2, one)
                saved += length_delimited(3, tensor_message(part_of(array, cut), packed))
                records[b"\0" + name.encode() + bytes([count])] = length_delimited(2, saved)
        meta = b"".join(length_delimited(1, one) for one in metas)
        records[""] = length_delimited(1, meta)
        ending = f"-{shard:05d}-of-{shards:05d}" if shards else ""
        write_table(Path(f"{prefix}{ending}"), records)
    return prefix


def noted(folder: Path, path: str) -> None:
    """The file in which TensorFlow notes its newest checkpoint."""
    text = f'model_checkpoint_path: "{path}"\nall_model_checkpoint_paths: "old"\n'
    (folder / "checkpoint").write_bytes(text.encode(errors="surrogateescape"))
