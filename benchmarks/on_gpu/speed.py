"""Part 2: training steps, test.py and the operators' kernels, the most wanted rows first.

All rows run in one process (report.Child), as its start and CUDA's take as long as a row.
"""

import argparse
import contextlib
import gc
import io
import math
import re
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks import local_attention
from benchmarks.on_gpu.report import Child, FailedError, Job, TimeLimitError
from benchmarks.training_step import Case, measure, now, train_arguments
from models import create_model
from models.gfla.blocks import InstanceNorm
from models.operators import gather_sum
from models.operators.padding import pad_border
from options.base_options import parse_test_options
from test import generate
from util.run.folder import run_folder

BOTH = "amp channels_last"
STEPS = (  # stage, batch, row of benchmarks.training_step
    ("pose", 8, "default"), ("poseflownet", 8, "default"), ("pose", 8, "no cudnn.benchmark"),
    ("pose", 8, "channels_last"), ("pose", 8, "amp"), ("pose", 8, BOTH), ("pose", 1, "default"),
    ("pg2 refined", 8, "default"),
)  # fmt: skip
MORE_STEPS = (
    ("poseflownet", 8, "no cudnn.benchmark"), ("poseflownet", 8, "channels_last"),
    ("poseflownet", 8, "amp"), ("poseflownet", 8, BOTH), ("poseflownet", 1, "default"),
    ("pg2 coarse", 8, "default"), ("pg2 refined", 1, "default"), ("pg2 coarse", 1, "default"),
    ("pose", 1, BOTH), ("pg2 refined", 8, "no cudnn.benchmark"),
)  # fmt: skip
COMPILED_STEPS = (
    ("poseflownet", 8, "compile"), ("pose", 8, "compile " + BOTH), ("pose", 8, "compile"),
    ("poseflownet", 8, "compile " + BOTH),
)  # fmt: skip
TINY_PG2 = ["--layout=fashion", "--conv_hidden_num=8", "--ndf=8"]
TINY_STEPS = (("pose", 2, "default"), ("poseflownet", 1, BOTH), ("pg2 refined", 2, "default"))
WARM_UP, TIMED_STEPS = 3, 8
LONGEST_ROW = 60.0  # seconds; a compiled row may take what is left
TIMINGS, CALLS = 7, 10  # of an operation: median of so many means of so many calls
ATTENTION = (  # method, dtype, case of benchmarks.local_attention
    ("operator", "fp32", (8, 256, 32, 32, 3)), ("operator", "fp32", (8, 128, 64, 64, 5)),
    ("floor", "fp32", (8, 256, 32, 32, 3)), ("floor", "fp32", (8, 128, 64, 64, 5)),
    ("operator", "bf16", (8, 128, 64, 64, 5)), ("operator", "fp32", (1, 256, 32, 32, 3)),
    ("operator", "fp32", (1, 128, 64, 64, 5)), ("direct", "fp32", (8, 256, 32, 32, 3)),
    ("direct, grid_sample", "fp32", (8, 256, 32, 32, 3)), ("taps", "fp32", (8, 256, 32, 32, 3)),
)  # fmt: skip
Row = tuple[Sequence[str], Callable[[], Sequence[str]]]


def run(job: Job) -> None:
    """Write the tables."""
    report = job.report
    report.table("Data", ("what", "result"))
    report.attempt(["synthetic people, fashion"], job.wait_for_data)
    size = "64×64" if job.is_tiny else "256×256"
    title = f"Training steps, fashion, {size}"
    columns = (
        "stage", "batch", "row of benchmarks.training_step", "ms per step: median (range)",
        "pairs per s", "waits per step", "peak MiB", "first step, s",
    )  # fmt: skip
    report.table(title, columns)
    _write_rows(job, _step_rows(job, TINY_STEPS if job.is_tiny else STEPS))
    report.table(
        f"test.py, stage 2, {size}", ("batch", "pictures per s", "ms per picture", "peak MiB")
    )
    rows = [([str(batch)], partial(test_row, _test_arguments(job, batch))) for batch in (1, 8)]
    _write_rows(job, rows)
    report.table(
        "Operations", ("operation", "size", "variant", "ms forward", "ms forward and backward",
        "MiB", "output")
    )  # fmt: skip
    _write_rows(job, _operation_rows(job))
    if not job.is_tiny:
        report.table(f"{title}, more of them", columns)
        _write_rows(job, _step_rows(job, MORE_STEPS))
        report.table(f"{title}, compiled", columns)
        _write_rows(job, _step_rows(job, COMPILED_STEPS), math.inf)


def _write_rows(job: Job, rows: Sequence[Row], longest: float = LONGEST_ROW) -> None:
    for names, function in rows:
        if job.seconds_left <= 0:
            job.report.row(*names, "not measured: no time left")
            continue
        seconds = min(longest, job.seconds_left)
        call = partial(_call, job.child, seconds, seconds < longest, function)
        job.report.attempt(names, call)


def _call(
    child: Child, seconds: float, is_last: bool, function: Callable[[], Sequence[str]]
) -> Sequence[str]:
    try:
        return child.call(seconds, fresh, function)
    except TimeLimitError:
        if not is_last:
            raise
        # The part's time is over, which is no fault of the row's.
        return [f"not measured: the part ended {seconds:.0f} s after its start"]


def fresh(function: Callable[[], Sequence[str]]) -> Sequence[str]:
    """What a function gives that finds PyTorch as a new process does, but for what is compiled."""
    gc.collect()
    torch.compiler.reset()
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = True
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return function()


def _step_rows(job: Job, steps: Sequence[tuple[str, int, str]]) -> list[Row]:
    rows = []
    for stage, batch, row in steps:
        train = train_arguments(stage, row, "fashion", job.data, batch, job.gpu_id)
        if job.is_tiny:
            train += ["--load_size=64", *(TINY_PG2 if "pg2" in stage else [])]
        counts = (1, 2) if job.is_tiny else (WARM_UP, TIMED_STEPS)
        case = Case(row, stage, "fashion", train, *counts, with_parts=False)
        rows.append(([stage, str(batch), row], partial(step_row, case, batch)))
    return rows


def step_row(case: Case, batch: int) -> list[str]:
    """Cells of a training step."""
    found = measure(case)
    median, low, high = (1000 * f(found.seconds) for f in (statistics.median, min, max))
    return [
        f"{median:.1f} ({low:.1f} to {high:.1f})",
        f"{1000 * batch / median:.1f}",
        "-" if found.waits is None else f"{found.waits:g}",
        "-" if found.waits is None else f"{found.memory:.0f}",
        f"{found.first:.1f}",
    ]


def _peak() -> str:
    """MiB allocated at most on a GPU; a CPU's peak is of all rows before, too."""
    if not torch.cuda.is_initialized():
        return "-"
    return f"{torch.cuda.max_memory_allocated() / 2**20:.0f}"


def _test_arguments(job: Job, batch: int) -> list[str]:
    return [
        "--name=fresh", f"--checkpoints_dir={job.scratch / 'result'}", "--model=pose",
        "--dataset_mode=fashion", f"--dataroot={job.data}", f"--gpu_id={job.gpu_id}",
        f"--batchSize={batch}", *(["--load_size=64"] if job.is_tiny else []),
    ]  # fmt: skip


def test_row(arguments: list[str]) -> list[str]:
    """Cells of test.py on fresh weights: the rate that it prints, once it has run before."""
    options = parse_test_options(arguments)
    _save_fresh_weights(options)
    with tempfile.TemporaryDirectory() as pictures:
        for count in (2 * options.batchSize, None):
            options = parse_test_options([*arguments, f"--results_dir={pictures}"])
            options.max_dataset_size = count
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                generate(options)
            print(output.getvalue())
    (rate,) = re.findall(r"([\d.]+) images per second", output.getvalue())
    return [rate, f"{1000 / float(rate):.1f}", _peak()]


test_row.__test__ = False  # pytest would take it for a test


def _save_fresh_weights(options: argparse.Namespace) -> None:
    folder = run_folder(options)
    folder.mkdir(parents=True, exist_ok=True)
    for key, network in create_model(options).networks.items():
        torch.save(network.state_dict(), folder / f"latest_net_{key}.pth")


def _operation_rows(job: Job) -> list[Row]:
    """What the layouts and the kernels cost, then the local attention as a whole."""
    rows: list[Row] = []
    norm = (1, 8, 16, 16) if job.is_tiny else (8, 128, 128, 128)
    gather, window = ((1, 8, 16, 16), 4) if job.is_tiny else ((8, 128, 64, 64), 6)
    for name, build, size in (
        ("instance norm, PyTorch's", build_instance_norm, norm),
        ("instance norm, blocks.InstanceNorm", build_project_norm, norm),
        ("instance norm, by var_mean", build_statistics_norm, norm),
        ("pad_border by 2", build_padding, gather),
    ):
        for layout in ("contiguous_format", "channels_last"):
            names = [name, "x".join(map(str, size)), f"input {layout}"]
            rows.append((names, partial(operation_row, build, size, layout, job.device)))
    for kernels in ("plain", "Triton") if job.device == "cuda" else ("plain",):
        names = [f"weighted_gather, {window**2} terms", "x".join(map(str, gather)), kernels]
        rows.append((names, partial(gather_row, gather, window, kernels, job.device)))
    attention = [("operator", "fp32", (1, 128, 32, 16, 3))] if job.is_tiny else ATTENTION
    for method, dtype, size in attention:
        names = ["local attention, k = " + str(size[-1]), "x".join(map(str, size[:-1]))]
        call = partial(attention_row, method, dtype, size, job.device)
        rows.append(([*names, f"{method}, {dtype}"], call))
    return rows


Operation = tuple[Callable[[Tensor], Tensor], list[Tensor]]


def build_instance_norm(size: Sequence[int], device: str) -> Operation:
    """PyTorch's instance norm, and its weights."""
    layer = nn.InstanceNorm2d(size[1], affine=True, device=device)
    return layer, list(layer.parameters())


def build_project_norm(size: Sequence[int], device: str) -> Operation:
    """The networks' instance norm, and its weights."""
    layer = InstanceNorm(size[1]).to(device)
    return layer, list(layer.parameters())


def build_statistics_norm(size: Sequence[int], device: str) -> Operation:
    """Instance norm by operations that keep the layout, which PyTorch's on a GPU does not."""
    layer = InstanceNorm(size[1]).to(device)

    def norm(x: Tensor) -> Tensor:
        weight, bias = (value[:, None, None] for value in (layer.weight, layer.bias))
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        return torch.addcmul(bias, x - mean, (variance + layer.eps).rsqrt() * weight)

    return norm, list(layer.parameters())


def build_padding(size: Sequence[int], device: str) -> Operation:
    """pad_border as the local attention with 3×3 patches calls it."""
    return partial(pad_border, pad=2), []


def build_gather(size: Sequence[int], device: str, window: int) -> Operation:
    """weighted_gather of windows around positions moved by 3 pixels or so, and its weights."""
    batch, _, height, width = size
    flow = 3 * torch.randn(batch, 2, height, width, device=device)
    floor, _ = gather_sum.sampling_cell(flow)
    half = window // 2
    index = gather_sum.window_index(floor, range(1 - half, half + 1), (height, width))
    weight = torch.rand(index.shape, device=device, requires_grad=True)
    return lambda x: gather_sum.weighted_gather(x, index, weight), [weight]


def gather_row(size: Sequence[int], window: int, kernels: str, device: str) -> list[str]:
    """Cells of weighted_gather with the Triton kernels, or the plain path.

    Raises:
        FailedError: the Triton kernels are asked for, and not in use on this device.
    """
    is_triton = kernels == "Triton"
    if is_triton and not gather_sum._takes_triton(torch.ones(1, device=device)):
        raise FailedError("the Triton kernels are not in use here; the log says why")
    with mock.patch.object(gather_sum, "_takes_triton", lambda _: is_triton):
        build = partial(build_gather, window=window)
        return operation_row(build, size, "channels_last", device)


def operation_row(
    build: Callable[[Sequence[int], str], Operation], size: Sequence[int], layout: str, device: str
) -> list[str]:
    """Cells of an operation on a map in a memory layout; `build` gives it and its parameters."""
    torch.manual_seed(0)
    x = torch.randn(size, device=device).contiguous(memory_format=getattr(torch, layout))
    x.requires_grad_()
    operation, parameters = build(size, device)
    leaves = [x, *parameters]
    with torch.no_grad():
        output = operation(x)
    gradient = torch.randn_like(output)

    def backward() -> None:
        torch.autograd.grad(operation(x), leaves, gradient)

    with torch.no_grad():
        forward_time = _milliseconds(partial(operation, x), device)
    both_time = _milliseconds(backward, device)
    memory = "-"
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        backward()
        memory = f"{(torch.cuda.max_memory_allocated() - before) / 2**20:.0f}"
    is_last = output.is_contiguous(memory_format=torch.channels_last)
    kept = "channels_last" if is_last else "contiguous_format"
    return [f"{forward_time:.3f}", f"{both_time:.3f}", memory, kept]


def _milliseconds(call: Callable[[], object], device: str) -> float:
    """Of one call among many: launches overlap with what the GPU computes, as in a training."""
    times = []
    for _ in range(TIMINGS + 1):
        start = now(torch.device(device))
        for _ in range(CALLS):
            call()
        times.append((now(torch.device(device)) - start) / CALLS)
    return 1000 * statistics.median(times[1:])


def attention_row(method: str, dtype: str, size: Sequence[int], device: str) -> list[str]:
    """Cells of a row of benchmarks.local_attention."""
    options = argparse.Namespace(device=device, threads=None, malloc="default", seconds=0.1)
    try:
        found = local_attention.measure(method, local_attention.Case(*size), dtype, options)
    finally:
        torch.set_default_device(None)  # it has set it
    times = [
        f"{1000 * statistics.median(found[d].seconds):.3f}" for d in local_attention.DIRECTIONS
    ]
    memory = f"{found['forward + backward'].memory:.0f}" if device == "cuda" else "-"
    return [*times, memory]
