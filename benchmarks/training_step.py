"""Time, memory and parts of a training step, GFLA's or PG2's: python -m benchmarks.training_step.

    python -m benchmarks.training_step --stage pose --layout fashion --batchSize 2
    python -m benchmarks.training_step --gpu_id 0 --rows default amp compile

Without options both models, their stages and both layouts on the CPU at small batches; on a GPU, at
batch 8.
The images are synthetic people, VGG19 has random weights. A row is one setting of the options on
speed, `direct` the definition itself (benchmarks/direct_step.py), and `direct kept` the same in a
process that keeps freed memory, as the programs do. Each runs in processes of its own, so that none
leaves the other its memory, in turns with the others, for a machine's speed may drift. Times are
medians of whole steps, after some to warm up, with their range; ratios compare rows of one run.
Memory is the largest resident set of the last process, on a GPU the largest memory allocated. The
parts are measured in further steps, on a GPU with a wait for it before and after each, which is why
they add up to more than a step. Waits are how often a step has the program wait for the GPU.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from benchmarks.direct_step import create_direct_model, direct_networks
from benchmarks.machine import describe_machine
from data import create_dataset, create_loader
from models import create_model
from models.base_model import BaseModel, Batch
from options.base_options import parse_train_options
from script.make_synthetic_dataset.writer import DatasetOptions, make_dataset
from util.argument_types import non_negative_int, positive_int
from util.command_line import Parser, run_program
from util.device import set_up_device

BATCHES = 2  # that take turns
GFLA = ["--vgg_weights=random"]
STAGES = {
    "poseflownet": ["--model=poseflownet", *GFLA],
    "pose": ["--model=pose", *GFLA],
    "pg2 coarse": ["--model=pg2"],  # its first stage, G1 alone
    "pg2 refined": ["--model=pg2", "--stage1_steps=0"],  # the second, G2 and D
}
ROWS = {
    "direct": [],
    "direct kept": [],
    "default": [],
    "unfused": ["--fused_optimizer=off"],
    "channels_last": ["--channels_last"],
    "amp": ["--amp=bf16"],
    "amp channels_last": ["--amp=bf16", "--channels_last"],
    "compile": ["--compile"],
    "compile amp": ["--compile", "--amp=bf16"],
    "compile amp channels_last": ["--compile", "--amp=bf16", "--channels_last"],
    "tf32 off": ["--tf32=off"],
    "no cudnn.benchmark": [],
    "deterministic": ["--deterministic"],
}
DIRECT = ("direct", "direct kept")
# The CPU computes the same without them.
ONLY_GPU = ("tf32 off", "no cudnn.benchmark", "deterministic")
GFLA_ROWS = (*DIRECT, "unfused")
SMALL_BATCH = {"fashion": 2, "market": 4}
GPU_BATCH = 8
PARTS = (
    "data", "generator", "discriminator", "VGG", "correctness", "regularity", "backward",
    "optimiser", "other",
)  # fmt: skip


class Case(NamedTuple):
    """What is trained, and how: `arguments` are of train.py."""

    row: str
    stage: str
    layout: str
    arguments: list[str]
    warm_up: int
    steps: int
    with_parts: bool


class Measurement(NamedTuple):
    """What was measured.

    Attributes:
        seconds: of whole steps.
        first: seconds of the first step.
        parts: mean seconds by part of a step.
        memory: peak MiB.
        waits: of the program for the GPU, per step; None without a GPU.
        losses: of the last step.
    """

    seconds: list[float]
    first: float
    parts: dict[str, float]
    memory: float
    waits: float | None
    losses: dict[str, float]


class PartTimes:
    """Time spent in the parts of a step.

    Args:
        model: whose calls are timed while `watching`.
    """

    def __init__(self, model: BaseModel) -> None:
        self.model = model
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the calls within it."""
        model = self.model
        with ExitStack() as stack:
            parts = {"G": "generator", "D": "discriminator"}
            runs = {name: self.timed(parts.get(name, name), model.run) for name in model.networks}
            run = mock.patch.object(model, "run", lambda name, *inputs: runs[name](name, *inputs))
            stack.enter_context(run)
            if hasattr(model, "run_vgg"):
                vgg = mock.patch.object(model, "run_vgg", self.timed("VGG", model.run_vgg))
                stack.enter_context(vgg)
            for name, part in (
                ("models.gfla.base.correctness_loss", "correctness"),
                ("models.gfla.base.regularity_loss", "regularity"),
                ("benchmarks.direct_step.direct_correctness", "correctness"),
                ("benchmarks.direct_step.regularity_loss", "regularity"),
            ):
                module, function = name.rsplit(".", 1)
                timed = self.timed(part, getattr(_module(module), function))
                stack.enter_context(mock.patch(name, timed))
            timed = self.timed("backward", Tensor.backward)
            stack.enter_context(mock.patch.object(Tensor, "backward", timed))
            for optimizer in model.optimizers.values():
                timed = self.timed("optimiser", optimizer.step)
                stack.enter_context(mock.patch.object(optimizer, "step", timed))
            yield

    def timed(self, part: str, call: Callable) -> Callable:
        """`call`, its time added to `part`; calls within a timed call count for the outer one."""

        def run(*arguments: Any, **keywords: Any) -> Any:
            if self._inside:
                return call(*arguments, **keywords)
            self._inside = True
            start = now(self.model.device)
            try:
                return call(*arguments, **keywords)
            finally:
                self.seconds[part] += now(self.model.device) - start
                self._inside = False

        return run


def _module(name: str) -> Any:
    return __import__(name, fromlist=["_"])


def now(device: torch.device) -> float:
    """The clock, once a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(case: Case) -> Measurement:
    """Train some steps in this process."""
    options = parse_train_options(case.arguments)
    is_direct = case.row in DIRECT
    if case.row != "direct":
        set_up_device(options)
    if case.row == "no cudnn.benchmark":
        torch.backends.cudnn.benchmark = False
    torch.manual_seed(0)
    with direct_networks() if is_direct else nullcontext():
        model = create_direct_model(options) if is_direct else create_model(options)
        loader = create_loader(
            create_dataset(options, pose_mask=model.needs_body_mask),
            options.batchSize,
            training=True,
            device=model.device,
        )
        start, batches = time.perf_counter(), []
        for batch in loader:
            batches.append(batch)
            if len(batches) == BATCHES:
                break
        data = (time.perf_counter() - start) / len(batches)
        if model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(model.device)
        seconds = []
        for number in range(case.warm_up + case.steps):
            start = now(model.device)
            losses = model.training_step(batches[number % len(batches)], number + 1)
            seconds.append(now(model.device) - start)
        memory = peak_memory(model.device)
        losses = {name: value.item() for name, value in losses.items()}
        waits = count_waits(model, batches)
        parts = measure_parts(model, batches) if case.with_parts else {}
    parts = {"data": data, **parts}
    return Measurement(seconds[case.warm_up :], seconds[0], parts, memory, waits, losses)


def count_waits(model: BaseModel, batches: list[Batch]) -> float | None:
    """How often a training step has the program wait for the GPU; None for a model on the CPU."""
    if model.device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for number, batch in enumerate(batches):
                model.training_step(batch, number + 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # Others are caught as well, such as that this mode does not notice every kind of wait.
    waits = ["synchronizing CUDA operation" in str(warning.message) for warning in caught]
    return sum(waits) / len(batches)


def measure_parts(model: BaseModel, batches: list[Batch]) -> dict[str, float]:
    """Mean seconds of the parts of a step, one step per batch."""
    times = PartTimes(model)
    with times.watching():
        start = now(model.device)
        for number, batch in enumerate(batches):
            model.training_step(batch, number + 1)
        total = now(model.device) - start
    times.seconds["other"] = total - sum(times.seconds.values())
    return {part: value / len(batches) for part, value in times.seconds.items()}


def peak_memory(device: torch.device) -> float:
    """MiB: resident set of this process, on a GPU what was allocated there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _measure_in_process(case: Case, connection: Any) -> None:
    connection.send(measure(case))


def measure_apart(case: Case) -> Measurement:
    """`measure` in a process of its own.

    Raises:
        RuntimeError: the process died; its traceback has been printed.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_measure_in_process, args=(case, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError as error:
        raise RuntimeError(f"no measurement of {case.row}") from error
    finally:
        process.join()


def table(results: dict[str, Measurement]) -> str:
    """Markdown: a row per setting, with its speed relative to the first row."""
    reference = statistics.median(next(iter(results.values())).seconds)
    first = next(iter(results))
    lines = [
        f"| row | ms per step: median (lowest to highest) | times as fast as {first} "
        "| peak MiB | waits | first step, s |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row, result in results.items():
        median = statistics.median(result.seconds)
        low, high = min(result.seconds), max(result.seconds)
        lines.append(
            f"| {row} | {1000 * median:.0f} ({1000 * low:.0f} to {1000 * high:.0f}) "
            f"| {reference / median:.2f} | {result.memory:.0f} "
            f"| {'-' if result.waits is None else result.waits} | {result.first:.1f} |"
        )
    return "\n".join(lines)


def parts_table(results: dict[str, Measurement]) -> str:
    """Markdown: milliseconds per part and row."""
    lines = [f"| ms | {' | '.join(PARTS)} |", f"|---|{'---:|' * len(PARTS)}"]
    for row, result in results.items():
        values = (
            f"{1000 * result.parts[part]:.0f}" if part in result.parts else "" for part in PARTS
        )
        lines.append(f"| {row} | {' | '.join(values)} |")
    return "\n".join(lines)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="python -m benchmarks.training_step", description=__doc__.split(":")[0]
    )  # fmt: skip
    parser.add_argument("--stage", choices=tuple(STAGES), help="what to train [all there are]")
    parser.add_argument("--layout", choices=tuple(SMALL_BATCH), help="data set [both]")
    parser.add_argument(
        "--batchSize", type=positive_int, help="pairs per step [CPU: fashion 2, market 4; GPU: 8]"
    )
    parser.add_argument(
        "--rows", nargs="+", choices=tuple(ROWS), help="settings [all that there are for a stage]"
    )
    parser.add_argument("--warm_up", type=non_negative_int, default=4, help="steps before those")
    parser.add_argument("--steps", type=positive_int, default=6, help="measured steps per process")
    parser.add_argument(
        "--rounds", type=positive_int, default=2, help="processes per row; the rows take turns"
    )
    parser.add_argument("--no_parts", action="store_true", help="measure whole steps only")
    parser.add_argument("--gpu_id", default="-1", help="GPU to use, -1 for the CPU")
    return parser.parse_all(arguments)


def train_arguments(
    stage: str, row: str, layout: str, data: Path, batch: int, gpu_id: str
) -> list[str]:
    """Arguments of train.py."""
    return [
        f"--dataset_mode={layout}", f"--dataroot={data}", f"--batchSize={batch}",
        f"--gpu_ids={gpu_id}", "--display_id=0", *STAGES[stage], *ROWS[row],
    ]  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a table per stage and layout."""
    options = parse_options(arguments)
    on_gpu = options.gpu_id != "-1"
    all_rows = options.rows or [row for row in ROWS if on_gpu or row not in ONLY_GPU]
    print(describe_machine(("torch", "torchvision")))
    if on_gpu:
        print(torch.cuda.get_device_name(int(options.gpu_id)))
    for layout in [options.layout] if options.layout else SMALL_BATCH:
        batch = options.batchSize or (GPU_BATCH if on_gpu else SMALL_BATCH[layout])
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data"
            make_dataset(DatasetOptions(layout, 4, 3, flow=False), data)
            for stage in [options.stage] if options.stage else STAGES:
                rows = [row for row in all_rows if row not in GFLA_ROWS or "pg2" not in stage]
                if not rows:
                    continue
                steps = f"{options.rounds} × {options.steps} steps"
                print(f"\n{stage}, {layout}, batch {batch}, {steps}\n", flush=True)
                results: dict[str, Measurement] = {}
                for number, row in product(range(options.rounds), rows):
                    train = train_arguments(stage, row, layout, data, batch, options.gpu_id)
                    is_last = number == options.rounds - 1
                    case = Case(
                        row, stage, layout, train, options.warm_up, options.steps,
                        with_parts=is_last and not options.no_parts,
                    )  # fmt: skip
                    found = measure_apart(case)
                    earlier = results[row].seconds if row in results else []
                    results[row] = found._replace(seconds=[*earlier, *found.seconds])
                print(f"{table(results)}\n\n{parts_table(results)}", flush=True)
    return 0


if __name__ == "__main__":
    run_program(main)
