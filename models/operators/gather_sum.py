"""Weighted gather-sum: each output position sums some rows of a feature map with its own weights.

Bilinear sampling, Gaussian resampling and local attention all read a small window of integer
positions around a flowed position; they differ only in their weights:

    floor, fraction = sampling_cell(flow)
    index = window_index(floor, offsets, source.shape[-2:])
    output = weighted_gather(source, index, weight)  # weight made from `fraction`
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def sampling_cell(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Split the sampling positions p + flow(p) into whole pixels and fractions.

    Args:
        flow: `[B, 2, H, W]`, x then y, in pixels of the map that is read.

    Returns:
        (floor, fraction): floor `[B, 2, H, W]` whole numbers (no gradient), fraction
        `[B, 2, H, W]` in [0, 1), carrying the flow's gradient; on an integer position it belongs
        to the cell on the right. At least float32, so that half precision cannot move a position.
    """
    flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
    height, width = flow.shape[-2:]
    grid_x = torch.arange(width, device=flow.device, dtype=flow.dtype).expand(height, width)
    grid_y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None].expand_as(grid_x)
    position = flow + torch.stack([grid_x, grid_y])
    floor = position.detach().floor()
    return floor, position - floor


def window_index(floor: Tensor, offsets: Tensor, size: tuple[int, int]) -> Tensor:
    """Flat indices of the window {floor + offsets}², each coordinate clamped to the map.

    Args:
        floor: `[B, 2, H, W]`, x then y, whole numbers.
        offsets: `[K]` integers, the same for both axes.
        size: (height, width) of the map that is read.

    Returns:
        `[B, H, W, K²]` int64 in [0, height · width), window positions row by row.
    """
    height, width = size
    # A flow that has blown up must not overflow the integers: it reads the border like any other.
    whole = floor.clamp(-(2.0**30), 2.0**30).long()
    x, y = (whole[..., None] + offsets).unbind(1)
    return (
        y.clamp(0, height - 1)[..., :, None] * width + x.clamp(0, width - 1)[..., None, :]
    ).flatten(3)


def weighted_gather(source: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Sum rows of `source`: out[b, :, h, w] = Σ_k weight[b, h, w, k] · source[b, :, index[…, k]].

    Args:
        source: `[B, C, Hs, Ws]`.
        index: `[B, H, W, K]` integers in [0, Hs · Ws), as `window_index` makes them.
        weight: `[B, H, W, K]`; cast to the source's type.

    Returns:
        `[B, C, H, W]`, channels last in memory. Differentiable in `source` and `weight`.
    """
    batch, channels, source_height, source_width = source.shape
    rows = source_height * source_width
    table = source.permute(0, 2, 3, 1).reshape(batch * rows, channels)
    first_row = torch.arange(batch, device=index.device)[:, None, None, None] * rows
    terms = index.shape[-1]
    output = F.embedding_bag(
        (index + first_row).view(-1, terms),
        table,
        mode="sum",
        per_sample_weights=weight.to(source.dtype).reshape(-1, terms),
    )
    return output.view(*index.shape[:3], channels).permute(0, 3, 1, 2)
