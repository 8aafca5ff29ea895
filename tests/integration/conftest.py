"""A browser, and reports to look at, for whatever test looks at pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from events.sqlite import SqliteStore
from tests.integration.browser import Browser
from tests.integration.reports import report
from tests.samples.busy_night import write_busy_night
from tests.samples.make_sample import Recorder, SettableClock, tell_everything


@pytest.fixture(scope="session")
def night_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which everything happens."""
    path = tmp_path_factory.mktemp("night") / "events.sqlite"
    clock = SettableClock()
    store = SqliteStore.open(path, clock)
    tell_everything(Recorder(store, clock))
    store.close()
    return path


@pytest.fixture(scope="session")
def busy_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of some hundred submissions."""
    path = tmp_path_factory.mktemp("busy") / "events.sqlite"
    write_busy_night(path, 600)
    return path


@pytest.fixture(scope="session")
def night_page(night_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(night_log, tmp_path_factory.mktemp("page") / "night.html")


@pytest.fixture(scope="session")
def busy_page(busy_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(busy_log, tmp_path_factory.mktemp("page") / "busy.html")


@pytest.fixture(scope="session")
def desktop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser.start(tmp_path_factory.mktemp("desktop")) as browser:
        yield browser


@pytest.fixture
def browser(desktop: Browser) -> Browser:
    """The browser with no preferences played, in UTC."""
    desktop.emulate(prefers_color_scheme="light")
    desktop.be_in("UTC")
    return desktop


@pytest.fixture(scope="session")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser.start(tmp_path_factory.mktemp("phone"), phone=True) as browser:
        yield browser
