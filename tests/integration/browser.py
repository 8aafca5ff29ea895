"""A real headless Chromium for tests of pages: opened on files, watched for errors and requests.

`with Browser.start(folder) as browser:` needs Debian's `chromium` and `chromium-driver`; a missing
one fails the test that asked, with what to install.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE_SECONDS: Final = 60
FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip
PHONE: Final = {"width": 360, "height": 740, "pixelRatio": 2, "touch": True, "mobile": True}


def _program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.fail(f"no {names[0]} here: apt-get install chromium chromium-driver", pytrace=False)


@attrs.define
class Browser:
    """A window of Chromium, and what it has said and asked for."""

    driver: webdriver.Chrome

    @classmethod
    @contextmanager
    def start(
        cls, folder: Path, *, size: tuple[int, int] = (1440, 1000), phone: bool = False
    ) -> Iterator[Browser]:
        """Start a browser with a profile of its own in a folder; it ends with the block."""
        options = Options()
        options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
        for flag in (*FLAGS, f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        if phone:
            options.add_experimental_option("mobileEmulation", {"deviceMetrics": PHONE})
        driver = webdriver.Chrome(options, Service(_program("chromedriver")))
        try:
            yield cls(driver)
        finally:
            driver.quit()

    def open(self, page: Path, fragment: str = "") -> None:
        """Open a report from its file, as who was sent it does; return when it is drawn."""
        self.driver.get("about:blank")
        self.errors()
        self.requests()
        self.driver.get(page.as_uri() + fragment)
        self.until("document.documentElement.dataset.ready === 'yes'")
        self.settle()

    def emulate(self, **media: str) -> None:
        """Play a reader's preferences, e.g. `prefers_color_scheme="dark"`."""
        features = [{"name": k.replace("_", "-"), "value": v} for k, v in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def be_in(self, zone: str) -> None:
        """Play a reader's time zone."""
        self.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": zone})

    def run(self, script: str, *arguments: object) -> Any:
        """Return what an expression is worth in the page."""
        return self.driver.execute_script(f"return ({script})", *arguments)

    def until(self, condition: str) -> None:
        """Wait until an expression is true in the page."""
        WebDriverWait(self.driver, PATIENCE_SECONDS, 0.05).until(lambda _d: self.run(condition))

    def settle(self) -> None:
        """Wait until what was asked for has been drawn, and what waits for typing to end."""
        self.driver.execute_async_script(
            "const done = arguments[0]; setTimeout(() => requestAnimationFrame(() =>"
            " requestAnimationFrame(() => done())), 200)"
        )

    def find(self, css: str) -> WebElement:
        """Return the one element that is looked for."""
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def click(self, css: str) -> None:
        """Click an element as the page's own script would, wherever it has been scrolled to."""
        self.driver.execute_script("arguments[0].click()", self.find(css))
        self.settle()

    def text(self, css: str) -> str:
        """Return the text of an element, shown or not."""
        return str(self.run("document.querySelector(arguments[0]).textContent", css))

    def texts(self, css: str) -> list[str]:
        """Return the texts of all elements that are looked for."""
        script = "[...document.querySelectorAll(arguments[0])].map(each => each.textContent)"
        return [str(text) for text in self.run(script, css)]

    def errors(self) -> list[str]:
        """Return what the page complained about since it was last asked: errors and warnings."""
        return [entry["message"] for entry in self._log("browser")]

    def _log(self, name: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.driver.get_log(name)  # type: ignore[no-untyped-call]
        return entries

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since this was last called."""
        addresses = []
        for entry in self._log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                addresses.append(message["params"]["request"]["url"])
        return addresses
