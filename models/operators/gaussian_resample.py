"""Resampling of a feature map along a flow with a Gaussian window."""

import torch
from torch import Tensor

from models.operators.gather_sum import sampling_cell, weighted_gather, window_index


def gaussian_resample(
    source: Tensor, flow: Tensor, kernel_size: int = 4, dilation: int = 1, sigma: float = 2.0
) -> Tensor:
    """Read `source` around q(p) = p + flow(p), smoothly, so that the flow gets a wide gradient.

    The window has `kernel_size`² integer positions, for 4 and dilation 1 floor(q) + {-1, 0, 1, 2}
    per axis. Weights are separable, exp(-d² / (2 sigma²)) of the distance d to q, normalised to
    sum 1. Positions outside read the border pixel.

    Args:
        source: `[B, C, Hs, Ws]`.
        flow: `[B, 2, H, W]`, x then y, in pixels, source position minus target position.
        kernel_size: positions per axis, even.
        dilation: spacing of the positions in pixels, positive.
        sigma: standard deviation of the Gaussian in pixels.

    Returns:
        `[B, C, H, W]`. Differentiable in both.

    Raises:
        ValueError: `kernel_size` is odd or not positive, or `dilation` is not positive.
    """
    if kernel_size < 2 or kernel_size % 2:
        raise ValueError(f"kernel_size: got {kernel_size}, expected an even positive number")
    if dilation < 1:
        raise ValueError(f"dilation: got {dilation}, expected a positive number")
    half = kernel_size // 2
    offsets = range((1 - half) * dilation, half * dilation + 1, dilation)
    floor, fraction = sampling_cell(flow)
    steps = torch.arange(
        offsets.start, offsets.stop, offsets.step, dtype=fraction.dtype, device=fraction.device
    )
    distance = steps - fraction[..., None]
    # As softmax: normalised, and safe where exp(-d² / (2 sigma²)) alone would underflow.
    weight_x, weight_y = (-(distance**2) / (2 * sigma**2)).softmax(dim=-1).unbind(1)
    weight = (weight_y[..., :, None] * weight_x[..., None, :]).flatten(3)
    return weighted_gather(source, window_index(floor, offsets, source.shape[-2:]), weight)
