"""What the live display costs the training: python -m benchmarks.display_cost.

Stage 1 is trained on synthetic people with everything shown much more often than usual: losses at
every iteration, pictures at every tenth. The ways the display can fare take turns, so that what
else the machine does spreads over all of them; processor time is the less noisy measure on a
machine that does other things, too.
"""

import argparse
import contextlib
import io
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from benchmarks.machine import describe_machine
from options.base_options import parse_train_options
from script.make_synthetic_dataset.__main__ import main as make_synthetic_dataset
from train import Trainer
from util.argument_types import positive_int
from util.command_line import Parser, run_program
from util.errors import UserError
from util.run.display.base import Displays

CONDITIONS = (
    "off",
    "on, server alive",
    "on, no server",
    "on, server stopped (SIGSTOP) after a quarter",
    "on, server killed after a quarter, restarted at the half",
    "off, but a server starts at the half",  # what the start of a program costs by itself
)
TRAINING = [
    "--model=poseflownet", "--dataset_mode=market", "--attn_layer=2", "--kernel_size=2=3",
    "--vgg_weights=random", "--batchSize=2", "--nThreads=0", "--print_freq=1", "--display_freq=10",
    "--eval_iters_freq=0", "--name=benchmark",
]  # fmt: skip
START_SECONDS = 30


class Dashboard:
    """`python -m script.dashboard` in a process of its own.

    Args:
        port: to listen on.
        folder: of its state.
    """

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self._folder = folder
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it and go on at once."""
        command = ["-m", "script.dashboard", f"--port={self.port}", f"--env_path={self._folder}"]
        self._process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            UserError: it ended, or does not answer.
        """
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("localhost", self.port), timeout=1).close()
                return
            time.sleep(0.1)
        self._process.kill()
        raise UserError(f"the dashboard does not start: {self._process.communicate()[0].strip()}")

    def send(self, signal_number: int) -> None:
        """Send SIGSTOP or SIGCONT."""
        self._process.send_signal(signal_number)

    def kill(self) -> None:
        """End it without warning."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Measurement:
    """Speed of one training, and the time of every hand-over to the display."""

    def __init__(self, arguments: list[str], events: dict[int, Callable[[], None]]) -> None:
        self.hand_overs: list[float] = []
        self.ends: list[float] = []
        self.cpu_times: list[float] = []
        self.output = io.StringIO()
        with contextlib.redirect_stdout(self.output), contextlib.ExitStack() as patches:
            trainer = Trainer(parse_train_options(arguments))
            for method in ("scalars", "pictures"):  # the display itself is made by `run`
                timed = self._timed(getattr(Displays, method))
                patches.enter_context(mock.patch.object(Displays, method, timed))
            step = trainer.model.training_step

            def timed_step(*parameters: object) -> dict[str, torch.Tensor]:
                if len(self.ends) in events:
                    events[len(self.ends)]()
                losses = step(*parameters)
                self.ends.append(time.perf_counter())
                self.cpu_times.append(time.process_time())
                return losses

            trainer.model.training_step = timed_step
            trainer.run()

    def _timed(self, call: Callable) -> Callable:
        def timed(*parameters: object) -> None:
            start = time.perf_counter()
            call(*parameters)
            self.hand_overs.append(time.perf_counter() - start)

        return timed

    @property
    def iterations_per_second(self) -> float:
        """From the end of the fifth step to that of the last."""
        return (len(self.ends) - 5) / (self.ends[-1] - self.ends[4])

    @property
    def cpu_milliseconds(self) -> float:
        """Processor time of the whole process per iteration, over the same steps."""
        return 1000 * (self.cpu_times[-1] - self.cpu_times[4]) / (len(self.ends) - 5)

    @property
    def state_lines(self) -> int:
        """Lines that the display printed."""
        return self.output.getvalue().count("live display:")


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m benchmarks.display_cost", description=__doc__.split(":")[0])
    parser.add_argument("--iterations", type=positive_int, default=80, help="of each training")
    parser.add_argument("--rounds", type=positive_int, default=5, help="trainings per condition")
    parser.add_argument("--only", default="", help="conditions that have this word, and 'off'")
    parser.add_argument("--gpu_id", default="-1", help="GPU to use, -1 for the CPU")
    return parser.parse_all(arguments)


def measure(condition: str, iterations: int, gpu_id: str, folder: Path, port: int) -> Measurement:
    """Train once under a condition of `CONDITIONS`; the records go into `folder`."""
    dashboard = Dashboard(port, folder / "dashboard")
    quarter, half = iterations // 4, iterations // 2
    events: dict[int, Callable[[], None]] = {}
    if "stopped" in condition:
        events = {quarter: lambda: dashboard.send(signal.SIGSTOP)}
    elif "killed" in condition:
        events = {quarter: dashboard.kill, half: dashboard.start}
    elif "starts" in condition:
        events = {half: dashboard.start}
    if "on, server" in condition:
        dashboard.start()
        dashboard.wait()
    try:
        return Measurement(
            [
                *TRAINING, f"--dataroot={folder / 'data'}", f"--checkpoints_dir={folder}",
                f"--niter={iterations}", f"--display_port={port}", f"--gpu_id={gpu_id}",
                f"--display_id={int(condition.startswith('on'))}",
            ],
            events,
        )  # fmt: skip
    finally:
        dashboard.kill()


def table(results: dict[str, list[Measurement]]) -> str:
    """Markdown: a row per condition."""
    lines = [
        "| display | iterations per second: median (lowest to highest) "
        "| processor ms per iteration | hand-over in ms: p50, max | its lines per run |",
        "|---|---|---|---|---|",
    ]
    for condition, runs in results.items():
        rates = sorted(run.iterations_per_second for run in runs)
        cpu = sorted(run.cpu_milliseconds for run in runs)
        times = [1000 * seconds for run in runs for seconds in run.hand_overs]
        printed = sorted({run.state_lines for run in runs})
        lines.append(
            f"| {condition} | {statistics.median(rates):.2f} ({rates[0]:.2f} to {rates[-1]:.2f}) "
            f"| {statistics.median(cpu):.0f} ({cpu[0]:.0f} to {cpu[-1]:.0f}) "
            f"| {statistics.median(times):.3f}, {max(times):.2f} "
            f"| {', '.join(map(str, printed))} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure all conditions in turns and print the table."""
    options = parse_options(arguments)
    where = describe_machine(["torch"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    conditions = [name for name in CONDITIONS if name == "off" or options.only in name]
    results: dict[str, list[Measurement]] = {condition: [] for condition in conditions}
    with tempfile.TemporaryDirectory() as folder:
        make_synthetic_dataset(
            ["--layout=market", f"--out={folder}/data", "--identities=10", "--no_flow"]
        )
        measure("off", 10, options.gpu_id, Path(folder), port)  # warms up
        for number in range(options.rounds):
            for place in range(len(conditions)):  # each round starts with another
                condition = conditions[(place + number) % len(conditions)]
                run = measure(condition, options.iterations, options.gpu_id, Path(folder), port)
                results[condition].append(run)
                print(f"{condition}: {run.iterations_per_second:.2f} it/s", flush=True)
    print(
        f"\n{options.rounds} trainings of {options.iterations} iterations each; {where}\n\n"
        f"{table(results)}"
    )
    return 0


if __name__ == "__main__":
    run_program(main)
