"""What a report is made of: which submissions are chosen, and what is told of each."""

from __future__ import annotations

import gzip
import json
import math
from base64 import b64decode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.log import Record
from events.memory import MemoryStore
from replay.player import play
from replay.report.contents import FIELDS, IGNORED, TROUBLE, Contents
from replay.report.page import page
from replay.report.selection import Selection, Wanted, select
from tests.samples.edited import LOG_ID, record, with_fields
from tests.samples.make_sample import (
    BEGIN,
    Recorder,
    Run,
    SettableClock,
    good_run,
    still_running,
    tell_everything,
)

LYNX, TOAD, HERON = Run("quiet-lynx"), Run("brave-toad"), Run("shy-heron")


def night() -> Sequence[Record]:
    clock = SettableClock()
    store = MemoryStore(LOG_ID, clock)
    tell_everything(Recorder(store, clock))
    return list(store.read_all())


def contents(records: Sequence[Record], wanted: Wanted | None = None) -> Contents:
    made = Contents(select(records, wanted or Wanted()))
    made.follow(records)
    return made


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def names(selection: Selection) -> set[str]:
    runs = {run.stream: run.name for run in (LYNX, TOAD, HERON)}
    return {runs[stream] for stream in selection.streams}


# --- selection -----------------------------------------------------------------------------------

THREE = record(good_run(LYNX, 0.0, 10.0), good_run(TOAD, 20.0, 60.0), still_running(HERON, 50.0))


@pytest.mark.parametrize(
    ("since", "until", "chosen"),
    [
        (None, None, {"quiet-lynx", "brave-toad", "shy-heron"}),
        (at(11.0), None, {"brave-toad", "shy-heron"}),
        (None, at(30.0), {"quiet-lynx", "brave-toad"}),
        (at(12.0), at(15.0), set()),
        (at(70.0), at(75.0), {"brave-toad", "shy-heron"}),
        (at(90.0), None, {"shy-heron"}),
        (at(90.0).astimezone(UTC), at(95.0), {"shy-heron"}),
    ],
)
def test_what_lived_at_some_time_between_is_chosen(
    since: datetime | None, until: datetime | None, chosen: set[str]
) -> None:
    assert names(select(THREE, Wanted(since=since, until=until))) == chosen


def test_of_too_many_those_that_began_last_are_chosen_whenever_they_ended() -> None:
    selection = select(THREE, Wanted(newest=2))

    assert names(selection) == {"brave-toad", "shy-heron"}
    assert selection.left_out == 1
    assert selection.first == next(r.position for r in THREE if r.stream == TOAD.stream)


def test_what_is_written_meanwhile_is_not_shown() -> None:
    before = [r for r in THREE if r.recorded_at < at(60.0).isoformat()]
    made = Contents(select(before, Wanted()))

    made.follow(THREE)

    toad = next(each for each in made.submissions if each["id"] == TOAD.stream)
    assert toad["open"]
    assert sum(len(each["events"]) for each in made.submissions) == FIELDS * len(before)


@given(st.integers(1, 15))
def test_only_so_many_are_chosen_and_the_others_are_counted(newest: int) -> None:
    selection = select(night(), Wanted(newest=newest))

    assert len(selection.streams) == min(newest, 12)
    assert len(selection.streams) + selection.left_out == 12


# --- contents ------------------------------------------------------------------------------------


def test_every_event_is_there_with_its_position_its_time_and_its_state() -> None:
    records = night()
    made = contents(records)
    types = made.types.all()
    states = made.as_object("")["states"]
    steps = {step.record.position: step for step in play(records)}

    for submission in made.submissions:
        position, elapsed, events = submission["position"], 0.0, submission["events"]
        for index in range(0, len(events), FIELDS):
            ahead, since, type_, state, _kind, _text = events[index : index + FIELDS]
            position, elapsed = position + ahead, elapsed + since / 10
            drift = submission["drifts"][index // FIELDS] if submission["drifts"] else 0
            step = steps.pop(position)
            assert types[type_] == step.record.type
            assert states[state] == step.after.state.value
            wall = datetime.fromisoformat(step.record.recorded_at).timestamp() * 1000
            assert submission["began"] + elapsed + drift == pytest.approx(wall, abs=2.0)
    assert {step.record.stream for step in steps.values()} == {"agent"}


def test_states_last_as_long_as_the_whole() -> None:
    for submission in contents(night()).submissions:
        assert math.isclose(sum(submission["stretches"][1::2]), submission["took"], abs_tol=1.0)


def test_a_text_is_kept_once() -> None:
    made = contents(night())

    assert len(set(made.texts.all())) == len(made.texts.all())


def test_an_observation_that_led_to_nothing_is_marked() -> None:
    late = (70.0, LYNX, LYNX.claimed())
    with_late = contents(record([*still_running(LYNX, 1.0), late]))

    assert kinds(with_late)[-1] == IGNORED
    assert kinds(contents(record(good_run(LYNX, 1.0)))).count(IGNORED) == 0


def kinds(made: Contents) -> list[int]:
    (submission,) = made.submissions
    return list(submission["events"][4::FIELDS])


def test_a_record_that_can_not_be_read_says_why_in_its_place() -> None:
    records = list(record(good_run(LYNX, 1.0)))
    index = next(i for i, r in enumerate(records) if r.type == "PendingAccepted")
    records[index] = with_fields(records[index], state_id="nonsense")

    made = contents(records)

    (submission,) = made.submissions
    text = made.texts.all()[submission["events"][index * FIELDS + 5]]
    assert kinds(made)[index] == TROUBLE
    assert text.startswith("can't decode a PendingAccepted record")
    assert submission["style"] == "bad"


def test_times_that_are_none_do_not_end_it() -> None:
    records = [attrs.evolve(r, recorded_at="yesterday") for r in record(good_run(LYNX, 1.0))]

    (submission,) = contents(records).submissions

    assert (submission["began"], submission["took"]) == (0.0, 0.0)
    json.dumps(submission, allow_nan=False)


def test_what_controls_a_terminal_or_turns_text_around_is_made_visible() -> None:
    name = "\u202etxt.exe\x1b[2J\x00"

    made = contents(record(good_run(Run(name), 1.0)))

    assert made.texts.all()[made.submissions[0]["name"]] == r"\u202etxt.exe\x1b[2J\x00"


# --- the page ------------------------------------------------------------------------------------


@given(st.text())
def test_the_contents_come_out_of_the_page_as_they_went_in(title: str) -> None:
    title = title.encode("utf-8", "replace").decode()

    document = page({"title": title, "texts": [title]})

    inside = document.split('id="contents">')[1].split("</script>")[0]
    assert json.loads(gzip.decompress(b64decode(inside))) == {"title": title, "texts": [title]}
    assert document.count("<script") == document.count("</script>") == 2
