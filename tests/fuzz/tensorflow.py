"""Checkpoints of TensorFlow: indexes with data files, tables of the first form, notes of them."""

import functools
import random
import struct
import warnings
from pathlib import Path

import numpy as np

from tests.fuzz.mutations import EDGES, NASTY_TEXTS, make_no_file, mutate_bytes
from tests.support.tensorflow_files import (
    block,
    entry,
    noted,
    sealed_table,
    slice_message,
    snappy,
    write_checkpoint,
    write_partitioned,
    write_table,
    write_v1,
)
from util.tensorflow.checkpoint import open_checkpoint
from util.tensorflow.leveldb_table import read_table
from util.tensorflow.protobuf import length_delimited, varint

PREFIX = "model.ckpt-7"
DATA = f"{PREFIX}.data-00000-of-00001"
MEGABYTES = 512


@functools.cache
def honest_variables() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "a/weights": rng.normal(size=(3, 4)).astype(np.float32),
        "a/biases": np.zeros(4, np.float64),
        "b": np.arange(200, dtype=np.int64).reshape(200, 1),
        "half": np.ones(3, np.float16),
        "is": np.array([True, False]),
        "step": np.array(7, np.int32),
    }


def generate(rng: random.Random, folder: Path) -> None:
    prefix, variables = folder / PREFIX, honest_variables()
    kind = rng.random()
    if kind < 0.3:
        shards = rng.choice([0, 1, 2])
        cuts = {"b": [((0, 64), None), ((64, 136), None)]} if rng.random() < 0.5 else None
        write_v1(prefix, variables, shards, packed=rng.random() < 0.5, cuts=cuts)
    elif kind < 0.4:
        others = {name: value for name, value in variables.items() if name != "b"}
        cuts = [((0, 64), None), ((64, 136), None)]
        write_partitioned(prefix, others, "b", variables["b"], cuts)
    else:
        compress = snappy if rng.random() < 0.3 else None
        write_checkpoint(prefix, variables, rng.choice([1, 1, 2]), compress=compress)
    if rng.random() < 0.3:
        _write_note(rng, folder)
    paths = [path for path in sorted(folder.iterdir()) if path.name.startswith("model")]
    path = rng.choice(paths)
    tables = [path for path in paths if ".data-" not in path.name]
    kind = rng.random()
    if kind < 0.05:
        path.unlink()
        if rng.random() < 0.7:
            make_no_file(rng, path)
    elif kind < 0.15:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
    elif kind < 0.2:
        data = path.read_bytes()
        path.write_bytes(data[:-48] + mutate_bytes(rng, data[-48:-8]) + data[-8:])
    elif kind < 0.65:
        _change_records(rng, rng.choice(tables))
    elif kind < 0.95:
        _change_blocks(rng, rng.choice(tables))


def _write_note(rng: random.Random, folder: Path) -> None:
    places = [
        PREFIX,
        f"../{folder.name}/{PREFIX}",
        f"/gone/{PREFIX}",
        f"{PREFIX}.index",
        "x" * 10**6,
    ]
    noted(folder, rng.choice([*places, *NASTY_TEXTS[:-8], "\\".join(["a"] * 1000)]))
    path = folder / "checkpoint"
    if rng.random() < 0.3:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
    elif rng.random() < 0.05:
        path.unlink()
        make_no_file(rng, path)


def _number(rng: random.Random) -> bytes:
    return varint(rng.choice([0, 1, 2, 3, 4, 9, *EDGES]) % 2**64)


def _message(rng: random.Random) -> bytes:
    """What stands in an index, with numbers at the edges of their types."""
    shape = b"".join(
        length_delimited(2, b"\x08" + _number(rng)) for _ in range(rng.choice([0, 1, 2, 4, 40]))
    )
    message = b"\x08" + _number(rng) + length_delimited(2, shape)
    for field in (3, 4, 5):
        message += bytes([field << 3]) + _number(rng)
    message += b"\x35" + rng.randbytes(4)
    if rng.random() < 0.3:
        message += length_delimited(7, length_delimited(1, b"\x08" + _number(rng)))
    return message


def _change_records(rng: random.Random, path: Path) -> None:
    """The table is sound, its records are not."""
    records = read_table(path)
    key = rng.choice(sorted(records))
    value = records[key]
    kind = rng.randrange(10)
    if kind == 0:
        del records[key]
    elif kind == 1:
        name = rng.choice(NASTY_TEXTS).encode("utf-8", "surrogatepass")
        records[name] = records.pop(key)
    elif kind == 2:
        records[key] = _message(rng)
    elif kind == 3:
        more = length_delimited(7, slice_message([rng.choice([None, (0, 1), (2**62, 2**62)])] * 2))
        records[key] = value + more * rng.choice([1, 2, 1000])
    elif kind == 4:  # other shapes and sizes, the checksum is right
        array = np.zeros(rng.choice([(0,), (1,), (2**10,), (1,) * 30, (0, 2**40)]), np.float32)
        records[key] = entry(array, rng.choice([0, 1, 2**40]), kind=rng.choice(["bool", "string"]))
    elif kind == 5:
        count = rng.choice([1000, 20_000])
        records[key] = b"\x08\x01" + length_delimited(2, length_delimited(2, b"\x08\x7f") * count)
    elif kind == 6:
        count = rng.choice([100, 5000])
        records |= {f"v{number}".encode(): value for number in range(count)}
    elif kind == 7:
        content = rng.choice(
            [b"\x0a" * 10**5, b"\x08\x01" * 10**5, length_delimited(1, b"") * 10**5]
        )
        records[key] = content
    elif kind == 8:
        for _ in range(200):
            value = length_delimited(rng.choice([1, 2]), value)
        records[key] = value
    else:
        for _ in range(rng.choice([1, 1, 4])):
            value = mutate_bytes(rng, value)
        records[key] = value
    write_table(path, records, per_block=rng.choice([1, 3, 10**6]))


def _change_blocks(rng: random.Random, path: Path) -> None:
    """The checksums fit, the blocks or what names them do not."""
    records = sorted(read_table(path).items())
    half = len(records) // 2
    kind = rng.randrange(6)

    def change(content: bytes) -> bytes:
        if kind == 0:
            return mutate_bytes(rng, content)
        if kind == 1:
            return mutate_bytes(rng, snappy(content))
        if kind == 2:
            packed = [b"\0a" + b"\xfe\1\0" * 10**5, b"\xfc" + b"\xff" * 4, b"\0a\1\1", b"\0a\6\xff"]
            return varint(rng.choice(EDGES) % 2**64) + rng.choice(packed)
        return content

    parts = [block(records[:half], int(kind in (1, 2)), change), block(records[half:])]
    offsets = [0, len(parts[0])]
    handles = [
        (name, varint(offset) + varint(len(part) - 5))
        for name, offset, part in zip((b"k", b"z"), offsets, parts, strict=True)
    ]
    if kind == 3:
        handles *= rng.choice([2, 1000, 50_000])
    elif kind == 4:
        k = rng.randrange(2)
        handles[k] = handles[k][0], _number(rng) + _number(rng)
    elif kind == 5:  # a name that each record makes longer, of a byte each
        grown = varint(0) + varint(2000) + varint(0) + b"k" * 2000
        grown += (varint(2000) + varint(1) + varint(0) + b"x") * rng.choice([10, 20_000])
        grown += struct.pack("<II", 0, 1)
        parts[1] = block([], 0, lambda _: grown)
        handles[1] = b"z", varint(offsets[1]) + varint(len(parts[1]) - 5)
    path.write_bytes(sealed_table(parts, handles))


def read(folder: Path) -> None:
    place = folder / PREFIX if (folder / "model.ckpt-7.index").exists() else folder
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint = open_checkpoint(place)
        where = Path(checkpoint.prefix).resolve()
        assert folder.resolve() in where.parents
        held = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        for name, variable in checkpoint.variables.items():
            value = checkpoint.read(name)
            assert value.shape == variable.shape and value.dtype == variable.dtype
            assert value.nbytes <= 32 * held
