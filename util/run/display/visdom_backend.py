"""The live display in visdom, shielded: whatever its server does, training neither waits nor stops.

One daemon thread owns the client. The training loop only leaves the newest content of a window,
which replaces what was waiting there. The thread looks after the server: time limits on every
request, growing pauses while it is away, and everything sent again once it is back.
"""

import html
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import numpy as np
import requests
import visdom
from tqdm import tqdm

from util.layout import in_one_picture, picture_grid
from util.run.display.base import Display
from util.run.history import History, Plots, decimate

CONNECT_SECONDS, READ_SECONDS = 1.0, 5.0
CLOSE_SECONDS = 2.0
CURVE_POINTS = 1000
JPEG_QUALITY = 85
# Added to a picture's height. visdom centres it in the height of the whole pane, bar included, and
# rounds that up to rows of 15 pixels: with less, the picture is cut off; with more, it is bordered.
PANE_BAR = 16
_ALL_KINDS = "pictures"
PLOT_SIZE = (480, 320)  # width, height of a plot's pane in pixels


@dataclass
class Pace:
    """How often the thread does what, in seconds; the tests hurry it."""

    between_rounds: float = 1.0
    between_checks: float = 5.0
    first_pause: float = 1.0
    longest_pause: float = 30.0


@dataclass
class VisdomTarget:
    """Where the panes go and how they look.

    Attributes:
        server: its address without the port, as http://localhost.
        port: its port.
        env: visdom environment.
        name: of the experiment; in the titles where the environment is not its own.
        model: of the stage: every stage has panes of its own.
        display_id: panes of another number stay apart.
        picture_size: longer side of the pictures of one kind on the page in pixels.
        columns: all pictures in one pane of so many columns; 0: one pane per kind.
        clear: close what the environment shows from an earlier run.
        hint: how to get a server, for the message when none answers.
    """

    server: str
    port: int
    env: str
    name: str
    model: str
    display_id: int = 1
    picture_size: int = 256
    columns: int = 0
    clear: bool = False
    hint: str = "to watch it, run in another terminal: python -m script.dashboard"

    @property
    def address(self) -> str:
        """Of the page."""
        return f"{self.server}:{self.port}/env/{quote(self.env)}"


class Unreachable(Exception):
    """The server did not do what it was asked; the text says why."""


class Client(visdom.Visdom):
    """visdom's client with time limits; it raises Unreachable, prints nothing, uses no proxy.

    Making one sends nothing.
    """

    def __init__(self, server: str, port: int, env: str) -> None:
        self._http = requests.Session()
        self._http.trust_env = False  # a proxy of the environment is not for the loopback address
        logging.getLogger("visdom").setLevel(logging.CRITICAL)
        # send=False: else the constructor itself asks the server, and logs.
        super().__init__(server=server, port=port, env=env, send=False, use_incoming_socket=False)
        self.send = True

    def _handle_post(self, url: str, data: str | None = None) -> str:
        """The one place from which visdom's client sends; its documented hook."""
        limits = (CONNECT_SECONDS, READ_SECONDS)
        try:
            answer = self._http.post(url, data=data, timeout=limits, allow_redirects=False)
        except requests.Timeout:
            raise Unreachable("it does not answer in time") from None
        except requests.ConnectionError:
            raise Unreachable("no connection") from None
        except (requests.RequestException, ValueError) as error:
            raise Unreachable(" ".join(str(error).split())) from None
        if not answer.ok:
            raise Unreachable(f"it answers with HTTP {answer.status_code}")
        return answer.text

    def hang_up(self) -> None:
        """Close the connection."""
        self._http.close()

    def open_environment(self) -> None:
        """Make the environment where it is missing."""
        self._send({"eid": self.env}, endpoint=f"env/{quote(self.env, safe='')}")

    def close_windows(self) -> None:
        """Close all windows of the environment."""
        self._send({"win": None}, endpoint="close", create=False)

    def window_state(self, window: str) -> str:
        """What changes with every content of a window; "false" where there is no such window.

        Raises:
            Unreachable: the answer is none of a visdom server.
        """
        answer = self._send({"win": window}, endpoint="win_hash", create=False)
        if answer != "false" and not (len(answer) == 32 and answer.isalnum()):
            raise Unreachable("what answers there is no visdom server")
        return answer


@dataclass
class _Pictures:
    iteration: int = 0
    panels: Mapping[str, np.ndarray] = field(default_factory=dict)
    pairs: Sequence[str] = ()


class VisdomDisplay(Display):
    """Panes of one training stage; also the curves of the stages before it.

    Args:
        target: the server and the panes.
        history: what is recorded so far, shown as soon as the server answers; taken over.
        say: gets the one line for every change between reachable and not.
        pace: of the thread.
    """

    shows_pictures = True

    def __init__(
        self,
        target: VisdomTarget,
        history: History,
        say: Callable[[str], None] = tqdm.write,
        pace: Pace | None = None,
    ) -> None:
        self._target, self._history, self._say = target, history, say
        self._pace = pace or Pace()
        self._lock = threading.Lock()  # of what the training loop hands over: held for moments only
        self._about, self._iteration = "", 0
        self._pictures = _Pictures()
        # Keys of windows: ("plot", model, title), ("picture", kind). A dict keeps their order.
        self._waiting: dict[tuple, None] = {}
        self._closing = threading.Event()
        # From here on only the thread's.
        self._client: Client | None = None
        self._is_up: bool | None = None
        self._was_up = False
        self._state_of_about: str | None = None  # visdom's, after our last round
        self._last_check = 0.0
        self._refused: set[tuple] = set()
        self._thread = threading.Thread(target=self._work, name="visdom display", daemon=True)
        self._thread.start()

    # The training loop's side.

    def text(self, text: str) -> None:
        """Say what is trained, in a pane that also has the iteration and the time."""
        with self._lock:
            self._about = text

    def scalars(self, iteration: int, plots: Plots) -> None:
        """Add a point to curves; their windows are sent anew."""
        with self._lock:
            self._iteration = iteration
            self._history.add_plots(self._target.model, iteration, plots)
            for title in plots:
                self._waiting["plot", self._target.model, title] = None

    def pictures(
        self, iteration: int, panels: Mapping[str, np.ndarray], pairs: Sequence[str]
    ) -> None:
        """Show pictures in place of the ones before."""
        with self._lock:
            self._iteration = iteration
            self._pictures = _Pictures(iteration, dict(panels), list(pairs))
            self._waiting.update(dict.fromkeys(self._picture_keys()))

    def close(self) -> None:
        """Send what is waiting if the server is there, for 2 seconds at most, and end."""
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)

    def _picture_keys(self) -> list[tuple]:
        kinds = [_ALL_KINDS] if self._target.columns else self._pictures.panels
        return [("picture", kind) for kind in kinds] if self._pictures.panels else []

    # The thread's side.

    def _work(self) -> None:
        pause = self._pace.first_pause
        is_last_round = False
        while True:
            try:
                self._round(is_last_round)
                self._change_state(True)
                pause = self._pace.first_pause
                delay = self._pace.between_rounds
            except Unreachable as error:
                if self._client:
                    self._client.hang_up()
                self._client = None
                self._change_state(False, str(error))
                delay, pause = pause, min(2 * pause, self._pace.longest_pause)
            if is_last_round or (self._closing.wait(delay) and not self._is_up):
                return
            is_last_round = self._closing.is_set()

    def _round(self, is_last: bool) -> None:
        """Look after the server, and send what is waiting."""
        with self._lock:
            is_idle = not self._waiting
        now = time.monotonic()
        is_fresh = now - self._last_check < self._pace.between_checks
        if self._client and is_idle and is_fresh and not is_last:
            return
        if self._client is None:
            self._client = Client(self._target.server, self._target.port, self._target.env)
        self._client.open_environment()
        state = self._client.window_state(self._window("about"))
        if self._state_of_about is None and self._target.clear:
            self._client.close_windows()
        if state != self._state_of_about:  # a new server, or one that remembers an older time
            self._want_everything()
            self._send_about()
        self._last_check = now
        sent = is_last
        while key := self._next():
            try:
                self._send(key)
            except Unreachable:
                with self._lock:
                    self._waiting[key] = None
                raise
            except Exception as error:  # whatever visdom makes of a content: not training's trouble
                if key not in self._refused:
                    self._refused.add(key)
                    self._say(f"live display: no pane '{' '.join(key[1:])}': {error!r}")
            sent = True
        if sent:
            self._send_about()

    def _want_everything(self) -> None:
        with self._lock:
            waiting = [("plot", *key) for key in self._history.titles()] + self._picture_keys()
            self._waiting = dict.fromkeys(waiting)

    def _next(self) -> tuple | None:
        with self._lock:
            key = next(iter(self._waiting), None)
            self._waiting.pop(key, None)
            return key

    def _change_state(self, is_up: bool, reason: str = "") -> None:
        if is_up is self._is_up:
            return
        address = self._target.address
        if is_up:
            again = " is back and has everything again" if self._was_up else ""
            line = f"live display: {address}{again}"
            self._was_up = True
        elif self._is_up is None:
            line = (
                f"live display: no visdom server at {self._target.server}:{self._target.port} "
                f"({reason}); training goes on; {self._target.hint}"
            )
        else:
            line = f"live display: lost {address} ({reason}); training goes on"
        self._is_up = is_up
        self._say(line)

    # What the windows show.

    def _send(self, key: tuple) -> None:
        if key[0] == "plot":
            self._send_plot(*key[1:])
        else:
            self._send_picture(key[1])

    def _send_about(self) -> None:
        with self._lock:
            about, iteration, pictures = self._about, self._iteration, self._pictures
        lines = [about, f"iteration {iteration}, sent at {time.strftime('%H:%M:%S')}"]
        if pictures.panels:
            lines += [f"pictures of iteration {pictures.iteration}:", *pictures.pairs]
        self._client.text(
            html.escape("\n".join(lines)).replace("\n", "<br>"),  # visdom shows the text as HTML
            win=self._window("about"),
            opts={"title": self._title("run"), "width": PLOT_SIZE[0], "height": PLOT_SIZE[1]},
        )
        self._state_of_about = self._client.window_state(self._window("about"))

    def _send_plot(self, model: str, title: str) -> None:
        with self._lock:
            history = self._history.curves(model, title)
        if not history:
            return
        curves = {name: decimate(curve, CURVE_POINTS) for name, curve in history.items()}
        values = np.concatenate([curve[:, 1] for curve in curves.values()])
        # Plotly shows a constant learning rate of 0.0001 as 0 between -1 and 1.
        is_flat = values.min() == values.max() != 0
        flat_axis = {"range": sorted([0.0, 2 * values[0]])} if is_flat else {}
        self._client.scatter(
            X=np.concatenate(list(curves.values())),
            Y=np.repeat(np.arange(len(curves)) + 1, [len(curve) for curve in curves.values()]),
            win=self._window(title, model),
            opts={
                "title": self._title(title, model),
                "legend": list(map(_plain, curves)),
                "showlegend": len(curves) > 1,
                "mode": "lines" if max(map(len, curves.values())) > 1 else "markers",
                "layoutopts": {
                    "plotly": {
                        # On the left: on the right are the buttons, which leave little room.
                        "title": {
                            "text": _plain(f"{model}: {title}"), "x": 0.02, "font": {"size": 14}
                        },
                        "xaxis": {"title": {"text": "iteration", "standoff": 5}},
                        "yaxis": {"exponentformat": "power", **flat_axis},
                    }
                },
                "width": PLOT_SIZE[0],
                "height": PLOT_SIZE[1],
                "marginleft": 50, "marginright": 20, "margintop": 40, "marginbottom": 45,
            },
        )  # fmt: skip

    def _send_picture(self, kind: str) -> None:
        with self._lock:
            pictures = self._pictures
        grids = {name: picture_grid(panel) for name, panel in pictures.panels.items()}
        if kind == _ALL_KINDS:
            grid = in_one_picture(grids, self._target.columns)
        elif kind in grids:
            grid = grids[kind]
        else:
            return
        zoom = self._target.picture_size / max(next(iter(grids.values())).shape[:2])
        self._client.image(
            grid.transpose(2, 0, 1),
            win=self._window(kind),
            opts={
                "title": self._title(kind),
                "jpgquality": JPEG_QUALITY,
                "width": round(zoom * grid.shape[1]),
                "height": round(zoom * grid.shape[0]) + PANE_BAR,
            },
        )

    def _window(self, title: str, model: str | None = None) -> str:
        target = self._target
        return f"{target.name}/{target.display_id}/{model or target.model}/{title}"

    def _title(self, title: str, model: str | None = None) -> str:
        target = self._target
        # Last, because a narrow pane cuts off the end.
        name = f" ({target.name})" if target.env != target.name else ""
        return _plain(f"{model or target.model}: {title}{name}")


def _plain(title: str) -> str:
    """In a plot titles and names are markup and formulas, elsewhere not: what would differ is _."""
    return title.translate(str.maketrans("<>&$", "____"))
