"""What macOS and Windows lack, and starting the programs as files."""

import ast
import os
import runpy
import sys
import types
from pathlib import Path

import pytest
import torch

from tests.support.helpers import PROJECT
from util import command_line as parser
from util.errors import UserError
from util.run.lock import RunLock

PROGRAMS = sorted(path for path in (PROJECT / "script").glob("*.py") if path.stem != "__init__")
# Missing on Windows or macOS, or both; who uses one asks first whether it is there.
MISSING = {
    "os": {
        "fork", "forkpty", "getuid", "geteuid", "getgid", "getpgid", "getpgrp", "killpg", "kill",
        "mkfifo", "nice", "posix_fadvise", "pread", "pwrite", "sched_getaffinity", "sendfile",
        "setsid", "setpgrp", "statvfs", "sync", "sysconf", "uname", "wait", "wait3", "wait4",
        "waitid", "P_PID", "WEXITED", "WNOHANG", "WNOWAIT", "O_DIRECTORY", "O_NOFOLLOW",
        "memfd_create", "fdatasync", "chown", "getloadavg",
    },
    "signal": {
        "SIGCHLD", "SIGHUP", "SIGKILL", "SIGSTOP", "SIGCONT", "SIGUSR1", "SIGUSR2", "SIGALRM",
        "SIGPIPE", "SIGXFSZ", "pthread_sigmask", "sigwait", "alarm", "setitimer", "pause",
    },
    "time": {"clock_gettime", "tzset"},
    "socket": {"AF_UNIX"},
}  # fmt: skip
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "posix", "readline", "curses"}
ASKED_FIRST = {
    ("data/worker_failures.py", "SIGCHLD"),
    ("util/device.py", "sched_getaffinity"),
    ("util/run/lock.py", "fcntl"),
}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_program_starts_as_a_file(path, monkeypatch):
    """Python then looks for packages in script/ alone, if the program does not see to it."""
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != PROJECT]
    monkeypatch.setattr(sys, "path", [str(path.parent), *elsewhere])
    started = []
    monkeypatch.setattr(parser, "run_program", started.append)
    monkeypatch.setitem(sys.modules, "torch", torch)  # given back, as script.dashboard hides it
    runpy.run_path(str(path), run_name="__main__")
    assert len(started) == 1
    assert sys.path[0] == str(PROJECT) and str(path.parent) not in sys.path


def used_names(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in MISSING.get(node.value.id, ()):
                yield node.attr
        elif isinstance(node, ast.Import):
            yield from POSIX_MODULES.intersection(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from POSIX_MODULES.intersection([node.module])
            yield from MISSING.get(node.module, set()).intersection(a.name for a in node.names)


def test_nothing_is_used_unasked_that_other_systems_lack():
    folders = ("data", "models", "options", "script", "util")
    files = [path for folder in folders for path in (PROJECT / folder).rglob("*.py")]
    files += [PROJECT / "train.py", PROJECT / "test.py"]
    used = {
        (path.relative_to(PROJECT).as_posix(), name) for path in files for name in used_names(path)
    }
    assert used <= ASKED_FIRST


def test_the_lock_of_windows(tmp_path, monkeypatch):
    """It is of a byte from where the file stands, and nobody else may read that byte."""
    held = {}

    def locking(descriptor, mode, count):
        stat = os.fstat(descriptor)
        key = (stat.st_ino, os.lseek(descriptor, 0, os.SEEK_CUR))
        assert key[1] > stat.st_size
        if held.setdefault(key, descriptor) != descriptor:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    with (
        RunLock(tmp_path / "run"),
        pytest.raises(UserError, match=rf"another run is writing there \(process {os.getpid()} on"),
    ):
        RunLock(tmp_path / "run")
    held.clear()
    RunLock(tmp_path / "run").release()
