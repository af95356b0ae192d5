"""The Triton kernels against the plain path, by way of what the product calls.

On a GPU, and without one in Triton's interpreter, which computes on the CPU. That must be chosen
before Triton is imported, so the cases run in a process of their own there.
"""

import contextlib
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from models import create_model
from models.gfla.generator import PoseGenerator
from models.losses.correctness import correctness_loss
from models.operators import gather_sum
from models.operators.gather_sum import weighted_gather
from models.operators.gaussian_resample import gaussian_resample
from models.operators.local_attention import LocalAttention
from tests.support.golden_formula import fill_by_formula
from tests.support.helpers import MARKET, PROJECT, run_here, save_file, train_options

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE, GPU_ID = ("cpu", -1) if INTERPRETED else ("cuda", 0)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 6e-2}
needs_triton = pytest.mark.skipif(not gather_sum.TRITON_INSTALLED, reason="needs triton")


@needs_triton
def test_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", __file__],
        cwd=PROJECT,
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


def on_a_device(test):
    """Marks a test that computes on DEVICE."""
    is_missing = not INTERPRETED and not torch.cuda.is_available()
    skip = pytest.mark.skipif(is_missing, reason="needs a CUDA device or Triton's interpreter")
    return pytest.mark.gpu(needs_triton(skip(test)))


@contextlib.contextmanager
def kernels(used):
    """Within it the kernels compute, or they do not; gives the list of their tables' shapes."""
    tables = []

    def fused(table, index, weight):
        tables.append(tuple(table.shape))
        return original(table, index, weight)

    original = gather_sum._fused_gather_sum
    with (
        mock.patch.object(gather_sum, "_takes_triton", lambda source: used),
        mock.patch.object(gather_sum, "_fused_gather_sum", fused),
    ):
        yield tables
    assert bool(tables) == used


def with_gradients(function, leaves):
    """Output of `function`, and the gradients of its leaves for a given one of the output."""
    output = function(*leaves)
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(output.shape, generator=generator).to(output)
    return [output, *torch.autograd.grad(output, leaves, gradient)]


def compare(function, arguments, dtype=torch.float32):
    """The kernels in `dtype` against the plain path in double precision, from equal numbers."""
    arguments = [x.to(DEVICE, dtype) for x in arguments]
    with kernels(used=True):
        results = with_gradients(function, [x.requires_grad_() for x in arguments])
    with kernels(used=False):
        expected = with_gradients(
            function, [x.detach().double().requires_grad_() for x in arguments]
        )
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == dtype or not result.ndim
        assert error(result, wanted) <= TOLERANCE[dtype]


def error(result, wanted):
    """Length of the difference over that of what is wanted."""
    length = wanted.norm()
    assert length > 0
    return (result.double() - wanted).norm() / length


def maps(batch, layout, *channels, size=(5, 7)):
    """Random maps, in the layout."""
    torch.manual_seed(0)
    return [torch.randn(batch, c, *size).contiguous(memory_format=layout) for c in channels]


def in_all_forms(test):
    """Marks a test of `batch`, `layout` and `dtype`."""
    for mark in (
        pytest.mark.parametrize("batch", [1, 2, 3]),
        pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last]),
        pytest.mark.parametrize("dtype", list(TOLERANCE)),
    ):
        test = mark(test)
    return on_a_device(test)


@in_all_forms
def test_weighted_gather(batch, layout, dtype):
    (source,) = maps(batch, layout, 20)
    # Weights and indices as the callers make them: positions last, but not in memory.
    weight = torch.rand(batch, 16, 3, 11).permute(0, 2, 3, 1)
    index = torch.randint(30, (batch, 16, 3, 11), dtype=torch.int32).permute(0, 2, 3, 1)
    index = index.to(DEVICE)  # rows 30 to 34 are read by none
    compare(lambda s, w: weighted_gather(s, index, w), [source, weight], dtype)


@in_all_forms
def test_gaussian_resample(batch, layout, dtype):
    # Whole and half pixels are the same number in every type.
    source, flow = maps(batch, layout, 20, 2)
    compare(gaussian_resample, [source, (4 * flow).round() / 2 + 0.25], dtype)


@in_all_forms
@pytest.mark.parametrize("k", [3, 5])
def test_local_attention(batch, layout, dtype, k):
    source, target, flow = maps(batch, layout, 20, 20, 2)
    flow = (4 * flow).round() / 2 + 0.25
    layer = fill_by_formula(LocalAttention(20, k, hidden=24)).to(DEVICE)
    names = [name for name, _ in layer.named_parameters()]

    def attend(source, target, flow, *parameters):
        named = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(layer, named, (source, target, flow))

    with torch.backends.cudnn.flags(allow_tf32=False):
        compare(attend, [source, target, flow, *(p.detach() for p in layer.parameters())], dtype)


@in_all_forms
def test_correctness_loss(batch, layout, dtype):
    source, target, flow = maps(batch, layout, 20, 20, 2)
    source, target = (x.to(DEVICE, dtype) for x in (source, target))

    def loss(flow):
        # Features may be in half precision, flows are not.
        features = [x.to(torch.promote_types(x.dtype, flow.dtype)) for x in (source, target)]
        is_exact = flow.dtype == torch.float64
        return correctness_loss(
            [features[0] if is_exact else source], [features[1] if is_exact else target], [flow]
        )

    flow = (4 * flow).round() / 2 + 0.25
    with kernels(used=True):
        results = with_gradients(loss, [flow.to(DEVICE).requires_grad_()])
    with kernels(used=False):
        expected = with_gradients(loss, [flow.to(DEVICE).double().requires_grad_()])
    for result, wanted in zip(results, expected, strict=True):
        assert error(result, wanted) <= TOLERANCE[dtype]


@pytest.fixture
def large_blocks(monkeypatch):
    """The interpreter's time goes by the number of programs, not by what they compute."""
    if INTERPRETED:
        from models.operators import triton_gather

        monkeypatch.setattr(triton_gather, "BLOCK_ELEMENTS", 2**17)


@on_a_device
@pytest.mark.usefixtures("large_blocks")
@pytest.mark.parametrize(
    ("stage", "batch", "arguments"),
    [
        ("poseflownet", 1, []), ("poseflownet", 2, []),
        ("pose", 1, []), ("pose", 2, []), ("pose", 1, ["--channels_last"]),
    ],
)  # fmt: skip
def test_training_steps(stage, batch, arguments):
    results = []
    for used in (True, False):
        torch.manual_seed(0)
        model = create_model(
            train_options(
                f"--model={stage}", "--load_size=64", "--old_size=64", f"--gpu_ids={GPU_ID}",
                "--tf32=off", "--lr=0", *arguments,
            )
        )  # fmt: skip
        fill_by_formula(model.generator)
        inputs = {
            name: F.interpolate(x, (64, 64), mode="bilinear").to(DEVICE)
            for name, x in zip(
                ("P1", "P2", "BP1", "BP2"),
                maps(batch, torch.contiguous_format, 3, 3, 18, 18, size=(8, 8)),
                strict=True,
            )
        }
        with kernels(used) as tables, torch.backends.cudnn.flags(allow_tf32=False):
            losses = model.training_step(inputs, 1)
        gradients = {
            name: parameter.grad
            for name, parameter in model.generator.named_parameters()
            if parameter.grad is not None
        }
        results.append((losses, gradients))
    # The window of the correctness loss, and in stage 2 both gathers of the attention.
    assert not used or len(tables) == (1 if stage == "poseflownet" else 3)
    (losses, gradients), (expected, others) = results
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-4, abs=1e-6), name
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        if others[name].ndim == 4:  # of biases in front of a norm there is rounding noise alone
            assert error(gradient, others[name]) < 1e-2, name


@on_a_device
@pytest.mark.usefixtures("large_blocks")
def test_pictures_of_test_py(tiny_market, tmp_path):
    """At its defaults, so in batches of one."""
    generator = fill_by_formula(PoseGenerator(attn_layer=[2], kernel_size={2: 3}))
    save_file(generator.state_dict(), tmp_path / "run" / "latest_net_G.pth")
    pictures = []
    for used in (True, False):
        results = tmp_path / str(used)
        with kernels(used):
            done = run_here(
                "test.py", *MARKET[:1], f"--gpu_id={GPU_ID}", "--name=run", "--nThreads=0",
                f"--checkpoints_dir={tmp_path}", f"--dataroot={tiny_market}",
                f"--results_dir={results}", "--results_format=png", "--max_dataset_size=2",
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
        pictures.append(
            [np.array(Image.open(path)).astype(int) for path in sorted(results.glob("*.png"))]
        )
    assert len(pictures[0]) == 2
    for fused, plain in zip(*pictures, strict=True):
        assert abs(fused - plain).max() <= (1 if INTERPRETED else 8)  # TF32 elsewhere
        assert plain.std() > 10
