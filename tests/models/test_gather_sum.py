"""The weighted gather and the Gaussian resampling built on it."""

import math

import pytest
import torch
from torch.nn import functional as F

from models.operators import gather_sum
from models.operators.gather_sum import sampling_cell, weighted_gather, window_index
from models.operators.gaussian_resample import gaussian_resample
from models.operators.padding import pad_border
from tests.support.golden_formula import golden


def close(actual, expected, atol):
    torch.testing.assert_close(actual.detach(), torch.as_tensor(expected), atol=atol, rtol=0)


def test_weighted_gather_by_hand():
    source = torch.arange(12.0).view(2, 1, 2, 3)  # 0 … 5 and 6 … 11
    index = torch.tensor([[[[0, 5]]], [[[0, 0]]]])
    weight = torch.tensor([[[[2.0, 1.0]]], [[[0.5, 0.25]]]])
    close(weighted_gather(source, index, weight), [[[[5.0]]], [[[4.5]]]], 0)


def test_weighted_gather_equals_a_plain_sum_and_passes_gradcheck():
    torch.manual_seed(0)
    source = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, 2, 6, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 7, (2, 3, 2, 6))  # few rows, so that some are read often
    rows = source.flatten(2).transpose(1, 2)
    plain = torch.stack(
        [(rows[b][index[b]] * weight[b][..., None]).sum(dim=2).permute(2, 0, 1) for b in range(2)]
    )
    close(weighted_gather(source, index, weight), plain.detach(), 1e-14)
    assert torch.autograd.gradcheck(lambda s, w: weighted_gather(s, index, w), (source, weight))


def test_sampling_cell_belongs_to_the_right_on_integers():
    flow = torch.tensor([[[[0.0, -3.0, 0.25]], [[-0.5, 2.0, 1.0]]]])
    floor, fraction = sampling_cell(flow)
    close(floor, [[[[0.0, -2.0, 2.0]], [[-1.0, 2.0, 1.0]]]], 0)
    close(fraction, [[[[0.0, 0.0, 0.25]], [[0.5, 0.0, 0.0]]]], 0)


def test_half_precision_flow_does_not_round_positions():
    flow = torch.full((1, 2, 1, 400), 0.25, dtype=torch.bfloat16)
    floor, fraction = sampling_cell(flow)
    close(floor[0, 0, 0], torch.arange(400.0), 0)
    assert (fraction == 0.25).all()


def test_indices_stay_in_the_map_whatever_the_flow():
    flow = torch.tensor([0.0, 2000.0, -2000.0, 1e30, -1e30, math.inf, -math.inf, math.nan])
    floor, _ = sampling_cell(flow.view(1, 1, 2, 4).expand(1, 2, 2, 4))
    index = window_index(floor, range(-1, 3), (5, 6))
    assert index.shape == (1, 2, 4, 16)
    assert index.min() >= 0
    assert index.max() < 30
    assert index[0, 0, 1].unique().tolist() == [29]
    assert index[0, 0, 2].unique().tolist() == [0]


@pytest.mark.parametrize(
    ("prefix", "options"),
    [
        ("resample_k4_s2", {}),
        ("resample_k2_s5", {"kernel_size": 2, "sigma": 5.0}),
        ("resample_k4_d2_s2", {"dilation": 2}),
    ],
)
def test_gaussian_resample_golden(prefix, options):
    file = golden("resample2d.npz")
    source, flow = (
        torch.from_numpy(file[f"{prefix}.{name}"]).requires_grad_() for name in ("source", "flow")
    )
    output = gaussian_resample(source, flow, **options)
    close(output, file[f"{prefix}.output"], 2e-6)
    output.backward(torch.from_numpy(file[f"{prefix}.grad_output"]))
    close(flow.grad, file[f"{prefix}.grad_flow"], 1e-5)
    close(source.grad, file[f"{prefix}.grad_source_true"], 1e-5)


def test_gaussian_resample_by_its_definition():
    """One position, in double precision, by a plain loop over the window."""
    torch.manual_seed(0)
    source = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    flow = torch.tensor([3.7, 2.4], dtype=torch.float64).view(1, 2, 1, 1)
    total, expected = 0.0, torch.zeros(2, dtype=torch.float64)
    for y in (1, 2, 3, 4):
        for x in (2, 3, 4, 5):
            weight = math.exp(-((x - 3.7) ** 2 + (y - 2.4) ** 2) / 8)
            total += weight
            expected += weight * source[0, :, y, x]
    close(gaussian_resample(source, flow).flatten(), expected / total, 1e-14)


def test_gaussian_resample_keeps_a_constant_image():
    flow = torch.randn(2, 2, 5, 4) * 100
    close(
        gaussian_resample(torch.full((2, 3, 7, 6), 1.5), flow), torch.full((2, 3, 5, 4), 1.5), 1e-6
    )


def test_gaussian_resample_gradcheck():
    torch.manual_seed(0)
    source = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    flow = torch.randint(-4, 4, (2, 2, 3, 2)) + 0.2 + 0.6 * torch.rand(2, 2, 3, 2).double()
    assert torch.autograd.gradcheck(gaussian_resample, (source, flow.requires_grad_()))


@pytest.mark.parametrize("kernel_size", [3, 0, -2])
def test_gaussian_window_is_even(kernel_size):
    with pytest.raises(ValueError, match=f"got {kernel_size}, expected an even"):
        gaussian_resample(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4), kernel_size)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 2), (5, 7)])
@pytest.mark.parametrize("pad", [0, 1, 4])
def test_pad_border_equals_pytorch(pad, size, layout):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    expected = F.pad(x, (pad,) * 4, mode="replicate")
    output = pad_border(x, pad)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(output, expected)
    gradient = torch.randn_like(expected)
    gradients = [torch.autograd.grad(y, x, gradient)[0] for y in (output, expected)]
    close(gradients[0], gradients[1], 1e-14)


def test_second_derivatives_are_refused():
    source = torch.randn(1, 2, 3, 3, requires_grad=True)
    output = gaussian_resample(source, torch.zeros(1, 2, 3, 3)).square().sum()
    (gradient,) = torch.autograd.grad(output, source, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_kernels_that_do_not_work_are_said_once_and_not_used(monkeypatch, capsys):
    """On the CPU, with stand-ins for the kernels: right, wrong in a gradient, and failing."""

    def failing(*_):
        raise RuntimeError("Failed to find C compiler.\nPlease specify …")

    def wrong(table, index, weight):
        return gather_sum._plain_gather_sum(table, index, 2 * weight - weight.detach())

    for kernels, works, reason in (
        (gather_sum._plain_gather_sum, True, None),
        (wrong, False, "something else"),
        (failing, False, "(Failed to find C compiler.)"),
    ):
        monkeypatch.setattr(gather_sum, "_fused_gather_sum", kernels)
        gather_sum.triton_works.cache_clear()
        assert [gather_sum.triton_works("cpu") for _ in range(2)] == [works] * 2
        output = capsys.readouterr().out
        assert output.count("\n") == (0 if works else 1)
        assert reason is None or reason in output
    gather_sum.triton_works.cache_clear()
