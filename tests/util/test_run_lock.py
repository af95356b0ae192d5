"""One writer at a time: two processes, killed holders, forked children, renamed folders."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from models.checkpoints import TrainingStart
from options.run_record import changes
from tests.support.helpers import PROJECT, train_options
from util.errors import UserError
from util.run.folder import prepare_folder
from util.run.lock import RunLock

HOLDER = """
import os, pathlib, sys, time
from util.run.lock import RunLock
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


def test_a_link_to_a_folder_has_the_lock_of_that_folder(tmp_path):
    (tmp_path / "disk" / "person").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "disk" / "person")
    refused = pytest.raises(UserError, match="another run is writing there")
    with holder(tmp_path / "disk" / "person"), refused:
        RunLock(tmp_path / "linked")
    with RunLock(tmp_path / "linked"):
        assert [path.name for path in (tmp_path / "disk").glob(".*")] == [".person.lock"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_lock_that_is_a_link_leaves_its_target_alone(tmp_path, is_there):
    target = tmp_path / "precious.txt"
    if is_there:
        target.write_text("precious")
    (tmp_path / ".person.lock").symlink_to(target)
    with pytest.raises(UserError, match=r"\.person\.lock: is no file, as a lock is; remove it"):
        RunLock(tmp_path / "person")
    assert target.exists() == is_there
    assert not is_there or target.read_text() == "precious"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_lock_that_is_no_file(tmp_path, make):
    make(tmp_path / ".person.lock")
    with pytest.raises(UserError, match=r"\.person\.lock: is no file, as a lock is; remove it"):
        RunLock(tmp_path / "person")


def test_the_holder_is_named_in_few_words(tmp_path):
    with holder(tmp_path / "person"):
        (tmp_path / ".person.lock").write_bytes(b"\xff" + b"x" * 10**6)
        with pytest.raises(UserError, match=r"another run is writing there \(\ufffdx{399}\)"):
            RunLock(tmp_path / "person")


# What else lies in the folder of a run that goes on.


@pytest.mark.parametrize("name", ["metrics.jsonl", "train_opt.txt", "web", "web/images", "events"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "link to a folder"])
def test_nothing_is_written_through_what_lies_in_the_folder(tmp_path, name, kind):
    target = tmp_path / "elsewhere"
    path = tmp_path / "person" / name
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    if kind == "link":
        target.write_text("precious")
    elif kind == "link to a folder":
        target.mkdir()
    arguments = ["--model=poseflownet", f"--checkpoints_dir={tmp_path}", "--name=person"]
    before = sorted(tmp_path.rglob("*"))
    for more in ([], ["--continue_train"]):
        with pytest.raises(UserError, match=rf"{path}: is (a link|no file), .*: remove it"):
            prepare_folder(train_options(*arguments, *more), {})
    assert sorted(tmp_path.rglob("*")) == before
    assert kind != "link" or target.read_text() == "precious"


def test_options_that_a_state_names_are_printed_with_escapes(tmp_path):
    start = TrainingStart([], run={"options": {"lr": "\x1b[2J\n"}})
    lines = changes(train_options("--model=poseflownet"), {}, start, tmp_path)
    assert any("--lr: \\x1b[2J\\n until here" in line for line in lines)


def test_options_of_an_earlier_version_in_a_pipe(tmp_path):
    """They are looked at before anything else in the folder is, and where --init_from points."""
    os.mkfifo(tmp_path / "train_opt.txt")
    with pytest.raises(UserError, match=r"train_opt\.txt: is a pipe"):
        changes(train_options("--model=poseflownet"), {}, TrainingStart([]), tmp_path)


def test_linked_folders_and_checkpoints_stay_of_use(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "300_state.pth").touch()
    (tmp_path / "disk" / "latest_state.pth").symlink_to("300_state.pth")
    (tmp_path / "person").symlink_to(tmp_path / "disk")
    arguments = ["--model=poseflownet", f"--checkpoints_dir={tmp_path}", "--name=person"]
    prepare_folder(train_options(*arguments, "--continue_train"), {})
    assert (tmp_path / "disk" / "train_opt.txt").exists()


def test_a_fresh_run_does_not_leave_the_place_that_a_link_leads_to(tmp_path):
    """The lock is that place's: a run beside the link could be trained over by another."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "latest_net_G.pth").touch()
    (tmp_path / "person").symlink_to(tmp_path / "disk")
    arguments = ["--model=poseflownet", f"--checkpoints_dir={tmp_path}", "--name=person"]
    with pytest.raises(UserError, match=r"is a link to .*disk, which holds an earlier run"):
        prepare_folder(train_options(*arguments), {})
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["latest_net_G.pth"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "person"]


@pytest.mark.parametrize("target", ["person", "nowhere"])
def test_a_link_that_leads_nowhere(tmp_path, target):
    (tmp_path / "person").symlink_to(target)
    arguments = ["--model=poseflownet", f"--checkpoints_dir={tmp_path}", "--name=person"]
    with (
        RunLock(tmp_path / "person"),
        pytest.raises(UserError, match=r"person cannot be written: .*a link to no folder"),
    ):
        prepare_folder(train_options(*arguments), {})
