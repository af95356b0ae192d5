"""web/index.html of a run: opens from the file system, shows curves and snapshots."""

import html.parser
import json
import re
import shutil
import subprocess
import time

import numpy as np
import pytest

from tests.support.browser import open_browser, why_no_browser
from util.run.history import History
from util.run.log import RunLog
from util.run.page import write_run_page

PICTURE = np.full((20, 30, 3), 200, np.uint8)


def make_run(folder, models=("poseflownet", "pose")):
    folder.mkdir(parents=True, exist_ok=True)
    for model in models:
        log = RunLog(folder, model)
        for iteration in range(1, 21):
            losses = {"total": 1.0 / iteration, f"own_<u>{model}": 2.0}
            log.losses(1, iteration, 0.5, losses, 1e-4, 0.01)
            if iteration % 10 == 0:
                log.snapshot(iteration, PICTURE)
    return log


class Page(html.parser.HTMLParser):
    """Elements, and the text of the script that has the data."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.data, self.open = [], "", None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.run = json.loads(self.data)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open = dict(attributes).get("id") if tag == "script" else None

    def handle_data(self, data):
        if self.open == "run":
            self.data += data


def test_the_page_has_the_curves_and_snapshots_of_both_stages(tmp_path):
    make_run(tmp_path / "person")
    run = Page(tmp_path / "person" / "web" / "index.html").run
    assert run["name"] == "person" and not run["is_thinned"]
    assert [stage["model"] for stage in run["stages"]] == ["poseflownet", "pose"]
    for stage in run["stages"]:
        assert stage["snapshots"] == [10, 20]
        curves = {curve["name"]: curve["points"] for curve in stage["plots"][0]["curves"]}
        assert stage["plots"][0]["title"] == "losses"
        assert curves["total"] == [[i, float(f"{1 / i:.5g}")] for i in range(1, 21)]
        assert f"own_<u>{stage['model']}" in curves
        assert [plot["title"] for plot in stage["plots"][1:]] == [
            "iterations per second", "data wait (ms per iteration)", "learning rate",
        ]  # fmt: skip
        for iteration in stage["snapshots"]:
            name = f"{stage['model']}_iter_{iteration:08d}.jpg"
            assert (tmp_path / "person" / "web" / "images" / name).exists()


def test_the_page_follows_the_run(tmp_path):
    log = make_run(tmp_path, models=["pose"])
    page = tmp_path / "web" / "index.html"
    log.losses(1, 21, 0.5, {"total": 9.0}, 1e-4, 0.01)
    points = Page(page).run["stages"][0]["plots"][0]["curves"][0]["points"]
    assert points[-1][0] == 20  # written with the snapshots, not with every record
    log.write_page()
    points = Page(page).run["stages"][0]["plots"][0]["curves"][0]["points"]
    assert points[-1] == [21, 9]


def test_nothing_comes_from_the_network(tmp_path):
    make_run(tmp_path)
    page = Page(tmp_path / "web" / "index.html")
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "base"}
        assert "src" not in attributes and "href" not in attributes, tag
    urls = set(re.findall(r"\w+://[^\s\"'`]*", page.source))
    assert urls == {"http://www.w3.org/2000/svg"}  # the name of a namespace
    assert str(tmp_path) not in page.source  # it can be moved
    (policy,) = (a["content"] for t, a in page.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_text_is_escaped(tmp_path):
    folder = tmp_path / "<b onclick=x>{{data}}<!--<script>&amp;"
    folder.mkdir()
    log = RunLog(folder, "pose")
    log.losses(1, 1, 0.5, {"</script><script>alert(1)</script>": 1.0}, 1e-4, 0.01)
    log.write_page()
    page = Page(folder / "web" / "index.html")
    assert page.run["name"] == folder.name
    (curve,) = page.run["stages"][0]["plots"][0]["curves"]
    assert curve["name"] == "</script><script>alert(1)</script>"
    assert "<script>alert" not in page.source and "<b onclick" not in page.source
    assert sum(tag == "script" for tag, _ in page.elements) == 2


def test_name_that_is_no_utf8(tmp_path):
    folder = tmp_path / "a\udcff"
    folder.mkdir()
    assert "<title>a?</title>" in Page(write_run_page(folder, History())).source


def test_a_page_without_snapshots_and_one_without_curves(tmp_path):
    RunLog(tmp_path, "pose").losses(1, 1, 0.5, {"total": 1.0}, 1e-4, 0.01)
    stage = Page(write_run_page(tmp_path, History.read(tmp_path))).run["stages"][0]
    assert stage["snapshots"] == [] and stage["plots"]
    (tmp_path / "web" / "images").mkdir()
    (tmp_path / "web" / "images" / "pose_iter_00000100.jpg").touch()
    (tmp_path / "web" / "images" / "holiday.jpg").touch()
    (stage,) = Page(write_run_page(tmp_path, History())).run["stages"]
    assert stage == {"model": "pose", "plots": [], "snapshots": [100]}


def test_long_runs_give_a_small_page_soon(tmp_path):
    history = History()
    for iteration in range(1, 40001):
        losses = {f"loss{number}": float(np.sin(iteration * number)) for number in range(8)}
        losses["loss0"] = 99.0 if iteration == 12345 else 0.5
        history.add({"kind": "train", "model": "pose", "iteration": iteration, **losses})
    start = time.monotonic()
    page = write_run_page(tmp_path, history)
    assert time.monotonic() - start < 3  # some 20 ms; a page of all points would take seconds
    assert page.stat().st_size < 200_000
    run = Page(page).run
    assert run["is_thinned"] and run["most_points"] == 500
    curves = run["stages"][0]["plots"][0]["curves"]
    assert all(450 < len(curve["points"]) <= 500 for curve in curves)
    assert [12345, 99] in curves[0]["points"]


# In a browser.


def browser():
    return shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(not browser(), reason="no chromium is installed")
def test_the_page_draws_in_a_browser_after_the_folder_was_moved(tmp_path):
    make_run(tmp_path / "<b>run 50%")
    moved = tmp_path / "elsewhere" / "<b>run #2"
    moved.parent.mkdir()
    (tmp_path / "<b>run 50%").rename(moved)
    write_run_page(moved, History.read(moved))
    finished = subprocess.run(
        [
            browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
            "--virtual-time-budget=2000", "--dump-dom", (moved / "web" / "index.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    dom = finished.stdout
    assert "<h1>&lt;b&gt;run #2</h1>" in dom
    assert re.findall(r"<h2>(\w+)</h2>", dom) == ["pose", "poseflownet"]
    assert "own_&lt;u&gt;pose" in dom and "<u>" not in dom.split("</script>")[-1]
    assert dom.count('<polyline class="curve"') == 2 * (2 + 3)
    assert dom.count('type="range"') == 2 and dom.count("iteration 20</output>") == 2
    sources = re.findall(r'<img[^>]* src="([^"]*)"', dom)
    assert sources == ["images/pose_iter_00000020.jpg", "images/poseflownet_iter_00000020.jpg"]
    assert "CONSOLE" not in finished.stderr, finished.stderr


SHOWN = """
const stage = document.querySelector('main > section'), picture = stage.querySelector('img');
return picture.complete && picture.naturalWidth && [stage.querySelector('output').textContent,
    picture.getAttribute('src'), stage.querySelector('a').getAttribute('href')];
"""


@pytest.mark.skipif(why_no_browser() is not None, reason=str(why_no_browser()))
def test_slider_and_plots_choose_the_snapshot(tmp_path):
    from selenium.webdriver import ActionChains, Keys

    make_run(tmp_path / "run", models=["pose"])
    with open_browser(tmp_path / "profile") as browser:
        browser.open((tmp_path / "run" / "web" / "index.html").as_uri())

        def is_at(iteration):
            path = f"images/pose_iter_{iteration:08d}.jpg"
            return browser.wait(SHOWN) == [f"iteration {iteration}", path, path]

        def find(css):
            return browser.driver.find_element("css selector", css)

        assert is_at(20)
        slider = find("input[type=range]")
        slider.send_keys(Keys.ARROW_LEFT)
        assert is_at(10)
        width = slider.size["width"] - 16
        actions = ActionChains(browser.driver).move_to_element_with_offset(slider, -width // 2, 0)
        actions.click_and_hold().move_by_offset(width, 0).release().perform()
        assert is_at(20)
        plot = find(".plot svg")
        left = -plot.size["width"] // 2 + 60
        ActionChains(browser.driver).move_to_element_with_offset(plot, left, 0).click().perform()
        assert is_at(10)
        assert "total 1" in find(".legend").text  # the value of iteration 1
        curves = len(browser.driver.find_elements("css selector", ".curve"))
        find(".legend button").click()
        assert len(browser.driver.find_elements("css selector", ".curve")) == curves - 1
        assert browser.console() == [] and browser.foreign_requests() == []
