"""The dashboard's page in a real browser, with the panes that a training shows."""

import itertools
import signal

import numpy as np
import pytest

from script.dashboard.assets import missing_assets, static_folder
from tests.support.browser import open_browser, why_no_browser
from tests.support.dashboard_process import DashboardProcess, wait_for
from util.run.display import environment_name
from util.run.display.visdom_backend import Pace, VisdomDisplay, VisdomTarget
from util.run.history import History

why_not = why_no_browser()
if why_not is None and missing_assets(static_folder()):
    why_not = "visdom's page lacks files: python -m script.dashboard --setup_only gets them"
pytestmark = pytest.mark.skipif(why_not is not None, reason=str(why_not))

ITERATIONS = 20_000
KINDS = ("source", "source pose", "target pose", "target", "result", "flow 1/4")
HTML = '<img src="http://images.example/x.png" onerror="window.hacked=1"><b>bold</b>.jpg'
FAST = Pace(between_rounds=0.05, between_checks=0.2, first_pause=0.05, longest_pause=0.2)

CURVES = """
const pane = [...document.querySelectorAll('.window')].find(w =>
    w.querySelector('.bar').innerText.includes(arguments[0]));
const plot = pane && pane.querySelector('.js-plotly-plot');
return plot && plot.data.map(curve => [curve.name, curve.x.length, curve.x[curve.x.length - 1],
    curve.y[curve.y.length - 1]]);
"""
NEWEST = f"""
const curves = (function() {{ {CURVES} }}).apply(null, arguments);
return curves && curves[0][2] === arguments[1] && curves;
"""
TITLES = "return [...document.querySelectorAll('.window .bar')].map(bar => bar.innerText)"
PICTURES = """
const pictures = [...document.querySelectorAll('.window img')];
return pictures.length === arguments[0] && pictures.every(p => p.complete && p.naturalWidth)
    && pictures.map(p => [p.naturalWidth, p.naturalHeight]);
"""
# Of the panes, and of each picture and plot within its pane.
BOXES = """
const box = e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom] };
return [...document.querySelectorAll('.window')].map(pane => [pane.querySelector('.bar').innerText,
    box(pane), [...pane.querySelectorAll('img, .js-plotly-plot')].map(box)]);
"""


def losses(iteration):
    return {
        "losses": {"app_gen": 3 + 100 / iteration, "ad_gen": 2 - 1 / iteration},
        "learning rate": {"learning rate": 1e-4},
        "iterations per second": {"iterations per second": 4.0},
        "data wait (ms per iteration)": {"data wait": 1.5},
    }


def panels(brightness):
    return {kind: np.full((4, 128, 64, 3), brightness, np.uint8) for kind in KINDS}


class Training:
    """What a training of 20 000 iterations has shown, and goes on showing."""

    def __init__(self, port, name="experiment"):
        history = History()
        for iteration in range(10, ITERATIONS + 1, 10):
            history.add_plots("pose", iteration, losses(iteration))
        target = VisdomTarget(
            server="http://localhost", port=port, env=name, name=name, model="pose"
        )
        self.said = []
        self.display = VisdomDisplay(target, history, self.said.append, FAST)
        self.display.text("training pose")
        self.iteration = ITERATIONS
        self.numbers = itertools.count(1)

    def go_on(self):
        self.iteration += 10
        self.display.scalars(self.iteration, losses(self.iteration))

    def show_pictures(self, brightness):
        self.display.pictures(self.iteration, panels(brightness), [HTML, "a.jpg to b.jpg"])


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def server(state):
    process = DashboardProcess(state)
    yield process
    process.kill()


@pytest.fixture(scope="module")
def training(server):
    running = Training(server.port)
    running.show_pictures(100)
    yield running
    running.display.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@pytest.fixture(scope="module")
def page(browser, server, training):
    """The page at http://localhost:PORT with everything on it; loaded once."""
    last = f"experiment/1/pose/{KINDS[-1]}"
    wait_for(lambda: last in server.post("win_data", eid="experiment", win=None).text)
    browser.open(server.url)
    browser.wait(PICTURES, len(KINDS))
    browser.wait(CURVES, "pose: losses")
    browser.run("window.loadedOnce = true")
    return browser


def test_front_page_shows_the_training(page, server):
    assert page.driver.current_url == f"{server.url}/env/experiment"


def test_panes_have_titles_and_lie_side_by_side(page):
    titles = page.run(TITLES)
    wanted = ["run", *losses(1), *KINDS]
    assert len(titles) == len(wanted)
    for title in wanted:
        assert sum(f"pose: {title}" == text.splitlines()[-1] for text in titles) == 1, titles
    wait_for(lambda: not overlapping([box for _, box, _ in page.run(BOXES)]))  # they glide there


def overlapping(boxes):
    return [
        (a, b)
        for a, b in itertools.combinations(boxes, 2)
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]


def test_pictures_are_whole(page):
    """Their files arrive in full size, and nothing of them is cut off by the pane."""
    sizes = page.wait(PICTURES, len(KINDS))
    assert sizes == [[4 * 64 + 3 * 2, 128]] * len(KINDS)
    wait_for(lambda: not cut_off(page.run(BOXES)))


def cut_off(boxes):
    return [
        (title, pane, box)
        for title, pane, inner in boxes
        for box in inner
        # visdom makes pictures a pixel larger than their panes.
        if box[0] < pane[0] - 1.5
        or box[1] < pane[1] - 1.5
        or box[2] > pane[2] + 1.5
        or box[3] > pane[3] + 1.5
    ]


def test_pictures_reach_the_edges_of_their_panes(page):
    def borders():
        pictures = [(pane, box) for title, pane, (box,) in with_one(page.run(BOXES))]
        assert len(pictures) == len(KINDS)
        return [abs(pane[side] - box[side]) for pane, box in pictures for side in (0, 2, 3)]

    wait_for(lambda: max(borders()) < 1.5)


def with_one(boxes):
    """Panes of pictures."""
    return [pane for pane in boxes if pane[0].splitlines()[-1].removeprefix("pose: ") in KINDS]


def test_loss_curves_are_whole_and_thinned_out(page, training):
    curves = page.wait(CURVES, "pose: losses")
    assert [name for name, *_ in curves] == ["app_gen", "ad_gen"]
    for _, length, last, _ in curves:
        assert 500 <= length <= 1000
        assert last == training.iteration
    final = losses(training.iteration)["losses"]
    assert [value for *_, value in curves] == pytest.approx(list(final.values()))


def test_updates_arrive_without_a_reload(page, training):
    before = page.run("return document.querySelector('.window img').src")
    training.go_on()
    training.show_pictures(200)
    page.wait(NEWEST, "pose: losses", training.iteration)
    page.wait("return document.querySelector('.window img').src !== arguments[0]", before)
    assert page.run("return window.loadedOnce")


def test_text_is_shown_as_it_is(page):
    text = "[...document.querySelectorAll('.window')].map(w => w.innerText).join()"
    page.wait(f"return {text}.includes(arguments[0])", HTML)
    assert page.run("return window.hacked") is None
    assert page.run("return document.querySelectorAll('.window b').length") == 0


def test_console_is_empty_and_nothing_comes_from_elsewhere(page, server):
    requests = page.requests()
    assert f"{server.url}/env/experiment" in requests
    assert f"ws://localhost:{server.port}/socket" in requests
    assert any("plotly" in url for url in requests)
    assert page.foreign_requests() == []
    assert page.console() == []


def test_what_a_pane_asks_for_elsewhere_is_not_sent(page, server):
    url = "http://images.example/x.png"
    server.show_text("foreign", "pane", f'<img src="{url}">')
    page.open(f"{server.url}/env/foreign")
    wait_for(lambda: page.requests() and url in page.blocked)
    assert page.foreign_requests() == [url]
    assert len(page.console()) == 1


def test_environment_of_any_name_opens(page, server):
    name = "name" + "".join(map(chr, range(32, 127))) + "Zürich\n\\"
    target = VisdomTarget(
        "http://localhost", server.port, env=environment_name(name), name=name, model="pose"
    )
    display = VisdomDisplay(target, History(), [].append, FAST)
    display.scalars(1, losses(1))
    display.close()
    page.open(target.address)
    page.wait(CURVES, "pose: losses")
    assert page.console() == []
    assert environment_name("Zürich lr=0.1, b-2.x (3)") == "Zürich lr=0.1, b-2.x (3)"


def test_history_is_back_after_a_restart(page, server, training, state):
    """Both what the client sends again, and what the server kept without it."""
    assert server.end(signal.SIGTERM) == 0
    training.go_on()
    again = DashboardProcess(state, server.port)
    try:
        page.open(f"{again.url}/env/experiment")
        curves = page.wait(NEWEST, "pose: losses", training.iteration)
        assert 500 <= curves[0][1] <= 1000
        assert page.wait(PICTURES, len(KINDS))
        training.display.close()
        assert again.end(signal.SIGTERM) == 0
        again = DashboardProcess(state, server.port)
        page.open(f"{again.url}/env/experiment")
        assert page.wait(NEWEST, "pose: losses", training.iteration) == curves
        assert page.wait(PICTURES, len(KINDS))
    finally:
        again.kill()
