"""Surfaces of the body: grids of vertices around a bone, with texture and skinning weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from script.make_synthetic_dataset.skeleton import BONE_INDEX, BONES


@dataclass
class Texels:
    """Where the texels of one part lie: what a painter needs. Arrays of shape [h, w].

    `x`, `y`, `z`: place in the rest pose, metres. `angle`: around the part, radians in
    [-pi, pi], 0 = front, positive = the person's left. `along`: 0..1 from first to last ring.
    `around`: arc length from the front in metres.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    angle: np.ndarray
    along: np.ndarray
    around: np.ndarray


Painter = Callable[[Texels], np.ndarray]


@dataclass
class Mesh:
    """A textured, skinned triangle mesh; all parts together.

    `rest` [V, 3] metres; `normals` [V, 3] in the rest pose; `skin` [V, 17] weights of the bones;
    `texture_place` [V, 2]: row and column in the part's texture, in texels;
    `shade` [V]: brightness factor fixed to the body; `triangles` [T, 3]; `part` [T] index into
    `names`; `texture` [N, 3] in [0, 1]: all textures, flattened; `texture_start`,
    `texture_height`, `texture_width`: [parts].
    """

    names: list[str]
    rest: np.ndarray
    normals: np.ndarray
    skin: np.ndarray
    texture_place: np.ndarray
    shade: np.ndarray
    triangles: np.ndarray
    part: np.ndarray
    texture: np.ndarray
    texture_start: np.ndarray
    texture_height: np.ndarray
    texture_width: np.ndarray


def ring_angles(count: int, focus: float = 0.0) -> np.ndarray:
    """`count` angles from -pi to pi; `focus` in [0, 1) draws them towards the front (0)."""
    even = np.linspace(-np.pi, np.pi, count)
    return even - focus * np.sin(even)


def tube(
    y: Sequence[float],
    half_width: Sequence[float],
    half_front: Sequence[float],
    half_back: Sequence[float],
    centre_x: Sequence[float] | float = 0.0,
    centre_z: Sequence[float] | float = 0.0,
    angles: np.ndarray | None = None,
    power: float = 2.0,
) -> np.ndarray:
    """A vertical tube of elliptical rings, one per entry of `y`: vertices [rings, angles, 3].

    `power` 2 gives ellipses, larger values rounded boxes. All lengths in metres.
    """
    angles = ring_angles(17) if angles is None else angles
    s, c = np.sin(angles), np.cos(angles)
    s = np.sign(s) * np.abs(s) ** (2 / power)
    c = np.sign(c) * np.abs(c) ** (2 / power)
    y = np.asarray(y, float)
    depth = np.where(c >= 0, np.asarray(half_front)[:, None], np.asarray(half_back)[:, None])
    x = np.broadcast_to(centre_x, y.shape)[:, None] + np.asarray(half_width)[:, None] * s
    z = np.broadcast_to(centre_z, y.shape)[:, None] + depth * c
    return np.stack((x, np.broadcast_to(y[:, None], x.shape), z), -1)


def capsule(
    start: Sequence[float], end: Sequence[float], radius: Sequence[float], rings: int = 7
) -> np.ndarray:
    """An ellipsoid from `start` to `end` (along y) with `radius` (x, z): [rings, 11, 3]."""
    t = np.linspace(0, 1, rings)
    profile = np.sqrt(np.maximum(1 - (2 * t - 1) ** 2, 1e-4))
    start, end = np.asarray(start), np.asarray(end)
    centre = start + (end - start) * t[:, None]
    return tube(
        centre[:, 1],
        radius[0] * profile,
        radius[1] * profile,
        radius[1] * profile,
        centre[:, 0],
        centre[:, 2],
        ring_angles(11),
    )


def smooth_step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, a smooth cubic between (low > high turns it round)."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def chain_weights(
    y: np.ndarray, bones: Sequence[str], joints: Sequence[float], blend: Sequence[float]
) -> np.ndarray:
    """Skinning weights along a limb, [..., 17].

    `bones` from the highest to the lowest; `joints`: heights of the joints between them; `blend`:
    half-height of the zone around each joint in which both bones count. Metres.
    """
    weights = np.zeros((*y.shape, len(BONES)))
    remaining = np.ones(y.shape)
    for bone, joint, width in zip(bones, joints, blend, strict=False):
        above = smooth_step(y, joint - width, joint + width)
        weights[..., BONE_INDEX[bone]] += remaining * above
        remaining = remaining * (1 - above)
    weights[..., BONE_INDEX[bones[-1]]] += remaining
    return weights


def bone_weights(grid: np.ndarray, bone: str) -> np.ndarray:
    """Weights [rings, angles, 17] of a part fixed to one bone."""
    weights = np.zeros((*grid.shape[:2], len(BONES)))
    weights[..., BONE_INDEX[bone]] = 1
    return weights


def _normals(grid: np.ndarray) -> np.ndarray:
    """Outward unit normals [rings, angles, 3] of a grid that closes on itself around."""
    along = np.gradient(grid, axis=0)
    around = np.empty_like(grid)
    around[:, 1:-1] = grid[:, 2:] - grid[:, :-2]
    around[:, 0] = around[:, -1] = grid[:, 1] - grid[:, -2]
    normal = np.cross(along, around)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)


class MeshBuilder:
    """Collects parts. `density`: texels per metre."""

    def __init__(self, density: float) -> None:
        self.density = density
        self.parts: list[tuple] = []

    def add(self, name: str, grid: np.ndarray, weights: np.ndarray, painter: Painter) -> None:
        """Add a part: `grid` [rings, angles, 3] in the rest pose, `weights` [rings, angles, 17]."""
        rings, columns = grid.shape[:2]
        index = np.arange(rings * columns).reshape(rings, columns)
        a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
        triangles = np.concatenate(
            (np.stack((a, b, c), -1).reshape(-1, 3), np.stack((b, d, c), -1).reshape(-1, 3))
        )
        flat = grid.reshape(-1, 3)
        p, q, r = (flat[triangles[:, k]] - flat.mean(0) for k in range(3))
        normals = _normals(grid)
        if (p * np.cross(q, r)).sum() < 0:  # signed volume: the faces must look outward
            triangles = triangles[:, ::-1]
        centre = grid.mean(1, keepdims=True)
        if ((grid - centre) * normals).sum() < 0:
            normals = -normals

        step = np.linalg.norm(np.diff(grid, axis=0), axis=2).mean(1)
        along = np.concatenate(([0], np.cumsum(np.maximum(step, 1e-6))))
        length = along[-1]
        arc = np.linalg.norm(np.diff(grid, axis=1), axis=2)
        girth = np.concatenate(([0], np.cumsum(arc.mean(0))))
        height = int(np.clip(np.ceil(length * self.density), 4, 400))
        width = int(np.clip(np.ceil(girth[-1] * self.density), 4, 400))
        # texel k lies at k / (size - 1) of the part, both ends included
        ring_of_row = np.interp(np.linspace(0, length, height), along, np.arange(rings))
        column_of = np.interp(np.linspace(0, girth[-1], width), girth, np.arange(columns))
        place = _bilinear_grid(grid, ring_of_row, column_of)
        around = np.linspace(0, girth[-1], width) - girth[-1] / 2
        angle = np.arctan2(
            place[..., 0] - place[..., 0].mean(1, keepdims=True),
            place[..., 2] - place[..., 2].mean(1, keepdims=True),
        )
        texels = Texels(
            place[..., 0],
            place[..., 1],
            place[..., 2],
            angle,
            np.broadcast_to(np.linspace(0, 1, height)[:, None], place.shape[:2]),
            np.broadcast_to(around, place.shape[:2]),
        )
        image = np.clip(painter(texels), 0, 1).astype(np.float32)
        rows = along / length * (height - 1)
        columns_at = girth / girth[-1] * (width - 1)
        texture_place = np.stack(np.meshgrid(rows, columns_at, indexing="ij"), -1)
        self.parts.append(
            (
                name,
                flat,
                normals.reshape(-1, 3),
                weights.reshape(-1, len(BONES)),
                texture_place.reshape(-1, 2),
                triangles,
                image,
            )
        )

    def add_rigid(self, name: str, grid: np.ndarray, bone: str, painter: Painter) -> None:
        """Add a part that moves with one bone."""
        self.add(name, grid, bone_weights(grid, bone), painter)

    def build(self) -> Mesh:
        """All parts as one mesh."""
        names, rest, normals, skin, place, triangles, images = zip(*self.parts, strict=True)
        starts = np.cumsum([0, *(len(part) for part in rest)])
        sizes = [image.shape[0] * image.shape[1] for image in images]
        normal = np.concatenate(normals)
        # Brightness fixed to the body: lit from above, darker at the flanks. It depends on the
        # rest pose only, so that a point of the body has one colour in every picture.
        shade = 0.84 + 0.1 * np.abs(normal[:, 2]) + 0.09 * normal[:, 1]
        return Mesh(
            list(names),
            np.concatenate(rest),
            normal,
            np.concatenate(skin),
            np.concatenate(place).astype(np.float32),
            shade.astype(np.float32),
            np.concatenate([t + s for t, s in zip(triangles, starts, strict=False)]),
            np.concatenate([np.full(len(t), k) for k, t in enumerate(triangles)]),
            np.concatenate([image.reshape(-1, 3) for image in images]),
            np.cumsum([0, *sizes[:-1]]),
            np.array([image.shape[0] for image in images]),
            np.array([image.shape[1] for image in images]),
        )


def _bilinear_grid(grid: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Values of `grid` [r, c, 3] at fractional `rows` [h] and `columns` [w]: [h, w, 3]."""
    row = np.clip(rows.astype(int), 0, grid.shape[0] - 2)
    column = np.clip(columns.astype(int), 0, grid.shape[1] - 2)
    down, right = (rows - row)[:, None, None], (columns - column)[None, :, None]
    upper, lower = grid[row], grid[row + 1]
    return (1 - down) * ((1 - right) * upper[:, column] + right * upper[:, column + 1]) + down * (
        (1 - right) * lower[:, column] + right * lower[:, column + 1]
    )
