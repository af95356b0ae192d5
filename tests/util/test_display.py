"""The live displays: what they show, and that a server never hurts the training."""

import base64
import html
import io
import json
import socket
import threading
import time

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from tests.support.helpers import MARKET, assert_one_line_error, run_here, train_options
from tests.support.visdom_servers import FakeServer, RealServer
from util.errors import UserError
from util.layout import in_one_picture, picture_grid
from util.run.display import create_display, visdom_backend
from util.run.display.base import Displays
from util.run.display.tensorboard_backend import TensorBoardDisplay
from util.run.display.visdom_backend import Pace, VisdomDisplay, VisdomTarget
from util.run.history import History, decimate, plots_of, read_metrics
from util.run.log import RunLog

QUICK = Pace(between_rounds=0.02, between_checks=0.05, first_pause=0.05, longest_pause=0.1)
# A hand-over takes well under a millisecond; a call that waited for a server would take as long as
# the server does, 0.4 s here. Between the two there is room for a busy machine.
READ_SECONDS, HAND_OVER_SECONDS = 0.4, 0.3
PANELS = {
    name: np.full((4, 128, 64, 3), 50 * number, np.uint8)
    for number, name in enumerate(["source", "target", "result"])
}
PAIRS = [f"a{number}.jpg to b{number}.jpg" for number in range(4)]
PLOTS = ["losses", "iterations per second", "data wait (ms per iteration)", "learning rate"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(visdom_backend, "READ_SECONDS", READ_SECONDS)


@pytest.fixture
def fake():
    server = FakeServer()
    yield server
    server.stop()


@pytest.fixture
def displays():
    """Makes displays of a port; all are closed at the end. Their lines are in `.lines`."""
    made = []

    def make(port, history=None, **target):
        lines = []
        target = {"env": "run", "name": "run", "model": "pose"} | target
        made.append(
            VisdomDisplay(
                VisdomTarget("http://localhost", port, **target), history or History(),
                say=lines.append, pace=QUICK,
            )
        )  # fmt: skip
        made[-1].lines = lines
        return made[-1]

    yield make
    for display in made:
        display.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def record(iteration, model="pose", **losses):
    return {
        "kind": "train", "model": model, "iteration": iteration, "unix_time": 1.5, "epoch": 1,
        "seconds": 0.5, "iterations_per_second": 2.0, "data_wait_seconds": 0.004,
        "learning_rate": 1e-4, **(losses or {"app_gen": 1.0 / iteration, "style_gen": 0.5}),
    }  # fmt: skip


def hand_over(display, iteration):
    """What the training loop does at an iteration; gives the longest time that it took."""
    start = time.monotonic()
    display.scalars(iteration, plots_of(record(iteration)))
    middle = time.monotonic()
    display.pictures(iteration, PANELS, PAIRS)
    return max(middle - start, time.monotonic() - middle)


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.005)


def titles(fake, env="run"):
    return {window["opts"]["title"] for window in fake.windows.get(env, {}).values()}


def window(fake, title, env="run"):
    (found,) = (w for w in fake.windows[env].values() if w["opts"]["title"] == title)
    return found


def picture_of(shown):
    kind, data = shown["data"][0]["content"]["src"].split(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


ALL_TITLES = {f"pose: {name}" for name in ["run", *PLOTS, *PANELS]}


# What is shown.


def test_every_window_is_shown(fake, displays):
    display = displays(fake.port)
    display.text("training pose on 12 pairs")
    for iteration in (10, 20):
        hand_over(display, iteration)
    display.close()
    assert titles(fake) == ALL_TITLES
    losses = window(fake, "pose: losses")["data"]
    assert [(line["name"], line["x"], line["y"]) for line in losses] == [
        ("app_gen", [10, 20], [0.1, 0.05]),
        ("style_gen", [10, 20], [0.5, 0.5]),
    ]
    assert all(line["mode"] == "lines" for line in losses)
    assert window(fake, "pose: data wait (ms per iteration)")["data"][0]["y"] == [4, 4]
    text = window(fake, "pose: run")["data"][0]["content"]
    assert "training pose on 12 pairs" in text and "iteration 20" in text and PAIRS[3] in text
    assert display.lines == [f"live display: http://localhost:{fake.port}/env/run"]


def test_pictures_keep_their_pixels(fake, displays):
    display = displays(fake.port, picture_size=512)
    display.pictures(1, PANELS, PAIRS)
    display.close()
    shown = window(fake, "pose: target")
    picture = picture_of(shown)
    assert picture.size == (4 * 64 + 3 * 2, 128)  # four narrow pictures side by side
    assert np.abs(np.asarray(picture, int)[:, :64] - 50).max() <= 3
    assert (shown["opts"]["width"], shown["opts"]["height"]) == (512, 250 + visdom_backend.PANE_BAR)


def test_all_pictures_in_one_pane(fake, displays):
    display = displays(fake.port, columns=2)
    display.pictures(1, PANELS, PAIRS)
    display.close()
    assert titles(fake) == {"pose: run", "pose: pictures"}
    width, height = picture_of(window(fake, "pose: pictures")).size
    assert 2 * 262 <= width <= 2 * 262 + 10 and 2 * 128 < height < 2 * 150


def test_both_stages_stay_visible(fake, displays, tmp_path):
    first = RunLog(tmp_path, "poseflownet", displays(fake.port, model="poseflownet"))
    first.losses(1, 7, 0.1, {"correctness": 0.5}, 1e-4, 0.01)
    first.display.pictures(7, PANELS, PAIRS)
    first.display.close()
    stage_1 = titles(fake)
    fake.windows.clear()  # the server was started anew between the stages
    second = RunLog(tmp_path, "pose", displays(fake.port, History.read(tmp_path)))
    second.losses(1, 1, 0.1, {"app_gen": 0.5}, 1e-4, 0.01)
    second.display.close()
    assert "poseflownet: losses" in stage_1 and "poseflownet: source" in stage_1
    assert {"poseflownet: losses", "pose: losses"} <= titles(fake)
    assert window(fake, "poseflownet: losses")["data"][0]["x"] == [7]


def test_a_fresh_run_clears_its_own_environment(fake, displays):
    fake.windows["run"] = {"old": {"opts": {"title": "old"}}}
    displays(fake.port).close()
    assert "old" in titles(fake)
    displays(fake.port, clear=True).close()
    assert titles(fake) == {"pose: run"}


@pytest.mark.parametrize("arguments", [[], ["--continue_train"]])
@pytest.mark.parametrize("has_curves", [False, True])
def test_what_no_run_of_the_folder_has_shown_is_cleared(fake, tmp_path, arguments, has_curves):
    """Also where training goes on: from weights that were put into a new folder."""
    fake.windows["run"] = {"old": {"opts": {"title": "old"}}}
    if has_curves:
        log = RunLog(tmp_path, "poseflownet", Displays([]))
        log.losses(1, 7, 0.1, {"correctness": 0.5}, 1e-4, 0.01)
    server = ["--display_server=http://localhost", f"--display_port={fake.port}", "--display_id=1"]
    options = train_options("--model=poseflownet", "--name=run", *server, *arguments)
    create_display(options, tmp_path, History.read(tmp_path)).close()
    assert ("old" in titles(fake)) == has_curves


def test_text_from_file_names_is_escaped(fake, displays):
    name = '<img src=x onerror="alert(1)">'
    display = displays(fake.port, env="shared", name=name)
    display.text(f"records in result/{name}")
    formula = r"$\href{javascript:alert(1)}{x}$"
    display.scalars(1, plots_of(record(1) | {name: 1.0, formula: 2.0}))
    scores = {"kind": "eval", name: 1.0, formula: 2.0}
    display.scalars(1, plots_of(scores))
    display.pictures(1, PANELS, [f"{name}.jpg to b.jpg"] * 4)
    display.close()
    title = 'pose: run (_img src=x onerror="alert(1)"_)'
    text = window(fake, title, "shared")["data"][0]["content"]
    assert "<img" not in text and text.count(html.escape(name)) == 5
    curves = [
        curve["name"]
        for pane in fake.windows["shared"].values()
        for curve in pane["data"]
        if "x" in curve
    ]
    assert len(curves) == 9
    for shown in [*titles(fake, "shared"), *curves]:
        assert not set("<>&$") & set(shown)


@pytest.mark.parametrize("env", ["a b", "50%?#&", "Zürich", "a\u2028b"])
def test_environments_of_any_name(fake, displays, env):
    display = displays(fake.port, env=env, name=env)
    hand_over(display, 1)
    display.close()
    assert len(fake.windows[env]) == len(ALL_TITLES)


def test_pictures_must_be_uint8():
    display = Displays([])
    for wrong in (PANELS["source"].astype(np.float32), PANELS["source"][0]):
        with pytest.raises(TypeError, match=r"'source'.*expected uint8 \[B, H, W, 3\]"):
            display.pictures(1, {"source": wrong}, PAIRS)


def test_a_content_that_visdom_refuses_is_said_once(fake, displays, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("no such opts")

    monkeypatch.setattr(visdom_backend.Client, "image", refuse)
    display = displays(fake.port, columns=3)
    hand_over(display, 1)
    wait_until(lambda: "pose: losses" in titles(fake))
    hand_over(display, 2)
    display.close()
    assert titles(fake) == {f"pose: {name}" for name in ["run", *PLOTS]}
    (line,) = (line for line in display.lines if "no such opts" in line)
    assert "pictures" in line


# The server is away, hangs, fails, comes back.


def test_no_server_names_the_command_once_and_costs_nothing(displays, capfd):
    display = displays(free_port())
    slowest = max(hand_over(display, iteration) for iteration in range(1, 50))
    wait_until(lambda: display.lines)
    time.sleep(0.3)
    start = time.monotonic()
    display.close()
    assert time.monotonic() - start < 2.5
    assert slowest < HAND_OVER_SECONDS
    (line,) = display.lines
    assert "python -m script.dashboard" in line and "training goes on" in line and "\n" not in line
    assert capfd.readouterr() == ("", "")


def test_server_that_starts_later_gets_everything(displays):
    display = displays(free_port())
    hand_over(display, 1)
    wait_until(lambda: display.lines)
    server = FakeServer(display._target.port)
    wait_until(lambda: titles(server) == ALL_TITLES)
    display.close()
    server.stop()
    assert len(display.lines) == 2


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("hung", "in time"), ("error", "HTTP 500"), ("other", "no visdom server")],
)
def test_trouble_is_one_line_and_recovery_another(fake, displays, capfd, mode, reason):
    display = displays(fake.port)
    hand_over(display, 1)
    wait_until(lambda: titles(fake) == ALL_TITLES and display.lines)
    fake.mode = mode
    slowest = 0
    for iteration in range(2, 60):
        slowest = max(slowest, hand_over(display, iteration))
        time.sleep(0.02)
    assert slowest < HAND_OVER_SECONDS
    wait_until(lambda: len(display.lines) == 2)
    fake.windows.clear()
    fake.mode = "alive"
    wait_until(lambda: len(display.lines) == 3)
    assert titles(fake) == ALL_TITLES
    assert window(fake, "pose: losses")["data"][0]["x"] == list(range(1, 60))
    _, lost, back = display.lines
    assert "lost" in lost and reason in lost and "back" in back
    assert not any("\n" in line for line in display.lines)
    display.close()
    assert len(display.lines) == 3
    assert capfd.readouterr() == ("", "")


def test_trouble_at_the_start_is_one_line(fake, displays):
    fake.mode = "other"
    display = displays(fake.port)
    hand_over(display, 1)
    wait_until(lambda: display.lines)
    time.sleep(0.3)
    display.close()
    (line,) = display.lines
    assert "no visdom server" in line


def test_a_content_that_failed_is_sent_again(fake, displays):
    display = displays(fake.port)
    hand_over(display, 1)
    wait_until(lambda: titles(fake) == ALL_TITLES and display.lines)
    fake.mode = "error in /events"
    hand_over(display, 2)
    wait_until(lambda: len(display.lines) == 2)
    fake.mode = "alive"  # the same server, with all its windows
    for title in PLOTS:
        wait_until(lambda title=title: window(fake, f"pose: {title}")["data"][0]["x"] == [1, 2])


def test_redirects_to_elsewhere_are_not_followed(fake, displays):
    elsewhere = FakeServer()
    fake.mode = f"http://127.0.0.1:{elsewhere.port}"
    display = displays(fake.port)
    hand_over(display, 1)
    wait_until(lambda: display.lines)
    display.close()
    elsewhere.stop()
    assert elsewhere.requests == []
    assert "no visdom server" in display.lines[0]


def test_restart_between_two_requests_is_noticed(fake, displays):
    display = displays(fake.port)
    hand_over(display, 1)
    wait_until(lambda: titles(fake) == ALL_TITLES)
    fake.windows.clear()
    wait_until(lambda: titles(fake) == ALL_TITLES)  # nothing new to show, and yet


def test_server_that_remembers_an_older_time_gets_everything(fake, displays):
    display = displays(fake.port)
    hand_over(display, 1)
    wait_until(lambda: titles(fake) == ALL_TITLES)
    time.sleep(0.2)
    saved = {"run": dict(fake.windows["run"])}
    hand_over(display, 2)
    wait_until(lambda: window(fake, "pose: losses")["data"][0]["x"] == [1, 2])
    time.sleep(0.2)
    fake.windows = saved
    wait_until(lambda: window(fake, "pose: losses")["data"][0]["x"] == [1, 2])


def test_close_does_not_wait_for_a_hung_server(fake, displays, monkeypatch):
    monkeypatch.setattr(visdom_backend, "READ_SECONDS", 20.0)
    fake.mode = "hung"
    display = displays(fake.port)
    hand_over(display, 1)
    wait_until(lambda: fake.requests)
    start = time.monotonic()
    display.close()
    assert time.monotonic() - start < visdom_backend.CLOSE_SECONDS + 1
    fake.mode = "alive"


def test_close_sends_what_is_waiting(fake, displays):
    display = displays(fake.port)
    wait_until(lambda: display.lines)
    hand_over(display, 5)
    display.close()
    assert "pose: losses" in titles(fake)
    assert "visdom display" not in {thread.name for thread in threading.enumerate()}


def test_no_proxy_and_no_other_host(fake, displays, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    hosts = set()
    connect = socket.socket.connect
    monkeypatch.setattr(
        socket.socket, "connect", lambda s, to: (hosts.add(to[0]), connect(s, to))[1]
    )
    display = displays(fake.port)
    hand_over(display, 1)
    display.close()
    assert titles(fake) == ALL_TITLES
    assert hosts <= {"127.0.0.1", "::1"}


def test_the_real_server_hung_killed_and_restarted(displays, tmp_path):
    def shown():
        try:
            answer = requests.post(
                f"http://localhost:{port}/win_data", json={"win": None, "eid": "run"}, timeout=5
            )
            return {w["title"]: w for w in answer.json().values()} if answer.ok else {}
        except requests.RequestException:
            return {}

    def is_complete(count):
        windows = shown()
        return windows.keys() == ALL_TITLES and (
            len(windows["pose: losses"]["content"]["data"][0]["x"]) == count
        )

    port = free_port()
    server = RealServer(port, tmp_path)
    try:
        display = displays(port, clear=True)
        slowest = hand_over(display, 1)
        wait_until(lambda: is_complete(1) and display.lines)
        server.hang()
        for iteration in range(2, 40):
            slowest = max(slowest, hand_over(display, iteration))
            time.sleep(0.02)
        wait_until(lambda: len(display.lines) == 2)
        server.go_on()
        wait_until(lambda: len(display.lines) == 3 and is_complete(39))
        server.stop()
        wait_until(lambda: len(display.lines) == 4)
        slowest = max(slowest, hand_over(display, 40))
        server = RealServer(port, tmp_path)
        wait_until(lambda: len(display.lines) == 5 and is_complete(40))
        display.close()
    finally:
        server.stop()
    assert slowest < HAND_OVER_SECONDS
    assert ["lost" in line for line in display.lines] == [False, True, False, True, False]


# Curves.


def test_decimation_keeps_the_ends_and_every_spike():
    rng = np.random.default_rng(0)
    points = np.stack([np.arange(20000) * 10, rng.normal(size=20000)], axis=1)
    spikes = [1, 777, 10001, 19998]
    points[spikes, 1] = [50, -50, 60, 70]
    kept = decimate(points, 1000)
    assert len(kept) <= 1000 and len(kept) > 900
    assert (kept[0] == points[0]).all() and (kept[-1] == points[-1]).all()
    assert (np.diff(kept[:, 0]) > 0).all()
    rows = {tuple(point) for point in kept}
    assert rows <= {tuple(point) for point in points}
    assert all(tuple(points[spike]) in rows for spike in spikes)
    # Lowest and highest of every interval, by definition.
    interval = (points[:, 0] / points[-1, 0] * 499).astype(int).clip(max=498)
    for number in range(499):
        values = points[interval == number, 1]
        assert {values.min(), values.max()} <= set(kept[:, 1])


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 7, 50])
def test_decimation_of_few_points(count):
    points = np.stack([np.arange(count) ** 2, np.cos(np.arange(count))], axis=1)
    kept = decimate(points, 5)
    assert len(kept) <= 5 and (kept[[0, -1]] == points[[0, -1]]).all()
    if count <= 5:
        assert (kept == points).all()


def test_long_curves_stay_small_and_keep_their_spikes(fake, displays):
    history = History()
    for iteration in range(1, 20001):
        value = 99.0 if iteration == 1234 else 1.0 / iteration
        history.add(record(iteration, app_gen=value))
    assert len(history.curves("pose", "losses")["app_gen"]) <= 4000
    display = displays(fake.port, history)
    display.close()
    (line,) = window(fake, "pose: losses")["data"]
    assert len(line["x"]) <= 1000
    assert (line["x"][0], line["x"][-1]) == (1, 20000)
    assert line["y"][line["x"].index(1234)] == 99


def write_records(folder, records):
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in records))


def all_curves(history):
    return {key: history.curves(*key) for key in history.titles()}


def test_a_file_is_read_as_if_its_records_were_added_one_by_one(tmp_path, monkeypatch):
    """Many records are thinned out before they are added: of these, none is."""
    monkeypatch.setattr("util.run.history._CHUNK", 150)
    records = []
    for model, iterations in (
        ("poseflownet", [*range(1, 401), *range(250, 600)]),
        ("pose", [*range(1, 300, 2), *range(7, 10), *range(8, 500)]),
    ):
        for number, iteration in enumerate(iterations):
            values = {"app_gen": number / 3, "learning_rate": 1e-4, "data_wait_seconds": 0.5}
            values |= {"late": number} if number % 200 > 120 else {"note": "text", "flag": True}
            records.append({**record(iteration), "model": model, **values})
            if iteration % 100 == 0:
                records.append(
                    {"kind": "eval", "model": model, "iteration": iteration, "L1": number}
                )
    write_records(tmp_path, records)
    history = History()
    for each in records:
        history.add(each)
    read = History.read(tmp_path)
    assert read.titles() == history.titles()
    assert all_curves(read) == all_curves(history)


def test_a_long_file_is_thinned_out_as_it_is_read_and_its_spikes_stay(tmp_path, monkeypatch):
    count = 22_000
    values = {"app_gen": 0.25, "style_gen": 0.5, "learning_rate": 1e-4, "data_wait_seconds": 0.5}
    with open(tmp_path / "metrics.jsonl", "w") as file:
        for iteration in range(1, count + 1):
            spike = {"app_gen": 99.0} if iteration == 12_345 else {}
            file.write(json.dumps({**record(iteration), **values, **spike}) + "\n")
    # Adding a million records one by one takes a minute.
    monkeypatch.setattr(History, "add", lambda *_: pytest.fail("one by one"))
    history = History.read(tmp_path)
    for curves in all_curves(history).values():
        for curve in curves.values():
            assert 1000 < len(curve) <= 4000
            assert (curve[0][0], curve[-1][0]) == (1, count)
            assert [*curve] == sorted(set(curve))
    assert (12_345, 99) in history.curves("pose", "losses")["app_gen"]


def test_iterations_trained_again_replace_the_earlier_ones():
    history = History()
    for iteration in (1, 2, 3, 4):
        history.add(record(iteration, app_gen=1.0))
    history.add(record(3, app_gen=2.0))
    assert history.curves("pose", "losses")["app_gen"] == [(1, 1.0), (2, 1.0), (3, 2.0)]


def test_what_belongs_to_which_plot():
    plots = plots_of({**record(3), "stage": 2, "adversarial": False, "note": "text"})
    assert plots["losses"].keys() == {"app_gen", "style_gen"}
    assert plots["learning rate"] == {"learning rate": 1e-4}
    scores = {"kind": "eval", "model": "pose", "iteration": 3, "L1": 0.5, "pairs": 8}
    assert plots_of(scores) == {"test pairs: L1": {"L1": 0.5}}


def test_a_line_cut_off_by_a_kill_is_left_out_and_harms_no_other(tmp_path):
    RunLog(tmp_path, "pose").losses(1, 1, 0.1, {"a": 1.0}, 1e-4)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "mod')
    RunLog(tmp_path, "pose").losses(1, 2, 0.1, {"a": 2.0}, 1e-4)
    records, bad_lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [found["iteration"] for found in records] == [1, 2] and bad_lines == 1
    assert History.read(tmp_path).curves("pose", "losses") == {"a": [(1, 1.0), (2, 2.0)]}


# Layout.


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(4, (128, 64), (128, 262)), (4, (256, 256), (514, 514)), (1, (128, 64), (128, 64)),
     (3, (256, 256), (514, 514))],
)  # fmt: skip
def test_picture_grid(count, size, expected):
    panel = np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    grid = picture_grid(panel.repeat(size[0], axis=1).repeat(size[1], axis=2))
    assert grid.shape == (*expected, 3)
    for number in range(1, count + 1):
        assert (grid == number).all(axis=2).sum() == size[0] * size[1]


def test_one_picture_has_a_row_per_so_many_names():
    grids = {name: np.zeros((20, 30, 3), np.uint8) for name in "abcde"}
    picture = in_one_picture(grids, 3)
    assert picture.dtype == np.uint8 and picture.shape == (2 * (14 + 22), 3 * 32, 3)


# TensorBoard.


def test_tensorboard_has_the_same_curves_and_pictures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    display = TensorBoardDisplay(tmp_path, "pose")
    log = RunLog(tmp_path, "pose", display)
    display.text("training <b>\rin\u2028[a](javascript:b)")
    for iteration in (10, 20):
        log.losses(1, iteration, 0.5, {"app_gen": 1.0 / iteration}, 1e-4, 0.004)
    log.scores(20, {"L1": 0.25, "pairs": 8})
    display.pictures(20, PANELS, PAIRS)
    display.close()
    display.scalars(30, {"losses": {"app_gen": 0.0}})  # after the end: nothing, and no error
    events = EventAccumulator(str(tmp_path / "tensorboard" / "pose"))
    events.Reload()
    tags = events.Tags()
    (text,) = events.Tensors("run/text_summary")
    (text,) = text.tensor_proto.string_val
    assert all(line.startswith("    ") for line in text.decode().splitlines())  # shown as it is
    history = History.read(tmp_path)
    expected = {
        f"{title}/{name}": curve
        for model, title in history.titles()
        for name, curve in history.curves(model, title).items()
    }
    assert len(expected) == len(PLOTS) + 1
    assert set(tags["scalars"]) == expected.keys()
    for tag, curve in expected.items():
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        assert found == [(step, pytest.approx(value)) for step, value in curve]
    assert set(tags["images"]) == {f"pictures/{kind}" for kind in PANELS}
    (picture,) = events.Images("pictures/target")
    pixels = np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)))
    assert picture.step == 20 and (pixels == picture_grid(PANELS["target"])).all()


def test_tensorboard_hides_what_is_trained_again(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, iterations in ((1, (1, 2, 3, 4)), (3, (3, 4, 5))):
        display = TensorBoardDisplay(tmp_path, "pose", first)
        for iteration in iterations:
            display.scalars(iteration, {"losses": {"a": float(first)}})
        display.close()
    events = EventAccumulator(str(tmp_path / "tensorboard" / "pose"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("losses/a")]
    assert found == [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3)]


def test_tensorboard_that_cannot_write_is_one_line(tmp_path):
    (tmp_path / "tensorboard").write_text("a file is in the way")
    lines = []
    display = TensorBoardDisplay(tmp_path, "pose", say=lines.append)
    for iteration in (1, 2):
        display.scalars(iteration, plots_of(record(iteration)))
    display.close()
    assert len(lines) == 1 and "training goes on" in lines[0]


# Options and the training program.


def backends(tmp_path, *arguments):
    options = train_options(f"--checkpoints_dir={tmp_path}", *arguments)
    display = create_display(options, tmp_path, History())
    display.close()
    return [type(each).__name__ for each in display.displays]


def test_backends_are_chosen_by_options(tmp_path):
    port = f"--display_port={free_port()}"
    assert backends(tmp_path, "--display_id=0") == []
    assert backends(tmp_path, "--display_id=1", port) == ["VisdomDisplay"]
    both = "--display_backend=visdom,tensorboard"
    assert backends(tmp_path, "--display_id=2", port, both) == [
        "VisdomDisplay",
        "TensorBoardDisplay",
    ]
    assert backends(tmp_path, "--display_id=0", both) == ["TensorBoardDisplay"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--display_backend=visdon", "tensorboard"),
        ("--display_port=70000", "65535"),
        ("--display_server=http://localhost:8096", "without port"),
        ("--display_server=ftp://x", "without port"),
    ],
)
def test_wrong_options_are_named(argument, message):
    with pytest.raises(UserError, match=message) as caught:
        train_options(argument)
    assert argument.split("=")[0] in str(caught.value)


def test_start_dashboard_starts_none_on_another_machine():
    with pytest.raises(UserError, match=r"--start_dashboard.*http://elsewhere\.org"):
        train_options("--display_id=1", "--start_dashboard", "--display_server=elsewhere.org")


def test_start_dashboard_starts_one(tmp_path, monkeypatch, capsys):
    commands = []

    class Process:
        pid = 4321

        def __init__(self, command, **_):
            commands.append(command)

    monkeypatch.setattr("util.run.display.subprocess.Popen", Process)
    port = free_port()
    create_display(
        train_options("--display_id=1", "--start_dashboard", f"--display_port={port}"),
        tmp_path,
        History(),
    ).close()
    assert [command[1:] for command in commands] == [["-m", "script.dashboard", f"--port={port}"]]
    output = capsys.readouterr().out
    assert "process 4321" in output and str(tmp_path / "dashboard.log") in output
    assert "another terminal" not in output


def test_start_dashboard_starts_none_beside_another(fake, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a second server")

    monkeypatch.setattr("util.run.display.subprocess.Popen", fail)
    options = train_options("--display_id=1", "--start_dashboard", f"--display_port={fake.port}")
    create_display(options, tmp_path, History()).close()


def train(data, root, *arguments):
    return run_here(
        "train.py", *MARKET[:2], f"--dataroot={data}", f"--checkpoints_dir={root}", "--name=person",
        "--model=poseflownet", "--attn_layer=2", "--kernel_size=2=3", "--vgg_weights=random",
        "--batchSize=2", "--niter=3", "--print_freq=1", "--eval_iters_freq=0", "--nThreads=0",
        *arguments,
    )  # fmt: skip


def test_training_gives_the_same_with_and_without_display(fake, tiny_market, tmp_path, monkeypatch):
    off = train(tiny_market, tmp_path / "off", "--display_id=0", "--no_html")
    shown = train(
        tiny_market, tmp_path / "on", "--display_freq=1", f"--display_port={fake.port}",
        "--display_backend=visdom,tensorboard", "--no_html", "--display_env=other",
        "--display_winsize=100",
    )  # fmt: skip
    dead = train(tiny_market, tmp_path / "dead", f"--display_port={free_port()}", "--no_html")
    assert (off.returncode, shown.returncode, dead.returncode) == (0, 0, 0), shown.stderr
    first, *others = (
        torch.load(tmp_path / run / "person" / "latest_net_G.pth") for run in ("off", "on", "dead")
    )
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)
    pictures = ["source", "source pose", "target pose", "target", "result"]
    pictures += ["warped 1/4", "flow 1/4", "mask 1/4"]
    wanted = {f"poseflownet: {name} (person)" for name in ["run", *PLOTS, *pictures]}
    assert titles(fake, "other") == wanted
    losses = window(fake, "poseflownet: losses (person)", "other")["data"]
    assert [line["x"] for line in losses] == [[1, 2, 3]] * 2
    assert window(fake, "poseflownet: source (person)", "other")["opts"]["width"] == 100
    assert shown.stdout.count("live display") == 1 and "live display" not in off.stdout
    assert dead.stdout.count("python -m script.dashboard") == 1
    assert f"--port={dead.args[-2].split('=')[1]}" in dead.stdout
    assert not (tmp_path / "on" / "person" / "web").exists()  # --no_html
    assert (tmp_path / "on" / "person" / "tensorboard" / "poseflownet").is_dir()
    assert dead.stderr == ""


def test_wrong_backend_is_one_line(tiny_market, tmp_path):
    assert_one_line_error(train(tiny_market, tmp_path, "--display_backend=x"), "--display_backend")
