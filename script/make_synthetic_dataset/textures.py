"""Colours of people: skin, hair and cloth; patterns are functions of places on the body."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

PATTERNS = ("plain", "heather", "stripes", "pinstripes", "checks", "plaid", "dots", "print")

SKIN = np.array(
    [
        [0.96, 0.80, 0.69],
        [0.91, 0.72, 0.59],
        [0.82, 0.62, 0.47],
        [0.66, 0.46, 0.33],
        [0.42, 0.28, 0.2],
    ]
)
HAIR = np.array(
    [
        [0.07, 0.06, 0.06],
        [0.16, 0.10, 0.07],
        [0.28, 0.18, 0.11],
        [0.45, 0.28, 0.14],
        [0.74, 0.58, 0.34],
    ]
)
CLOTH = np.array(
    [
        [0.93, 0.93, 0.92], [0.10, 0.10, 0.11], [0.35, 0.36, 0.38], [0.62, 0.63, 0.65],
        [0.12, 0.16, 0.32], [0.20, 0.36, 0.66], [0.52, 0.70, 0.86], [0.70, 0.10, 0.13],
        [0.88, 0.36, 0.38], [0.93, 0.66, 0.70], [0.16, 0.38, 0.22], [0.42, 0.46, 0.26],
        [0.94, 0.80, 0.28], [0.92, 0.52, 0.16], [0.44, 0.20, 0.48], [0.72, 0.62, 0.80],
        [0.44, 0.30, 0.20], [0.80, 0.70, 0.56], [0.20, 0.55, 0.56], [0.60, 0.84, 0.76],
    ]
)  # fmt: skip
TROUSERS = np.array(
    [
        [0.09, 0.09, 0.10], [0.14, 0.17, 0.26], [0.22, 0.30, 0.44], [0.42, 0.52, 0.66],
        [0.30, 0.31, 0.33], [0.66, 0.57, 0.44], [0.80, 0.76, 0.68], [0.36, 0.36, 0.24],
        [0.34, 0.24, 0.18], [0.86, 0.86, 0.86], [0.46, 0.12, 0.16],
    ]
)  # fmt: skip


def value_noise(
    rng: np.random.Generator, height: int, width: int, rows: int, columns: int
) -> np.ndarray:
    """Smooth noise in [-1, 1], [height, width], from a random lattice of `rows` x `columns`."""
    lattice = rng.uniform(-1, 1, (max(rows, 2), max(columns, 2))).astype(np.float32)
    return np.asarray(Image.fromarray(lattice).resize((width, height), Image.Resampling.BICUBIC))


def ring_noise(
    rng: np.random.Generator, height: int, width: int, rows: int, columns: int
) -> np.ndarray:
    """`value_noise` that closes on itself: its last column equals its first."""
    lattice = rng.uniform(-1, 1, (max(rows, 2), max(columns, 3))).astype(np.float32)
    image = Image.fromarray(np.tile(lattice, (1, 3)))
    count = lattice.shape[1]
    wide = image.resize(
        (width - 1, height), Image.Resampling.BICUBIC, box=(count, 0, 2 * count, lattice.shape[0])
    )
    noise = np.asarray(wide)
    return np.concatenate((noise, noise[:, :1]), 1)


def jitter(rng: np.random.Generator, colour: np.ndarray, spread: float = 0.04) -> np.ndarray:
    """A colour near `colour` ([3], in [0, 1])."""
    return np.clip(colour + rng.normal(0, spread, 3) * 0.5 + rng.normal(0, spread), 0.03, 0.97)


def random_colour(rng: np.random.Generator, palette: np.ndarray) -> np.ndarray:
    """One colour of the palette, slightly changed: [3] in [0, 1]."""
    return jitter(rng, palette[rng.integers(len(palette))])


@dataclass
class Fabric:
    """A cloth. `colours` [3, 3] in [0, 1]; `period` in metres; `pattern` one of `PATTERNS`."""

    pattern: str
    colours: np.ndarray
    period: float
    seed: int

    def __call__(self, around: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Colours [h, w, 3] at arc length `around` and height `y` (metres, [h, w]); the first and
        last column are the same line of the body."""
        first, second, third = self.colours
        girth = float(around.max() - around.min())
        # a whole number of periods (of the widest, 1 / 0.6) goes round
        turns = 3 * max(1.0, np.rint(girth / self.period * 0.2)) / 0.6
        u, v = around / girth * turns, y / self.period
        colour = np.broadcast_to(first, (*u.shape, 3)).copy()
        if self.pattern == "stripes":
            colour = _mix(colour, second, _band(v, 0.5))
        elif self.pattern == "pinstripes":
            colour = _mix(colour, second, _band(u * 1.8, 0.3))
        elif self.pattern == "checks":
            colour = _mix(colour, second, 0.5 * (_band(u, 0.5) + _band(v, 0.5)))
        elif self.pattern == "plaid":
            colour = _mix(colour, second, 0.6 * _band(u * 0.6, 0.4))
            colour = _mix(colour, second, 0.6 * _band(v * 0.6, 0.4))
            colour = _mix(colour, third, 0.8 * _band(u * 0.6 + 0.5, 0.1))
            colour = _mix(colour, third, 0.8 * _band(v * 0.6 + 0.5, 0.1))
        elif self.pattern == "dots":
            row = np.floor(v)
            du = np.mod(u + 0.5 * np.mod(row, 2), 1) - 0.5
            dv = np.mod(v, 1) - 0.5
            colour = _mix(colour, second, _inside(0.3 - np.hypot(du, dv)))
        elif self.pattern == "print":
            field = _waves(self.seed, around, y, 0.45 / self.period)
            colour = _mix(colour, second, _inside(field - 0.45))
            field = _waves(self.seed + 1, around, y, 0.6 / self.period)
            colour = _mix(colour, third, _inside(field - 0.6))
        elif self.pattern == "heather":
            fleck = ring_noise(
                np.random.default_rng(self.seed), *u.shape, u.shape[0] // 2, u.shape[1] // 2
            )
            colour = colour * (1 + 0.12 * fleck[..., None])
        return colour


def _mix(colour: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    return colour + (other - colour) * share[..., None]


def _inside(distance: np.ndarray, softness: float = 0.06) -> np.ndarray:
    """1 where `distance` is positive, with a soft edge."""
    return np.clip(distance / softness + 0.5, 0, 1)


def _band(phase: np.ndarray, share: float) -> np.ndarray:
    """A band of width `share` of every period 1, with soft edges."""
    return _inside(share / 2 - np.abs(np.mod(phase, 1) - 0.5))


def _waves(seed: int, around: np.ndarray, y: np.ndarray, frequency: float) -> np.ndarray:
    """A smooth random field, roughly in [-1, 1], that closes on itself around the part.

    Eight plane waves in space, seen on a cylinder of the part's girth; `frequency` in 1 / metre.
    """
    rng = np.random.default_rng(seed)
    radius = max(float(around.max() - around.min()) / (2 * np.pi), 1e-3)
    x, z = radius * np.sin(around / radius), radius * np.cos(around / radius)
    field = np.zeros(around.shape)
    for _ in range(8):
        direction = rng.normal(size=3)
        direction *= rng.uniform(4, 8) * frequency / np.linalg.norm(direction)
        field += np.sin(
            direction[0] * x + direction[1] * y + direction[2] * z + rng.uniform(0, 6.3)
        )
    return field / 3.0


def random_fabric(rng: np.random.Generator, palette: np.ndarray, plain: float) -> Fabric:
    """A cloth with colours of the palette; plain or heather with probability `plain`."""
    if rng.random() < plain:
        pattern = str(rng.choice(["plain", "plain", "heather"]))
    else:
        pattern = str(rng.choice(PATTERNS[2:]))
    first = random_colour(rng, palette)
    others = [random_colour(rng, CLOTH) for _ in range(12)]
    # a pattern has to be seen: take the two most different from the ground
    others.sort(key=lambda colour: -float(np.abs(colour - first).sum()))
    colours = np.stack((first, others[rng.integers(3)], others[3 + rng.integers(3)]))
    return Fabric(pattern, colours, float(rng.uniform(0.045, 0.10)), int(rng.integers(2**31)))


def wrinkles(rng: np.random.Generator, shape: tuple[int, int], amount: float) -> np.ndarray:
    """Brightness factor [h, w] of folds that run along and across a part."""
    height, width = shape
    long = ring_noise(rng, height, width, 5, 9)
    fine = ring_noise(rng, height, width, 11, 7)
    return 1 + amount * (0.7 * long + 0.5 * fine)


def with_alpha(colour: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`colour` [h, w, 3] covered by `other` [3] (or [h, w, 3]) where `share` [h, w] is 1."""
    return _mix(colour, np.asarray(other), np.clip(share, 0, 1))


def soft_inside(distance: np.ndarray, softness: float) -> np.ndarray:
    """1 where `distance` (metres) is positive, 0 where negative, over `softness` metres."""
    return _inside(distance, softness)
