"""Network files of the safetensors package."""

import functools
import json
import random
import struct
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from tests.fuzz.checkpoints import MEGABYTES as MEGABYTES
from tests.fuzz.checkpoints import NAME, make_network
from tests.fuzz.mutations import EDGES, NASTY_TEXTS, change_inside, make_no_file, mutate_bytes
from util.checkpoints import load_network

TYPES = (
    "F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "C64", "I64",
    "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "F99", "f32",
)  # fmt: skip
READ = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
VALUES = (
    *NASTY_TEXTS, None, True, 0.5, [], {}, [0, 4], [4, 0], [0], [8, 3, 3, 3], [1] * 100,
    [0, 1 << 62], [1 << 32] * 2, list(range(5000)), *EDGES,
)  # fmt: skip


@functools.cache
def honest_file() -> bytes:
    return save(make_network(1).state_dict(), {"format": "pt"})


def generate(rng: random.Random, folder: Path) -> None:
    path = folder / NAME
    if rng.random() < 0.02:
        make_no_file(rng, path)
        return
    data = honest_file()
    if rng.random() < 0.3:
        for _ in range(rng.choice([1, 1, 2, 8])):
            data = mutate_bytes(rng, data)
        path.write_bytes(data)
        return
    (length,) = struct.unpack("<Q", data[:8])
    header, numbers = json.loads(data[8 : 8 + length]), data[8 + length :]
    for _ in range(rng.choice([0, 1, 1, 2])):
        _change(rng, header)
    text = json.dumps(header).encode()
    kind = rng.random()
    if kind < 0.1:
        text = text[:-1] + b',"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    elif kind < 0.15:
        text = text.replace(b"{", b'{"0.weight":3,', 1)
    elif kind < 0.2:
        text += b" " * rng.choice([100, 5 << 20])
    elif kind < 0.25:
        text = mutate_bytes(rng, text)
    size = rng.choice(EDGES) % 2**64 if rng.random() < 0.05 else len(text)
    if rng.random() < 0.1:
        numbers = rng.choice([b"", numbers[:-1], numbers * 2, numbers + bytes(10**7)])
    path.write_bytes(struct.pack("<Q", size) + text + numbers)


def _change(rng: random.Random, header: dict) -> None:
    entries = [value for value in header.values() if isinstance(value, dict) and "dtype" in value]
    kind = rng.random()
    if kind < 0.2 and entries:
        rng.choice(entries)["dtype"] = rng.choice(TYPES)
    elif kind < 0.4 and entries:
        entry = rng.choice(entries)
        field = rng.choice(["shape", "data_offsets"])
        entry[field] = [rng.choice([1, 8, *EDGES]) for _ in range(rng.choice([1, 2, 4]))]
    elif kind < 0.5 and entries:  # thousands of tensors, of the same numbers or of none
        empty = {"dtype": "F32", "shape": [0, rng.choice(EDGES)], "data_offsets": [0, 0]}
        one = rng.choice([rng.choice(entries), empty])
        header.update({f"{number}.weight": one for number in range(3000)})
    elif kind < 0.6:
        header["__metadata__"] = rng.choice([{"a": "x" * 10**6}, {"a": 1}, 3, None, {}])
    else:
        change_inside(rng, header, lambda _: rng.choice(VALUES))


def read(folder: Path) -> None:
    path = folder / NAME
    network = make_network(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = load_network(network, path)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, numbers = json.loads(data[8 : 8 + length]), data[8 + length :]
    for name, value in network.state_dict().items():
        assert value.isfinite().all() and value.dtype == torch.float32
        if name in report.taken and name in header and header[name]["dtype"] in READ:
            start, end = header[name]["data_offsets"]
            said = np.frombuffer(numbers[start:end], READ[header[name]["dtype"]])
            assert np.array_equal(value.numpy().ravel(), said.astype(np.float32)), name
