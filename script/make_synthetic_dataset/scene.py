"""One picture of the data set: who, which pose, which camera, what is behind."""

from dataclasses import dataclass

import numpy as np

from script.make_synthetic_dataset import background
from script.make_synthetic_dataset.body import Body, build_body
from script.make_synthetic_dataset.identity import Identity, random_identity
from script.make_synthetic_dataset.poses import fashion_pose, market_pose
from script.make_synthetic_dataset.render import (
    Camera,
    Surface,
    View,
    draw,
    key_points,
    pose_body,
    project,
    rotate,
    surface,
    turn,
)
from script.make_synthetic_dataset.skeleton import Pose

IMAGE_SIZE = {"market": (128, 64), "fashion": (256, 176)}  # height, width
SAMPLES = 3  # per pixel and axis; odd, so that one sample is the pixel centre
TEXELS_PER_METRE = {"market": 160.0, "fashion": 300.0}
JPEG_QUALITY = {"market": (72, 93), "fashion": (88, 96)}
FASHION_VIEWS = ("front", "side", "back", "full", "additional")
CAMERAS = 6

# What a random stream is for; part of every seed, so that streams never coincide.
_IDENTITY, _POSE, _LOOK, _PLACE = 1, 2, 3, 4


@dataclass
class Person:
    """An identity with its body; `seed` and `index` decide what its pictures are like."""

    identity: Identity
    body: Body
    layout: str
    seed: int
    index: int


@dataclass
class Picture:
    """One picture as the data set stores it.

    `image`: uint8 [H, W, 3]; `view`: the posed body; `seen`: its surface at one sample per pixel;
    `key_points`: [18, 2] int, (x, y), -1 = missing; `camera`: 1..6; `jpeg_quality`.
    """

    image: np.ndarray
    view: View
    seen: Surface
    key_points: np.ndarray
    camera: int
    jpeg_quality: int


def make_person(layout: str, seed: int, index: int) -> Person:
    """Identity number `index` of the data set with this seed."""
    rng = np.random.default_rng([seed, _IDENTITY, index])
    identity = random_identity(rng, layout)
    return Person(identity, build_body(identity, TEXELS_PER_METRE[layout]), layout, seed, index)


def fashion_view(number: int) -> str:
    """View of a person's picture `number` (0, 1, …) in the fashion layout."""
    return FASHION_VIEWS[min(number, len(FASHION_VIEWS) - 1)]


def pose_person(person: Person, number: int, magnify: int = 1) -> tuple[View, Pose]:
    """The posed body before the camera in picture `number`, without colours.

    `magnify`: the same picture at a multiple of the layout's size.
    """
    rng = np.random.default_rng([person.seed, _POSE, person.index, number])
    height, width = (magnify * size for size in IMAGE_SIZE[person.layout])
    shown = None  # height of what the picture shows in metres, where it is not the whole person
    if person.layout == "market":
        pose, yaw = market_pose(rng)
        pitch, top = rng.uniform(2, 16), rng.uniform(-0.01, 0.06)
        fill, stretch = rng.uniform(0.86, 1.0), rng.uniform(1.0, 1.2)
    else:
        kind = fashion_view(number)
        pose, yaw = fashion_pose(rng, kind)
        shown = rng.uniform(0.56, 0.74) * person.identity.height
        pitch = rng.uniform(-1, 5)
        top = rng.uniform(0.03, 0.07) if kind == "full" else rng.uniform(0.01, 0.08)
        fill, stretch = rng.uniform(0.86, 0.92), rng.uniform(0.98, 1.06)
        if kind == "full":
            shown = None
    posed = pose_body(person.body, pose)
    roll = float(rng.normal(0, 1.2))
    frame = turn(yaw, pitch, roll)
    seen = rotate(posed[0], frame)
    high, low = seen[:, 1].max(), seen[:, 1].min()
    scale = 0.95 * height / shown if shown else fill * height / (high - low)  # pixels per metre
    trunk = rotate(posed[2][[1, 8, 11]], frame)
    middle = 0.5 * (0.5 * (seen[:, 0].max() + seen[:, 0].min()) + trunk[:, 0].mean())
    wide = (seen[:, 0].max() - seen[:, 0].min()) * scale
    stretch = float(np.clip(stretch, 0.9, max(0.97 * width / wide, 0.9)))
    x = width / 2 + rng.normal(0, 0.02 * width) - middle * scale * stretch
    y = top * height + high * scale
    camera = Camera(yaw, pitch, roll, scale, stretch, (float(x), float(y)))
    return project(person.body, posed, camera, height, width), pose


def clean_picture(view: View, samples: int = 3) -> np.ndarray:
    """The person on black, in colours fixed to the body: no light, noise or JPEG.

    Float32 [H, W, 3] in [0, 1]. These are the colours that the true flow carries over.
    """
    return draw(view, samples)[0]


def render_picture(person: Person, number: int) -> Picture:
    """Picture `number` of a person; the same for the same arguments, whatever was drawn before."""
    view, _ = pose_person(person, number)
    rng = np.random.default_rng([person.seed, _LOOK, person.index, number])
    seen = surface(view)
    found = key_points(view, seen, rng)
    height, width = view.height, view.width
    soles = view.joints[[10, 13]] + [0, 0.075 * view.camera.scale]
    camera = int(rng.integers(CAMERAS)) + 1
    market = person.layout == "market"
    if market:
        corner = int(rng.integers(8))  # a camera turns, and people walk all over its picture
        place = np.random.default_rng([person.seed, _PLACE, camera, corner])
        behind = background.street(rng, place, height, width)
        behind = background.ground_shadow(behind, soles, 0.16 * view.camera.scale, 0.45)
    else:
        place = np.random.default_rng([person.seed, _PLACE, CAMERAS + 1 + person.index])
        floor = float(soles[:, 1].min()) - 0.1 * view.camera.scale
        behind = background.studio(rng, place, height, width, floor if floor < height else None)
        behind = background.ground_shadow(behind, soles, 0.12 * view.camera.scale, 0.22)
    colours, coverage = draw(view, SAMPLES, shading=0.22)
    image = colours + (1 - coverage)[..., None] * behind
    image = background.photograph(
        image, rng, contrast=0.08 if market else 0.02, blur=0.8 if market else 0.0,
        noise=0.015 if market else 0.008,
    )  # fmt: skip
    quality = int(rng.integers(*JPEG_QUALITY[person.layout]))
    return Picture(image, view, seen, found, camera, quality)
