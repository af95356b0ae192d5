"""Part 3: GFLA learns synthetic people, by the programs as a user starts them."""

import contextlib
import os
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.on_gpu.report import FailedError, Job, last_line, program, run_program
from models.evaluation import format_table
from script.demo import QUICK_START, picture_sheet, score_table
from script.plot_losses import plot_losses, read_losses
from util.errors import UserError
from util.run.history import plots_of, read_metrics

STAGES = (("stage 1", "poseflownet", []), ("stage 2", "pose", ["--continue_train"]))
SHARES = (0.4, 1.0)  # of the time that is left for training when a stage begins
RESERVE, LARGEST_RESERVE = 0.3, 60.0  # for what follows training: share of the part, seconds
SAVING = 30.0  # seconds that a stopped training may take until it has ended
TINY_STEPS = 3
SMOOTH = 25  # records around each point of a curve


def run(job: Job) -> None:
    """Train both stages, draw the curves, generate the test pictures, score them."""
    report = job.report
    report.table(f"GFLA, {'64×64' if job.is_tiny else '256×256'}", ("what", "result"))
    reserve = min(LARGEST_RESERVE, RESERVE * job.seconds_left)
    report.attempt(["synthetic people, fashion"], job.wait_for_data)
    shared = [
        "--name=gfla", f"--checkpoints_dir={job.scratch / 'trained'}", "--dataset_mode=fashion",
        f"--dataroot={job.data}", f"--gpu_id={job.gpu_id}",
        *(["--load_size=64"] if job.is_tiny else []),
    ]  # fmt: skip
    folder = job.scratch / "trained" / "gfla"
    for (name, model, arguments), share in zip(STAGES, SHARES, strict=True):
        seconds = max(0.0, share * (job.seconds_left - reserve))
        call = partial(train, job, folder, model, [*shared, *arguments], seconds)
        try:
            report.attempt([f"{name} (--model={model})"], call)
        finally:  # also of what was trained before a Ctrl-C
            with contextlib.suppress(UserError):
                plot_losses(
                    read_losses([folder])[0],
                    job.out / "curves.png",
                    smooth=1 if job.is_tiny else SMOOTH,
                )
    report.attempt(["test.py, batch 1"], partial(generate, job, [*shared, "--model=pose"]))
    picture = job.out / "pictures.png"
    report.attempt(
        [picture.name],
        lambda: [f"{job.child.call(job.seconds_left, draw, shared, picture)} test pairs"],
    )
    try:
        scores = job.child.call(job.seconds_left, score_table, shared)
        report.write(f"\n{format_table(scores)}")
    except FailedError as error:
        report.table("Scores", ("what",))
        report.failure(str(error))


def train(
    job: Job, folder: Path, model: str, arguments: Sequence[str], seconds: float
) -> list[str]:
    """Run train.py until the time is up, then have it save as it does at SIGTERM.

    Raises:
        FailedError: it ended by itself, or did not come to a record of its losses.
    """
    command = [
        "train.py", f"--model={model}", *arguments, *QUICK_START, f"--vgg_weights={job.vgg}",
        f"--batchSize={2 if job.is_tiny else 8}", f"--print_freq={1 if job.is_tiny else 10}",
        "--eval_iters_freq=0", "--display_id=0", "--no_html",
    ]  # fmt: skip
    started = time.monotonic()
    with program(command, job.log) as process:
        while process.poll() is None and time.monotonic() < started + seconds:
            if job.is_tiny and len(_records(folder, model)) >= TINY_STEPS:
                break
            time.sleep(0.2)
        if process.poll() is not None:
            raise FailedError(f"exit code {process.returncode}: {last_line(job.log)}")
        if not _records(folder, model):
            raise FailedError(f"time limit of {seconds:.0f} s: no step had been recorded")
        os.kill(process.pid, signal.SIGTERM)
        try:
            code = process.wait(SAVING)
        except subprocess.TimeoutExpired:
            raise FailedError(f"it had not saved {SAVING:.0f} s after SIGTERM") from None
        if code != 128 + signal.SIGTERM:
            raise FailedError(f"exit code {code} after SIGTERM: {last_line(job.log)}")
        (steps,) = re.findall(r"stopped after iteration (\d+), saved", last_line(job.log))
    return [
        f"{steps} steps in {time.monotonic() - started:.0f} s with start and saving; "
        f"{_summary(_records(folder, model))}"
    ]


def _records(folder: Path, model: str) -> list[dict]:
    path = folder / "metrics.jsonl"
    records = read_metrics(path)[0] if path.exists() else []
    return [r for r in records if r["kind"] == "train" and r["model"] == model]


def _summary(records: list[dict]) -> str:
    later = records[1:] or records  # the first one has the start of the workers and of CUDA in it
    step, wait = (
        1000 * statistics.median(r[name] for r in later)
        for name in ("seconds", "data_wait_seconds")
    )
    sums = [sum(plots_of(r)["losses"].values()) for r in (records[0], records[-1])]
    return (
        f"{step:.0f} ms per step, {wait:.1f} ms of it waiting for data; "
        f"sum of the losses {sums[0]:.3f} to {sums[1]:.3f}"
    )


def generate(job: Job, arguments: Sequence[str]) -> list[str]:
    """Run test.py with its default batch of one; cells of what it says at its end."""
    folder = job.scratch / "pictures"
    run_program(["test.py", *arguments, f"--results_dir={folder}"], job.log, job.seconds_left)
    (rate,) = re.findall(r"[\d.]+ images per second", last_line(job.log))
    return [f"{len(list(folder.glob('*_vis.jpg')))} pictures, {rate} with the first one's start-up"]


def draw(shared: Sequence[str], path: Path) -> int:
    """Draw the sheet of test pairs; gives how many there are on it."""
    return picture_sheet(shared, path, scale=1)
