"""Data workers that die, and memory that runs out: one line with the fix."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import Subset

from data import create_loader
from data.market_dataset import MarketDataset
from data.worker_failures import explain_failure
from tests.support.helpers import PROJECT
from tests.support.market_folder import Folder
from util.errors import UserError


class FatalDataset(MarketDataset):
    """Ends the process that reads pair 2, as `fatal` says, when it is not the main one."""

    fatal = "kill"
    main = os.getpid()

    def read_people(self, index):
        if index == 2 and os.getpid() != self.main:
            if self.fatal == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fatal == "exit":
                os._exit(3)
            raise MemoryError("Unable to allocate 3.64 TiB for an array with shape (1000000,)")
        return super().read_people(index)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "market")


@pytest.mark.parametrize("subset", [False, True])
@pytest.mark.parametrize("fatal", ["kill", "exit"])
def test_a_worker_that_dies_is_told_in_a_line(folder, fatal, subset):
    dataset = FatalDataset(folder.root, "train")
    dataset.fatal = fatal
    loader = create_loader(
        Subset(dataset, range(5)) if subset else dataset, 1, training=False, workers=1
    )
    with pytest.raises(UserError) as raised:
        list(loader)
    message = str(raised.value)
    assert "--nThreads=0" in message
    assert "was killed (Killed)" in message or "ended unexpectedly" in message
    assert "\n" not in message


def test_memory_that_a_worker_lacks(folder):
    dataset = FatalDataset(folder.root, "train")
    dataset.fatal = "memory"
    with pytest.raises(UserError, match=r"^out of memory \(3\.64 TiB .*--nThreads") as raised:
        list(create_loader(dataset, 1, training=False, workers=1))
    assert "\n" not in str(raised.value)


def test_a_death_is_heard_of_only_where_a_batch_is_asked_for(folder):
    """A step or a save is never cut short: not by a signal's handler in the midst of it."""
    loader = create_loader(
        MarketDataset(folder.root, "train"), 1, training=True, workers=1, shuffle=False
    )
    earlier = torch.multiprocessing.active_children()
    batches = iter(loader)
    next(batches)
    (worker,) = set(torch.multiprocessing.active_children()) - set(earlier)
    os.kill(worker.pid, signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    for _ in range(1000):  # Python code, at whose every step a handler could run
        time.sleep(0)
    with pytest.raises(UserError, match=r"data worker was killed \(Killed\): the mach"):
        for _ in range(100):  # those that lie ready may come first
            next(batches)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that "
            "dataloader's workers are out of shared memory. Please try to raise your shared "
            "memory limit.",
            ["/dev/shm", "--shm-size"],
        ),
        (
            "DataLoader worker (pid(s) 12, 13) exited unexpectedly",
            ["ended unexpectedly", "memory", "--nThreads=0"],
        ),
        (
            "Caught RuntimeError in DataLoader worker process 0.\nTraceback …\nRuntimeError: "
            "unable to write to file </torch_1_2_3>: No space left on device (28)",
            ["/dev/shm", "--nThreads=0"],
        ),
        (
            "[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 4000 bytes. Error code 12 (Cannot allocate memory)",
            ["out of memory (4000 bytes", "--batchSize"],
        ),
    ],
)
def test_what_pytorch_says_becomes_one_line(text, parts):
    error = explain_failure(RuntimeError(text))
    assert isinstance(error, UserError)
    assert all(part in str(error) for part in parts), str(error)
    assert "\n" not in str(error)


def test_a_defect_stays_what_it_is(folder):
    class Defect(MarketDataset):
        def read_people(self, index):
            raise RuntimeError("shapes do not fit")

    for workers in (0, 1):
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            list(create_loader(Defect(folder.root, "train"), 1, training=False, workers=workers))
    assert Path(folder.root).is_dir()


@pytest.mark.parametrize("what", ["worker killed", "image cut off"])
def test_training_ends_saves_and_leaves_no_process(tmp_path, what):
    """In the program itself, whose workers stay from epoch to epoch and ignore SIGTERM."""
    folder = Folder(tmp_path / "market")
    process = subprocess.Popen(
        [
            sys.executable, "train.py", f"--dataroot={folder.root}", "--dataset_mode=market",
            "--gpu_id=-1", "--model=poseflownet", f"--checkpoints_dir={tmp_path}", "--name=run",
            "--display_id=0", "--vgg_weights=random", "--batchSize=1", "--nThreads=2",
            "--print_freq=1", "--eval_iters_freq=0", "--no_html", "--niter=100000",
        ],
        cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # a busy machine would make steps of minutes
    )  # fmt: skip
    log = tmp_path / "run" / "loss_log.txt"
    deadline = time.monotonic() + 120
    while not (log.exists() and "iters: 2," in log.read_text()) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(child) for child in children]
    assert workers
    if what == "worker killed":
        os.kill(workers[0], signal.SIGKILL)
    else:
        for name in folder.names:
            (folder.images / name).write_bytes(b"cut off")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in errors
    assert ("--nThreads=0" if what == "worker killed" else "--skip_bad_samples") in line
    assert torch.load(tmp_path / "run" / "latest_state.pth", weights_only=True)["iteration"] >= 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
