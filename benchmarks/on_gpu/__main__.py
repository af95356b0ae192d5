"""Everything that a GPU has to show, in one command, for one that is lent for minutes.

    bash benchmarks/on_gpu.sh OUT
    bash benchmarks/on_gpu.sh OUT --parts 1,3 --vgg vgg19.pth
    bash benchmarks/on_gpu.sh OUT --device cpu --tiny

Part 1 runs the tests marked gpu, and the operator's. Part 2 measures training steps, test.py and
the operations behind them. Part 3 trains GFLA on synthetic people and makes pictures. Each prints
its tables and writes them to OUT as they come: part1.md, part2.md, part3.md, curves.png,
pictures.png; log.txt has what the programs said. What fails or takes too long says so in its row,
and the rest goes on. Exit code: 0, or 1 if anything failed, once all parts have run.

It needs no network, and of the project's requirements only what such a machine has: no visdom,
lpips, torch-fidelity, google-crc32c, selenium or pandas.
"""

import argparse
import contextlib
import importlib
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NoReturn

import torch

from benchmarks.machine import describe_gpu, describe_machine
from benchmarks.on_gpu.report import Child, Job, Report, program
from util.argument_types import real_number
from util.command_line import Parser, run_program
from util.errors import UserError

PARTS = {1: "device_tests", 2: "speed", 3: "training"}  # modules here with a function `run`
MINUTES = {1: 2.0, 2: 3.0, 3: 4.0}  # share of the time; what a part leaves is shared by the next
PEOPLE = ["--identities=100", "--test_identities=10", "--poses_per_identity=6"]
TINY_PEOPLE = [
    "--identities=3", "--test_identities=1", "--poses_per_identity=2", "--workers=1",
]  # fmt: skip


def _parts(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not set(numbers) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"got '{text}', expected some of 1,2,3")
    return numbers


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UserError: bad options, or no GPU where one is asked for.
    """
    parser = Parser(prog="bash benchmarks/on_gpu.sh", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the results")
    parser.add_argument("--parts", type=_parts, default="1,2,3", help="only these")
    parser.add_argument(
        "--minutes",
        type=real_number(0, 1440, above=True),
        default=9.0,
        help="of all parts together",
    )
    parser.add_argument("--vgg", type=Path, help="weights of VGG19 for part 3 [random ones]")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="what to run on")
    parser.add_argument("--tiny", action="store_true", help="rehearse: small sizes, few rows")
    options = parser.parse_all(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device: there is no usable GPU; --device cpu --tiny rehearses without one"
        )
    if options.vgg and not options.vgg.is_file():
        raise UserError(f"--vgg: there is no file {options.vgg}")
    return options


def run_part(number: int, job: Job) -> bool:
    """Run a part; gives whether all of it that there was time for worked, and there was any."""
    report = job.report
    started = time.monotonic()
    report.write(f"\n## Part {number}, {job.seconds_left:.0f} s\n")
    report.write(describe_machine(("torch", "torchvision", "numpy")))
    report.write(describe_gpu() if job.device == "cuda" else "\nNo GPU: a rehearsal on the CPU.")
    try:
        importlib.import_module(f"benchmarks.on_gpu.{PARTS[number]}").run(job)
    except Exception as error:  # a defect in one part does not take the others along
        with open(job.log, "a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        report.table("Failed", ("what",))
        report.failure(traceback.format_exception_only(error)[-1])
    report.write(f"\nPart {number} took {time.monotonic() - started:.0f} s.")
    return report.done > 0 and not report.failed


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; returns the exit code."""
    options = parse_options(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    out, is_tiny = options.out, options.tiny
    try:
        out.mkdir(parents=True, exist_ok=True)
        log = out / "log.txt"
        log.write_bytes(b"")
    except OSError as error:
        raise UserError(f"OUT: {out} cannot be written ({error.strerror})") from error
    signal.signal(signal.SIGTERM, _stop)
    failed = []
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        child = Child(log)
        stack.callback(child.close)
        writer = None
        if options.parts != [1]:  # beside part 1, which leaves cores enough
            writer = stack.enter_context(_write_people(scratch / "data", is_tiny, log))
        for position, number in enumerate(options.parts):
            now = time.monotonic()
            shares = [MINUTES[n] for n in options.parts[position:]]
            end = now + (deadline - now) * shares[0] / sum(shares)
            with contextlib.closing(Report(out / f"part{number}.md")) as report:
                job = Job(
                    report, end, out, scratch, log, child, options.device, is_tiny,
                    str(options.vgg or "random"), writer,
                )  # fmt: skip
                if not run_part(number, job):
                    failed.append(str(number))
    if failed:
        print(f"\nfailed, at least in part: part {', '.join(failed)}; see {log}", file=sys.stderr)
    return int(bool(failed))


def _write_people(
    folder: Path, is_tiny: bool, log: Path
) -> contextlib.AbstractContextManager[subprocess.Popen]:
    people = TINY_PEOPLE if is_tiny else PEOPLE
    layout = ["--layout=fashion", f"--out={folder}", "--pairs_per_identity=20"]
    return program(["-m", "script.make_synthetic_dataset", *layout, *people], log)


def _stop(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    run_program(main)
