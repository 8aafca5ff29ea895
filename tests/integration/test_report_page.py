"""The page that `replay report` writes, in a real browser: clicked, dragged, attacked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from events.observations import CommandRefused
from events.sqlite import SqliteStore
from tests.integration.browser import Browser
from tests.integration.reports import report, window
from tests.integration.test_replay_cli import replay
from tests.samples.make_sample import Recorder, Run, SettableClock, failed_launch

HOSTILE = (
    "</script><img src=x onerror=\"document.title='owned'\">",
    "<b>bold</b>&amp;\u202egnp.exe\x1b[31m",
    "'\"`${alert(1)}{{title}}",
)


def figure(browser: Browser, index: int) -> str:
    return str(
        browser.run("document.querySelectorAll('#figures dd')[arguments[0]].textContent", index)
    )


def click_row(browser: Browser, number: int) -> None:
    """Click a bar where it is drawn: rows are 24 pixels high."""
    rows = browser.find("#rows")
    browser.run("arguments[0].scrollIntoView({block: 'center'})", rows)
    height = rows.size["height"]
    offset = number * 24 + 12 - height / 2
    ActionChains(browser.driver).move_to_element_with_offset(
        rows, 60, round(offset)
    ).click().perform()
    browser.settle()


# --- the page ----------------------------------------------------------------------------------


def test_the_page_opens_without_an_error_and_asks_no_network(
    browser: Browser, busy_page: Path
) -> None:
    browser.open(busy_page)
    browser.click("#failure-after")

    assert browser.errors() == []
    assert browser.requests() == [busy_page.as_uri()]
    assert figure(browser, 0).replace("\u202f", "") == "603"


def test_the_page_may_run_nothing_but_its_own_script(browser: Browser, night_page: Path) -> None:
    browser.open(night_page)

    browser.run("document.body.insertAdjacentHTML('beforeend', arguments[0])", HOSTILE[0])
    browser.run(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'document.title = 1'}))"
    )
    browser.settle()

    assert browser.driver.title == "Runs on batch-7"
    assert all("Content Security Policy" in error for error in browser.errors())


def test_a_click_on_a_bar_opens_the_events_of_that_run(browser: Browser, night_page: Path) -> None:
    browser.open(night_page)

    click_row(browser, 2)

    assert browser.text("#panel h2") == "nightly-report"
    assert browser.text("#panel .outcome") == (
        "FAILED to launch: no such command: /opt/flows/bin/nightly"
    )
    types = browser.texts("#panel .type")
    assert types[0] == "RunOffered"
    assert types[-1] == "OutcomeSettled"


def test_the_panel_tells_the_same_events_as_show(
    browser: Browser, night_log: Path, night_page: Path
) -> None:
    shown = json.loads(replay("show", "--json", night_log, "lucky-newt").stdout)

    browser.open(night_page, "#run=lucky-newt")

    told: list[dict[str, Any]] = browser.run(
        "[...document.querySelectorAll('#panel .events li')].map(e => ({"
        "type: e.querySelector('.type').textContent,"
        "position: Number(e.querySelector('.position').textContent.slice(1)),"
        "time: e.querySelector('.time')?.firstChild.textContent}))"
    )
    assert [(e["type"], e["position"]) for e in told] == [
        (step["type"], step["position"]) for step in shown["steps"]
    ]
    assert [e["time"] for e in told if e["time"]] == [
        step["recorded_at"][11:23] for step in shown["steps"] if step["kind"] == "observation"
    ]
    assert shown["submission"]["launch_key"] in browser.text("#panel .facts")


def test_escape_closes_what_is_open(browser: Browser, night_page: Path) -> None:
    browser.open(night_page)
    click_row(browser, 0)
    assert browser.find("#panel").is_displayed()

    ActionChains(browser.driver).send_keys(Keys.ESCAPE).perform()

    assert not browser.find("#panel").is_displayed()


def test_the_keys_choose_and_open_a_submission(browser: Browser, night_page: Path) -> None:
    browser.open(night_page)
    browser.run("document.getElementById('rows').focus()")

    keys = [Keys.ARROW_DOWN, Keys.ARROW_DOWN]
    ActionChains(browser.driver).send_keys(*keys).perform()
    browser.settle()

    assert browser.text("#chosen").startswith("brave-toad, failed, to resolve: ")
    ActionChains(browser.driver).send_keys(Keys.ENTER).perform()
    assert browser.text("#panel h2") == "brave-toad"


def test_an_address_names_a_submission_and_a_window(browser: Browser, night_page: Path) -> None:
    browser.open(night_page, "#run=patient-crane")
    address = browser.run("location.hash")

    browser.open(night_page, address)

    assert browser.text("#panel h2") == "patient-crane"
    assert browser.run("location.hash") == address


def test_times_are_the_readers(browser: Browser, night_page: Path) -> None:
    browser.be_in("Asia/Kolkata")

    browser.open(night_page, "#run=quiet-lynx")

    assert browser.text("#subtitle").endswith("times: Asia/Calcutta (UTC+5:30)")
    assert browser.text("#panel .facts dd") == "2026-11-24 07:30:01.000"


# --- filters -------------------------------------------------------------------------------------


def test_a_filter_changes_the_counts_and_whatever_follows_them(
    browser: Browser, busy_page: Path
) -> None:
    browser.open(busy_page)
    charts = browser.text("#charts")
    failures = int(figure(browser, 1))

    browser.click("#failed")

    assert failures > 5
    assert figure(browser, 0) == figure(browser, 1) == str(failures)
    assert browser.text("#figures dt") == "of 603 submissions"
    assert browser.text("#charts") != charts
    browser.click("#reset")
    assert figure(browser, 0) == "603"


@pytest.mark.parametrize("control", ["state", "queue", "deployment"])
def test_each_choice_leaves_as_many_as_it_says(
    browser: Browser, busy_page: Path, control: str
) -> None:
    browser.open(busy_page)
    label = browser.run(
        "(() => { const c = document.getElementById(arguments[0]); c.selectedIndex = 1;"
        " c.dispatchEvent(new Event('change')); return c.selectedOptions[0].textContent })()",
        control,
    )
    browser.settle()

    assert label.endswith(f"({figure(browser, 0)})")
    assert "603" not in label


def test_searching_finds_names_ids_and_outcomes(browser: Browser, night_page: Path) -> None:
    browser.open(night_page)
    search = browser.find("#search")

    for text, found in (("sigkill", "1"), ("OTTER", "2"), ("lynx completed", "1"), ("zebra", "0")):
        search.clear()
        search.send_keys(text)
        browser.settle()
        assert figure(browser, 0) == found


def test_a_cause_shows_the_runs_that_failed_for_it(browser: Browser, busy_page: Path) -> None:
    browser.open(busy_page)
    row = "#causes li:nth-child(2) button"
    number = browser.text(f"{row} .number")
    words = browser.text(f"{row} .words")

    browser.click(row)

    assert figure(browser, 0) == number
    assert words in browser.text("#cause-filter span")


def test_what_does_not_live_in_the_window_can_be_left_out(
    browser: Browser, busy_page: Path
) -> None:
    browser.open(busy_page)
    browser.click("#in-window")
    in_window = int(figure(browser, 0))

    browser.click("#all")

    assert in_window < 603
    assert figure(browser, 0) == "603"


def test_slow_ones_are_few_and_were_longer_than_their_deployments_others(
    browser: Browser, busy_page: Path
) -> None:
    browser.open(busy_page)

    browser.click("#slow")

    assert 10 < int(figure(browser, 0)) < 80


# --- strangers' texts, other screens, other eyes -------------------------------------------------


def test_hostile_names_are_inert(browser: Browser, tmp_path: Path) -> None:
    clock = SettableClock()
    store = SqliteStore.open(tmp_path / "hostile.sqlite", clock)
    recorder = Recorder(store, clock)
    for number, name in enumerate(HOSTILE):
        story = failed_launch(Run(name, queue=name), float(number))
        for seconds, run, observation in story:
            clock.seconds = seconds
            is_refusal = isinstance(observation, CommandRefused)
            recorder.observe(run.stream, CommandRefused(name) if is_refusal else observation)
    store.close()
    page = report(tmp_path / "hostile.sqlite", tmp_path / "r.html", "--title", HOSTILE[0])

    browser.open(page)
    browser.click("#list summary")

    assert browser.driver.title == HOSTILE[0]
    assert browser.errors() == []
    assert browser.run("document.querySelectorAll('img, b').length") == 0
    names = browser.texts("#listed button")
    assert names == [HOSTILE[0], "<b>bold</b>&amp;\\u202egnp.exe\\x1b[31m", HOSTILE[2]]
    for number, name in enumerate(names):
        click_row(browser, number)
        assert browser.text("#panel h2") == name
    assert browser.driver.title == HOSTILE[0]
    assert browser.errors() == []


def luminance(browser: Browser, css: str, name: str) -> float:
    colour = browser.run("getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
                         css, name)  # fmt: skip
    red, green, blue = (
        (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4)
        for c in (int(part) / 255 for part in colour[4:-1].split(",")[:3])
    )
    return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_legible_by_day_and_by_night(browser: Browser, night_page: Path, scheme: str) -> None:
    browser.emulate(prefers_color_scheme=scheme)
    browser.open(night_page, "#run=brave-toad")

    page = luminance(browser, "body", "backgroundColor")

    assert (page < 0.1) == (scheme == "dark")
    for css, behind in (
        ("body", "body"), ("#subtitle", "body"), ("#causes .tag", ".card"), ("#panel", "#panel"),
        ("#panel .observed .type", "#panel"), ("#panel .pill", "#panel .pill"),
    ):  # fmt: skip
        pair = luminance(browser, css, "color"), luminance(browser, behind, "backgroundColor")
        assert (max(pair) + 0.05) / (min(pair) + 0.05) >= 4.5, css


def test_who_wants_no_motion_gets_none(browser: Browser, night_page: Path) -> None:
    browser.emulate(prefers_reduced_motion="reduce")

    browser.open(night_page, "#run=brave-toad")

    assert browser.run("getComputedStyle(document.getElementById('panel')).animationName") == "none"


def test_on_a_phone_nothing_is_wider_than_the_screen(phone: Browser, busy_page: Path) -> None:
    phone.open(busy_page)
    phone.click("#more-filters summary")
    phone.click("#list summary")

    def overflow() -> object:
        return phone.run("[document.documentElement.scrollWidth, window.innerWidth]")

    assert overflow() == [360, 360]
    phone.click("#failure-after")
    assert overflow() == [360, 360]
    assert phone.run("document.getElementById('panel').getBoundingClientRect().width") <= 360
    assert phone.errors() == []


def test_on_a_phone_a_tap_opens_a_run_and_two_fingers_zoom(phone: Browser, busy_page: Path) -> None:
    phone.open(busy_page)
    phone.run("document.getElementById('rows').scrollIntoView({block: 'center'})")
    before = window(phone)
    x, y = phone.run(
        "(r => [r.x + r.width / 2, r.y + r.height / 2])"
        "(document.getElementById('rows').getBoundingClientRect())"
    )

    def touch(kind: str, *points: float) -> None:
        spots = [{"x": x + by, "y": y, "id": n} for n, by in enumerate(points)]
        phone.driver.execute_cdp_cmd(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": spots}
        )

    touch("touchStart", -30, 30)
    for spread in (45, 60, 80, 100):
        touch("touchMove", -spread, spread)
    touch("touchEnd")
    phone.settle()
    after = window(phone)
    assert after[1] - after[0] < (before[1] - before[0]) / 2

    touch("touchStart", 0)
    touch("touchEnd")
    phone.settle()
    assert phone.find("#panel").is_displayed()


def test_a_browser_that_can_not_unpack_it_is_told_so(browser: Browser, night_page: Path) -> None:
    script = browser.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream"}
    )
    try:
        browser.driver.get(night_page.as_uri())
        browser.until("!document.getElementById('trouble').hidden")
        assert "too old to unpack the report" in browser.text("#trouble")
    finally:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
        browser.errors()


def test_the_list_says_what_the_timeline_shows(browser: Browser, night_page: Path) -> None:
    browser.open(night_page)
    browser.click("#list summary")

    first = browser.run("[...document.querySelector('#listed tr').cells].map(c => c.textContent)")

    assert first == ["2026-11-24 02:00:01", "quiet-lynx", "default", "12.0 s", "exited",
                     "exit 0 · run COMPLETED"]  # fmt: skip


def test_a_title_is_what_was_asked_for(browser: Browser, night_log: Path, tmp_path: Path) -> None:
    browser.open(report(night_log, tmp_path / "r.html", "--title", "The night of the 24th"))

    assert browser.text("h1") == browser.driver.title == "The night of the 24th"


def test_left_out_submissions_are_told_in_the_page(
    browser: Browser, night_log: Path, tmp_path: Path
) -> None:
    browser.open(report(night_log, tmp_path / "r.html", "--last", "5"))

    assert browser.text("#left-out") == (
        "The newest 5 submissions of the log are here; 7 older ones are left out."
    )


# --- what is in it ---


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--until", "2026-11-24T02:00:01.5+00:00"), {"quiet-lynx", "brave-toad"}),
        (("--since", "2026-11-24T02:09:00+00:00"), {"große-日本-run", "unlucky-ant"}),
        (
            ("--since", "2026-11-24T02:03:00+00:00", "--until", "2026-11-24T02:04:00+00:00"),
            {"hungry-bear"},
        ),
    ],
)
def test_a_span_of_time_leaves_out_what_did_not_live_in_it(
    browser: Browser, night_log: Path, tmp_path: Path, options: tuple[str, ...], names: set[str]
) -> None:
    page = report(night_log, tmp_path / "report.html", *options)

    browser.open(page)
    browser.click("#list summary")

    assert set(browser.texts("#listed button")) == names


def test_a_log_without_submissions_makes_a_page_that_says_so(
    browser: Browser, tmp_path: Path
) -> None:
    SqliteStore.open(tmp_path / "empty.sqlite").close()

    browser.open(report(tmp_path / "empty.sqlite", tmp_path / "report.html"))

    assert browser.errors() == []
    assert browser.text("#nothing span") == "No submission matches."
