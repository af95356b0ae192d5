"""Live displays of a training, chosen by --display_backend: visdom, tensorboard."""

import argparse
import copy
import importlib
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from util.errors import UserError
from util.packages import not_installed
from util.run.display.base import Display, Displays
from util.run.history import History

__all__ = ["Display", "create_display"]

DASHBOARD = "python -m script.dashboard"
DEFAULT_PORT = 8096
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def check_displays(options: argparse.Namespace) -> None:
    """Leave out displays whose package is missing, with a line; check --start_dashboard.

    To be called before anything of an earlier run is moved. Changes options.display_backend.

    Raises:
        UserError: --start_dashboard for another machine.
    """
    for backend in list(options.display_backend):
        if backend == "visdom" and options.display_id <= 0:
            continue
        try:
            importlib.import_module(f"util.run.display.{backend}_backend")
        except ModuleNotFoundError as error:
            missing = not_installed(error)
            if missing is None:
                raise
            options.display_backend = [name for name in options.display_backend if name != backend]
            print(f"training without {backend}: {missing}", file=sys.stderr)
    if options.start_dashboard and urlsplit(options.display_server).hostname not in _LOOPBACK:
        raise UserError(
            "--start_dashboard: starts a server on this machine, but --display_server is "
            f"{options.display_server}: leave one of them out, or start the server there with "
            f"{DASHBOARD} --bind=0.0.0.0"
        )


def create_display(
    options: argparse.Namespace, folder: Path, history: History, first_iteration: int = 1
) -> Display:
    """The displays that the options ask for, as one.

    Args:
        options: parsed options of train.py.
        folder: the run's folder.
        history: what is recorded so far, shown in visdom from the start; a copy is taken.
        first_iteration: the next one of this model.
    """
    displays: list[Display] = []
    if "visdom" in options.display_backend and options.display_id > 0:
        displays.append(_create_visdom(options, folder, history))
    if "tensorboard" in options.display_backend:
        from util.run.display.tensorboard_backend import TensorBoardDisplay  # seconds to import

        displays.append(TensorBoardDisplay(folder, options.model, first_iteration))
    return Displays(displays)


def _create_visdom(options: argparse.Namespace, folder: Path, history: History) -> Display:
    from util.run.display.visdom_backend import VisdomDisplay, VisdomTarget

    server, port = options.display_server, options.display_port
    command = DASHBOARD if port == DEFAULT_PORT else f"{DASHBOARD} --port={port}"
    hint = f"to watch it, run in another terminal: {command}"
    if options.start_dashboard and _start_dashboard(server, port, folder / "dashboard.log"):
        hint = f"it is starting, its messages are in {folder / 'dashboard.log'}"
    target = VisdomTarget(
        server=server,
        port=port,
        env=environment_name(options.display_env or options.name),
        name=options.name,
        model=options.model,
        display_id=options.display_id,
        picture_size=options.display_winsize,
        columns=options.display_single_pane_ncols,
        clear=not (history.titles() or options.display_env),
        hint=hint,
    )
    return VisdomDisplay(target, copy.deepcopy(history))


def environment_name(name: str) -> str:
    """The visdom environment for this name: with _ where its page cannot open a character.

    Its server puts the name into file names and, escaped for HTML, into a script of the page; the
    page puts it unquoted into addresses, where + stands for a comparison of environments.
    """
    return re.sub(r"""[/\\"'<>&%?#+\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]""", "_", name)


def _start_dashboard(server: str, port: int, log: Path) -> bool:
    """Start a server if none answers; gives whether it was started."""
    host = urlsplit(server).hostname
    try:
        socket.create_connection((host, port), timeout=1).close()
        return False
    except OSError:
        pass
    with open(log, "a", encoding="utf-8") as output:
        # A session of its own: Ctrl-C ends the training, and the page stays.
        process = subprocess.Popen(
            [sys.executable, "-m", "script.dashboard", f"--port={port}"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    print(f"--start_dashboard: started process {process.pid}, which stays until you end it")
    return True
