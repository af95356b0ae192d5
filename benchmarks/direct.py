"""Slow direct definitions of the operators: tests and benchmarks compare the fast ones with them.

They build what the fast ones avoid: k×k blocks of the feature map laid out as `[B, C, kH, kW]`.
"""

import torch
from torch import Tensor, nn


def sample_clamped(source: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear samples `[B, C, H, W]` of `source` at (x, y) `[B, H, W]`.

    The four corner indices are clamped one by one while the fractions stay: the border repeats.
    """
    batch, channels, height, width = source.shape
    x0, y0 = x.detach().floor(), y.detach().floor()
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]

    def read(row: Tensor, column: Tensor) -> Tensor:
        row = row.long().clamp(0, height - 1)
        column = column.long().clamp(0, width - 1)
        flat = (row * width + column).view(batch, 1, -1).expand(-1, channels, -1)
        return source.flatten(2).gather(2, flat).view(batch, channels, *x.shape[1:])

    top = read(y0, x0) * (1 - fx) + read(y0, x0 + 1) * fx
    bottom = read(y0 + 1, x0) * (1 - fx) + read(y0 + 1, x0 + 1) * fx
    return top * (1 - fy) + bottom * fy


def block_extractor(source: Tensor, flow: Tensor, k: int) -> Tensor:
    """Blocks `[B, C, kH, kW]`: taps -(k // 2) … k - 1 - k // 2 around p + flow(p)."""
    batch, _, height, width = flow.shape
    grid_y, grid_x = torch.meshgrid(
        torch.arange(height, dtype=flow.dtype, device=flow.device),
        torch.arange(width, dtype=flow.dtype, device=flow.device),
        indexing="ij",
    )
    x, y = flow[:, 0] + grid_x, flow[:, 1] + grid_y
    offsets = [i - k // 2 for i in range(k)]
    taps = [[sample_clamped(source, x + j, y + i) for j in offsets] for i in offsets]
    blocks = torch.stack([torch.stack(row, -1) for row in taps], 3)  # [B, C, H, ky, W, kx]
    return blocks.reshape(batch, -1, height * k, width * k)


def reshape_taps(attention: Tensor, k: int) -> Tensor:
    """`[B, k², H, W]` -> `[B, 1, kH, kW]`, channel i·k + j at row i, column j of its block."""
    batch, _, height, width = attention.shape
    blocks = attention.view(batch, k, k, height, width).permute(0, 3, 1, 4, 2)
    return blocks.reshape(batch, 1, height * k, width * k)


def attention_weights(
    layer: nn.Sequential, source: Tensor, target: Tensor, flow: Tensor, k: int
) -> Tensor:
    """Attention `[B, k², H, W]` by the definition; `layer` is `fully_connect_layer`."""
    block_target = block_extractor(target, torch.zeros_like(flow), k)
    block_source = block_extractor(source, flow, k)
    return layer(torch.cat([block_target, block_source], 1)).softmax(1)


def local_attention(
    layer: nn.Sequential, source: Tensor, target: Tensor, flow: Tensor, k: int
) -> Tensor:
    """Attended feature `[B, C, H, W]` by the definition, with its factor 1/k²."""
    attention = reshape_taps(attention_weights(layer, source, target, flow, k), k)
    blocks = block_extractor(source, flow, k) * attention
    return nn.functional.avg_pool2d(blocks, k)
