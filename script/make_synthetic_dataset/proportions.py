"""Proportions of the human body: profiles of trunk, limbs and head, and where the joints lie."""

import numpy as np

from script.make_synthetic_dataset.identity import Identity
from script.make_synthetic_dataset.mesh import chain_weights, ring_angles, smooth_step, tube
from script.make_synthetic_dataset.skeleton import BONE_INDEX, BONES

# Heights in a body of 1.75 m (metres)
CHIN, NECK, SHOULDER, CHEST, WAIST, HIP = 1.522, 1.485, 1.415, 1.22, 1.05, 0.925
ELBOW, WRIST, KNEE, ANKLE, CROTCH = 1.125, 0.875, 0.495, 0.085, 0.835
HEAD_SIZE = 0.228

# Trunk: height, half-width (times hip or shoulder factors), half-depth to the front and the back
TRUNK_PROFILE = np.array(
    [
        [0.60, 0.172, 0.100, 0.105],
        [0.84, 0.176, 0.102, 0.118],
        [0.91, 0.178, 0.102, 0.122],
        [0.98, 0.164, 0.104, 0.110],
        [1.06, 0.144, 0.102, 0.092],
        [1.14, 0.146, 0.106, 0.092],
        [1.22, 0.158, 0.116, 0.100],
        [1.30, 0.172, 0.122, 0.108],
        [1.36, 0.184, 0.112, 0.110],
        [1.40, 0.196, 0.094, 0.104],
        [1.425, 0.190, 0.080, 0.096],
        [1.443, 0.170, 0.072, 0.088],
        [1.462, 0.126, 0.062, 0.076],
        [1.48, 0.082, 0.057, 0.065],
        [1.50, 0.063, 0.052, 0.058],
    ]
)
ARM_PROFILE = np.array(  # height, radius
    [
        [1.441, 0.004],
        [1.438, 0.016],
        [1.426, 0.034],
        [1.405, 0.049],
        [1.36, 0.053],
        [1.30, 0.049],
        [1.20, 0.043],
        [1.14, 0.039],
        [1.10, 0.040],
        [1.05, 0.041],
        [0.97, 0.034],
        [0.90, 0.027],
        [0.86, 0.025],
    ]
)
LEG_PROFILE = np.array(  # height, half-width, half-depth to the front and the back
    [
        [0.96, 0.005, 0.005, 0.005],
        [0.95, 0.050, 0.045, 0.055],
        [0.91, 0.080, 0.080, 0.094],
        [0.84, 0.087, 0.090, 0.098],
        [0.76, 0.085, 0.088, 0.090],
        [0.66, 0.074, 0.078, 0.078],
        [0.56, 0.062, 0.066, 0.063],
        [0.495, 0.056, 0.062, 0.054],
        [0.44, 0.052, 0.054, 0.056],
        [0.36, 0.054, 0.050, 0.066],
        [0.26, 0.046, 0.044, 0.058],
        [0.16, 0.036, 0.037, 0.042],
        [0.08, 0.034, 0.037, 0.038],
        [0.05, 0.034, 0.040, 0.036],
    ]
)
HEAD_PROFILE = np.array(  # height above the chin in a head of 0.225 m, half-width, front, back
    [
        [-0.006, 0.004, 0.060, -0.040],
        [0.000, 0.024, 0.080, -0.020],
        [0.010, 0.038, 0.091, 0.010],
        [0.025, 0.050, 0.093, 0.040],
        [0.042, 0.058, 0.092, 0.062],
        [0.056, 0.063, 0.092, 0.074],
        [0.068, 0.066, 0.092, 0.083],
        [0.080, 0.068, 0.091, 0.089],
        [0.095, 0.070, 0.089, 0.095],
        [0.112, 0.072, 0.088, 0.100],
        [0.130, 0.074, 0.092, 0.103],
        [0.150, 0.074, 0.092, 0.103],
        [0.172, 0.070, 0.085, 0.098],
        [0.192, 0.061, 0.071, 0.084],
        [0.208, 0.047, 0.053, 0.064],
        [0.219, 0.029, 0.032, 0.040],
        [0.225, 0.004, 0.004, 0.005],
    ]
)


def profile_at(table: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Profile values at `heights` (in the 1.75 m body): [columns - 1, rings]."""
    order = np.argsort(table[:, 0])
    return np.stack(
        [np.interp(heights, table[order, 0], table[order, k]) for k in range(1, table.shape[1])]
    )


class Figure:
    """The proportions of a person: joints at rest, skinning weights, rings of trunk and limbs.

    `k`: height against 1.75 m; `head_unit`: the head's size against 22.5 cm; `joints` [17, 3]:
    bone origins at rest, metres.
    """

    def __init__(self, person: Identity) -> None:
        self.person = person
        self.k = person.height / 1.75
        self.head_unit = HEAD_SIZE / 0.225 * (0.5 + 0.5 * self.k)
        self.joints = self._joints()

    def _joints(self) -> np.ndarray:
        p, k = self.person, self.k
        place = {
            "pelvis": (0, HIP + 0.04, 0),
            "spine": (0, WAIST, 0),
            "chest": (0, CHEST, 0),
            "neck": (0, NECK - 0.03, -0.01),
            "head": (0, CHIN + 0.03, -0.005),
        }
        joints = np.zeros((len(BONES), 3))
        for bone, at in place.items():
            joints[BONE_INDEX[bone]] = np.array(at) * k
        for side, sign in (("r", -1), ("l", 1)):
            shoulder, hip = sign * p.shoulder, sign * p.hip * 0.52
            for bone, x, y in (
                ("upper_arm", shoulder, SHOULDER * k),
                ("forearm", shoulder, ELBOW * k),
                ("hand", shoulder, WRIST * k),
                ("thigh", hip, HIP * k),
                ("calf", hip, KNEE * k),
                ("foot", hip, ANKLE * k),
            ):
                joints[BONE_INDEX[f"{bone}_{side}"]] = (x, y, 0.0)
        return joints

    def joint(self, bone: str) -> np.ndarray:
        """Origin [3] of a bone at rest, metres."""
        return self.joints[BONE_INDEX[bone]]

    def trunk_weights(self, grid: np.ndarray, legs: float = 0.0) -> np.ndarray:
        """Pelvis, spine and chest by height; below the hips the thighs take part by `legs`."""
        k = self.k
        x, y = grid[..., 0], grid[..., 1]
        weights = chain_weights(
            y, ("chest", "spine", "pelvis"), (CHEST * k, WAIST * k), (0.09 * k, 0.06 * k)
        )
        shoulder = smooth_step(np.abs(x), 0.10 * k, 0.22 * k) * smooth_step(y, 1.27 * k, 1.42 * k)
        below = smooth_step(y, (HIP + 0.03) * k, 0.70 * k) * legs
        left = smooth_step(x, -0.09 * k, 0.09 * k)
        for target, share in (
            ("upper_arm_l", 0.4 * shoulder * (x > 0)),
            ("upper_arm_r", 0.4 * shoulder * (x < 0)),
            ("thigh_l", below * left),
            ("thigh_r", below * (1 - left)),
        ):
            bone = BONE_INDEX[target]
            moved = share[..., None] * weights
            if target.startswith("thigh_r"):  # taken from what both thighs leave
                moved = (share / np.maximum(1 - below * left, 1e-6))[..., None] * weights
                moved[..., BONE_INDEX["thigh_l"]] = 0
            weights = weights - moved
            weights[..., bone] += moved.sum(-1)
        return weights / weights.sum(-1, keepdims=True)

    def arm_weights(self, grid: np.ndarray, side: str) -> np.ndarray:
        """Skinning weights of a part of the arm."""
        bones = [f"{bone}_{side}" for bone in ("upper_arm", "forearm", "hand")]
        joints = (ELBOW * self.k, WRIST * self.k)
        return chain_weights(grid[..., 1], bones, joints, (0.05 * self.k, 0.02 * self.k))

    def leg_weights(self, grid: np.ndarray, side: str) -> np.ndarray:
        """Skinning weights of a part of the leg above the foot."""
        bones = [f"{bone}_{side}" for bone in ("thigh", "calf")]
        return chain_weights(grid[..., 1], bones, (KNEE * self.k,), (0.06 * self.k,))

    def trunk(
        self, heights: np.ndarray, ease: float, close: bool, flare: float = 0.0
    ) -> np.ndarray:
        """Rings of the trunk at `heights` (1.75 m body); `close`: meet in the crotch."""
        p = self.person
        half, front, back = profile_at(TRUNK_PROFILE, heights)
        lower = smooth_step(heights, 1.06, 0.93)
        upper = smooth_step(heights, 1.18, 1.38) * smooth_step(heights, 1.47, 1.42)
        half = half * (1 + lower * (p.hip / 0.178 - 1) + upper * (p.shoulder / 0.185 - 1))
        middle = smooth_step(heights, 1.48, 1.40)
        girth = 1 + (p.girth - 1) * middle
        waist = np.exp(-(((heights - 1.06) / 0.09) ** 2))
        half = half * (1 + 0.35 * (girth - 1)) * (1 - (0.07 if p.female else -0.02) * waist)
        belly = 1 + np.maximum(p.girth - 0.98, 0) * (0.7 if p.female else 1.4) * np.exp(
            -(((heights - 1.06) / 0.13) ** 2)
        )
        front, back = front * girth * belly, back * girth
        if p.female:
            front = front + 0.022 * np.exp(-(((heights - 1.275) / 0.05) ** 2))
            back = back * (1 - 0.05 * middle)
        fade = np.where(heights > 1.43, 0.5, 1.0)
        extra = ease * fade + flare * np.maximum(0, WAIST - heights)
        # loose cloth hangs from the chest: it does not follow the waist all the way
        hang = ease * 1.2 * waist
        half, front, back = half + extra + hang, front + extra + hang, back + extra + hang
        if not close:  # below the waist it has to go round the trousers
            wide, deep, rear = profile_at(LEG_PROFILE, np.minimum(heights, 0.84)) * self.k
            low = smooth_step(heights, 1.03, 0.95)
            room = self.leg_ease() + 0.013
            half = np.maximum(half, low * (p.hip * 0.52 + wide + room))
            front = np.maximum(front, low * (deep + room) / self.k)
            back = np.maximum(back, low * (rear + 0.01 + room) / self.k)
        if close:
            shut = np.sqrt(np.clip((heights - (CROTCH - 0.012)) / 0.07, 0.0004, 1))
            half, front, back = half * (0.35 + 0.65 * shut), front * shut, back * shut
        grid = tube(
            heights * self.k,
            half,
            front * self.k,
            back * self.k,
            0.0,
            -0.008 * self.k,
            ring_angles(33),
            power=2.35,
        )
        return grid

    def arm(self, heights: np.ndarray, ease: float, side: str) -> np.ndarray:
        """Rings of an arm at `heights` (1.75 m body), `ease` metres outside the skin."""
        p = self.person
        (radius,) = profile_at(ARM_PROFILE, heights)
        thick = (0.4 + 0.6 * p.girth) * (0.88 if p.female else 1.0) * self.k
        cap = smooth_step(heights, 1.46, 1.30)
        radius = radius * thick + ease * (0.2 + 0.8 * cap)
        lower = smooth_step(heights, 1.0, 0.9)
        x = np.full(heights.shape, self.joint(f"upper_arm_{side}")[0])
        return tube(
            heights * self.k,
            radius * (1 - 0.12 * lower),
            radius * (1 + 0.10 * lower),
            radius * (1 + 0.10 * lower),
            x,
            -0.004,
            ring_angles(17),
        )

    def leg_ease(self) -> float:
        """Distance in metres of trousers or shorts from the thigh."""
        p = self.person
        return 0.006 + (p.loose if p.bottom == "shorts" else 0.5 * p.loose)

    def leg(self, heights: np.ndarray, ease: float, side: str) -> np.ndarray:
        """Rings of a leg at `heights` (1.75 m body), `ease` metres outside the skin."""
        p = self.person
        half, front, back = profile_at(LEG_PROFILE, heights)
        thick = (0.5 + 0.5 * p.girth) * self.k
        cap = smooth_step(heights, 0.965, 0.90)
        ease = ease * cap
        x = np.full(heights.shape, self.joint(f"thigh_{side}")[0])
        half, front, back = (size * thick + ease for size in (half, front, back))
        return tube(heights * self.k, half, front, back, x, 0.0, ring_angles(17))

    def head_grid(self, rows: np.ndarray, grow: float = 0.0) -> np.ndarray:
        """Rings of the head at `rows` (metres above the chin of a 22.5 cm head)."""
        unit = self.head_unit
        half, front, back = profile_at(HEAD_PROFILE, rows)
        slim = 0.96 if self.person.female else 1.0
        return tube(
            CHIN * self.k + rows * unit,
            half * unit * slim + grow,
            front * unit + grow,
            back * unit + grow,
            0.0,
            0.004,
            ring_angles(29, 0.35),
            power=2.15,
        )

    def landmarks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """OpenPose key points at rest: places [18, 3], bones [18], outward normals [18, 3]."""
        k, unit = self.k, self.head_unit
        y = CHIN * k
        face = {
            0: ((0, y + 0.070 * unit, 0.110 * unit), (0, 0, 1)),
            14: ((-0.031 * unit, y + 0.112 * unit, 0.082 * unit), (-0.42, 0, 0.9)),
            15: ((0.031 * unit, y + 0.112 * unit, 0.082 * unit), (0.42, 0, 0.9)),
            16: ((-0.078 * unit, y + 0.098 * unit, -0.008), (-1, 0, -0.05)),
            17: ((0.078 * unit, y + 0.098 * unit, -0.008), (1, 0, -0.05)),
        }
        order = ("upper_arm", "forearm", "hand"), ("thigh", "calf", "foot")
        bones = [f"{b}_{s}" for group in order for s in ("r", "l") for b in group]
        places = np.zeros((18, 3))
        normals = np.zeros((18, 3))
        owner = np.full(18, BONE_INDEX["head"])
        owner[1] = BONE_INDEX["chest"]
        places[1] = (0, (SHOULDER + 0.025) * k, 0.0)
        for index, bone in enumerate(bones, start=2):
            places[index] = self.joint(bone)
            owner[index] = BONE_INDEX[bone]
        for index, (place, normal) in face.items():
            places[index] = place
            normals[index] = np.asarray(normal) / np.linalg.norm(normal)
        return places, owner, normals
