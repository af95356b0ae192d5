"""Network files of torch.save: archives, and the row of pickles of before PyTorch 1.6."""

import contextlib
import copy
import functools
import io
import pickletools
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tests.fuzz.mutations import EDGES, NASTY_TEXTS, change_inside, make_no_file, mutate_bytes
from util.checkpoints import load_network, read_model

NAME = "latest_net_G.pth"
MEGABYTES = 512
_HUGE = 1 << 40


def make_network(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3))


def _same_shape(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda value: change(value) if value.numel() else value


OTHER_TENSORS: tuple[Callable[[Tensor], object], ...] = (
    *(lambda value, dtype=dtype: value.to(dtype) for dtype in (
        torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64,
        torch.int64, torch.int32, torch.uint16, torch.uint8, torch.bool)),
    *(lambda value, number=number: torch.full(value.shape, number, dtype=torch.float64)
      for number in (float("nan"), float("inf"), 1e300, -1.0, 3e38)),
    lambda value: value.to("meta"),
    lambda value: torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8),
    lambda value: value.to_sparse(),
    lambda value: value.reshape(-1),
    lambda value: value[None],
    _same_shape(lambda value: value.reshape(-1)[:1].expand(value.shape)),
    _same_shape(lambda value: value.reshape(-1)[:1].expand(_HUGE)),
    _same_shape(lambda value: value.reshape(-1)[:1].as_strided((1,), (_HUGE,))),
    lambda value: torch.empty(0, _HUGE),
    lambda value: nn.Parameter(value.float()),
    lambda value: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
)  # fmt: skip
OTHER_VALUES = (
    *NASTY_TEXTS, None, True, 0, -1, 7, 0.5, 2**53, 2**63, 10**400, float("nan"), 1e300, [], {},
    (), [[]], {"0.weight": 1}, {0: {}}, b"x", "x" * 10**6, np.float32(1), np.zeros(3),
    torch.Size([3]), torch.float32, torch.ones(1), torch.zeros(0), torch.ones(8, 3, 3, 3),
    torch.tensor(True), 1j, {1}, slice(1),
)  # fmt: skip


def other_value(rng: random.Random, value: object) -> object:
    """What might stand in a file in place of a value."""
    if isinstance(value, Tensor) and rng.random() < 0.7:
        with contextlib.suppress(RuntimeError, ValueError):  # not every kind has every shape
            return rng.choice(OTHER_TENSORS)(value)
    return copy.deepcopy(rng.choice(OTHER_VALUES))


def saved(content: object, old: bool) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


@functools.cache
def honest_file(old: bool) -> bytes:
    return saved(make_network(1).state_dict(), old)


def _others(rng: random.Random, weights: dict[str, Tensor]) -> object:
    """The weights in what others wrap them in, or among many."""
    first = torch.ones(8, 3, 3, 3)
    count = rng.choice([1, 20, 3000])
    return rng.choice([
        lambda: {"state_dict": weights, "epoch": 3},
        lambda: {"net_G": weights, "net_G_ema": weights},
        lambda: {f"module.{name}": value for name, value in weights.items()},
        lambda: {**weights, **{f"module.{name}": value for name, value in weights.items()}},
        lambda: {f"{number}.0.weight": first for number in range(count)} | weights,
        lambda: {str(number): {"0.weight": first} for number in range(count)},
        lambda: {str(number): first for number in range(count)} | weights,
        lambda: dict(enumerate(weights.values())),
        lambda: functools.reduce(lambda inner, _: {"state_dict": inner}, range(50), weights),
        lambda: [weights] * count,
    ])()  # fmt: skip


def generate(rng: random.Random, folder: Path) -> None:
    path = folder / NAME
    if rng.random() < 0.02:
        make_no_file(rng, path)
        return
    old = rng.random() < 0.4
    data = honest_file(old)
    if rng.random() < 0.6:
        content = dict(make_network(1).state_dict())
        for _ in range(rng.choice([0, 1, 1, 2])):
            change_inside(rng, content, functools.partial(other_value, rng))
        data = saved(_others(rng, content) if rng.random() < 0.3 else content, old)
        if rng.random() < 0.7:
            path.write_bytes(data)
            return
    path.write_bytes(damaged(rng, data))


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Other bytes; or, in an archive, other records, or another structure with right checksums."""
    is_archive, kind = data.startswith(b"PK"), rng.random()
    if not is_archive and kind < 0.5:
        return _old_start() + _program(rng)
    if kind < 0.35 or not is_archive:
        start = len(data) * 3 // 4 if rng.random() < 0.3 else 0  # where the directory is
        for _ in range(rng.choice([1, 1, 2, 8])):
            data = data[:start] + mutate_bytes(rng, data[start:])
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    is_structure = kind < 0.75
    k = next(n for n, (name, _) in enumerate(records) if name.endswith("data.pkl"))
    if not is_structure:
        k = rng.randrange(len(records))
    name, content = records[k]
    if is_structure and rng.random() < 0.4:
        content = _program(rng)
    else:
        for _ in range(rng.choice([1, 1, 3])):
            content = mutate_bytes(rng, content)
    records[k] = name, content
    if not is_structure:
        other = rng.choice(
            ["archive/data/0", "archive/data/../../x", "/tmp/x", "archive/constants.pkl", name]
        )
        content = rng.choice([b"", b"x", bytes(10**7)])
        records.append((other, content))
        for number in range(rng.choice([0, 0, 0, 1, 3000])):
            records.append((f"{other}{number}", content[:1]))
    stream = io.BytesIO()
    packing = rng.choice([0, 0, 0, 0, 8, 12, 14]) if len(records) < 100 else 0
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", packing) as made:
        warnings.simplefilter("ignore")  # two records of one name
        for name, content in records:
            made.writestr(name, content)
    return stream.getvalue()


@functools.cache
def _old_start() -> bytes:
    """The three pickles before that of the content."""
    stream = io.BytesIO(honest_file(True))
    for _ in range(3):
        pickletools.dis(stream, out=io.StringIO())
    return stream.getvalue()[: stream.tell()]


def _number(value: int) -> bytes:
    data = value.to_bytes(max(1, value.bit_length() // 8 + 1), "little", signed=True)
    return b"\x8b" + struct.pack("<I", len(data)) + data


def _tensor(rng: random.Random) -> bytes:
    """A tensor whose numbers are at the edges of their types."""

    def number() -> bytes:
        return _number(rng.choice([0, 0, 1, 1, 3, 216, *EDGES]))

    kind = rng.choice([b"Float", b"Double", b"ComplexFloat", b"Byte"])
    sizes = b"".join(number() for _ in range(rng.choice([1, 1, 2, 4, 100])))
    program = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\n"
    program += kind + b"Storage\nX\x01\0\0\x000X\x03\0\0\0cpu"
    program += rng.choice([_number(216), number()]) + b"tQ" + number()
    return program + b"(" + sizes + b"t(" + sizes + b"t\x89NtR"


def _program(rng: random.Random) -> bytes:
    """A pickle that no torch.save writes."""
    count = rng.choice([10, 1000, 100_000])
    name = b"X\x08\0\0\x000.weight"

    def wrap(value: bytes) -> bytes:
        return b"\x80\x02}" + name + value + b"s."

    return rng.choice([
        lambda: b"\x80\x02" + b"]" * count + b"a" * (count - 1) + b".",
        lambda: b"\x80\x02" + b"]" * count,
        lambda: b"\x80\x02" + (b"}" + name) * count + b"N" + b"s" * count + b".",
        lambda: b"\x80\x02" + b"(" * count + b"t" * count + b".",
        lambda: wrap(b")" + b"\x85" * count),
        lambda: wrap(b"]q\0" + b"(h\0h\0eq\0" * min(count, 40)),
        lambda: wrap(b"]" + b"q\0](h\0h\0e" * min(count, 40)),
        lambda: wrap(b"I" + b"9" * count + b"\n"),
        lambda: wrap(b"X" + struct.pack("<I", 10 * count) + b"x" * 10 * count),
        lambda: wrap(b"X" + struct.pack("<I", rng.choice(EDGES) % 2**32) + b"x"),
        lambda: wrap(b"cos\nsystem\n(X\x02\0\0\0lstR"),
        lambda: wrap(b"cbuiltins\neval\nX\x01\0\0\x001\x85R"),
        lambda: wrap(b"ccollections\nOrderedDict\n](" + b"NN\x86" * count + b"e\x85R"),
        lambda: wrap(b"c" + rng.choice(NASTY_TEXTS).encode("utf-8", "replace") + b"\nx\n)R"),
        lambda: wrap(_tensor(rng)),
        lambda: wrap(_tensor(rng)),
        lambda: wrap(_tensor(rng)),
        lambda: wrap(_number(10**5000)),
        lambda: b"\x80\x02}" + name + _tensor(rng) + b"q\0s" + b"".join(
            b"X\x04\0\0\0%04dh\0s" % number for number in range(min(count, 9999))) + b".",
        lambda: b"\x80\x02}" + b"".join(
            b"X\x04\0\0\0%04d}" % number + name + _tensor(random.Random(number)) + b"ss"
            for number in range(min(count, 5000))) + b".",
    ])()  # fmt: skip


def read(folder: Path) -> None:
    path = folder / NAME
    network = make_network(0)
    before = copy.deepcopy(network.state_dict())
    read_model(path)
    report = load_network(network, path)
    check_sound(path)
    there = list(_tensors_of(_as_torch_reads(path)))
    for name, value in network.state_dict().items():
        assert value.isfinite().all() and value.dtype == torch.float32
        if name in report.missing:
            assert torch.equal(value, before[name])
        elif there:
            assert any(_is_same(value, other) for other in there), f"{name} is none of the file's"


def check_sound(path: Path) -> None:
    """Of a file that was read: whether its checksums fit, if it has any."""
    if path.read_bytes()[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None, "damage is not noticed"


def _is_same(value: Tensor, other: Tensor) -> bool:
    return value.shape == other.shape and torch.equal(value, other.to(torch.float32))


def _as_torch_reads(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, weights_only=True)
    except Exception:  # it knows fewer names of what stands beside the weights
        return None


def _tensors_of(content: object, deepest: int = 5) -> Iterator[Tensor]:
    if isinstance(content, Tensor):
        if content.is_floating_point() and content.layout == torch.strided:
            yield content
    elif isinstance(content, dict) and deepest:
        for value in content.values():
            yield from _tensors_of(value, deepest - 1)
