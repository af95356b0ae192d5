"""The weighted gather-sum of rows as Triton kernels, for CUDA devices.

`models.operators.gather_sum.weighted_gather` decides when they run, and holds the plain path that
is their reference. Sums are kept in float32. The gradient of the table is added up by atomic
additions, in no fixed order: not for deterministic mode.

Compared with the plain path in Triton's interpreter and compiled for CUDA devices, but never timed
on one.
"""
# ruff: noqa: ANN001, ANN202 - arguments of kernels have no Python types

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

BLOCK_ELEMENTS = 1024  # of one program's tile: positions times channels


def triton_gather_sum(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """out[n] = Σ_k weight[n, k] · table[index[n, k]], differentiable once in table and weight.

    Args:
        table: `[R, C]`, float32, float16 or bfloat16.
        index: `[N, K]` int32 in [0, R).
        weight: `[N, K]` of the table's type.

    Returns:
        `[N, C]` of the table's type.
    """
    # The kernels count on rows that follow each other in memory. Those of callers need not: a map
    # of a batch of one is flattened without a copy, whatever its layout.
    operands = (operand.contiguous() for operand in (table, index, weight))
    return _TritonGatherSum.apply(*operands)


class _TritonGatherSum(torch.autograd.Function):
    @staticmethod
    def forward(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        positions, channels = index.shape[0], table.shape[1]
        output = table.new_empty(positions, channels)
        block_channels = triton.next_power_of_2(channels)
        block_positions = max(1, BLOCK_ELEMENTS // block_channels)
        _gather[(triton.cdiv(positions, block_positions),)](
            table, index, weight, output, positions, channels,
            index.shape[1], block_positions, block_channels,
        )  # fmt: skip
        return output

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        table, index, weight = ctx.saved_tensors
        positions, channels = index.shape[0], table.shape[1]
        needs_table, _, needs_weight = ctx.needs_input_grad
        # Where none is asked for, the kernel gets a pointer that it does not use.
        table_gradient = torch.zeros_like(table, dtype=torch.float32) if needs_table else table
        weight_gradient = torch.empty_like(weight) if needs_weight else weight
        block_channels = triton.next_power_of_2(channels)
        block_positions = max(1, BLOCK_ELEMENTS // block_channels)
        _gather_backward[(triton.cdiv(positions, block_positions),)](
            table, index, weight, gradient.contiguous(), table_gradient, weight_gradient,
            positions, channels, index.shape[1], block_positions, block_channels,
            needs_table, needs_weight,
        )  # fmt: skip
        return (
            table_gradient.to(table.dtype) if needs_table else None,
            None,
            weight_gradient if needs_weight else None,
        )


@triton.jit
def _gather(
    table, index, weight, output, positions, channels,
    TERMS: tl.constexpr, BLOCK_POSITIONS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    position = tl.program_id(0).to(tl.int64) * BLOCK_POSITIONS + tl.arange(0, BLOCK_POSITIONS)
    channel = tl.arange(0, BLOCK_CHANNELS)
    inside = position < positions
    mask = inside[:, None] & (channel < channels)[None, :]
    total = tl.zeros((BLOCK_POSITIONS, BLOCK_CHANNELS), tl.float32)
    for term in range(TERMS):
        row = tl.load(index + position * TERMS + term, mask=inside, other=0).to(tl.int64)
        factor = tl.load(weight + position * TERMS + term, mask=inside, other=0).to(tl.float32)
        pointers = table + row[:, None] * channels + channel[None, :]
        total += factor[:, None] * tl.load(pointers, mask=mask, other=0).to(tl.float32)
    tl.store(output + position[:, None] * channels + channel[None, :], total, mask=mask)


@triton.jit
def _gather_backward(
    table, index, weight, gradient, table_gradient, weight_gradient, positions, channels,
    TERMS: tl.constexpr, BLOCK_POSITIONS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
    NEEDS_TABLE: tl.constexpr, NEEDS_WEIGHT: tl.constexpr,
):  # fmt: skip
    position = tl.program_id(0).to(tl.int64) * BLOCK_POSITIONS + tl.arange(0, BLOCK_POSITIONS)
    channel = tl.arange(0, BLOCK_CHANNELS)
    inside = position < positions
    mask = inside[:, None] & (channel < channels)[None, :]
    incoming = tl.load(
        gradient + position[:, None] * channels + channel[None, :], mask=mask, other=0
    ).to(tl.float32)
    for term in range(TERMS):
        row = tl.load(index + position * TERMS + term, mask=inside, other=0).to(tl.int64)
        offset = row[:, None] * channels + channel[None, :]
        if NEEDS_WEIGHT:
            values = tl.load(table + offset, mask=mask, other=0).to(tl.float32)
            product = tl.sum(incoming * values, axis=1)
            tl.store(weight_gradient + position * TERMS + term, product, mask=inside)
        if NEEDS_TABLE:
            factor = tl.load(weight + position * TERMS + term, mask=inside, other=0)
            tl.atomic_add(
                table_gradient + offset, incoming * factor.to(tl.float32)[:, None], mask=mask
            )
