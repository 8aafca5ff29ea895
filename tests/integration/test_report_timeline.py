"""The timeline of a report in a real browser: zoomed, dragged, walked through, and its pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains

from events.sqlite import SqliteStore
from tests.integration.browser import Browser
from tests.integration.reports import report, window
from tests.samples.make_sample import BEGIN, Recorder, Run, SettableClock, good_run

# --- moving in time ------------------------------------------------------------------------------


def test_buttons_keys_and_wheel_zoom(browser: Browser, busy_page: Path) -> None:
    browser.open(busy_page)
    browser.click("#all")
    lengths = []

    def note() -> None:
        browser.settle()
        begin, end = window(browser)
        lengths.append(end - begin)

    note()
    browser.click("#zoom-in")
    note()
    browser.run("document.getElementById('rows').focus()")
    ActionChains(browser.driver).send_keys("+").perform()
    note()
    browser.run(
        "document.querySelector('#rows canvas').dispatchEvent(new WheelEvent('wheel',"
        " {deltaY: -100, ctrlKey: true, bubbles: true, cancelable: true, clientX: 700}))"
    )
    note()

    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) == 4
    assert lengths[1] == pytest.approx(lengths[0] / 2, rel=0.01)


def test_dragging_takes_the_time_along(browser: Browser, busy_page: Path) -> None:
    browser.open(busy_page)
    browser.click("#zoom-in")
    before = window(browser)
    rows = browser.find("#rows")

    (
        ActionChains(browser.driver)
        .move_to_element_with_offset(rows, 100, 0)
        .click_and_hold()
        .move_by_offset(200, 0)
        .release()
        .perform()
    )
    browser.settle()

    after = window(browser)
    assert after[0] < before[0]
    assert after[1] - after[0] == pytest.approx(before[1] - before[0], rel=0.01)
    assert not browser.find("#panel").is_displayed()


def test_a_click_in_the_overview_goes_there(browser: Browser, busy_page: Path) -> None:
    browser.open(busy_page)
    browser.click("#zoom-in")
    browser.click("#zoom-in")
    before = window(browser)
    overview = browser.find("#overview")

    ActionChains(browser.driver).move_to_element_with_offset(overview, -300, 0).click().perform()
    browser.settle()

    after = window(browser)
    assert after[1] < before[0]


def test_the_next_failure_is_one_key_away(browser: Browser, busy_page: Path) -> None:
    browser.open(busy_page)
    seen = []
    for _ in range(3):
        ActionChains(browser.driver).send_keys("n").perform()
        browser.settle()
        seen.append(browser.text("#panel h2"))
        assert browser.run("document.querySelector('#panel .pill').classList.contains('bad')")

    ActionChains(browser.driver).send_keys("p").perform()
    browser.settle()

    assert len(set(seen)) == 3
    assert browser.text("#panel h2") == seen[1]


def test_a_log_with_months_between_opens_on_its_last_activity(
    browser: Browser, tmp_path: Path
) -> None:
    clock = SettableClock()
    store = SqliteStore.open(tmp_path / "long.sqlite", clock)
    recorder = Recorder(store, clock)
    for month in range(4):
        at = month * 30 * 86_400.0
        for seconds, run, observation in good_run(Run(f"run-{month}"), at):
            clock.seconds = seconds
            recorder.observe(run.stream, observation)
    store.close()

    browser.open(report(tmp_path / "long.sqlite", tmp_path / "report.html"))

    begin, end = window(browser)
    assert browser.text("#window").endswith(" · 1 submission")
    assert 12_000 < end - begin < 20_000


# --- restarts and outages ------------------------------------------------------------------------


def test_restarts_and_outages_are_told_and_lead_to_their_time(
    browser: Browser, night_page: Path
) -> None:
    browser.open(night_page)
    told = browser.texts("#happened .words")

    browser.click("#zoom-in")
    browser.click("#zoom-in")
    browser.click("#happened li:nth-child(3) button")

    assert told == [
        "Agent started",
        "Agent restarted",
        "Server away for 2.00 s",
        "Agent stopped for 3 m 20 s",
        "Agent started after a reboot",
    ]
    began, ended = window(browser)
    outage = BEGIN.timestamp() * 1000 + 216_000
    assert began < outage < outage + 2_000 < ended
    assert ended - began < 240_000


def colours_of_row(browser: Browser, number: int) -> set[tuple[int, int, int]]:
    """The colours that are drawn in a row of the timeline."""
    pixels = browser.run(
        "(() => { const c = document.querySelector('#rows canvas'), r = c.width / c.clientWidth;"
        " const d = c.getContext('2d').getImageData(220 * r, (arguments[0] * 24 + 12) * r,"
        " c.width - 220 * r, 1).data; const seen = new Set();"
        " for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 255)"
        " seen.add([d[i], d[i + 1], d[i + 2]].join()); return [...seen] })()",
        number,
    )
    return {(int(r), int(g), int(b)) for r, g, b in (pixel.split(",") for pixel in pixels)}


def colour(browser: Browser, name: str) -> tuple[int, int, int]:
    value = browser.run(
        "getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()", name
    )
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)


def test_a_bar_shows_its_states_and_a_takeover_is_marked_on_it(
    browser: Browser, night_page: Path
) -> None:
    browser.open(night_page, "#run=lucky-newt")
    browser.click("#panel .close")
    names = ("discovered", "resolving", "launching", "started")

    crane, newt = colours_of_row(browser, 0), colours_of_row(browser, 1)

    assert {colour(browser, f"--state-{name}") for name in names} <= newt
    assert colour(browser, "--state-started") in crane
    assert colour(browser, "--state-launching") not in crane
    assert colour(browser, "--start") in crane & newt
