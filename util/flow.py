"""Flow fields at image size: resizing, warping, end-point error, colours."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample a flow field to another map size, bilinearly; its vectors are rescaled with it.

    Args:
        flow: [B, 2, h, w], x then y, in pixels of its own map.
        size: (height, width) of the wanted map.

    Returns:
        [B, 2, height, width], in pixels of the wanted map.
    """
    height, width = size
    x, y = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False).unbind(1)
    return torch.stack([x * (width / flow.shape[3]), y * (height / flow.shape[2])], dim=1)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Read the image at p + flow(p), bilinearly; beyond its border the border is repeated.

    Args:
        image: [B, C, H, W].
        flow: [B, 2, H, W], x then y, in pixels.

    Returns:
        [B, C, H, W].
    """
    height, width = image.shape[-2:]
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype).view(1, height, 1)
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype).view(1, 1, width)
    x = (columns + flow[:, 0]) * 2 / max(width - 1, 1) - 1
    y = (rows + flow[:, 1]) * 2 / max(height - 1, 1) - 1
    grid = torch.stack([x, y], dim=-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def end_point_errors(flow: Tensor, truth: Tensor, visible: Tensor) -> Tensor:
    """Mean Euclidean distance between two flow fields over the visible pixels, per sample.

    Args:
        flow: [B, 2, H, W], x then y, in pixels.
        truth: the same of the true flow.
        visible: [B, H, W], true or 1 where the true flow counts.

    Returns:
        [B], in pixels; NaN for a sample without a visible pixel.
    """
    visible = visible.bool()
    distance = (flow - truth).square().sum(dim=1).sqrt()
    total = torch.where(visible, distance, 0).sum(dim=(1, 2))
    return total / visible.sum(dim=(1, 2))


def flow_to_color(flow: Tensor, largest: float | None = None) -> Tensor:
    """Flow as a colour wheel: hue is the direction, saturation the length; no motion is white.

    Args:
        flow: [B, 2, H, W].
        largest: length drawn fully saturated; None takes the longest vector of each sample.

    Returns:
        [B, 3, H, W] in [-1, 1].
    """
    x, y = flow[:, 0], flow[:, 1]
    length = torch.sqrt(x * x + y * y)
    if largest is None:
        reference = length.flatten(1).amax(dim=1).clamp(min=1e-6).view(-1, 1, 1)
    else:
        reference = torch.full_like(length[:, :1, :1], max(largest, 1e-6))
    saturation = (length / reference).clamp(max=1)
    hue = (torch.atan2(y, x) / (2 * np.pi)) % 1
    # HSV with value 1: every channel falls from 1 by at most the saturation.
    channels = []
    for offset in (5, 3, 1):
        k = (offset + hue * 6) % 6
        fall = torch.minimum(k, 4 - k).clamp(0, 1)
        channels.append(1 - saturation * fall)
    return torch.stack(channels, dim=1) * 2 - 1
