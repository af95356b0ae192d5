"""Kinematic skeleton: bones, joint limits and forward kinematics.

World frame, in metres: x to the person's left, y up, z to the front. In the rest pose the person
stands straight with the arms hanging, so that every limb is vertical.
"""

from dataclasses import dataclass, field

import numpy as np

# name, parent; parents come first
BONES: tuple[tuple[str, str | None], ...] = (
    ("pelvis", None),
    ("spine", "pelvis"),
    ("chest", "spine"),
    ("neck", "chest"),
    ("head", "neck"),
    ("upper_arm_r", "chest"),
    ("forearm_r", "upper_arm_r"),
    ("hand_r", "forearm_r"),
    ("upper_arm_l", "chest"),
    ("forearm_l", "upper_arm_l"),
    ("hand_l", "forearm_l"),
    ("thigh_r", "pelvis"),
    ("calf_r", "thigh_r"),
    ("foot_r", "calf_r"),
    ("thigh_l", "pelvis"),
    ("calf_l", "thigh_l"),
    ("foot_l", "calf_l"),
)
BONE_INDEX = {name: index for index, (name, _) in enumerate(BONES)}
PARENTS = tuple(None if parent is None else BONE_INDEX[parent] for _, parent in BONES)

# Degrees: (low, high) of flexion (forward; knee: backward), abduction (away from the midline;
# trunk: to the left) and twist (outward; trunk: to the left). Narrower than what a gymnast can do.
JOINT_LIMITS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "pelvis": ((-10, 15), (-8, 8), (0, 0)),
    "spine": ((-10, 25), (-12, 12), (-20, 20)),
    "chest": ((-8, 15), (-8, 8), (-15, 15)),
    "neck": ((-15, 25), (-15, 15), (-30, 30)),
    "head": ((-15, 20), (-10, 10), (-35, 35)),
    "upper_arm": ((-50, 120), (-5, 110), (-85, 75)),
    "forearm": ((0, 140), (0, 0), (-60, 60)),
    "hand": ((-40, 40), (-15, 15), (0, 0)),
    "thigh": ((-30, 70), (-8, 35), (-20, 35)),
    "calf": ((0, 90), (0, 0), (0, 0)),
    "foot": ((-35, 20), (-5, 5), (-5, 5)),
}

# Sign of the rotation about x that brings the bone's far end forward (the knee and the foot: the
# anatomical direction of flexion).
_FLEXION_SIGN = {
    "pelvis": 1,
    "spine": 1,
    "chest": 1,
    "neck": 1,
    "head": 1,
    "upper_arm": -1,
    "forearm": -1,
    "hand": -1,
    "thigh": -1,
    "calf": 1,
    "foot": -1,
}


def bone_kind(bone: str) -> str:
    """The bone's name without its side: the key of `JOINT_LIMITS`."""
    return bone[:-2] if bone.endswith(("_r", "_l")) else bone


@dataclass
class Pose:
    """Joint angles in degrees: bone -> (flexion, abduction, twist); absent bones are at rest."""

    angles: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    def clipped(self) -> "Pose":
        """The pose with every angle brought inside `JOINT_LIMITS`."""
        return Pose(
            {
                bone: tuple(
                    float(np.clip(angle, low, high))
                    for angle, (low, high) in zip(
                        angles, JOINT_LIMITS[bone_kind(bone)], strict=True
                    )
                )
                for bone, angles in self.angles.items()
            }
        )


def rotation(axis: str, degrees: float) -> np.ndarray:
    """Right-handed rotation matrix [3, 3] about the axis "x", "y" or "z"."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def local_rotation(bone: str, angles: tuple[float, float, float]) -> np.ndarray:
    """Rotation [3, 3] of a bone against its parent from its anatomical angles in degrees."""
    flexion, abduction, twist = angles
    side = -1 if bone.endswith("_r") else 1
    sign = _FLEXION_SIGN[bone_kind(bone)]
    return (
        rotation("z", side * abduction)
        @ rotation("x", sign * flexion)
        @ rotation("y", side * twist)
    )


def bone_transforms(rest: np.ndarray, pose: Pose) -> np.ndarray:
    """Forward kinematics.

    `rest`: bone origins in the rest pose, [17, 3] metres. Returns [17, 3, 4]: the affine map from
    a point in the rest pose, fixed to the bone, to its place in `pose`.
    """
    rotations, origins = [], []
    maps = np.empty((len(BONES), 3, 4))
    for index, (bone, _) in enumerate(BONES):
        local = local_rotation(bone, pose.angles.get(bone, (0.0, 0.0, 0.0)))
        parent = PARENTS[index]
        if parent is None:
            rotations.append(local)
            origins.append(rest[index])
        else:
            rotations.append(rotations[parent] @ local)
            origins.append(origins[parent] + rotations[parent] @ (rest[index] - rest[parent]))
        maps[index, :, :3] = rotations[-1]
        maps[index, :, 3] = origins[-1] - rotations[-1] @ rest[index]
    return maps
