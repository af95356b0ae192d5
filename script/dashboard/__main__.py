"""The live display of trainings: visdom's server on this machine, http://localhost:8096.

    python -m script.dashboard                (in another terminal: python train.py ...)

It ends with Ctrl-C and shows at the next start what it showed before. See docs/dashboard.md.
"""

import contextlib
import sys
from pathlib import Path

from script.dashboard.assets import ensure_assets, static_folder
from util.argument_types import port
from util.command_line import Parser, run_program


def main(arguments: list[str] | None = None) -> None:
    """Run the server until it is ended.

    Raises:
        UserError: bad options, no visdom, files of the page that cannot be got, a port in use.
    """
    parser = Parser(prog="python -m script.dashboard", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=port, default=8096, help="TCP port")
    parser.add_argument(
        "--bind",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets everyone in your network in, without a password",
    )
    parser.add_argument(
        "--env_path", type=Path, default=Path("result/.visdom"), help="folder that keeps its state"
    )
    parser.add_argument(
        "--assets",
        choices=("auto", "npm"),
        default="auto",
        help="where missing files of the page come from: npm packages, or (auto) these or else "
        "visdom's own download",
    )
    parser.add_argument(
        "--setup_only", action="store_true", help="get missing files of the page, then end"
    )
    parser.add_argument(
        "--allow_origin",
        action="append",
        default=[],
        help="web address of a proxy under which you use the page, as https://hub.example.org",
    )
    options = parser.parse_all(arguments)

    ensure_assets(static_folder(), options.assets, _say)
    if options.setup_only:
        _say("dashboard: the page has all its files")
        return
    from script.dashboard.server import serve  # imports visdom, which may not be there

    serve(
        options.port,
        options.bind,
        options.env_path,
        allowed_origins=options.allow_origin,
        say=_say,
    )


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal is gone: no reason to end
        print(text, flush=True)


if __name__ == "__main__":
    # visdom imports torch if it can: seconds and half a gigabyte that a server has no use for.
    sys.modules["torch"] = None
    run_program(main)
