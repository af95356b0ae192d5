"""Regularity of the flow: neighbouring positions should move by one affine map.

Paper: Ren et al., CVPR 2020, section 3.1.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F


def regularity_loss(
    flows: Sequence[Tensor], attn_layer: Sequence[int], kernel_size: Mapping[int, int]
) -> Tensor:
    """Sum of `affine_regularity` over layers.

    Args:
        flows: `[B, 2, h, w]` each, coarse to fine, so the first belongs to the largest number in
            `attn_layer`.
        attn_layer: layers that have a flow, in any order.
        kernel_size: layer -> window size.

    Returns:
        A scalar, differentiable in the flows.
    """
    coarse_to_fine = sorted(attn_layer, reverse=True)
    return sum(
        affine_regularity(flow, kernel_size[layer])
        for flow, layer in zip(flows, coarse_to_fine, strict=True)
    )


def affine_regularity(flow: Tensor, kernel_size: int) -> Tensor:
    """Squared residual of the least-squares affine fit to the sampled coordinates of a window.

    Summed over the window's taps and over x and y, averaged over all full windows and the batch.
    The sampled coordinates are flow plus pixel grid. The grid is affine itself, so the residual of
    the flow alone is the same, and keeps the digits that large coordinates would cost.

    Args:
        flow: `[B, 2, H, W]`, x then y, in pixels; H and W at least `kernel_size`.
        kernel_size: window size k.

    Returns:
        A scalar in pixels², zero for an affine flow.
    """
    height, width = flow.shape[-2:]
    if min(height, width) < kernel_size:
        raise ValueError(
            f"flow: got {height}×{width}, expected at least {kernel_size}×{kernel_size}"
        )
    basis = _residual_basis(kernel_size, flow.device, flow.dtype)
    # A matrix product rather than a convolution: on a GPU convolutions may round to TF32.
    windows = F.unfold(flow.reshape(-1, 1, height, width), kernel_size)
    return (basis @ windows).square().sum() / (flow.shape[0] * windows.shape[-1])


@cache  # per device, too: a copy to a GPU waits for it
def _residual_basis(kernel_size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Orthonormal basis `[k² - 3, k²]` of what no affine map of k×k pixels can express.

    The residual of the fit is the projection on it, so the sum of squares of a window's products
    with it is the squared residual.
    """
    y, x = torch.meshgrid(
        torch.arange(kernel_size, dtype=torch.float64),
        torch.arange(kernel_size, dtype=torch.float64),
        indexing="ij",
    )
    affine = torch.stack([torch.ones_like(x), x, y], dim=-1).view(-1, 3)
    complete, _ = torch.linalg.qr(affine, mode="complete")
    return complete[:, 3:].T.to(device, dtype)
