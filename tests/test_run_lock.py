"""One writer at a time: two processes, killed holders, forked children, renamed folders."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest
from helpers import PROJECT

from util.errors import UserError
from util.run_lock import RunLock

HOLDER = """
import os, pathlib, sys, time
from util.run_lock import RunLock
lock = RunLock(pathlib.Path(sys.argv[1]))
if os.fork() == 0:  # as a data worker: it outlives its parent for a while
    time.sleep(30)
    os._exit(0)
print("held", flush=True)
time.sleep(30)
"""


@contextlib.contextmanager
def holder(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], cwd=PROJECT, text=True,
        stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()


def test_a_second_process_is_refused(tmp_path):
    folder = tmp_path / "person"
    with holder(folder) as process:
        message = f"person: another run is writing there .*process {process.pid} on .*--name"
        with pytest.raises(UserError, match=message):
            RunLock(folder)
        with RunLock(tmp_path / "other"):
            pass
        assert not folder.exists()


def test_the_lock_ends_with_its_process_though_a_worker_lives_on(tmp_path):
    with holder(tmp_path / "person") as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with RunLock(tmp_path / "person"):
            pass


def test_release_removes_the_file_and_lets_others_in(tmp_path):
    lock = RunLock(tmp_path / "person")
    assert [path.name for path in tmp_path.iterdir()] == [".person.lock"]
    lock.release()
    lock.release()
    assert not list(tmp_path.iterdir())
    with holder(tmp_path / "person"):
        pass


def test_the_folder_may_be_renamed_under_the_lock(tmp_path):
    (tmp_path / "person").mkdir()
    with RunLock(tmp_path / "person"):
        (tmp_path / "person").rename(tmp_path / "person.earlier-1")
        assert (tmp_path / ".person.lock").exists()
    assert not (tmp_path / ".person.lock").exists()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"\.person\.lock: cannot be written.*--checkpoints_dir"):
        RunLock(tmp_path / "file" / "person")
