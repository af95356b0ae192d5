"""What waiting threads cost beside other work: python -m benchmarks.busy_machine.

OpenMP's threads meet at the end of every operation. How long one spins there before it sleeps is
read from the environment when torch is imported: on a machine of one's own spinning is fastest, but
where other programs want the cores it keeps them from the thread that all wait for. Each row is a
setting, in processes of its own, which take turns: on a quiet machine, and beside programs that
compute without end, each on one core. `programs` is what train.py, test.py and the others set.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from benchmarks.machine import describe_machine
from benchmarks.training_step import SMALL_BATCH, STAGES, Case, measure_apart, train_arguments
from script.make_synthetic_dataset.writer import DatasetOptions, make_dataset
from util.argument_types import non_negative_int, positive_int
from util.command_line import WAITING, Parser, run_program
from util.device import cpu_cores

ROWS: dict[str, dict[str, str]] = {
    "OpenMP's own": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{f"GOMP_SPINCOUNT={n}": {"GOMP_SPINCOUNT": str(n)} for n in (100, 1000, 10000, 100000)},
    "programs": WAITING,
}
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


class Measurement(NamedTuple):
    """Seconds of whole steps, and of processor time of all processes of a row."""

    seconds: list[float]
    processor: float


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """So many programs compute without end within it."""
    started = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@contextmanager
def environment(setting: dict[str, str]) -> Iterator[None]:
    """Processes started within it have the setting and no other of the kind."""
    with mock.patch.dict(os.environ, setting):
        for name in VARIABLES:
            if name not in setting:
                os.environ.pop(name, None)
        yield


def processor_time() -> float:
    """Seconds of processor time of the processes that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def table(results: dict[str, Measurement]) -> str:
    """Markdown: a row per setting, with its speed relative to the first one's."""
    reference = statistics.median(next(iter(results.values())).seconds)
    first = next(iter(results))
    lines = [
        f"| setting | ms per step: median (lowest to highest) | times as fast as {first} "
        "| processor time, s |",
        "|---|---:|---:|---:|",
    ]
    for row, result in results.items():
        median, low, high = (1000 * f(result.seconds) for f in (statistics.median, min, max))
        ratio = 1000 * reference / median
        lines.append(
            f"| {row} | {median:.0f} ({low:.0f} to {high:.0f}) | {ratio:.2f} "
            f"| {result.processor:.0f} |"
        )
    return "\n".join(lines)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m benchmarks.busy_machine", description=__doc__.split(":")[0])
    parser.add_argument("--stage", choices=tuple(STAGES), default="pose", help="what to train")
    parser.add_argument("--layout", choices=tuple(SMALL_BATCH), default="market", help="data set")
    parser.add_argument("--batchSize", type=positive_int, default=4, help="pairs per step")
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    parser.add_argument(
        "--load", type=non_negative_int, nargs="+", default=[0, max(1, cpu_cores() // 2)],
        help="programs beside it, a table for each number",
    )  # fmt: skip
    parser.add_argument("--warm_up", type=non_negative_int, default=2, help="steps before those")
    parser.add_argument("--steps", type=positive_int, default=5, help="measured steps per process")
    parser.add_argument(
        "--rounds", type=positive_int, default=2, help="processes per row; the rows take turns"
    )
    return parser.parse_all(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a table per load."""
    options = parse_options(arguments)
    print(describe_machine(("torch",)))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        make_dataset(DatasetOptions(options.layout, 4, 3, flow=False), data)
        train = train_arguments(
            options.stage, "default", options.layout, data, options.batchSize, "-1"
        )
        case = Case(
            "default", options.stage, options.layout, train, options.warm_up, options.steps,
            with_parts=False,
        )  # fmt: skip
        for load in options.load:
            title = f"{options.stage}, {options.layout}, batch {options.batchSize}"
            print(f"\n{title}, beside {load} programs, {options.rounds} × {options.steps} steps\n")
            results = {row: Measurement([], 0.0) for row in options.rows}
            for _, row in product(range(options.rounds), options.rows):
                before = processor_time()
                with environment(ROWS[row]), busy(load):
                    seconds = measure_apart(case).seconds
                    used = processor_time() - before  # that of the other programs comes later
                earlier = results[row]
                results[row] = Measurement([*earlier.seconds, *seconds], earlier.processor + used)
            print(table(results), flush=True)
    return 0


if __name__ == "__main__":
    run_program(main)
