"""Head, neck, hair and cap."""

import numpy as np

from script.make_synthetic_dataset import painters
from script.make_synthetic_dataset.mesh import (
    MeshBuilder,
    capsule,
    chain_weights,
    ring_angles,
    smooth_step,
    tube,
)
from script.make_synthetic_dataset.proportions import CHIN, HEAD_PROFILE, HEAD_SIZE, NECK, Figure


def add_head(figure: Figure, mesh: MeshBuilder, rng: np.random.Generator) -> None:
    """Head with face and nose, neck, ears."""
    p, k, unit = figure.person, figure.k, figure.head_unit
    grid = figure.head_grid(HEAD_PROFILE[:, 0])
    angles = ring_angles(29, 0.35)
    rows = HEAD_PROFILE[:, 0]
    # nose: a ridge that grows from the bridge to the tip
    ridge = smooth_step(rows, 0.115, 0.070) * smooth_step(rows, 0.056, 0.064)
    nose = 0.024 * unit * ridge[:, None] * np.exp(-((angles / 0.13) ** 2))
    grid[..., 2] += nose
    mesh.add_rigid(
        "head",
        grid,
        "head",
        painters.face_painter(p, rng, CHIN * k, HEAD_SIZE * (0.5 + 0.5 * k)),
    )
    heights = np.linspace(1.40, 1.60, 7)
    radius = (0.049 if p.female else 0.058) * k * (0.6 + 0.4 * p.girth)
    widen = 1 + 0.25 * smooth_step(heights, 1.49, 1.42)
    neck = tube(
        heights * k, radius * widen, radius * widen, radius * 1.05 * widen, 0.0,
        (-0.014 + 0.012 * (heights - 1.45) / 0.15) * k, ring_angles(17),
    )  # fmt: skip
    weights = chain_weights(
        neck[..., 1], ("head", "neck", "chest"), ((CHIN + 0.02) * k, (NECK - 0.03) * k),
        (0.04 * k, 0.03 * k),
    )  # fmt: skip
    mesh.add("neck", neck, weights, painters.skin_painter(p, rng))
    if p.hair_style not in ("long", "bob"):
        for side, sign in (("r", -1), ("l", 1)):
            x, y, z = sign * 0.073 * unit, CHIN * k + 0.098 * unit, -0.004
            ear = capsule((x, y - 0.03, z), (x + sign * 0.006, y + 0.03, z - 0.008), (0.009, 0.018))
            mesh.add_rigid(f"ear_{side}", ear, "head", painters.skin_painter(p, rng))


def add_hair(figure: Figure, mesh: MeshBuilder, rng: np.random.Generator) -> None:
    """Hair, or a cap with its bill."""
    p, k, unit = figure.person, figure.k, figure.head_unit
    if p.hair_style == "bald":
        return
    paint = painters.hair_painter(p, rng)
    thickness = {"crop": 0.007, "short": 0.016, "cap": 0.004}.get(p.hair_style, 0.016)
    rows = np.concatenate((np.linspace(0.02, 0.205, 20), HEAD_PROFILE[-2:, 0]))
    grid = figure.head_grid(rows)
    angles = np.abs(ring_angles(29, 0.35))
    # lower edge of the hair around the head: brow, temple, ear, nape
    nape = 0.02 if p.female else 0.045
    edge = np.interp(
        angles,
        [0.0, 0.55, 0.95, 1.25, 1.55, 1.85, 2.2, np.pi],
        [0.182, 0.172, 0.150, 0.125, 0.118, 0.085, nape + 0.02, nape],
    )
    parting = 0.014 * np.sin(ring_angles(29, 0.35) * 1.0 + 0.6) if p.female else 0.0
    inside = smooth_step(rows[:, None] - edge[None] - parting, -0.006, 0.008)
    bulge = 1 + 0.6 * smooth_step(rows, 0.12, 0.2)[:, None] * (p.hair_style not in ("crop", "cap"))
    offset = (inside * (thickness * bulge + 0.012) - 0.012) * unit
    direction = grid - grid.mean(1, keepdims=True)
    direction[..., 1] = 0
    direction /= np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-6)
    hair = grid + direction * offset[..., None]
    lift = smooth_step(rows, 0.14, 0.225) * thickness * 1.3 * unit
    hair[..., 1] += lift[:, None]
    hair = _closed(hair)
    mesh.add_rigid("hair", hair, "head", paint)
    base = CHIN * k
    if p.hair_style in ("long", "bob"):
        length = 0.04 if p.hair_style == "bob" else rng.uniform(0.14, 0.34)
        y = np.linspace(base + 0.165 * unit, base - length, 12)
        t = np.linspace(0, 1, 12)
        swell = np.sqrt(np.clip(t / 0.12, 0.02, 1)) * (1 - 0.35 * smooth_step(t, 0.75, 1.0))
        half = (0.088 + 0.012 * t) * unit * swell
        curtain = tube(
            y, half, 0.030 * unit * swell, (0.062 - 0.018 * t) * unit * swell, 0.0,
            (-0.052 - 0.022 * smooth_step(t, 0.3, 0.8)) * unit, ring_angles(21), power=2.4,
        )  # fmt: skip
        weights = chain_weights(
            curtain[..., 1], ("head", "neck", "chest"), (base - 0.02, base - 0.08), (0.05, 0.04)
        )
        mesh.add("hair_back", curtain, weights, paint)
        front = -0.01 if p.hair_style == "bob" else length * rng.uniform(0.5, 0.9)
        for side, sign in (("r", -1), ("l", 1)):
            t = np.linspace(0, 1, 10)
            top, low = base + 0.19 * unit, base - front
            yy = top + (low - top) * t
            size = np.sqrt(np.clip(np.minimum(t / 0.15, (1.02 - t) / 0.3), 0.02, 1))
            x = sign * (0.050 + 0.034 * smooth_step(t, 0.0, 0.35)) * unit
            z = (0.030 + 0.022 * smooth_step(t, 0.5, 1.0)) * unit
            lock = tube(yy, 0.017 * size, 0.032 * size, 0.04 * size, x, z, ring_angles(11))
            weights = chain_weights(lock[..., 1], ("head", "chest"), (base - 0.05,), (0.06,))
            mesh.add(f"lock_{side}", lock, weights, paint)
    elif p.hair_style == "ponytail":
        t = np.linspace(0, 1, 9)
        size = np.sqrt(np.clip(np.minimum(t / 0.1, (1.02 - t) / 0.5), 0.02, 1))
        y = base + (0.15 - 0.33 * t) * unit
        z = -(0.105 + 0.05 * np.sin(np.pi * np.minimum(t * 1.2, 1))) * unit
        tail = tube(y, 0.034 * size, 0.028 * size, 0.028 * size, 0.0, z, ring_angles(13))
        mesh.add_rigid("ponytail", tail, "head", paint)
    elif p.hair_style == "bun":
        high = rng.uniform(0.13, 0.2)
        y, z = base + high * unit, -(0.115 - 0.35 * max(0, high - 0.15)) * unit
        mesh.add_rigid(
            "bun", capsule((0, y - 0.04, z), (0, y + 0.04, z), (0.045, 0.04)), "head", paint
        )
    elif p.hair_style == "cap":
        rows = np.concatenate((np.linspace(0.142, 0.21, 9), HEAD_PROFILE[-2:, 0]))
        cap = figure.head_grid(rows, grow=0.017)
        cap[..., 1] += 0.018 * smooth_step(rows, 0.142, 0.225)[:, None]
        cloth = painters.plain_painter(p.bag_colour, rng)
        mesh.add_rigid("cap", _closed(cap), "head", cloth)
        t = np.linspace(0, 1, 6)
        bill = tube(
            t, 0.068 * np.sqrt(1.02 - t**2), 0.006 + 0 * t, 0.006 + 0 * t, 0, 0, ring_angles(13)
        )
        bill = np.stack((bill[..., 0], bill[..., 2], bill[..., 1]), -1)
        bill[..., 2] = 0.06 * unit + bill[..., 2] * 0.095
        bill[..., 1] += base + 0.152 * unit - 0.02 * t[:, None] ** 2 - 4.0 * bill[..., 0] ** 2
        mesh.add_rigid("bill", bill, "head", painters.plain_painter(p.bag_colour * 0.85, rng))


def _closed(grid: np.ndarray) -> np.ndarray:
    """The tube with its last ring closed by a point."""
    return np.concatenate(
        (grid, np.broadcast_to(grid[-1:].mean(1, keepdims=True), grid[-1:].shape))
    )
