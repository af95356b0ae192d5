"""Weighted gather-sum: each output position sums some rows of a feature map with its own weights.

Bilinear sampling, Gaussian resampling and local attention all read a small window of integer
positions around a flowed position; they differ only in their weights:

    floor, fraction = sampling_cell(flow)
    index = window_index(floor, range(-1, 3), source.shape[-2:])
    output = weighted_gather(source, index, weight)  # weight made from `fraction`
"""

import functools
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

TRITON_INSTALLED = find_spec("triton") is not None  # part of PyTorch's builds for CUDA on Linux


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


def window_index(floor: Tensor, offsets: range, size: tuple[int, int]) -> Tensor:
    """Flat indices of the window {floor + offsets}², each coordinate clamped to the map.

    Args:
        floor: `[B, 2, H, W]`, x then y, whole numbers.
        offsets: K whole pixels, the same for both axes.
        size: (height, width) of the map that is read.

    Returns:
        `[B, H, W, K²]` int32 in [0, height · width), window positions row by row.
    """
    height, width = size
    # A flow that has blown up must not overflow the integers: it reads the border like any other.
    whole = floor.clamp(-(2.0**30), 2.0**30).int()
    # Counted off on the device: a list would be copied there, and a GPU waited for, in every call.
    steps = torch.arange(
        offsets.start, offsets.stop, offsets.step, dtype=torch.int32, device=floor.device
    )
    x, y = (whole[:, :, None] + steps[:, None, None]).unbind(1)  # [B, K, H, W] each
    rows = y.clamp(0, height - 1) * width
    return (rows[:, :, None] + x.clamp(0, width - 1)[:, None]).flatten(1, 2).permute(0, 2, 3, 1)


def weighted_gather(source: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Sum rows of `source`: out[b, :, h, w] = Σ_k weight[b, h, w, k] · source[b, :, index[…, k]].

    Args:
        source: `[B, C, Hs, Ws]`; channels last in memory saves a copy.
        index: `[B, H, W, K]` integers in [0, Hs · Ws), as `window_index` makes them.
        weight: `[B, H, W, K]`; cast to the source's type.

    Returns:
        `[B, C, H, W]`, channels last in memory. Differentiable once in `source` and `weight`. The
        gradients are the same in every run, on CUDA only in PyTorch's deterministic mode.
    """
    batch, channels, source_height, source_width = source.shape
    rows = source_height * source_width
    table = source.permute(0, 2, 3, 1).reshape(batch * rows, channels)
    first_row = torch.arange(batch, device=index.device, dtype=index.dtype) * rows
    position_shape = index.shape[:3]
    index = (index + first_row[:, None, None, None]).flatten(0, 2)
    weight = weight.to(source.dtype).flatten(0, 2)
    gather_sum = _fused_gather_sum if _takes_triton(source) else _plain_gather_sum
    output = gather_sum(table, index, weight)
    return output.view(*position_shape, channels).permute(0, 3, 1, 2)


def _takes_triton(source: Tensor) -> bool:
    """Whether the Triton kernels compute it: not in double precision, nor deterministically."""
    return (
        source.is_cuda
        and source.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and not torch.are_deterministic_algorithms_enabled()
        and TRITON_INSTALLED
        and triton_works(str(source.device))
    )


@torch.compiler.assume_constant_result
@functools.cache
def triton_works(device: str) -> bool:
    """Whether the kernels compile on a device and agree there with the plain path; tried once.

    Where they do not (no C compiler for Triton's launcher, an unknown kind of GPU), one line says
    so, and the plain path computes the same sums.
    """
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(50, 20, generator=generator).to(device).requires_grad_()
    index = torch.randint(50, (30, 4), generator=generator, dtype=torch.int32).to(device)
    weight = torch.randn(30, 4, generator=generator).to(device).requires_grad_()
    results = []
    try:
        with torch.enable_grad():
            for gather_sum in (_plain_gather_sum, _fused_gather_sum):
                output = gather_sum(table, index, weight)
                gradients = torch.autograd.grad(output.square().sum(), (table, weight))
                results.append([output, *gradients])
    except Exception as error:  # Triton and its compilers raise what they like
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
    else:
        if all(map(functools.partial(torch.allclose, rtol=1e-4, atol=1e-4), *results)):
            return True
        reason = "they compute something else than PyTorch's own operations"
    print(f"{device}: without the Triton kernels ({reason}); same results, less speed")
    return False


def _fused_gather_sum(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    from models.operators.triton_gather import triton_gather_sum  # slow to import, rarely needed

    return triton_gather_sum(table, index.int(), weight)


def _plain_gather_sum(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    output = F.embedding_bag(index, table.detach(), mode="sum", per_sample_weights=weight)
    if not (table.requires_grad and torch.is_grad_enabled()):
        return output
    return _SourceGradient.apply(output, table, index, weight)


class _SourceGradient(torch.autograd.Function):
    """Passes `output` on, and its gradient to the table, which embedding_bag itself does slowly.

    The backward is a gather, too: sorted by row, the terms that read a row lie together, so its
    gradient is a bag of rows of the incoming gradient. Without scatters there is a fixed order of
    summation.
    """

    @staticmethod
    def forward(output: Tensor, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        return output.view_as(output)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        _, table, index, weight = inputs
        ctx.rows = table.shape[0]
        ctx.save_for_backward(index, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        index, weight = ctx.saved_tensors
        row, order = index.flatten().sort(stable=True)
        starts = torch.searchsorted(row, torch.arange(ctx.rows, device=row.device, dtype=row.dtype))
        table_gradient = F.embedding_bag(
            torch.div(order, index.shape[1], rounding_mode="floor"),
            gradient.contiguous(),
            starts,
            mode="sum",
            per_sample_weights=weight.flatten().index_select(0, order),
        )
        return gradient, table_gradient, None, None
