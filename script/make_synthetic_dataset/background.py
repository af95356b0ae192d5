"""Backgrounds: streets for the market layout, a studio for the fashion layout; and the camera's
imperfections (light, blur, noise)."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from script.make_synthetic_dataset.textures import value_noise

_WALLS = np.array(
    [
        [0.55, 0.54, 0.52],
        [0.35, 0.35, 0.37],
        [0.62, 0.52, 0.44],
        [0.22, 0.24, 0.26],
        [0.70, 0.70, 0.68],
    ]
)
_GROUNDS = np.array(
    [[0.58, 0.56, 0.54], [0.48, 0.48, 0.49], [0.62, 0.55, 0.52], [0.42, 0.43, 0.42]]
)
_GREEN = np.array([0.24, 0.34, 0.17])


def _colour(colour: np.ndarray) -> tuple[int, int, int]:
    return tuple(int(c) for c in np.clip(colour, 0, 1) * 255)


def street(
    rng: np.random.Generator, place: np.random.Generator, height: int, width: int
) -> np.ndarray:
    """A street behind a pedestrian: [height, width, 3] in [0, 1].

    `place` decides what a camera always sees (colours, horizon, kind of wall), `rng` what
    differs between its pictures.
    """
    wall = _WALLS[place.integers(len(_WALLS))] * place.uniform(0.9, 1.15)
    ground = _GROUNDS[place.integers(len(_GROUNDS))] * place.uniform(0.85, 1.15)
    kind = place.choice(["windows", "pillars", "hedge", "shop", "steps"])
    horizon = float(np.clip(place.uniform(0.22, 0.6) + rng.normal(0, 0.06), 0.1, 0.75)) * height
    shift = rng.uniform(0, 40)
    canvas = Image.new("RGB", (width, height), _colour(wall))
    pen = ImageDraw.Draw(canvas)
    if kind in ("windows", "shop"):
        step = 26 if kind == "windows" else 46
        tint = np.array([0.20, 0.24, 0.28]) * rng.uniform(0.7, 1.3)
        for x in np.arange(-shift, width + step, step):
            pen.rectangle((x, -2, x + step * 0.7, horizon * 0.8), fill=_colour(tint))
            pen.line((x + step * 0.35, 0, x + step * 0.35, horizon * 0.8), fill=_colour(wall * 0.7))
    elif kind == "pillars":
        for x in np.arange(-shift, width + 30, 30):
            pen.rectangle((x, 0, x + 9, horizon), fill=_colour(wall * 1.25))
            pen.line((x + 10, 0, x + 10, horizon), fill=_colour(wall * 0.6), width=2)
    elif kind == "steps":
        top = horizon * 0.3
        for index, y in enumerate(np.arange(top, horizon, 7)):
            pen.rectangle((0, y, width, y + 6), fill=_colour(wall * (1.15 if index % 2 else 0.8)))
    image = np.asarray(canvas, np.float32) / 255
    rows = np.arange(height)[:, None]
    if kind == "hedge":
        leaves = value_noise(rng, height, width, height // 3, width // 3)
        green = _GREEN * (1 + 0.7 * leaves[..., None]) * rng.uniform(0.8, 1.3)
        image = np.where((rows < horizon)[..., None], green, image)
    # the ground: paving whose joints close up towards the horizon
    depth = np.maximum(rows - horizon, 0.5)
    lines = np.mod(280.0 / (depth + 7) + rng.uniform(), 1.0) < 0.10
    columns = np.arange(width)[None] - width / 2 + rng.normal(0, 10)
    lines = lines | (np.mod(columns * 40.0 / (depth + 30) / 14 + 0.3, 1.0) < 0.06)
    paving = ground * (1 - 0.14 * lines[..., None]) * (0.9 + 0.15 * (rows / height))[..., None]
    image = np.where((rows >= horizon)[..., None], paving, image)
    if rng.random() < 0.25:
        grass = horizon + rng.uniform(0.03, 0.12) * height
        image = np.where(
            ((rows >= horizon) & (rows < grass))[..., None], _GREEN * rng.uniform(1.0, 1.6), image
        )
    canvas = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    if rng.random() < 0.35:  # railing
        y = horizon + rng.uniform(-0.05, 0.2) * height
        steel = _colour(np.full(3, rng.uniform(0.45, 0.8)))
        pen.line((0, y, width, y), fill=steel, width=2)
        pen.line((0, y + 13, width, y + 13), fill=steel, width=1)
        for x in np.arange(-shift, width, rng.uniform(14, 30)):
            pen.line((x, y, x, y + 24), fill=steel, width=2)
    for _ in range(rng.integers(0, 3)):  # poles, bins, parked things
        x, size = rng.uniform(-5, width), rng.uniform(3, 16)
        low = horizon + rng.uniform(0.0, 0.25) * height
        top = low - rng.uniform(0.15, 0.7) * height
        pen.rectangle(
            (x, top, x + size, low), fill=_colour(rng.uniform(0.1, 0.7) + rng.normal(0, 0.06, 3))
        )
    for _ in range(rng.integers(0, 3)):  # passers-by far away
        x, tall = rng.uniform(-8, width + 8), rng.uniform(0.22, 0.5) * height
        y = horizon + 0.25 * tall
        cloth = 0.65 * rng.uniform(0.1, 0.9) + 0.35 * rng.uniform(0.05, 0.9, 3)
        legs = rng.uniform(0.05, 0.35) + rng.uniform(0, 0.1, 3)
        pen.rectangle((x - tall * 0.07, y - tall * 0.5, x + tall * 0.07, y), fill=_colour(legs))
        pen.rectangle(
            (x - tall * 0.12, y - tall * 0.87, x + tall * 0.12, y - tall * 0.45),
            fill=_colour(cloth),
        )
        pen.ellipse(
            (x - tall * 0.06, y - tall, x + tall * 0.06, y - tall * 0.86), fill=(96, 72, 62)
        )
    blurred = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.6)))
    image = np.asarray(blurred, np.float32) / 255
    grain = value_noise(rng, height, width, height // 5, width // 5)
    stains = value_noise(rng, height, width, 7, 3)
    return image * (1 + 0.04 * grain + 0.12 * stains)[..., None]


def studio(
    rng: np.random.Generator,
    place: np.random.Generator,
    height: int,
    width: int,
    floor: float | None,
) -> np.ndarray:
    """A studio backdrop: [height, width, 3] in [0, 1].

    `place` decides the tone of a person's session; `floor`: row where the floor begins, None when
    it is out of the picture.
    """
    tone = place.choice([0.97, 0.93, 0.88, 0.80], p=[0.4, 0.3, 0.2, 0.1]) + place.normal(0, 0.008)
    base = tone * (1 + place.normal(0, 0.004, 3))
    rows = np.linspace(-1, 1, height)[:, None]
    columns = np.linspace(-1, 1, width)[None]
    glow = 1.015 - 0.035 * ((columns - place.normal(0, 0.3)) ** 2 + 0.5 * (rows + 0.2) ** 2)
    glow = glow + rng.normal(0, 0.004)
    if floor is not None:
        edge = np.clip((np.arange(height)[:, None] - floor) / (0.05 * height), 0, 1)
        glow = glow * (1 - 0.05 * edge)
    return (base * glow[..., None]).astype(np.float32)


def ground_shadow(
    image: np.ndarray, feet: np.ndarray, spread: float, strength: float
) -> np.ndarray:
    """`image` [H, W, 3] with a soft shadow under the `feet`.

    `feet`: [N, 2], (x, y) in pixels; `spread`: size of a shadow in pixels; `strength`: 0..1.
    """
    height, width = image.shape[:2]
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    dark = np.zeros((height, width))
    for x, y in feet:
        away = ((columns - x) / (1.7 * spread)) ** 2 + ((rows - y) / (0.45 * spread)) ** 2
        dark = np.maximum(dark, np.exp(-away))
    return image * (1 - strength * dark)[..., None]


def photograph(
    image: np.ndarray, rng: np.random.Generator, contrast: float, blur: float, noise: float
) -> np.ndarray:
    """Light of this picture and camera: gain, tint, gradient, blur, noise; uint8 [H, W, 3].

    `image`: [H, W, 3] in [0, 1]. `contrast`: spread of gain and gradient; `blur`: largest sigma in
    pixels; `noise`: largest standard deviation, in units of [0, 1].
    """
    height, width = image.shape[:2]
    gain = 1 + rng.normal(0, contrast)
    tint = 1 + rng.normal(0, contrast * 0.25, 3)
    slope = rng.normal(0, contrast * 0.7, 2)
    ramp = (
        slope[0] * np.linspace(-1, 1, height)[:, None] + slope[1] * np.linspace(-1, 1, width)[None]
    )
    image = image * gain * tint * (1 + ramp)[..., None] + rng.normal(0, contrast * 0.2)
    sigma = rng.uniform(0.0, blur)
    if sigma > 0.25:
        eight = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
        image = np.asarray(eight.filter(ImageFilter.GaussianBlur(sigma)), np.float32) / 255
    grain = rng.standard_normal(image.shape, np.float32) * rng.uniform(0.25, 1.0) * noise
    return (np.clip(image + grain, 0, 1) * 255 + 0.5).astype(np.uint8)
