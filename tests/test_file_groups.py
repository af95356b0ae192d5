"""Files that change together: cut off at every single step, and a disk that is full."""

import itertools
import os
import resource
import signal
import subprocess
import sys

import pytest
from helpers import PROJECT

from util.errors import UserError
from util.file_groups import finish_writes, remove_leftovers, write_group

OLD = {"a": b"old a", "b": b"old b", "gone": b"old gone"}
NEW = {"a": b"new a", "b": b"new b", "c": b"new c"}

# A write that ends the process, without any cleaning up, before its n-th call of the system.
CUT_OFF = """
import builtins, os, pathlib, sys
left = int(sys.argv[2])
def counted(call):
    def wrapper(*arguments, **options):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return call(*arguments, **options)
    return wrapper
from util.file_groups import write_group
for owner, name in ((os, "replace"), (os, "fsync"), (builtins, "open"), (pathlib.Path, "unlink")):
    setattr(owner, name, counted(getattr(owner, name)))
new = {"a": b"new a", "b": b"new b", "c": b"new c"}
files = {name: (lambda file, text=text: file.write(text)) for name, text in new.items()}
write_group(pathlib.Path(sys.argv[1]), "latest", files, remove=["gone"])
"""


def writers(contents):
    return {name: lambda file, text=text: file.write(text) for name, text in contents.items()}


def contents(folder, hidden=False):
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if hidden or not path.name.startswith(".")
    }


def test_all_files_change_and_nothing_is_left_behind(tmp_path):
    folder = tmp_path / "made"
    write_group(folder, "latest", writers(OLD))
    assert contents(folder, hidden=True) == OLD
    write_group(folder, "latest", writers(NEW), remove=["gone", "never there"])
    assert contents(folder, hidden=True) == NEW


def test_cut_off_at_any_step_it_is_all_old_or_all_new(tmp_path):
    outcomes = []
    for steps in itertools.count():
        folder = tmp_path / str(steps)
        write_group(folder, "latest", writers(OLD))
        command = [sys.executable, "-c", CUT_OFF, str(folder), str(steps)]
        code = subprocess.run(command, cwd=PROJECT, check=False).returncode
        finish_writes(folder)
        outcomes.append(contents(folder))
        assert outcomes[-1] in (OLD, NEW), steps
        remove_leftovers(folder)
        assert contents(folder, hidden=True) == outcomes[-1]
        if code == 0:
            break
        assert code == 9
    assert steps > 15
    changes = [first != second for first, second in itertools.pairwise(outcomes)]
    assert changes.count(True) == 1  # there is one moment from which on the new files count
    assert outcomes[0] == OLD and outcomes[-1] == NEW


def test_a_reader_that_comes_late_does_no_harm(tmp_path):
    """It has read an old commit, and acts on it when the next write is under way."""
    write_group(tmp_path, "latest", writers(OLD))
    stale = tmp_path / ".latest.commit"
    stale.write_text('{"token": "00000000", "files": ["a", "b"], "remove": []}')
    half = tmp_path / ".a.11111111.new"
    half.write_bytes(b"hal")
    finish_writes(tmp_path)
    assert contents(tmp_path) == OLD and half.exists() and not stale.exists()


def test_other_groups_in_the_folder_stay(tmp_path):
    write_group(tmp_path, "7", writers({"7_a": b"x"}))
    write_group(tmp_path, "latest", writers(OLD))
    assert contents(tmp_path) == {**OLD, "7_a": b"x"}


def test_a_commit_that_is_garbage_is_named(tmp_path):
    (tmp_path / ".latest.commit").write_bytes(b"{")
    with pytest.raises(UserError, match=r"\.latest\.commit.*cannot be finished"):
        finish_writes(tmp_path)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_failed_write_leaves_the_old_files(tmp_path, failure):
    def fail(file):
        file.write(b"half")
        raise failure

    write_group(tmp_path, "latest", writers(OLD))
    with pytest.raises((KeyboardInterrupt, UserError)) as raised:
        write_group(tmp_path, "latest", {**writers({"a": b"new"}), "b": fail})
    if raised.type is UserError:
        assert str(raised.value) == f"{tmp_path / 'b'}: cannot be written (No space left on device)"
    assert contents(tmp_path, hidden=True) == OLD


def test_a_disk_that_is_full(tmp_path):
    """The limit on the size of a file stands for it: the system refuses within a write."""
    write_group(tmp_path, "latest", writers(OLD))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match="b: cannot be written"):
            write_group(tmp_path, "latest", writers({"a": b"new", "b": bytes(200_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert contents(tmp_path, hidden=True) == OLD


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable(tmp_path):
    write_group(tmp_path, "latest", writers(OLD))
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="Permission denied"):
            write_group(tmp_path, "latest", writers(NEW))
    finally:
        tmp_path.chmod(0o700)
    assert contents(tmp_path, hidden=True) == OLD
