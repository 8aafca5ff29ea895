"""The views in a log say of every submission what its fold says."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from operator import attrgetter
from typing import Any

import apsw
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.codec import EVENT_TYPES, encode
from events.lifecycle import (
    TRANSITIONS,
    Event,
    OutcomeSettled,
    PendingRefused,
    RunDiscovered,
    State,
    SubmissionCancelled,
    SubmissionFailed,
    Transition,
)
from events.log import ABSENT, Append, Record, Stamp, Tip
from events.memory import MemoryStore
from events.observations import Observation
from events.sql_views import ENTERS
from events.sqlite_file import Identity, make, set_up
from events.submission import fold, what_next
from replay.player import play
from replay.timeline import History, Moment, Timeline
from tests.properties.test_decider_properties import outcomes
from tests.samples.edited import LOG_ID
from tests.samples.make_sample import BEGIN, Recorder, Run, SettableClock, tell_everything

_row = attrgetter(*(field.name for field in attrs.fields(Record)))


@attrs.frozen
class Asked:
    """A log in memory that is asked in SQL."""

    connection: apsw.Connection

    def rows(self, query: str, *parameters: str) -> list[dict[str, Any]]:
        cursor = self.connection.cursor()
        return [
            dict(zip((name for name, *_ in cursor.get_description()), row, strict=True))
            for row in cursor.execute(query, parameters)
        ]


@contextmanager
def as_sql(records: Iterable[Record]) -> Iterator[Asked]:
    """Put records into a log in memory, and be a program that asks it in SQL."""
    with closing(apsw.Connection(":memory:")) as connection:
        set_up(connection)
        make(connection, Identity(LOG_ID, BEGIN.isoformat()), Tip(0, bytes(16)))
        rows = [_row(record) for record in records]
        connection.executemany(f"INSERT INTO records VALUES ({', '.join('?' * 11)})", rows)
        yield Asked(connection)


# --- what the fold says ----------------------------------------------------------------------


def folded(records: list[Record]) -> tuple[list[Timeline], Moment | None]:
    history = History()
    timelines = list(history.follow(records))
    return timelines, history.latest


def expected(timeline: Timeline, now: Moment | None) -> dict[str, Any]:
    """Everything that the view has of a submission, from the fold and what it keeps."""
    submission, run, ending = timeline.submission, timeline.submission.run, timeline.ending
    exited, outcome, confirmed = submission.exited, submission.outcome, submission.confirmed
    assert timeline.began is not None
    return {
        "position": timeline.began.position,
        "stream": timeline.stream,
        "flow_run_id": str(run.flow_run_id),
        "run_name": run.run_name,
        "queue": run.queue,
        "deployment_name": timeline.deployment_name,
        "flow_name": timeline.flow_name,
        "deployment_id": run.deployment_id and str(run.deployment_id),
        "flow_id": run.flow_id and str(run.flow_id),
        "ordinal": run.ordinal,
        "attempt": run.attempt,
        "scheduled_time": run.scheduled_time,
        "launch_key": run.launch_key,
        "state": timeline.state.value,
        "open": int(timeline.is_open),
        "began": timeline.began.recorded_at,
        "ended": timeline.ended and timeline.ended.recorded_at,
        "seconds": pytest.approx(timeline.seconds(now), abs=2e-6),
        "infrastructure_pid": confirmed and confirmed.infrastructure_pid,
        "exit_code": exited and exited.exit_code,
        "failed_step": ending.step if isinstance(ending, SubmissionFailed) else None,
        "reported": outcome and outcome.state_type,
        "server_state": last_server_state(timeline),
        "reason": reason(timeline),
        "recoveries": timeline.recoveries,
        "waits": timeline.waits,
        "waits_seconds": pytest.approx(timeline.waits_seconds),
        "voided_launches": timeline.voided,
        "records": timeline.records,
    }


def last_server_state(timeline: Timeline) -> str | None:
    last: OutcomeSettled | PendingRefused | SubmissionCancelled | None = timeline.settled
    if last is None and isinstance(timeline.ending, PendingRefused | SubmissionCancelled):
        last = timeline.ending
    return None if last is None else last.server_state


def reason(timeline: Timeline) -> str | None:
    match timeline.ending:
        case SubmissionFailed() as failed:
            return failed.error
        case PendingRefused() | SubmissionCancelled() as ending:
            return ending.reason
    exited, outcome = timeline.submission.exited, timeline.submission.outcome
    return (exited and exited.reason) or (outcome and outcome.message) or None


def assert_the_views_say_what_the_fold_says(records: list[Record]) -> None:
    timelines, now = folded(records)
    with as_sql(records) as log:
        told = {each["stream"]: each for each in log.rows("SELECT * FROM submissions")}
        assert told == {timeline.stream: expected(timeline, now) for timeline in timelines}
        for timeline in timelines:
            assert_spans(log, timeline, now)


def assert_spans(log: Asked, timeline: Timeline, now: Moment | None) -> None:
    query = "SELECT * FROM state_spans WHERE stream = ? ORDER BY position"
    spans = log.rows(query, timeline.stream)
    stretches = timeline.all_stretches(now)
    assert [span["state"] for span in spans] == [stretch.state.value for stretch in stretches]
    for span, stretch in zip(spans, stretches, strict=True):
        assert span["seconds"] == pytest.approx(stretch.seconds, abs=2e-6)
    for span, after in itertools.pairwise(spans):
        assert span["ended"] == after["began"]
    assert spans[-1]["ended"] == (timeline.ended and timeline.ended.recorded_at)


# --- the tables they are made from -----------------------------------------------------------


@pytest.mark.parametrize("kind", ENTERS, ids=lambda kind: str(kind.__name__))
def test_a_transition_that_moves_leads_to_one_state_wherever_it_comes_from(
    kind: type[Transition],
) -> None:
    targets = {moves[kind] for moves in TRANSITIONS.values() if kind in moves}

    assert targets == {ENTERS[kind]}


def test_the_views_know_every_field_in_its_present_schema_only() -> None:
    """Who raises a schema has to make the views read the old fields as well."""
    assert {kind.SCHEMA for kind in EVENT_TYPES.values()} == {1}


# --- the views -------------------------------------------------------------------------------


def night() -> list[Record]:
    clock = SettableClock()
    store = MemoryStore(LOG_ID, clock)
    tell_everything(Recorder(store, clock))
    return list(store.read_all())


def test_of_a_night_in_which_everything_happens() -> None:
    assert_the_views_say_what_the_fold_says(night())


def family(kind: type[Event]) -> str:
    if issubclass(kind, Transition):
        return "transition"
    return "observation" if issubclass(kind, Observation) else "notice"


def test_events_have_their_family_and_the_state_after_them() -> None:
    records = night()

    with as_sql(records) as log:
        told = log.rows("SELECT * FROM events ORDER BY position")

    for row, step in zip(told, play(records), strict=True):
        record, state = step.record, step.after.state.value
        assert row == {
            "position": record.position,
            "stream": record.stream,
            "version": record.version,
            "recorded_at": record.recorded_at,
            "family": family(EVENT_TYPES[record.type]),
            "type": record.type,
            "state": None if state == "absent" else state,
            "cause": record.cause,
            "closes": int(record.closes),
            "data": record.data,
        }


def test_every_event_there_is_has_a_family() -> None:
    records = night()
    with as_sql(()) as log:
        for position, name in enumerate(EVENT_TYPES, start=1):
            row = _row(attrs.evolve(records[0], position=position, version=position, type=name))
            log.connection.execute(f"INSERT INTO records VALUES ({', '.join('?' * 11)})", row)

        unknown = log.rows("SELECT type FROM events WHERE family = 'unknown'")

    assert unknown == []


@attrs.define
class UnsteadyClock(SettableClock):
    """A clock whose wall may be set while the host is up."""

    wrong_by: float = 0.0

    def __call__(self) -> Stamp:
        wall = BEGIN + timedelta(seconds=self.seconds + self.wrong_by)
        return Stamp(
            wall.isoformat(timespec="microseconds"), round((self.seconds - self.booted_at) * 1e9)
        )


@settings(max_examples=60)
@given(st.data())
def test_of_any_life_with_restarts_reboots_and_a_wall_clock_that_is_set(
    data: st.DataObject,
) -> None:
    """Whatever submissions go through, together, the views agree with their folds."""
    clock = UnsteadyClock()
    store = MemoryStore(LOG_ID, clock)
    recorder = Recorder(store, clock)
    runs = [Run(name, queue) for name, queue in (("a", "x"), ("b", "y"), ("c", "x"))]
    boot = 0
    recorder.start_agent("boot 0")
    for _step in range(data.draw(st.integers(1, 30))):
        clock.seconds += data.draw(st.sampled_from([0.0, 1e-6, 0.25, 40.0, 86_400.0]))
        match data.draw(st.integers(0, 12)):
            case 0:
                recorder.start_agent(f"boot {boot}")
            case 1:
                boot += 1
                clock.seconds += 6.0
                clock.booted_at = clock.seconds - 5.0
                recorder.start_agent(f"boot {boot}")
            case 2:
                clock.wrong_by += data.draw(st.sampled_from([-7200.0, -0.5, 0.5, 3600.0]))
            case _:
                go_on(data, recorder, data.draw(st.sampled_from(runs)))

    assert_the_views_say_what_the_fold_says(list(store.read_all()))


def go_on(data: st.DataObject, recorder: Recorder, run: Run) -> None:
    submission = recorder.folds.get(run.stream)
    if submission is None:
        recorder.observe(run.stream, run.offered())
        return
    if owed := what_next(submission):
        seen = data.draw(outcomes(data.draw(st.sampled_from(owed)), submission))
        recorder.observe(run.stream, seen)


@st.composite
def walks(draw: st.DrawFn) -> list[Event]:
    """Any legal way through the table, with anything in the events."""
    walk: list[Event] = [draw(st.from_type(RunDiscovered))]
    state = State.DISCOVERED
    for _step in range(draw(st.integers(0, 15))):
        moves = TRANSITIONS[state]
        if not moves:
            break
        kind = draw(st.sampled_from(sorted(moves, key=lambda kind: kind.__name__)))
        walk.append(draw(st.from_type(kind)))
        state = moves[kind]
    return walk


@settings(max_examples=60)
@given(walks())
def test_of_any_legal_way_even_one_that_the_decider_never_takes(walk: list[Event]) -> None:
    store = MemoryStore(LOG_ID, SettableClock())
    closes = fold(walk).is_closed
    drafts = [encode(event) for event in walk]
    store.commit([Append("stream", ABSENT, drafts, closes=closes)])

    assert_the_views_say_what_the_fold_says(list(store.read_all()))
