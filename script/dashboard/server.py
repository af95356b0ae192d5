"""visdom's server as the dashboard needs it: on this machine only, its contents kept on disk.

Its text panes execute HTML, and it takes whatever it is sent. So it listens on the loopback
address, refuses requests of other sites' pages, and has the browser load nothing from elsewhere.
"""

import asyncio
import errno
import ipaddress
import itertools
import json
import logging
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.web import HTTPError, OutputTransform, RequestHandler
from visdom.server.app import Application, tornado_settings
from visdom.server.handlers.web_handlers import IndexHandler

from util.errors import UserError, printable
from util.json_files import LARGEST_FILE, read_json

DEFAULT_PORT = 8096
LOOPBACK = "127.0.0.1"
_USUAL_ADDRESSES = "leave it out for this machine alone; 0.0.0.0 stands for all its addresses"
SAVE_SECONDS = 20.0
# What a request may take. The largest of a training is a few MB: pictures of one batch.
HEADER_BYTES = 16 * 2**10
BODY_BYTES = 64 * 2**20
IDLE_SECONDS = 60.0  # until the next request, the end of its headers included
BODY_SECONDS = 60.0
MOST_CONNECTIONS = 256  # twice as many are below the usual limit of 1024 open files
CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; form-action 'self'"
)


def serve(
    port: int = DEFAULT_PORT,
    address: str = LOOPBACK,
    env_path: Path = Path("result/.visdom"),
    *,
    allowed_origins: Collection[str] = (),
    save_seconds: float = SAVE_SECONDS,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT (Ctrl-C), SIGTERM or SIGHUP, and save what is shown.

    Args:
        port: TCP port.
        address: of the interface to listen on, as 127.0.0.1 or 0.0.0.0.
        env_path: folder of the state files; made if it is not there.
        allowed_origins: pages under other addresses that may use it, as https://hub.example.org.
        save_seconds: how often changed environments are saved.
        say: gets the page's address once it answers, and what goes wrong later.

    Raises:
        UserError: the port is taken, the address is not this machine's, `env_path` cannot be
            written, or the page cannot be made.
    """
    sockets = _listen(port, address)
    try:
        prepare_folder(env_path, say)
        _quieten()
        files = EnvironmentFiles(env_path, say)
        app = Dashboard(files, port, is_local=_is_loopback(address), allowed=allowed_origins)
        server = _Server(
            app,
            max_header_size=HEADER_BYTES,
            max_body_size=BODY_BYTES,
            max_buffer_size=BODY_BYTES,
            idle_connection_timeout=IDLE_SECONDS,
            body_timeout=BODY_SECONDS,
        )
        asyncio.run(_serve(server, sockets, files, port, address, save_seconds, say))
    finally:
        for listener in sockets:
            listener.close()


class _Server(HTTPServer):
    """Takes MOST_CONNECTIONS that make requests, and as many web sockets, which are open pages.

    Of more connections the oldest is closed: those that send nothing do not keep out who asks, and
    who asks is done in milliseconds. Of more web sockets the newest is.
    """

    def initialize(self, app: "Dashboard", **limits: float) -> None:
        super().initialize(app, **limits)
        self._waiting: dict[IOStream, None] = {}  # a dict keeps their order
        self._web_sockets: list[IOStream] = []

    def handle_stream(self, stream: IOStream, address: tuple) -> None:
        if len(self._waiting) >= MOST_CONNECTIONS:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.close()
        self._waiting[stream] = None
        super().handle_stream(stream, address)

    def on_close(self, server_conn: HTTP1ServerConnection) -> None:
        """Also called where a connection becomes a web socket: its stream is open then."""
        super().on_close(server_conn)
        self._waiting.pop(server_conn.stream, None)
        sockets = (*self._web_sockets, server_conn.stream)
        self._web_sockets = [stream for stream in sockets if not stream.closed()]
        if len(self._web_sockets) > MOST_CONNECTIONS:
            self._web_sockets.pop().close()


class Dashboard(Application):
    """visdom's application with our rules.

    Args:
        files: where the environments are kept; the application's state is put into it.
        port: TCP port.
        is_local: whether only this machine reaches it.
        allowed: addresses of pages that may use it besides its own.
    """

    def __init__(
        self, files: "EnvironmentFiles", port: int, is_local: bool, allowed: Collection[str]
    ) -> None:
        # visdom sets tornado's debug mode, which would restart the server when a file changes.
        tornado_settings.update(autoreload=False, static_hash_cache=True)
        super().__init__(port=port, env_path=str(files.folder), eager_data_loading=True)
        files.watch(self.state)
        self.files = files
        self.subs, self.sources = _Connections(), _Connections()
        self.transforms.append(_ContentPolicy)
        self.add_handlers(".*", [(r"/", _FrontPage, {"app": self})])
        self._is_local = is_local
        self._allowed = {urlsplit(address).netloc or address for address in allowed}
        self._refused: set[str] = set()

    def load_state(self) -> "_Environments":
        """Read what `prepare_folder` left."""
        return _Environments(super().load_state())

    def find_handler(self, request: HTTPServerRequest, **options: Any) -> Any:
        """Refuse what a page of another site sends; else as tornado."""
        origin = request.headers.get("Origin")
        foreign = next(
            (
                name
                for name in (request.host, _parts(origin).netloc if origin else request.host)
                if name not in self._allowed and not self._is_own(name, request.host)
            ),
            None,
        )
        if foreign is None:
            return super().find_handler(request, **options)
        if foreign not in self._refused and len(self._refused) < 10:
            self._refused.add(foreign)
            self.files.say(
                f"dashboard: refused a request of {foreign[:200]!a}, which is another site; if it "
                "is yours, name it with --allow_origin"
            )
        return self.get_handler_delegate(request, _Refusal)

    def _is_own(self, name: str, host: str) -> bool:
        # A foreign name that resolves to the loopback address is not ours either (DNS rebinding).
        return name == host and (not self._is_local or _is_loopback(_parts(f"//{name}").hostname))


def _parts(address: str) -> SplitResult:
    """The parts of a web address; of one that is none, such as `http://[`, all are empty."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


class _Connections(dict):
    """Web sockets by number, without those that are closed.

    visdom keeps one that closed while it opened, and fails whenever it sends to all: then no other
    page opens.
    """

    def __iter__(self) -> Iterator[str]:
        for number, handler in list(self.items()):
            connection = getattr(handler, "ws_connection", False)  # a page that polls has none
            if connection is None or (connection and connection.is_closing()):
                del self[number]
        return iter(list(self.keys()))

    def values(self) -> list[Any]:
        return [self[number] for number in self]


class _Environments(dict):
    """Refuses a name that would lead out of the folder: visdom deletes the file of any it knows."""

    def __setitem__(self, name: str, environment: dict) -> None:
        if re.search(r"[/\\\0]", name):
            raise HTTPError(400)
        super().__setitem__(name, environment)


class _Refusal(RequestHandler):
    def prepare(self) -> None:
        self.set_status(403)
        self.finish("This dashboard is not for pages of other sites: see --allow_origin.\n")


class _ContentPolicy(OutputTransform):
    """Tells the browser to load nothing from other hosts, whatever a pane contains."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        headers["Content-Security-Policy"] = CONTENT_POLICY
        return status_code, headers, chunk


class _FrontPage(IndexHandler):
    """Opens the environment that changed last; visdom's own would open an empty one."""

    def initialize(self, app: Dashboard) -> None:
        super().initialize(app)
        self._files = app.files

    def get(self) -> None:
        newest = self._files.newest()
        if newest is None:
            super().get("")
        else:
            self.redirect(f"/env/{quote(newest)}")


class EnvironmentFiles:
    """Keeps environments in files `<name>.json`, in visdom's format, which its server reads.

    Args:
        folder: of the files.
        say: gets a line when saving fails for the first time.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print) -> None:
        self.folder = folder
        self.say = say
        self._state: MutableMapping[str, dict] = {}
        self._contents: dict[str, Any] = {}
        self._changed_at: dict[str, float] = {}
        self._saved: dict[str, Any] = {}
        self._has_failed = False

    def watch(self, state: MutableMapping[str, dict]) -> None:
        """Take the environments as they were just read: {name: {"jsons": …, "reload": …}}."""
        self._state = state
        for name, environment in state.items():
            self._contents[name] = _contents(environment)
            self._saved[name] = _fingerprint(environment)
            path = self._path(name)
            self._changed_at[name] = path.stat().st_mtime if path.exists() else 0.0

    def newest(self) -> str | None:
        """The environment with panes that changed last, if there is one."""
        self._look()
        shown = [name for name, environment in self._state.items() if environment["jsons"]]
        return max(shown, key=self._changed_at.__getitem__, default=None)

    def save(self) -> None:
        """Write the environments that changed; a failure is said once and tried again next time."""
        self._look()
        for name, environment in self._state.items():
            fingerprint = _fingerprint(environment)
            if self._saved.get(name) == fingerprint:
                continue
            try:
                # First under a name that visdom does not read: a crash leaves a whole file.
                partial = self.folder / "saving.tmp"
                text = json.dumps(environment, allow_nan=False)
                if len(text) > LARGEST_FILE:
                    raise ValueError(f"{len(text)} bytes, {LARGEST_FILE} are allowed")
                partial.write_text(text, encoding="utf-8")
                os.utime(partial, (self._changed_at[name],) * 2)  # for `newest` after a restart
                partial.replace(self._path(name))
            except (OSError, ValueError) as error:
                if not self._has_failed:
                    self.say(f"dashboard: '{name}' cannot be saved in {self.folder} ({error})")
                self._has_failed = True
                continue
            self._has_failed = False
            self._saved[name] = fingerprint

    def _look(self) -> None:
        for gone in self._contents.keys() - self._state.keys():
            del self._contents[gone], self._changed_at[gone]
            self._saved.pop(gone, None)
        for name, environment in self._state.items():
            contents = _contents(environment)
            if self._contents.get(name) != contents:
                self._changed_at[name] = time.time()
            self._contents[name] = contents
            self._changed_at.setdefault(name, 0.0)

    def _path(self, name: str) -> Path:
        # visdom itself replaces only the slash, and not everywhere.
        return self.folder / (re.sub(r"[/\\]", "_", name) + ".json")


def _contents(environment: dict) -> list[tuple]:
    """What differs when a pane differs: visdom gives every content a new random name."""
    return [(name, pane.get("contentID")) for name, pane in environment["jsons"].items()]


def _fingerprint(environment: dict) -> tuple:
    return _contents(environment), json.dumps(environment["reload"])


def _quieten() -> None:
    """Leave only uncaught exceptions: the rest is visdom's noise about pages that are fine."""
    logging.getLogger().setLevel(logging.CRITICAL)
    for name in ("tornado.access", "tornado.general"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("tornado.application").setLevel(logging.ERROR)


def prepare_folder(folder: Path, say: Callable[[str], None] = print) -> None:
    """Make the folder of the state, and rename what in it visdom could not read.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "view").mkdir(exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "Permission denied")
    except OSError as error:
        raise UserError(
            f"--env_path: {folder} cannot be written ({error.strerror}): give another folder"
        ) from error
    for path in folder.glob("*.json*"):
        try:
            environment = read_json(path, "it is no saved environment")
            panes, places = environment.get("jsons"), environment.get("reload")
            if not (isinstance(panes, dict) and isinstance(places, dict)) or not all(
                isinstance(pane, dict) for pane in panes.values()
            ):
                raise UserError(f"{path}: is no saved environment")
        except UserError as error:
            stem = path.name.replace(".json", "")
            asides = (path.with_name(f"{stem}.unreadable{n or ''}") for n in itertools.count())
            aside = next(each for each in asides if not os.path.lexists(each))
            path.rename(aside)
            say(f"dashboard: {error}; its name is {printable(aside.name)} now")


def _listen(port: int, address: str) -> list[socket.socket]:
    try:
        return bind_sockets(port, address=address)
    except socket.gaierror as error:
        raise UserError(
            f"--bind: {address} is no address of this machine; {_USUAL_ADDRESSES}"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            other = port + 1 if port < 65535 else port - 1
            raise UserError(
                f"port {port} is taken by {_who_answers(port)}. On another port: python -m "
                f"script.dashboard --port={other}, and train.py with --display_port={other}"
            ) from error
        if error.errno == errno.EACCES:
            raise UserError(f"--port: {port} needs rights; take one from 1024 on") from error
        raise UserError(
            f"--bind: cannot listen on {address} ({os.strerror(error.errno or 0)}); "
            f"{_USUAL_ADDRESSES}"
        ) from error


def _who_answers(port: int) -> str:
    """Whether the program that has the port is a visdom server."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"http://{LOOPBACK}:{port}"
    try:
        with opener.open(f"{url}/env_state", data=b"{}", timeout=2) as answer:
            is_visdom = isinstance(json.loads(answer.read(1_000_000)), list)
    except (OSError, ValueError, urllib.error.URLError):
        is_visdom = False
    if is_visdom:
        return f"a visdom server that runs already: http://localhost:{port} shows its page"
    return "another program"


async def _serve(
    server: HTTPServer,
    sockets: list[socket.socket],
    files: EnvironmentFiles,
    port: int,
    address: str,
    save_seconds: float,
    say: Callable[[str], None],
) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            handler = lambda *_: loop.call_soon_threadsafe(ended.set)  # noqa: E731
            signal.signal(getattr(signal, name), handler)
    server.add_sockets(sockets)
    try:
        is_everywhere = ipaddress.ip_address(address).is_unspecified
    except ValueError:
        is_everywhere = False
    host = "localhost" if is_everywhere or _is_loopback(address) else address
    await _check_page(sockets[0])
    if not _is_loopback(address):
        say(
            f"warning: --bind={address}: whoever reaches this address can read and change what is "
            "shown, and have your browser run scripts"
        )
    say(f"dashboard: http://{host}:{port} (Ctrl-C ends it; its state is kept in {files.folder})")
    while not ended.is_set():
        try:
            await asyncio.wait_for(ended.wait(), save_seconds)
        except TimeoutError:
            files.save()
    server.stop()
    files.save()
    say(f"dashboard: ended, state saved in {files.folder}")


async def _check_page(listener: socket.socket) -> None:
    """Ask the server for its own page.

    Raises:
        UserError: it does not answer with it.
    """
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)
    host = f"[{host}]" if ":" in host else host
    try:
        await AsyncHTTPClient().fetch(f"http://{host}:{port}/env/main", request_timeout=20)
    except (HTTPClientError, OSError) as error:
        raise UserError(
            f"visdom's server does not answer with its page ({error}): are visdom and tornado "
            "those of requirements.txt? bash script/setup.sh installs them"
        ) from error


def _is_loopback(address: str | None) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False
