"""Random poses and viewing directions: walking and standing people, and models in a studio."""

import numpy as np

from script.make_synthetic_dataset.skeleton import Pose


def _symmetric(rng: np.random.Generator, spread: float) -> float:
    return float(rng.normal(0, spread))


def _trunk(rng: np.random.Generator, turn: float) -> dict[str, tuple[float, float, float]]:
    """Small movements of the trunk; the head looks up to about `turn` degrees aside."""
    return {
        "pelvis": (_symmetric(rng, 2), _symmetric(rng, 2), 0.0),
        "spine": (_symmetric(rng, 3) + 2, _symmetric(rng, 2), _symmetric(rng, 4)),
        "chest": (_symmetric(rng, 2) + 1, _symmetric(rng, 2), _symmetric(rng, 3)),
        "neck": (_symmetric(rng, 3) + 2, _symmetric(rng, 1.5), _symmetric(rng, turn / 3)),
        "head": (_symmetric(rng, 3) + 1, _symmetric(rng, 1.5), _symmetric(rng, turn / 2)),
    }


def _hanging_arm(rng: np.random.Generator) -> dict[str, tuple[float, float, float]]:
    return {
        "upper_arm": (_symmetric(rng, 6), rng.uniform(4, 16), rng.uniform(-25, 5)),
        "forearm": (rng.uniform(5, 28), 0.0, rng.uniform(-20, 20)),
        "hand": (rng.uniform(-5, 15), 0.0, 0.0),
    }


def _busy_arm(rng: np.random.Generator) -> dict[str, tuple[float, float, float]]:
    """An arm that does something: on the hip, in the pocket, holding a thing, touching the hair."""
    kind = rng.choice(["hip", "pocket", "hold", "raise", "front"], p=[0.3, 0.25, 0.25, 0.08, 0.12])
    if kind == "hip":
        angles = ((-18, 38, -58), (95, 0, 0), (10, 0, 0))
    elif kind == "pocket":
        angles = ((-16, 16, -20), (38, 0, 0), (5, 0, 0))
    elif kind == "hold":
        angles = ((12, 10, -22), (92, 0, 0), (0, 0, 0))
    elif kind == "raise":
        angles = ((8, 96, 66), (132, 0, 0), (-5, 0, 0))
    else:
        angles = ((18, 6, -50), (62, 0, 0), (5, 0, 0))
    return {
        bone: (
            flexion + _symmetric(rng, 6),
            abduction + (_symmetric(rng, 4) if bone == "upper_arm" else 0.0),
            twist + (_symmetric(rng, 6) if bone == "upper_arm" else 0.0),
        )
        for bone, (flexion, abduction, twist) in zip(
            ("upper_arm", "forearm", "hand"), angles, strict=True
        )
    }


def _with_side(
    angles: dict[str, tuple[float, float, float]], side: str
) -> dict[str, tuple[float, float, float]]:
    return {f"{bone}_{side}": value for bone, value in angles.items()}


def _standing_legs(rng: np.random.Generator, relaxed: float) -> dict:
    """Both feet on the ground; with probability `relaxed` one knee is bent a little."""
    angles = {}
    bent = rng.choice(["r", "l"]) if rng.random() < relaxed else None
    for side in ("r", "l"):
        knee = rng.uniform(10, 28) if side == bent else rng.uniform(0, 6)
        thigh = knee * 0.55 + _symmetric(rng, 2.5)
        spread = rng.uniform(1, 8) + (3 if side == bent else 0)
        angles[f"thigh_{side}"] = (thigh, spread, rng.uniform(0, 18))
        angles[f"calf_{side}"] = (knee, 0.0, 0.0)
        angles[f"foot_{side}"] = (knee - thigh, 0.0, 0.0)
    return angles


def walking_pose(rng: np.random.Generator) -> Pose:
    """A phase of the gait cycle: legs half a period apart, arms swinging against the legs."""
    angles = _trunk(rng, turn=14)
    phase = rng.uniform(0, 2 * np.pi)
    stride, swing = rng.uniform(14, 29), rng.uniform(8, 28)
    for side, shift in (("r", 0.0), ("l", np.pi)):
        cycle = phase + shift
        thigh = stride * np.sin(cycle) + 4
        # the knee bends while the leg swings forward, that is while the thigh angle rises
        knee = 6 + rng.uniform(35, 55) * max(0.0, np.cos(cycle + 0.5)) ** 2
        angles[f"thigh_{side}"] = (thigh, rng.uniform(0, 4), rng.uniform(0, 8))
        angles[f"calf_{side}"] = (knee, 0.0, 0.0)
        angles[f"foot_{side}"] = (np.clip(knee - thigh, -15, 12) * 0.6, 0.0, 0.0)
        arm = -swing * np.sin(cycle)
        angles[f"upper_arm_{side}"] = (arm, rng.uniform(3, 12), rng.uniform(-20, 0))
        angles[f"forearm_{side}"] = (rng.uniform(10, 30) + max(0.0, arm) * 0.7, 0.0, 0.0)
        angles[f"hand_{side}"] = (rng.uniform(-5, 12), 0.0, 0.0)
    if rng.random() < 0.25:
        side = rng.choice(["r", "l"])
        angles.update(_with_side(_busy_arm(rng), side))
    return Pose(angles).clipped()


def standing_pose(rng: np.random.Generator, busy: float = 0.35, turn: float = 14) -> Pose:
    """Standing on both feet; each arm does something with probability `busy`."""
    angles = _trunk(rng, turn)
    angles.update(_standing_legs(rng, relaxed=0.5))
    for side in ("r", "l"):
        arm = _busy_arm(rng) if rng.random() < busy else _hanging_arm(rng)
        angles.update(_with_side(arm, side))
    return Pose(angles).clipped()


def market_pose(rng: np.random.Generator) -> tuple[Pose, float]:
    """A pedestrian: pose and yaw in degrees (0 = facing the camera, 90 = facing right)."""
    pose = walking_pose(rng) if rng.random() < 0.65 else standing_pose(rng, busy=0.3)
    yaw = rng.choice([0.0, 180.0, 90.0, -90.0], p=[0.32, 0.32, 0.18, 0.18]) + rng.normal(0, 22)
    return pose, float(yaw)


def fashion_pose(rng: np.random.Generator, view: str) -> tuple[Pose, float]:
    """A model in the studio: pose and yaw in degrees for a view of `scene.FASHION_VIEWS`."""
    if view == "full" and rng.random() < 0.25:
        pose = walking_pose(rng)
    else:
        pose = standing_pose(rng, busy=0.15 if view == "back" else 0.35)
    side = rng.choice([-1.0, 1.0])
    yaw = {
        "front": rng.normal(0, 9),
        "side": side * rng.uniform(60, 95),
        "back": 180 + rng.normal(0, 12),
        "full": rng.normal(0, 14),
        "additional": side * rng.uniform(20, 55),
    }[view]
    return pose, float(yaw)
