"""The busy night that reports and statistics are tried on: sound, varied, and always the same."""

from __future__ import annotations

from collections.abc import Sequence

from events.log import Record
from events.memory import MemoryStore
from events.notices import AGENT_STREAM
from replay.causes import cause_of
from replay.timeline import History
from tests.samples.busy_night import tell_busy_night
from tests.samples.edited import LOG_ID
from tests.samples.make_sample import Recorder, SettableClock


def night(number: int, seed: int) -> Sequence[Record]:
    clock = SettableClock()
    store = MemoryStore(LOG_ID, clock)
    tell_busy_night(Recorder(store, clock), number, seed)
    return list(store.read_all())


def test_a_busy_night_holds_what_a_report_has_to_show() -> None:
    records = night(1_000, 7)
    timelines = list(History().follow(records))

    assert len(timelines) >= 1_000
    assert len({cause_of(t) for t in timelines}) > 5
    assert any(t.is_open for t in timelines)
    assert any(t.recoveries for t in timelines)
    assert any(t.submission.run.ordinal == 2 for t in timelines)
    assert {r.type for r in records if r.stream == AGENT_STREAM} == {
        "AgentStarted",
        "AgentStopped",
        "PollingFailed",
        "PollingResumed",
        "QueueCreated",
    }


def test_the_same_seed_makes_the_same_night() -> None:
    assert night(60, 3) == night(60, 3)
    assert night(60, 3) != night(60, 4)
