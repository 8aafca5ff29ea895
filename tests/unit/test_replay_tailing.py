"""`replay tail` without a terminal: entries from any place in a log, filters, what is kept."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.lifecycle import Event, State
from events.log import Record
from events.memory import MemoryStore
from events.notices import AGENT_STREAM
from replay.player import play
from replay.screen import cells, open_screen
from replay.severity import is_never_wrong, severity
from replay.tail_lines import Lines, _fitted
from replay.tailing import (
    Tail,
    Wanted,
    entry_object,
    position_before,
    position_before_last,
    records_of,
)
from tests.properties.strategies import events
from tests.samples.edited import LOG_ID, RecordsReader
from tests.samples.make_sample import BEGIN, Recorder, Run, SettableClock, tell_everything

LYNX, TOAD, OTTER = Run("quiet-lynx"), Run("brave-toad"), Run("ancient-otter")
OTTER_2 = attrs.evolve(OTTER, ordinal=2)


def a_night() -> list[Record]:
    clock = SettableClock()
    store = MemoryStore(LOG_ID, clock)
    tell_everything(Recorder(store, clock))
    return list(store.read_all())


NIGHT = a_night()
READER = RecordsReader(NIGHT)
LAST = len(NIGHT)


def shown(wanted: Wanted) -> list[int]:
    """Return the positions that are shown."""
    tail = Tail(READER)
    entries = [tail.take(record) for record in NIGHT]
    return [entry.step.record.position for entry in entries if wanted.wants(entry)]


@given(st.integers(0, LAST))
def test_a_tail_that_begins_anywhere_tells_the_same_as_one_from_the_beginning(after: int) -> None:
    whole, late = Tail(READER), Tail(READER)
    entries = [whole.take(record) for record in NIGHT][after:]

    assert [late.take(record) for record in NIGHT[after:]] == entries


def test_only_open_submissions_are_kept() -> None:
    tail = Tail(READER)
    for record in NIGHT:
        tail.take(record)

    assert set(tail.underway) == set(READER.open_streams()) - {AGENT_STREAM}


def test_a_stream_whose_beginning_was_archived_in_the_moment_is_shown_without_a_state() -> None:
    records = [r for r in NIGHT if r.stream == LYNX.stream]
    tail = Tail(RecordsReader(records[6:]))

    entry = tail.take(records[6])

    assert not entry.placed
    assert entry_object(entry)["state"] is None
    assert entry_object(entry)["trouble"] is None
    assert (entry.severity, entry.who.name) == ("", None)


def test_a_record_that_breaks_the_rules_says_so() -> None:
    stray = next(r for r in NIGHT if r.type == "LaunchConfirmed")
    tail = Tail(RecordsReader([]))

    entry = tail.take(attrs.evolve(stray, version=1))

    assert entry.words.startswith("LaunchConfirmed is not legal in ABSENT")
    assert entry.severity == "bad"


def test_without_filters_everything_is_shown() -> None:
    assert shown(Wanted()) == [record.position for record in NIGHT]


@pytest.mark.parametrize(
    ("run", "streams"),
    [
        ("ancient-otter", {OTTER.stream, OTTER_2.stream}),
        ("ancient-otter/2", {OTTER_2.stream}),
        ("ancient-otter/1", {OTTER.stream}),
        (str(OTTER.flow_run_id), {OTTER.stream, OTTER_2.stream}),
        (OTTER.flow_run_id.hex[:12].upper(), {OTTER.stream, OTTER_2.stream}),
        (str(OTTER.flow_run_id)[:6] + "/2", {OTTER_2.stream}),
        ("agent", {AGENT_STREAM}),
        ("nobody", set()),
    ],
)
def test_a_run_is_picked_by_name_id_and_prefix(run: str, streams: set[str]) -> None:
    expected = [r.position for r in NIGHT if r.stream in streams]
    assert shown(Wanted(runs=(run,))) == expected


def test_a_name_with_a_slash_is_not_taken_for_a_submission_of_another_run() -> None:
    clock = SettableClock()
    store = MemoryStore(LOG_ID, clock)
    Recorder(store, clock).observe(Run("etl/2").stream, Run("etl/2").offered())
    records = list(store.read_all())
    tail = Tail(RecordsReader(records))
    entries = [tail.take(record) for record in records]

    assert not any(Wanted(runs=("etl",)).wants(entry) for entry in entries)
    assert all(Wanted(runs=("etl/2",)).wants(entry) for entry in entries)


def test_a_queue_picks_the_submissions_from_it_and_nothing_of_the_agents() -> None:
    types = {NIGHT[p - 1].stream for p in shown(Wanted(queues=("reports",)))}

    names = ("nightly-report", "hungry-bear", "unlucky-ant")
    assert types == {Run(name, "reports").stream for name in names}


def test_transitions_are_what_was_decided() -> None:
    expected = [step.record.position for step in play(NIGHT) if step.kind == "transition"]

    assert shown(Wanted(transitions=True)) == expected


def test_failed_shows_what_goes_wrong_and_nothing_of_runs_that_went_well() -> None:
    failed = [NIGHT[position - 1] for position in shown(Wanted(failed=True))]

    assert not [r for r in failed if r.stream in (LYNX.stream, OTTER_2.stream)]
    assert {"ResolutionFailed", "SubmissionFailed"} <= {
        r.type for r in failed if r.stream == TOAD.stream
    }
    assert [r.type for r in failed if r.stream == AGENT_STREAM] == ["PollingFailed"]


@given(events())
def test_a_type_that_is_never_wrong_has_no_event_that_is(event: Event) -> None:
    if is_never_wrong(type(event).__name__):
        assert severity(event) == ""


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(),
        Wanted(failed=True),
        Wanted(transitions=True),
        Wanted(queues=("reports",)),
        Wanted(runs=("slow-mole",)),
        Wanted(runs=("agent",), failed=True),
    ],
)
@given(count=st.integers(0, 40), end=st.integers(0, LAST), floor=st.integers(0, 60))
def test_going_back_finds_where_the_last_wanted_ones_begin(
    wanted: Wanted, count: int, end: int, floor: int
) -> None:
    before = [p for p in shown(wanted) if floor < p <= end]

    after = position_before_last(READER, count, wanted, end=end, floor=floor)

    expected = before[len(before) - count :] if count <= len(before) else before
    assert [p for p in before if p > after] == expected


@given(st.floats(-5, 700))
def test_a_moment_is_found_by_halving(seconds: float) -> None:
    moment = BEGIN + timedelta(seconds=seconds)
    earlier = [r for r in NIGHT if datetime.fromisoformat(r.recorded_at) < moment]

    assert position_before(READER, moment) == len(earlier)


def test_the_records_of_some_runs_come_in_the_order_of_the_log() -> None:
    streams = [TOAD.stream, LYNX.stream]

    positions = [r.position for r in records_of(READER, streams, 40)]

    assert positions == [r.position for r in NIGHT[:40] if r.stream in streams]


def lines(records: Sequence[Record]) -> list[str]:
    out = io.StringIO()
    printer, tail = Lines(open_screen(out)), Tail(READER)
    for record in records:
        printer.print(tail.take(record))
    return out.getvalue().splitlines()


def test_each_record_is_one_line_whatever_is_in_it() -> None:
    assert len(lines(NIGHT)) == len(NIGHT)


@given(st.integers(0, 60), st.text(max_size=40), st.text(max_size=40))
def test_a_line_is_never_wider_than_the_terminal(width: int, first: str, second: str) -> None:
    fitted = _fitted([(first, ""), (second, "bad")], width)

    assert sum(cells(text) for text, _style in fitted) <= width


def test_the_state_is_in_capitals_when_it_has_just_changed() -> None:
    records = [r for r in NIGHT if r.stream == LYNX.stream]
    states = [line.split()[4] for line in lines(records)[1:3]]

    assert states == [State.DISCOVERED.value.upper(), State.DISCOVERED.value]
