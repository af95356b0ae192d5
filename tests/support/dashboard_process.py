"""`python -m script.dashboard` as a process of its own, and a visdom package that we may change."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import requests

from script.dashboard.assets import PACKAGES, static_folder
from tests.support.helpers import PROJECT

START_SECONDS = 60


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(condition: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def copy_visdom(
    folder: Path, *, is_complete: bool, download: str = "raise OSError('no network')"
) -> Path:
    """Copy the visdom package for PYTHONPATH: no test touches the real one or downloads.

    Args:
        folder: gets the package.
        is_complete: with all files of the page, though none has the content that it should.
        download: body of what stands for visdom's own download.
    """
    real = static_folder()
    assets = {name for package in PACKAGES for name in package.files.values()}

    def unwanted(path: str, names: list[str]) -> list[str]:
        relative = Path(path).relative_to(real.parent)
        inner = relative.relative_to("static") if relative.parts[:1] == ("static",) else None
        return [
            name
            for name in names
            if name in ("__pycache__", "main.js.map", "version.built")
            or (inner is not None and (inner / name).as_posix() in assets)
        ]

    package = folder / "visdom"
    shutil.copytree(real.parent, package, ignore=unwanted)
    if is_complete:
        for name in assets:
            path = package / "static" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"/* {name} */")
    stub = f"def download_scripts():\n    {download}\n"
    (package / "server" / "build.py").write_text(stub)
    return folder


class DashboardProcess:
    """A running dashboard.

    Args:
        env_path: folder of its state.
        port: 0 takes a free one.
        packages: folder for PYTHONPATH, if any.
        code: run in place of `-m script.dashboard`, with {port} and {env_path} filled in.
    """

    def __init__(
        self,
        env_path: Path,
        port: int = 0,
        packages: Path | None = None,
        options: tuple[str, ...] = (),
        code: str | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://localhost:{self.port}"
        program = ["-m", "script.dashboard", f"--port={self.port}", f"--env_path={env_path}"]
        if code is not None:
            program = ["-c", code.format(port=self.port, env_path=str(env_path))]
        self.process = subprocess.Popen(
            [sys.executable, *program, *options],
            cwd=PROJECT,
            env={**os.environ, **({"PYTHONPATH": str(packages)} if packages else {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._is_up = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._is_up.wait(START_SECONDS)
        if self.process.poll() is not None or not self._is_up.is_set():
            self.kill()
            raise AssertionError("no dashboard:\n" + "\n".join(self.lines))

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if "http://" in line:
                self._is_up.set()
        self._is_up.set()

    def post(self, endpoint: str, **content: object) -> requests.Response:
        """Ask as visdom's client does."""
        with requests.Session() as session:
            session.trust_env = False
            return session.post(f"{self.url}/{endpoint}", json=content, timeout=10)

    def show_text(self, env: str, window: str, text: str) -> None:
        """Make a text pane; `text` is HTML."""
        data = [{"content": text, "type": "text"}]
        self.post("events", data=data, win=window, eid=env, opts={"title": window})

    def panes(self, env: str) -> dict:
        """Its panes by name."""
        return self.post("win_data", eid=env, win=None).json()

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; gives its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(20)
        self._reader.join(5)
        return code

    def kill(self) -> None:
        """End it at once if it runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
