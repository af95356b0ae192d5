"""Time and memory of the local attention: python -m benchmarks.local_attention.

Against every other way to compute it in plain PyTorch, and against its two convolutions alone:

- direct: the definition with its k×k blocks, one gather per corner of a tap (benchmarks/direct.py);
- direct, grid_sample: the same blocks by one grid_sample each;
- taps: convolutions rewritten as in models/operators/local_attention.py, but the output
  accumulated from k² grid_samples;
- operator: models/operators/local_attention.py;
- floor: only the rewrite's two k×k convolutions, of maps already padded and channels last.

Every row is measured in processes of its own, in turns with the others. `--malloc=kept` keeps freed
memory in the process, as train.py and test.py do (util/device.py); `default` leaves glibc as it
comes. Times are medians with their range, after two calls to warm up; memory is what the first call
adds to the resident set at its peak (on a GPU: to the allocated memory).
`--case` and `--dtype` measure a part; ratios only ever compare rows of one run.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import direct
from benchmarks.machine import add_malloc_option, describe_machine, set_up_malloc
from models.operators.local_attention import LocalAttention
from util.argument_types import positive_int, real_number

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
DIRECTIONS = ("forward", "forward + backward")


class Case(NamedTuple):
    """Sizes of one benchmark."""

    batch: int
    channels: int
    height: int
    width: int
    kernel_size: int


SHAPES = [(256, 32, 32, 3), (128, 64, 64, 5), (128, 32, 16, 3)]
CASES = [Case(batch, *shape) for batch, shape in product((8, 1), SHAPES)]


def sample_positions(source: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear samples of `source` at pixels (x, y) `[B, H, W]`; the border repeats."""
    height, width = source.shape[-2:]
    grid = torch.stack([x * (2 / (width - 1)) - 1, y * (2 / (height - 1)) - 1], dim=-1)
    return F.grid_sample(
        source, grid.to(source.dtype), padding_mode="border", align_corners=True
    )  # fmt: skip


def positions(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Sampling positions (x, y), each `[B, H, W]`."""
    flow = flow.float()
    height, width = flow.shape[-2:]
    x = flow[:, 0] + torch.arange(width, device=flow.device)
    return x, flow[:, 1] + torch.arange(height, device=flow.device)[:, None]


def grid_sample_direct(
    layer: LocalAttention, source: Tensor, target: Tensor, flow: Tensor
) -> Tensor:
    """The definition, its blocks by grid_sample."""
    k = layer.kernel_size
    taps = torch.arange(k, device=flow.device) - k // 2

    def blocks(feature: Tensor, flow: Tensor) -> Tensor:
        x, y = (p.repeat_interleave(k, 1).repeat_interleave(k, 2) for p in positions(flow))
        height, width = flow.shape[-2:]
        return sample_positions(feature, x + taps.repeat(width), y + taps.repeat(height)[:, None])

    block_source = blocks(source, flow)
    block_target = blocks(target, torch.zeros_like(flow))
    attention = layer.fully_connect_layer(torch.cat([block_target, block_source], 1)).softmax(1)
    return F.avg_pool2d(block_source * F.pixel_shuffle(attention, k), k)


def taps(layer: LocalAttention, source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    """The rewrite with one grid_sample per tap for the output."""
    convolution, activation, to_logits = layer.fully_connect_layer
    radius = layer.kernel_size // 2
    target_weight, source_weight = convolution.weight.split(layer.channels, dim=1)
    x, y = positions(flow)
    padded = F.pad(target, (radius,) * 4, mode="replicate")
    hidden = F.conv2d(padded, target_weight, convolution.bias)
    convolved = F.conv2d(F.pad(source, (2 * radius,) * 4, mode="replicate"), source_weight)
    hidden = hidden + sample_positions(convolved, x + radius, y + radius)
    attention = to_logits(activation(hidden)).softmax(1) / layer.kernel_size**2
    offsets = range(-radius, radius + 1)
    output = torch.zeros_like(target)
    for (i, j), weight in zip(product(offsets, offsets), attention.split(1, dim=1), strict=True):
        output = output + weight * sample_positions(source, x + j, y + i)
    return output


def floor(layer: LocalAttention, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The two convolutions; the maps come padded."""
    convolution = layer.fully_connect_layer[0]
    target_weight, source_weight = convolution.weight.split(layer.channels, dim=1)
    return F.conv2d(target, target_weight, convolution.bias), F.conv2d(source, source_weight)


def gather_direct(layer: LocalAttention, source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    """The definition as the tests have it."""
    network = layer.fully_connect_layer
    return direct.local_attention(network, source, target, flow, layer.kernel_size)


METHODS: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "direct": gather_direct,
    "direct, grid_sample": grid_sample_direct,
    "taps": taps,
    "operator": LocalAttention.__call__,
    "floor": floor,
}


class Measurement(NamedTuple):
    """Seconds of all repetitions, and peak MiB of the first."""

    seconds: list[float]
    memory: float


def make_inputs(method: str, case: Case, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Random leaves: source, target and flow (standard deviation 3 pixels)."""
    torch.manual_seed(0)
    size = (case.batch, case.channels, case.height, case.width)
    source, target = torch.randn(size), torch.randn(size)
    inputs = [source, target, torch.randn(case.batch, 2, *size[2:]) * 3]
    if method == "floor":
        radius = case.kernel_size // 2
        inputs = [
            F.pad(x, (pad,) * 4, mode="replicate").contiguous(memory_format=torch.channels_last)
            for x, pad in ((source, 2 * radius), (target, radius))
        ]
    return [x.to(device, dtype).requires_grad_() for x in inputs]


def measure(
    method: str, case: Case, dtype: str, options: argparse.Namespace
) -> dict[str, Measurement]:
    """Measure one method in this process: direction -> measurement."""
    device = options.device
    _set_up(options)
    torch.manual_seed(0)
    layer = LocalAttention(case.channels, case.kernel_size).to(device, DTYPES[dtype])
    inputs = make_inputs(method, case, DTYPES[dtype], device)
    leaves = [*inputs, *layer.parameters()]
    torch.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1))  # load the libraries first

    def run(backward: bool) -> None:
        with torch.set_grad_enabled(backward):
            outputs = METHODS[method](layer, *inputs)
        if backward:
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            gradients = [torch.ones_like(x).copy_(x.detach()) for x in outputs]
            torch.autograd.grad(outputs, leaves, gradients, allow_unused=True)
        if device == "cuda":
            torch.cuda.synchronize()

    measurements = {}
    before = _memory(device)
    for direction in DIRECTIONS:
        backward = direction != "forward"
        _reset_peak(device)
        run(backward)
        peak = _peak_memory(device) - before
        run(backward)
        times: list[float] = []
        while sum(times) < options.seconds * (1 if len(times) >= 3 else 10) and len(times) < 100:
            start = time.perf_counter()
            run(backward)
            times.append(time.perf_counter() - start)
        measurements[direction] = Measurement(times, peak)
    return measurements


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def _memory(device: str) -> float:
    return torch.cuda.memory_allocated() / 2**20 if device == "cuda" else _status("VmRSS")


def _peak_memory(device: str) -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else _status("VmHWM")


def _reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: peak := present resident set


def _set_up(options: argparse.Namespace) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_default_device(options.device)
    if options.device == "cpu":
        set_up_malloc(options.malloc)


def machine_limits(dtype: str, options: argparse.Namespace) -> tuple[float, float]:
    """(FLOP/s, byte/s) that this machine reaches: of large convolutions and products, of copies."""
    _set_up(options)

    def best(function: Callable[[], Tensor]) -> float:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            function()
            if options.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return min(times)

    with torch.no_grad():
        a, b = torch.randn(2, 2048, 2048, dtype=DTYPES[dtype])
        x = torch.randn(8, 256, 66, 66, dtype=DTYPES[dtype]).to(memory_format=torch.channels_last)
        w = torch.randn(256, 256, 3, 3, dtype=DTYPES[dtype]).to(memory_format=torch.channels_last)
        flops = max(
            2 * 2048**3 / best(lambda: a @ b),
            2 * 8 * 64 * 64 * 256 * 256 * 9 / best(lambda: F.conv2d(x, w)),
        )
        y, z = torch.randn(2, 2**26)
        return flops, 2 * y.nbytes / best(lambda: z.copy_(y))


def algorithm_needs(case: Case, direction: str, element: int, hidden: int = 128) -> tuple[int, int]:
    """(FLOPs, bytes) that the rewrite needs at least; the source's margin does not count.

    Backward: every product twice again. Bytes: each input read and each output written once per
    direction.
    """
    batch, channels, height, width, k = case
    pixels = batch * height * width
    products = 2 * channels * hidden * k**2 + hidden * k**2 + 4 * hidden + (k + 1) ** 2 * channels
    weights = hidden * k**2 * (2 * channels + 1)
    inputs = pixels * (2 * channels + 2) + weights
    flops, elements = 2 * products * pixels, inputs + pixels * channels
    if direction != "forward":
        flops, elements = 3 * flops, elements + pixels * channels + 2 * inputs
    return flops, elements * element


def _in_own_process(function: Callable, *arguments: object) -> object:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def measure_in_turns(
    case: Case, dtype: str, options: argparse.Namespace
) -> dict[str, dict[str, Measurement]]:
    """All rounds of all methods: method -> direction -> measurement."""
    methods = ["operator", *(m for m in options.method if m != "operator")]
    results: dict[str, dict[str, Measurement]] = {}
    for number, method in product(range(options.rounds), methods):
        found = _in_own_process(measure, method, case, dtype, options)
        if number == 0:
            results[method] = found
        else:
            for direction in DIRECTIONS:
                results[method][direction].seconds.extend(found[direction].seconds)
    return results


def _row(name: str, results: dict, reference: dict, limits: tuple, case: Case, size: int) -> str:
    cells = [name]
    for direction in DIRECTIONS:
        seconds, memory = results[direction]
        median = statistics.median(seconds)
        ratio = median / statistics.median(reference[direction].seconds)
        cells += [
            f"{median * 1e3:.1f} ({min(seconds) * 1e3:.1f}–{max(seconds) * 1e3:.1f})",
            f"{ratio:.2f}",
            f"{memory:.0f}",
        ]
        if name == "operator":
            needs = algorithm_needs(case, direction, size)
            share = [need / median / limit for need, limit in zip(needs, limits, strict=True)]
            cells.append(f"{share[0]:.0%} / {share[1]:.0%}")
        else:
            cells.append("")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print one table per case and type."""
    names = ["x".join(map(str, case)) for case in CASES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", choices=names, default=names, help="BxCxHxWxk")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    add_malloc_option(parser)
    parser.add_argument("--threads", type=positive_int, help="default: PyTorch's")
    parser.add_argument(
        "--seconds",
        type=real_number(0, 3600, above=True),
        default=1.0,
        help="per figure and round; or ten times that for three",
    )
    parser.add_argument(
        "--rounds", type=positive_int, default=2, help="processes per row; the rows take turns"
    )
    options = parser.parse_args()
    threads = options.threads or torch.get_num_threads()
    print(describe_machine(("torch",)) + f"; {threads} threads, malloc {options.malloc}")
    for dtype in options.dtype:
        limits = _in_own_process(machine_limits, dtype, options)
        print(f"\n{dtype}: reached {limits[0] / 1e9:.0f} GFLOP/s, {limits[1] / 1e9:.0f} GB/s")
        for name in options.case:
            case = CASES[names.index(name)]
            results = measure_in_turns(case, dtype, options)
            print(f"\n{name} {dtype}\n")
            head = "ms (range) | × operator | MiB | of FLOP/s / bandwidth"
            print("| | " + " | ".join(head.replace("ms", f"{d}, ms", 1) for d in DIRECTIONS) + " |")
            print("|---|" + "---:|" * 8)
            for method, result in results.items():
                size = DTYPES[dtype].itemsize
                print(_row(method, result, results["operator"], limits, case, size), flush=True)


if __name__ == "__main__":
    main()
