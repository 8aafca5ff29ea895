"""`replay list` and `stats` as a person asks them: filters, orders, pages, numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from events.lifecycle import State
from replay.commands import looking
from replay.listing import SORTS
from tests.integration.test_replay_cli import good, refused
from tests.integration.test_replay_cli import night as night  # noqa: PLC0414 - a fixture
from tests.samples.make_sample import Run


def listed(night: Path, *options: object) -> list[dict[str, Any]]:
    return [json.loads(line) for line in good("list", "--json", *options, night).splitlines()]


def names(night: Path, *options: object) -> list[str]:
    return [told["run_name"] for told in listed(night, *options)]


def shown(night: Path, *options: object) -> list[str]:
    """The names in a printed table."""
    lines = good("list", *options, night).splitlines()[1:]
    return [line.split()[2] for line in lines[: lines.index("")]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--state", "failed"), ["nightly-report", "brave-toad"]),
        (("--state", "started", "--state", "launching"), ["unlucky-ant", "große-日本-run"]),
        (("-q", "reports"), ["unlucky-ant", "hungry-bear", "nightly-report"]),
        (("--failed",), ["hungry-bear", "ancient-otter", "nightly-report", "brave-toad"]),
        (("--failed", "-q", "reports"), ["hungry-bear", "nightly-report"]),
        (("--slow",), ["unlucky-ant", "slow-mole"]),
        (("--slower-than", "11s"), ["slow-mole"]),
        (("-t", "NO SUCH COMMAND"), ["nightly-report"]),
        (("-t", "sigkill"), ["hungry-bear"]),
        (("-t", "quiet"), ["quiet-lynx"]),
        (("--since", "2026-11-24T02:10Z"), ["unlucky-ant", "große-日本-run"]),
        (("--until", "2026-11-24T02:00:01.05Z"), ["quiet-lynx"]),
        (("--deployment", str(Run("brave-toad").id("deployment"))[:9]), ["brave-toad"]),
        (("--deployment", "nobody"), []),
    ],
)
def test_a_filter_leaves_what_it_says(
    night: Path, options: Sequence[str], expected: list[str]
) -> None:
    assert names(night, *options) == expected


def test_a_deployment_is_found_by_its_name(tmp_path: Path) -> None:
    from events.sqlite import SqliteStore
    from tests.samples.make_sample import Recorder, SettableClock, good_run

    clock = SettableClock()
    store = SqliteStore.open(tmp_path / "events.sqlite", clock)
    recorder = Recorder(store, clock)
    for run, deployment in ((Run("one"), "etl"), (Run("two"), "reports")):
        for seconds, _run, seen in good_run(run, 1.0):
            if hasattr(seen, "labels"):
                object.__setattr__(seen, "labels", {"prefect.io/deployment-name": deployment})
            clock.seconds = seconds
            recorder.observe(run.stream, seen)
    store.close()

    (told,) = listed(tmp_path, "-d", "etl")
    assert (told["run_name"], told["deployment_name"]) == ("one", "etl")


def test_every_state_can_be_asked_for_and_every_order_is_offered() -> None:
    assert [state.value for state in State if state is not State.ABSENT] == [*looking.STATES]
    assert [*SORTS] == [*looking.SORTS]


def test_each_submission_is_in_exactly_the_list_of_its_state(night: Path) -> None:
    by_state = {state: names(night, "--state", state) for state in looking.STATES}

    everything = listed(night)
    for told in everything:
        assert told["run_name"] in by_state[told["state"]]
    assert sum(map(len, by_state.values())) == len(everything)


def test_the_longest_comes_first_and_the_other_way_round(night: Path) -> None:
    took = [told["seconds"] for told in listed(night, "--sort", "took")]

    assert took == sorted(took, reverse=True)
    assert [t["seconds"] for t in listed(night, "--sort", "took", "-r")] == took[::-1]
    assert names(night, "--sort", "run") == sorted(names(night))
    assert names(night, "-r") == names(night)[::-1]


@pytest.mark.parametrize("order", [(), ("--sort", "took"), ("-r",), ("--sort", "state")])
def test_pages_are_the_parts_of_the_whole_list(night: Path, order: Sequence[str]) -> None:
    pages = [shown(night, "-n", 5, "-p", page, *order) for page in (1, 2, 3)]

    assert [name for page in pages for name in page] == shown(night, "--all", *order)
    assert [len(page) for page in pages] == [5, 5, 2]
    assert "page 1; --page 2 goes on, --all shows all" in good("list", "-n", 5, night)
    assert "page 3, the last" in good("list", "-n", 5, "-p", 3, night)
    assert good("list", "-n", 5, "-p", 4, night) == "nothing on this page\n"


def test_a_filter_of_the_wrong_kind_is_a_usage_error(night: Path) -> None:
    assert "'teleported' is not one of 'discovered'" in refused(2, "list", "--state", "teleported")
    assert "'soon' is no time: write" in refused(2, "list", "--since", "soon", night)
    assert "'fast' is no duration: write" in refused(2, "list", "--slower-than", "fast", night)


# --- stats -----------------------------------------------------------------------------------


def test_stats_count_time_and_group(night: Path) -> None:
    told = json.loads(good("stats", "--json", night))

    assert (told["submissions"], told["failed"], told["open"]) == (12, 4, 2)
    assert told["states"]["exited"] == 7
    assert told["time_in_state"]["started"]["count"] == 8
    assert told["discovery_to_start"]["p50"] == pytest.approx(0.239)
    assert told["discovery_to_start"]["max"] == pytest.approx(31.239)
    # Everything is due at the full hour; the last one starts ten minutes later.
    assert told["due_to_start"]["max"] == pytest.approx(610.239)
    assert told["queues"]["reports"]["submissions"] == 3
    assert told["queues"]["reports"]["failed"] == 2
    assert {cause["cause"]: cause["count"] for cause in told["causes"]} == {
        "launch: no such command: <path>": 1,
        "resolve: the deployment's infrastructure document <id> does not exist; choose another one"
        " for the deployment, or give it none to use the agent's default": 1,
        "run: exit 0, before the run was Running": 1,
        "run: killed by SIGKILL": 1,
    }
    assert (told["submitted_again"], told["recovered"], told["agents_started"]) == (1, 2, 3)
    assert (told["put_off"], told["waits"]) == (3, 5)


def test_stats_agree_with_the_list(night: Path) -> None:
    told = json.loads(good("stats", "--json", night, "-q", "reports"))
    rows = listed(night, "-q", "reports")

    assert told["submissions"] == len(rows)
    assert told["waits"] == sum(row["waits"] for row in rows)
    (started,) = [s["seconds"] for r in rows for s in r["states"] if s["state"] == "started"]
    assert told["time_in_state"]["started"]["max"] == started


def test_stats_for_people_fit_on_a_page(night: Path) -> None:
    told = good("stats", night)

    assert told.startswith("12 submissions, 4 failed, 2 open  2026-11-24 02:00:01 to ")
    assert re.search(r"^discovery to start +8 +239 ms +31.2 s", told, re.MULTILINE)
    assert "default            9  2 (22%)" in told
    assert "1  run: killed by SIGKILL  e.g. " in told
    assert good("stats", night, "-q", "nobody") == "no such submissions in this log\n"


# --- time travel -----------------------------------------------------------------------------


def test_show_tells_how_it_stood_at_a_position(night: Path) -> None:
    told = json.loads(good("show", "--json", night, "brave-toad", "--position", 14))

    assert told["steps"][-1]["position"] == 14
    assert told["submission"]["state"] == "resolving"
    assert told["submission"]["owed"] == ["resolve"]
    assert told["records_later"] == 5


def test_show_tells_how_it_stood_at_a_time(night: Path) -> None:
    told = good("show", night, "hungry-bear", "--at", "2026-11-24T02:03Z")

    assert "STARTED" in told.splitlines()[1]
    assert "open for 1 m 00 s so far" in told
    assert "owed  to watch the command" in told
    assert "as it was at 2026-11-24 02:03:00; 12 more records followed" in told


def test_every_position_of_a_run_can_be_gone_back_to(night: Path) -> None:
    whole = json.loads(good("show", "--json", night, "slow-mole"))["steps"]

    for number, step in enumerate(whole, 1):
        position = step["position"]
        told = json.loads(good("show", "--json", night, "slow-mole", "--position", position))
        assert told["steps"] == whole[:number]
        assert told["submission"]["state"] == step["state"]
        assert told["submission"]["owed"] == step["owed"]


def test_a_moment_before_a_run_began_is_said(night: Path) -> None:
    said = refused(2, "show", night, "brave-toad", "--position", 3)

    assert said.endswith("was in the log yet; it began at 2026-11-24 02:00:01.100, position 9\n")
