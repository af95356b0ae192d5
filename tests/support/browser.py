"""A headless Chromium for tests, driven by selenium; it downloads nothing."""

import contextlib
import functools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
    # Whatever a page asks for, no name but these is looked up.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)
LOCAL = {"localhost", "127.0.0.1"}


def find_browser() -> tuple[str, str] | None:
    """Paths of the browser and its driver."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@functools.cache
def why_no_browser() -> str | None:
    """Why tests in a browser are skipped, if they are."""
    if find_browser() is None:
        return "no browser: chromium and chromedriver are not both on PATH"
    return None


@contextlib.contextmanager
def open_browser(profile: Path) -> Iterator["Browser"]:
    """Start a browser with its profile in the folder `profile`, which is not there yet."""
    binary, driver = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # A proxy of the environment is not for the loopback address, and selenium looks nothing up.
    without_proxy = {
        name: value for name, value in os.environ.items() if "proxy" not in name.lower()
    }
    service = Service(driver, env={**without_proxy, "SE_OFFLINE": "true"})
    chromium = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(chromium)
    finally:
        with contextlib.suppress(WebDriverException):
            chromium.quit()


class Browser:
    """What the tests ask of a page.

    Args:
        driver: selenium's.
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.requested: list[str] = []
        self.blocked: list[str] = []
        self._urls: dict[str, str] = {}
        driver.get_log("performance")  # of the browser's own first page

    def open(self, url: str) -> None:
        self.driver.get(url)

    def run(self, script: str, *arguments: object) -> object:
        """Run JavaScript as the body of a function."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: object, seconds: float = 15) -> object:
        """Run JavaScript until it gives something true, and give that."""
        waiting = WebDriverWait(self.driver, seconds, poll_frequency=0.1)
        return waiting.until(lambda _: self.run(script, *arguments), message=script)

    def console(self) -> list[str]:
        """What was written to the console since the last call."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """All URLs asked for so far, by pages and by sockets, from the browser's network log.

        Those among them that the server's content policy stopped are also in `blocked`.
        """
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            parameters = message["params"]
            if message["method"] == "Network.requestWillBeSent":
                self._urls[parameters["requestId"]] = parameters["request"]["url"]
                self.requested.append(parameters["request"]["url"])
            elif parameters.get("blockedReason") == "csp":
                self.blocked.append(self._urls[parameters["requestId"]])
            elif message["method"] == "Network.webSocketCreated":
                self.requested.append(parameters["url"])
        return self.requested

    def foreign_requests(self) -> list[str]:
        """Those that are neither for this machine nor for data within the page."""
        return [
            url
            for url in self.requests()
            if urlsplit(url).scheme in ("http", "https", "ws", "wss", "ftp")
            and urlsplit(url).hostname not in LOCAL
        ]

    def screenshot(self, path: Path) -> None:
        """A PNG of the visible part."""
        self.driver.save_screenshot(str(path))
