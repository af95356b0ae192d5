"""Changes of bytes and values that several formats use."""

import os
import random
from collections.abc import Callable
from pathlib import Path

# Lengths and counts at the edges of their types.
EDGES = tuple(
    sign * 2**power + off
    for power in (0, 7, 8, 15, 16, 31, 32, 40, 62, 63, 64)
    for sign in (1, -1)
    for off in (-1, 0, 1)
)
NASTY_TEXTS = (
    "", ".", "..", "../x", "/tmp/x", "a\\b", "a\0b", "a\nb", "a\r\x1b[2Jb", "\u202egnp.exe",
    "\u2028",
    "\udc80", "x" * 300, "=cmd|' /C calc'!A0", "--name=x", "<script>", "%s%n", "NaN", "1e999",
    "\ufeff",
)  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes, other: bytes = b"\0\xff") -> bytes:
    """Flips, deletions, insertions, truncation, repetition, or a stretch of another file."""
    if not data:
        return rng.randbytes(8)
    data = bytearray(data)
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice([1, 1, 2, 8, 64]))
    kind = rng.randrange(8)
    if kind == 0:
        data[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[start:end]
    elif kind == 2:
        data[start:start] = rng.randbytes(end - start)
    elif kind == 3:
        del data[start:]
    elif kind == 4:
        data[start:start] = data[start:end]
    elif kind == 5:
        data[start:end] = bytes(end - start)
    elif kind == 6:  # a number, as lengths are written
        width = rng.choice([1, 2, 4, 8])
        number = rng.choice(EDGES) % 256**width
        data[start : start + width] = number.to_bytes(width, rng.choice(["little", "big"]))
    else:
        place = rng.randrange(len(other))
        data[start:end] = other[place : place + end - start]
    return bytes(data)


def make_no_file(rng: random.Random, path: Path) -> None:
    """What is no file, or one without end, in place of one."""
    kind = rng.randrange(4)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to("/dev/zero")
    else:
        path.symlink_to(path.name)


def change_inside(
    rng: random.Random, content: dict | list, change: Callable[[object], object]
) -> None:
    """Change a value somewhere in dictionaries and lists, or one of their names."""
    place = content
    while True:
        key = rng.choice([*place] if isinstance(place, dict) else range(len(place)))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.2:
            break
        place = inner
    if isinstance(place, dict) and rng.random() < 0.2:
        place[rng.choice(NASTY_TEXTS)] = place.pop(key)
    else:
        place[key] = change(inner)
