"""The body of an `Identity`: skeleton at rest and dressed surface mesh.

The dressed body is a set of tubes around the bones (generalised cylinders), skinned to them.
Cloth is a second tube outside the skin. Every point of the surface has one texture coordinate,
whatever the pose, so that corresponding points of two pictures are known exactly.
"""

from dataclasses import dataclass

import numpy as np

from script.make_synthetic_dataset import painters
from script.make_synthetic_dataset.head import add_hair, add_head
from script.make_synthetic_dataset.identity import Identity
from script.make_synthetic_dataset.mesh import (
    Mesh,
    MeshBuilder,
    capsule,
    ring_angles,
    smooth_step,
    tube,
)
from script.make_synthetic_dataset.proportions import (
    ANKLE,
    ARM_PROFILE,
    CROTCH,
    HIP,
    LEG_PROFILE,
    SHOULDER,
    TRUNK_PROFILE,
    WRIST,
    Figure,
)
from script.make_synthetic_dataset.skeleton import BONE_INDEX


@dataclass
class Body:
    """A person's surface, skeleton and key points at rest.

    `joints` [17, 3]: bone origins, metres; `landmarks` [18, 3]: the OpenPose key points;
    `landmark_bone` [18]: the bone each moves with; `landmark_normal` [18, 3]: the outward direction
    of a point on the face, 0 for joints.
    """

    mesh: Mesh
    joints: np.ndarray
    landmarks: np.ndarray
    landmark_bone: np.ndarray
    landmark_normal: np.ndarray


def add_trunk(figure: Figure, mesh: MeshBuilder, rng: np.random.Generator) -> None:
    """The upper garment and the upper end of the lower one."""
    p, k = figure.person, figure.k
    hem = 1.04 if p.bottom == "dress" else p.hem
    heights = np.unique(
        np.concatenate((np.linspace(hem, 1.36, 14), TRUNK_PROFILE[9:, 0], [1.41, 1.455]))
    )
    flare = 0.10 if hem < 0.97 else 0.0
    grid = figure.trunk(heights, p.loose, close=False, flare=flare)
    mesh.add(
        "top", grid, figure.trunk_weights(grid, legs=0.45),
        painters.top_painter(p, rng, 1.492 * k, SHOULDER * k, k),
    )  # fmt: skip
    waist = 1.06
    heights = np.unique(
        np.concatenate((np.linspace(CROTCH - 0.01, CROTCH + 0.05, 6), np.linspace(0.9, waist, 7)))
    )
    grid = figure.trunk(heights, 0.004, close=True)
    mesh.add(
        "pelvis", grid, figure.trunk_weights(grid, legs=0.35),
        painters.pelvis_painter(p, rng, waist * k),
    )  # fmt: skip


def add_skirt(figure: Figure, mesh: MeshBuilder, rng: np.random.Generator) -> None:
    """A skirt, or the lower part of a dress; nothing for who wears neither."""
    p, k = figure.person, figure.k
    if p.bottom not in ("skirt", "dress"):
        return
    low = HIP - (HIP - ANKLE) * p.leg
    heights = np.linspace(low, 1.075, 14)
    flare = rng.uniform(0.0, 0.28) if p.leg < 0.5 else rng.uniform(0.0, 0.12)
    grid = figure.trunk(heights, p.loose + 0.002 if p.bottom == "dress" else 0.008, close=False)
    below = np.maximum(0, 0.95 - heights)[:, None]
    centre = grid.mean(1, keepdims=True)
    grid = centre + (grid - centre) * (1 + flare * below / 0.3)[..., None]
    weights = figure.trunk_weights(grid, legs=0.0)
    # below the hips the cloth follows the nearer leg at the sides, both in the middle
    down = 0.8 * smooth_step(grid[..., 1], 0.95 * k, 0.72 * k)
    left = smooth_step(grid[..., 0], -0.13 * k, 0.13 * k)
    weights = weights * (1 - down)[..., None]
    weights[..., BONE_INDEX["thigh_l"]] += down * left
    weights[..., BONE_INDEX["thigh_r"]] += down * (1 - left)
    mesh.add("skirt", grid, weights, painters.cloth_painter(p.bottom_fabric, rng, 0.09))


def add_arms(figure: Figure, mesh: MeshBuilder, rng: np.random.Generator) -> None:
    """Arms with hands and sleeves."""
    p = figure.person
    for side, sign in (("r", -1), ("l", 1)):
        end = SHOULDER - (SHOULDER - WRIST) * p.sleeve
        heights = (
            ARM_PROFILE[:, 0]
            if p.sleeve < 0.1
            else np.unique(np.append(ARM_PROFILE[ARM_PROFILE[:, 0] < end + 0.06, 0], end + 0.06))
        )
        heights = np.unique(np.append(heights, np.linspace(heights.min(), heights.max(), 16)))
        grid = figure.arm(heights, 0.0, side)
        mesh.add(
            f"arm_{side}",
            grid,
            figure.arm_weights(grid, side),
            painters.skin_painter(p, rng),
        )
        if p.sleeve >= 0.1:
            heights = np.unique(
                np.append(ARM_PROFILE[ARM_PROFILE[:, 0] > end, 0], np.linspace(end, 1.40, 12))
            )
            grid = figure.arm(heights, p.loose * 0.8 + 0.004, side)
            if p.sleeve < 0.6:  # short sleeves stand off
                t = smooth_step(heights, 1.38, end)[:, None, None] * 0.16
                centre = grid.mean(1, keepdims=True)
                grid = grid + (grid - centre) * t * np.array([1, 0, 1])
            cuff = 0.05 if p.top in ("shirt", "jacket") and p.sleeve > 0.9 else 0.0
            mesh.add(
                f"sleeve_{side}", grid, figure.arm_weights(grid, side),
                painters.cloth_painter(p.top_fabric, rng, 0.09, cuff),
            )  # fmt: skip
        add_hand(figure, mesh, rng, side, sign)


def add_hand(
    figure: Figure, mesh: MeshBuilder, rng: np.random.Generator, side: str, sign: int
) -> None:
    """A hand with its thumb."""
    p, k = figure.person, figure.k
    size = k * (0.92 if p.female else 1.0)
    t = np.array([-0.08, 0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.88, 0.96, 1.0])
    wide = np.array([0.024, 0.026, 0.034, 0.040, 0.041, 0.037, 0.033, 0.027, 0.017, 0.003])
    thick = np.array([0.02, 0.019, 0.018, 0.017, 0.015, 0.013, 0.012, 0.010, 0.008, 0.002])
    wrist = figure.joint(f"hand_{side}")
    x = wrist[0] - sign * 0.012 * t**2
    z = 0.012 * t
    hand = tube(
        wrist[1] - 0.185 * size * t,
        thick * size,
        wide * size,
        wide * size,
        x,
        z,
        ring_angles(13),
    )
    paint = painters.hand_painter(p, rng, wrist[1])
    mesh.add(f"hand_{side}", hand, figure.arm_weights(hand, side), paint)
    thumb = capsule(
        (wrist[0] - sign * 0.012, wrist[1] - 0.105 * size, 0.052 * size),
        (wrist[0] - sign * 0.002, wrist[1] - 0.015 * size, 0.012 * size),
        (0.011 * size, 0.013 * size),
    )
    mesh.add(
        f"thumb_{side}",
        thumb,
        figure.arm_weights(thumb, side),
        painters.skin_painter(p, rng),
    )


def add_legs(figure: Figure, mesh: MeshBuilder, rng: np.random.Generator) -> None:
    """Legs with trousers or shorts, socks and shoes."""
    p = figure.person
    trousers = p.bottom in ("trousers", "shorts")
    end = HIP - (HIP - ANKLE) * p.leg
    for side, sign in (("r", -1), ("l", 1)):
        # what cloth hides is left out, so that it cannot poke through
        top = end + (0.06 if trousers else 0.10)
        heights = np.linspace(0.05, top, 18 if top > 0.4 else 6)
        heights = np.unique(np.append(heights, LEG_PROFILE[LEG_PROFILE[:, 0] < top, 0]))
        grid = figure.leg(heights, 0.0, side)
        mesh.add(
            f"leg_{side}",
            grid,
            figure.leg_weights(grid, side),
            painters.skin_painter(p, rng),
        )
        if trousers:
            heights = np.unique(
                np.append(LEG_PROFILE[LEG_PROFILE[:, 0] > end, 0], np.linspace(end, 0.93, 18))
            )
            ease = figure.leg_ease() * (1 + 0.9 * smooth_step(heights, 0.55, 0.2))
            grid = figure.leg(heights, ease, side)
            if p.bottom == "shorts":
                wide = smooth_step(heights, 0.85, end)[:, None, None] * 0.14
                centre = grid.mean(1, keepdims=True)
                grid = grid + (grid - centre) * wide * np.array([1, 0, 1])
            paint = painters.trousers_painter(p, rng, sign)
            mesh.add(f"trousers_{side}", grid, figure.leg_weights(grid, side), paint)
        if p.socks is not None:
            heights = np.linspace(0.05, 0.16, 5)
            grid = figure.leg(heights, 0.004, side)
            paint = painters.plain_painter(p.socks, rng)
            mesh.add(f"sock_{side}", grid, figure.leg_weights(grid, side), paint)
        add_foot(figure, mesh, rng, side)


def add_foot(figure: Figure, mesh: MeshBuilder, rng: np.random.Generator, side: str) -> None:
    """A shoe."""
    p, k = figure.person, figure.k
    size = k * (0.92 if p.female else 1.02)
    t = np.array([0.0, 0.01, 0.05, 0.15, 0.28, 0.42, 0.56, 0.70, 0.84, 0.93, 0.98, 1.0])
    top = np.array(
        [0.03, 0.05, 0.066, 0.078, 0.082, 0.074, 0.062, 0.052, 0.045, 0.038, 0.028, 0.014]
    )
    half = np.array(
        [0.004, 0.022, 0.032, 0.037, 0.037, 0.039, 0.044, 0.048, 0.046, 0.037, 0.022, 0.004]
    )
    ankle = figure.joint(f"foot_{side}")
    grid = tube(
        t, half * size, top * size, top * 0 + 0.001, ankle[0], 0.0, ring_angles(17), power=2.6
    )
    length = 0.265 * size
    foot = np.stack((grid[..., 0], grid[..., 2], grid[..., 1] * length - 0.072 * size), -1)
    foot[..., 1] += 0.002
    mesh.add_rigid(f"shoe_{side}", foot, f"foot_{side}", painters.shoe_painter(p, rng, 0.0))


def add_bag(figure: Figure, mesh: MeshBuilder, rng: np.random.Generator) -> None:
    """A backpack or a shoulder bag."""
    p, k = figure.person, figure.k
    cloth = painters.plain_painter(p.bag_colour, rng, 0.10)
    if p.bag == "backpack":
        t = np.linspace(0, 1, 9)
        size = (np.clip(1 - np.abs(2 * t - 1) ** 5, 0.003, 1)) ** 0.5
        pack = tube(
            (1.43 - 0.42 * t) * k, 0.145 * size * k, 0.06 * size * k, 0.085 * size * k, 0.0,
            -0.155 * k, ring_angles(17), power=3.2,
        )  # fmt: skip
        mesh.add_rigid("backpack", pack, "chest", cloth)
    elif p.bag == "shoulder_bag":
        t = np.linspace(0, 1, 7)
        size = (np.clip(1 - np.abs(2 * t - 1) ** 6, 0.003, 1)) ** 0.5
        bag = tube(
            (1.0 - 0.24 * t) * k, 0.035 * size, 0.13 * size, 0.13 * size,
            (p.hip + 0.055), -0.02, ring_angles(13), power=3.0,
        )  # fmt: skip
        mesh.add_rigid("bag", bag, "pelvis", cloth)


def build_body(person: Identity, density: float) -> Body:
    """Skeleton and dressed mesh of `person`; `density`: texels per metre."""
    figure, mesh, rng = Figure(person), MeshBuilder(density), np.random.default_rng(person.seed)
    for add in (add_trunk, add_legs, add_skirt, add_arms, add_head, add_hair, add_bag):
        add(figure, mesh, rng)
    return Body(mesh.build(), figure.joints, *figure.landmarks())
