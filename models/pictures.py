"""Pictures of what a model does: skeletons, flows, masks, and labelled sheets of them."""

import colorsys
import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from data.body_mask import LIMBS
from models.base_model import Batch, Prediction
from util.flow import flow_to_color, resize_flow, warp
from util.images import to_uint8

# Limbs by number of key points: OpenPose's 18, and its 25 (BODY_25: middle of the hips and feet).
# Other numbers have no order that is known, so their points stand alone.
SKELETONS = {
    18: LIMBS,
    25: (
        (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (10, 11),
        (8, 12), (12, 13), (13, 14), (1, 0), (0, 15), (15, 17), (0, 16), (16, 18),
        (14, 19), (19, 20), (14, 21), (11, 22), (22, 23), (11, 24),
    ),
}  # fmt: skip


def limb_colors(count: int) -> list[tuple[int, ...]]:
    """RGB of each of so many limbs, round the colour wheel."""
    hues = (colorsys.hsv_to_rgb(number / count, 0.9, 1.0) for number in range(count))
    return [tuple(int(255 * value) for value in color) for color in hues]


def draw_skeleton(pose: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw the limbs between the key points that are there, one colour per limb, on black.

    Args:
        pose: [K, 2], (x, y) in pixels of the picture; NaN for a missing key point. Where K is not
            one of SKELETONS, the points are drawn without limbs.
        size: (height, width) of the picture.

    Returns:
        uint8 [height, width, 3].
    """
    height, width = size
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    thickness = max(1, round(width / 48))
    limbs = SKELETONS.get(len(pose), ())
    for (start, end), color in zip(limbs, limb_colors(len(limbs)), strict=True):
        ends = pose[[start, end]]
        if np.isfinite(ends).all():
            draw.line([tuple(point) for point in ends.tolist()], fill=color, width=thickness)
    for x, y in pose[np.isfinite(pose).all(axis=1)].tolist():
        draw.ellipse([x - thickness, y - thickness, x + thickness, y + thickness], fill="white")
    return np.asarray(picture)


def flow_panels(source: Tensor, prediction: Prediction) -> dict[str, np.ndarray]:
    """Pictures of every flow field, mask and attention, and of the source warped by each flow.

    Args:
        source: [B, 3, H, W] in [-1, 1].
        prediction: flows and masks of these samples.

    Returns:
        uint8 [B, H, W, 3] by name: `flow_<k>`, `mask_<k>`, `warped_<k>`, k = image height over
        the map's height (4 is the map of a quarter of the size). Where there are attentions, also
        `attention_<k>`, uint8 [B, n·h, n·w, 3] for a window of n × n: a map per place of it, in its
        order, white where a picture's weights are largest and black where they are 0.
    """
    height, width = source.shape[-2:]
    panels = {}
    for flow in prediction.flows:
        full = resize_flow(flow, (height, width))
        scale = height // flow.shape[2]
        panels[f"warped_{scale}"] = to_uint8(warp(source, full))
        panels[f"flow_{scale}"] = to_uint8(flow_to_color(full))
    for mask in prediction.masks:
        large = torch.nn.functional.interpolate(mask, size=(height, width), mode="nearest")
        panels[f"mask_{height // mask.shape[2]}"] = to_uint8(large.expand(-1, 3, -1, -1) * 2 - 1)
    for attention in prediction.attentions:
        batch, places, h, w = attention.shape
        side = math.isqrt(places)
        tiles = attention / attention.amax((1, 2, 3), keepdim=True)
        tiles = tiles.view(batch, side, side, h, w).transpose(2, 3)
        tiles = tiles.reshape(batch, 1, side * h, side * w).expand(-1, 3, -1, -1)
        panels[f"attention_{height // h}"] = to_uint8(tiles * 2 - 1)
    return panels


def panels_of(batch: Batch, prediction: Prediction) -> dict[str, np.ndarray]:
    """All pictures of a batch in the order they are shown: uint8 [B, H, W, 3] by name."""
    size = tuple(batch["P1"].shape[-2:])
    skeletons = {
        name: np.stack([draw_skeleton(pose, size) for pose in batch[name].cpu().numpy()])
        for name in ("pose1", "pose2")
    }
    return {
        "source": to_uint8(batch["P1"]),
        "source pose": skeletons["pose1"],
        "target pose": skeletons["pose2"],
        "target": to_uint8(batch["P2"]),
        **{name: to_uint8(picture) for name, picture in prediction.extras.items()},
        "result": to_uint8(prediction.image),
        **{
            name.replace("_", " 1/"): value
            for name, value in flow_panels(batch["P1"], prediction).items()
        },
    }
