"""Painters: the colour of every texel of a part, given where the texel lies on the resting body."""

import numpy as np

from script.make_synthetic_dataset.identity import Identity
from script.make_synthetic_dataset.mesh import Painter, Texels, smooth_step
from script.make_synthetic_dataset.textures import (
    Fabric,
    ring_noise,
    soft_inside,
    with_alpha,
    wrinkles,
)


def skin_painter(person: Identity, rng: np.random.Generator) -> Painter:
    """Skin with slight mottling."""

    def paint(at: Texels) -> np.ndarray:
        mottle = 1 + 0.025 * ring_noise(rng, *at.x.shape, 6, 5)
        return person.skin * mottle[..., None]

    return paint


def hand_painter(person: Identity, rng: np.random.Generator, wrist: float) -> Painter:
    """Skin with dark lines between the fingers, below the knuckles."""

    def paint(at: Texels) -> np.ndarray:
        colour = skin_painter(person, rng)(at)
        line = np.abs(np.mod(at.z / 0.02 + 0.5, 1) - 0.5) * 0.02
        fingers = soft_inside(0.003 - line, 0.004) * smooth_step(at.y, wrist - 0.085, wrist - 0.11)
        return with_alpha(colour, person.skin * 0.62, 0.75 * fingers)

    return paint


def face_painter(person: Identity, rng: np.random.Generator, chin: float, size: float) -> Painter:
    """Face: eyes, brows, nose, lips, cheeks, beard. `chin`: its height; `size`: the head's."""

    def paint(at: Texels) -> np.ndarray:
        colour = skin_painter(person, rng)(at)
        unit = size / 0.225
        x, y = at.x / unit, (at.y - chin) / unit  # in a head 22.5 cm high
        front = smooth_step(at.z, -0.005, 0.03)
        skin = person.skin
        rosy = skin * np.array([1.03, 0.86, 0.84])

        def spot(px: float, py: float, rx: float, ry: float, soft: float = 0.35) -> np.ndarray:
            radius = np.hypot((np.abs(x) - px) / rx, (y - py) / ry)
            return np.clip((1 - radius) / soft + 0.5, 0, 1) * front

        # the sides of the face, the sockets and what lies under the nose and lips are darker
        colour = with_alpha(
            colour, skin * 0.82, 0.55 * smooth_step(np.abs(x), 0.045, 0.075) * front
        )
        colour = with_alpha(colour, skin * 0.78, 0.6 * spot(0.031, 0.118, 0.024, 0.016, 1.2))
        colour = with_alpha(colour, rosy, 0.5 * spot(0.040, 0.078, 0.02, 0.018, 1.2))
        if person.beard:
            whole = smooth_step(y, 0.075, 0.05) * smooth_step(np.abs(x), 0.0, 0.02)
            whole = np.maximum(whole, smooth_step(y, 0.032, 0.02)) * front
            whole = np.maximum(whole, spot(0.0, 0.0595, 0.03, 0.006, 0.8))
            colour = with_alpha(colour, 0.6 * person.hair + 0.25 * skin, person.beard * whole)
        # eyes: white, iris, upper lid
        colour = with_alpha(colour, np.array([0.93, 0.92, 0.9]), spot(0.031, 0.112, 0.0165, 0.0085))
        colour = with_alpha(colour, np.array([0.16, 0.10, 0.07]), spot(0.031, 0.112, 0.008, 0.0088))
        lid = 0.85 if person.female else 0.6
        colour = with_alpha(
            colour, np.array([0.10, 0.07, 0.06]), lid * spot(0.031, 0.1195, 0.019, 0.0042)
        )
        brow = spot(0.032, 0.136, 0.021, 0.0042 if person.female else 0.006)
        colour = with_alpha(colour, person.hair * 0.8, 0.65 * brow)
        # nose: bridge lighter, nostrils and flanks darker
        colour = with_alpha(colour, skin * 1.06, 0.6 * spot(0.0, 0.088, 0.008, 0.028, 0.8))
        colour = with_alpha(colour, skin * 0.74, 0.7 * spot(0.014, 0.083, 0.006, 0.022, 1.0))
        colour = with_alpha(colour, skin * 0.5, 0.9 * spot(0.009, 0.0655, 0.007, 0.004))
        lips = np.array([0.72, 0.28, 0.28]) if person.female else rosy * 0.85
        colour = with_alpha(colour, lips, 0.85 * spot(0.0, 0.0445, 0.026, 0.0085))
        colour = with_alpha(colour, skin * 0.42, 0.8 * spot(0.0, 0.0450, 0.024, 0.0022))
        colour = with_alpha(colour, skin * 0.8, 0.6 * spot(0.0, 0.030, 0.018, 0.004, 0.8))
        if person.glasses:
            rim = np.abs(np.hypot((np.abs(x) - 0.033) / 0.024, (y - 0.113) / 0.019) - 1)
            frame = soft_inside(0.13 - rim, 0.1) * front
            bar = soft_inside(0.003 - np.abs(y - 0.119), 0.002) * (np.abs(x) < 0.012) * front
            temple = (
                soft_inside(0.003 - np.abs(y - 0.119), 0.002) * (np.abs(x) > 0.056) * (at.z > 0)
            )
            colour = with_alpha(
                colour, np.array([0.07, 0.07, 0.08]), np.maximum(np.maximum(frame, bar), temple)
            )
        return colour

    return paint


def hair_painter(person: Identity, rng: np.random.Generator) -> Painter:
    """Hair: strands that run along the part."""

    def paint(at: Texels) -> np.ndarray:
        height, width = at.x.shape
        strands = ring_noise(rng, height, width, 4, max(width // 3, 8))
        shine = ring_noise(rng, height, width, 6, 3)
        return person.hair * (1 + 0.28 * strands + 0.12 * shine)[..., None] + 0.012

    return paint


def plain_painter(colour: np.ndarray, rng: np.random.Generator, amount: float = 0.05) -> Painter:
    """One colour with slight folds."""
    return lambda at: colour * wrinkles(rng, at.x.shape, amount)[..., None]


def cloth_painter(
    fabric: Fabric, rng: np.random.Generator, folds: float = 0.07, cuff: float = 0.0
) -> Painter:
    """Cloth with folds and a darker seam at the lower end; `cuff`: its height in metres."""

    def paint(at: Texels) -> np.ndarray:
        colour = fabric(at.around, at.y) * wrinkles(rng, at.x.shape, folds)[..., None]
        low = at.y.min()
        edge = max(cuff, 0.014)
        seam = soft_inside(0.003 - np.abs(at.y - low - edge), 0.004)
        return colour * (1 - 0.25 * seam)[..., None]

    return paint


def trousers_painter(person: Identity, rng: np.random.Generator, side: int) -> Painter:
    """A trouser leg: seam on the outside, paler thigh for jeans. `side`: 1 left, -1 right."""
    plain = cloth_painter(person.bottom_fabric, rng, folds=0.10)

    def paint(at: Texels) -> np.ndarray:
        colour = plain(at)
        blue = person.bottom_fabric.colours[0]
        if blue[2] > blue[0] * 1.25:
            fade = np.exp(-((at.angle / 0.6) ** 2)) * np.exp(-(((at.along - 0.35) / 0.3) ** 2))
            colour = with_alpha(colour, colour * 0.75 + 0.22, 0.5 * fade)
        outside = np.abs(np.abs(at.angle - side * np.pi / 2))
        return colour * (1 - 0.22 * soft_inside(0.10 - outside, 0.08))[..., None]

    return paint


def pelvis_painter(person: Identity, rng: np.random.Generator, waist: float) -> Painter:
    """Upper end of trousers or shorts: waistband or belt, fly, pockets."""
    plain = cloth_painter(person.bottom_fabric, rng, folds=0.06)
    belt = rng.random() < 0.5

    def paint(at: Texels) -> np.ndarray:
        colour = plain(at)
        below = waist - at.y
        band = soft_inside(0.035 - below, 0.004)
        tone = np.array([0.12, 0.08, 0.06]) if belt else person.bottom_fabric.colours[0] * 0.75
        colour = with_alpha(colour, tone, band)
        front = at.z > 0
        fly = soft_inside(0.003 - np.abs(at.x), 0.004) * front * (below < 0.17)
        pocket = soft_inside(0.003 - np.abs(np.abs(at.x) - 0.085 - 0.35 * (below - 0.04)), 0.004)
        pocket = pocket * front * (below > 0.035) * (below < 0.14)
        back = soft_inside(
            0.004 - np.abs(np.maximum(np.abs(np.abs(at.x) - 0.075), np.abs(below - 0.11)) - 0.045),
            0.004,
        )
        return (
            colour * (1 - 0.3 * np.maximum(np.maximum(fly, pocket), 0.6 * back * ~front))[..., None]
        )

    return paint


def _emblem(kind: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coverage of a picture on the chest, centred at (0, 0), metres."""
    if kind == 1:  # disc
        return soft_inside(0.062 - np.hypot(x, y), 0.008)
    if kind == 2:  # lines of writing
        lines = soft_inside(0.010 - np.abs(np.mod(y / 0.036 + 0.5, 1) - 0.5) * 0.036, 0.004)
        letters = 0.35 + 0.65 * (np.mod(np.floor(x / 0.011) * 7 + np.floor(y / 0.036) * 3, 5) > 1)
        return (
            lines
            * letters
            * soft_inside(0.10 - np.abs(x), 0.004)
            * soft_inside(0.055 - np.abs(y), 0.004)
        )
    if kind == 3:  # a broad band right across
        return soft_inside(0.045 - np.abs(y), 0.006)
    # a box with a triangle cut out
    box = soft_inside(0.07 - np.maximum(np.abs(x), np.abs(y)), 0.006)
    return box * (1 - 0.8 * soft_inside(0.04 - np.abs(x) * 1.6 - y, 0.006))


def top_painter(
    person: Identity, rng: np.random.Generator, neck: float, shoulder: float, scale: float
) -> Painter:
    """The trunk's garment with neckline, buttons, collar, emblem, open jacket, bag straps.

    `neck`, `shoulder`: heights of the base of the neck and of the shoulder joints; `scale`: body
    height against 1.75 m.
    """
    fabric = person.top_fabric
    first, second, _ = fabric.colours
    skin = person.skin * 0.97

    def paint(at: Texels) -> np.ndarray:
        colour = fabric(at.around, at.y) * wrinkles(rng, at.x.shape, 0.075)[..., None]
        x, front = np.abs(at.x), at.z > 0
        below = neck - at.y
        hem = soft_inside(0.003 - np.abs(at.y - at.y.min() - 0.018), 0.004)
        colour = colour * (1 - 0.2 * hem)[..., None]
        if person.emblem and person.top in ("tee", "tank", "long_sleeve"):
            picture = _emblem(person.emblem, at.x / scale, (at.y - neck) / scale + 0.2)
            if person.emblem != 3:
                picture = picture * front
            colour = with_alpha(colour, second, picture)
        if person.top in ("shirt", "polo"):
            depth = 0.7 if person.top == "shirt" else 0.16
            placket = soft_inside(0.016 - x, 0.003) * front * (below < depth)
            edge = soft_inside(0.002 - np.abs(x - 0.016), 0.003) * front * (below < depth)
            colour = colour * (1 + 0.05 * placket - 0.25 * edge)[..., None]
            button = np.hypot(x, (np.mod(below, 0.08) - 0.04)) < 0.006
            colour = with_alpha(
                colour, 0.25 + 0.5 * (1 - first), 0.8 * (button & front & (below < depth))
            )
            if person.top == "shirt" and person.emblem:
                pocket = np.maximum(np.abs(at.x - 0.085), np.abs(below - 0.2)) - 0.045
                colour = (
                    colour
                    * (1 - 0.25 * (soft_inside(0.003 - np.abs(pocket), 0.003) * front))[..., None]
                )
        if person.top == "jacket":
            open_width = 0.022 + 0.07 * smooth_step(below, 0.65, 0.0) if person.emblem else 0.0
            if person.emblem:
                inside = soft_inside(open_width - x, 0.004) * front
                colour = with_alpha(
                    colour, person.inner * wrinkles(rng, at.x.shape, 0.06)[..., None], inside
                )
                edge = soft_inside(0.006 - np.abs(x - open_width - 0.004), 0.004) * front
            else:
                edge = soft_inside(0.005 - x, 0.003) * front
            colour = with_alpha(colour, first * 0.55, 0.8 * edge)
        # neckline: an ellipse (or a V) of skin at the front, a slight one behind
        depth = np.where(front, person.neckline, 0.012) + 0.012
        wide = 0.075 if person.top != "tank" else 0.09
        if person.top in ("shirt", "polo"):
            hole = (depth + 0.03) * (1 - x / 0.05) - below
        else:
            hole = depth * np.sqrt(np.maximum(1 - (x / wide) ** 2, 0)) - below
        ring = soft_inside(0.012 - np.abs(hole), 0.004) * (x < wide + 0.01)
        colour = colour * (1 - 0.12 * ring)[..., None]
        if person.top == "jacket" and person.emblem:
            hole = 0.055 * np.sqrt(np.maximum(1 - (x / 0.06) ** 2, 0)) * front - below
        if person.top != "jacket" or person.emblem:
            colour = with_alpha(colour, skin, soft_inside(hole, 0.005))
        if person.top in ("shirt", "polo", "jacket"):
            tip = 0.028 + 0.02 * smooth_step(x, 0.07, 0.03) * front
            collar = soft_inside(tip - below, 0.003) * soft_inside(0.088 - x, 0.003) * (hole < 0)
            colour = with_alpha(
                colour, np.minimum(first * 1.08 + 0.02, 1), 0.85 * collar * (x > 0.012)
            )
            under = soft_inside(0.003 - np.abs(below - tip - 0.004), 0.003) * (x < 0.088)
            colour = colour * (1 - 0.3 * under)[..., None]
        if person.top == "tank":
            arm_hole = 0.112 * scale + 0.07 * smooth_step(at.y, shoulder - 0.05, shoulder - 0.13)
            bare = soft_inside(x - arm_hole, 0.006) * (at.y > shoulder - 0.13)
            colour = with_alpha(colour, skin, bare)
        if person.bag == "backpack":
            strap = soft_inside(0.019 - np.abs(x - 0.095), 0.005) * (at.y > shoulder - 0.28)
            colour = with_alpha(colour, person.bag_colour * 0.8, strap)
        if person.bag == "shoulder_bag":
            strap = soft_inside(
                0.017 - np.abs(at.x * 0.9 + (at.y - (shoulder - 0.18)) * 0.75), 0.005
            )
            colour = with_alpha(colour, person.bag_colour * 0.7, strap)
        return colour

    return paint


def shoe_painter(person: Identity, rng: np.random.Generator, ground: float) -> Painter:
    """Shoe with sole and laces; `ground`: height of the sole's lower side."""

    def paint(at: Texels) -> np.ndarray:
        colour = person.shoe * wrinkles(rng, at.x.shape, 0.05)[..., None]
        colour = with_alpha(colour, person.sole, soft_inside(0.018 - (at.y - ground), 0.004))
        lace = (
            (np.mod(at.z / 0.022, 1) < 0.4)
            & (at.y > ground + 0.045)
            & (np.abs(at.z - 0.08) < 0.045)
        )
        return with_alpha(colour, 0.5 * person.shoe + 0.5 * (1 - person.shoe), 0.5 * lace)

    return paint
