""".npz files: true flow, and the statistics of FID."""

import contextlib
import functools
import io
import random
import zipfile
from pathlib import Path

import numpy as np

from data.flow import FlowFolder
from script.metrics.image_sets import read_statistics
from tests.fuzz.mutations import EDGES, NASTY_TEXTS, make_no_file, mutate_bytes
from util.errors import UserError

NAME = "a_2_b.npz"
TYPES = ("<f2", "<f4", "<f8", ">i8", "|b1", "|O", "<U9", "|V8", "<c16", "<M8[s]", [("a", "<f4")])


@functools.cache
def honest_file(compressed: bool) -> bytes:
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    arrays = {"mu": np.zeros(5), "sigma": np.eye(5), "checkpoint": "0" * 64}
    flow = rng.normal(size=(2, 8, 6)).astype(np.float16)
    save(stream, flow=flow, visible=rng.random((8, 6)) < 0.5, **arrays)
    return stream.getvalue()


def generate(rng: random.Random, folder: Path) -> None:
    path = folder / NAME
    kind = rng.random()
    if kind < 0.02:
        make_no_file(rng, path)
        return
    data = honest_file(rng.random() < 0.5)
    if kind < 0.5:
        for _ in range(rng.choice([0, 1, 1, 2, 8])):
            data = mutate_bytes(rng, data)
        path.write_bytes(data)
        return
    # The archive is sound, a member of it is not.
    with (
        zipfile.ZipFile(io.BytesIO(data)) as honest,
        zipfile.ZipFile(path, "w", rng.choice([0, 8, 12, 14])) as made,
    ):
        changed = rng.choice(honest.namelist())
        for name in honest.namelist():
            content = honest.read(name)
            if name == changed:
                content = _mutate_array(rng, content)
                name = f"{rng.choice(NASTY_TEXTS)}.npy" if rng.random() < 0.1 else name
            with contextlib.suppress(UnicodeEncodeError):
                made.writestr(name, content)


def _mutate_array(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.4:
        return mutate_bytes(rng, content)
    shape = rng.choice(
        [(), (0,), (rng.choice(EDGES),), (2, 8, 6), (2, 0, 0), (8, 6), (1,) * 40, (2, 10**4, 10**4)]
    )
    descr = rng.choice(TYPES)
    header = {"descr": descr, "fortran_order": rng.random() < 0.5, "shape": shape}
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    values = rng.choice(
        [content[128:], b"", bytes(10**7), b"\x7f\xff" * 500, rng.randbytes(96 * 8)]
    )
    return stream.getvalue() + values


def read(folder: Path) -> None:
    with contextlib.suppress(UserError):
        read_statistics(folder / NAME, "standard")
        raise AssertionError("statistics of 5 features are taken")
    flow, visible = FlowFolder(folder, (4, 3)).read("a_2_b")
    assert flow.shape == (2, 4, 3) and visible.shape == (4, 3)
    assert np.isfinite(flow.numpy()).all() and set(visible.unique().tolist()) <= {0, 1}
