"""Padding that repeats the border, into channels-last memory."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F


def pad_border(x: Tensor, pad: int) -> Tensor:
    """Repeat the border of `x` outwards.

    Args:
        x: `[B, C, H, W]`.
        pad: pixels on each of the four sides, ≥ 0.

    Returns:
        `[B, C, H + 2 pad, W + 2 pad]`, channels last in memory: what convolutions and gathers of
        rows read fastest.
    """
    if torch.compiler.is_compiling():
        # The compiler (PyTorch 2.15) mistakes the layout of the gradient of F.pad on the CPU.
        for dim in (2, 3):
            first, last = x.narrow(dim, 0, 1), x.narrow(dim, x.shape[dim] - 1, 1)
            x = torch.cat([first] * pad + [x] + [last] * pad, dim)
        return x.contiguous(memory_format=torch.channels_last)
    if x.device.type == "cpu":
        return _PadBorder.apply(x, pad)
    # F.pad takes care of deterministic mode on CUDA. There it gives channels first, whatever x is.
    padded = F.pad(x, (pad,) * 4, mode="replicate")
    return padded.contiguous(memory_format=torch.channels_last)


class _PadBorder(torch.autograd.Function):
    """The same in less time on the CPU.

    Padded first, transposed then: maps whose size is a power of two would have all channels of a
    pixel compete for the same lines of the cache. The gradient keeps the channels last.
    """

    @staticmethod
    def forward(x: Tensor, pad: int) -> Tensor:
        padded = F.pad(x, (pad,) * 4, mode="replicate")
        return padded.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, int], output: Tensor) -> None:
        x, ctx.pad = inputs
        ctx.size = x.shape

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        like = torch.empty(
            ctx.size, dtype=gradient.dtype, memory_format=torch.channels_last
        )  # only its shape and layout are read
        return torch.ops.aten.replication_pad2d_backward(gradient, like, (ctx.pad,) * 4), None
