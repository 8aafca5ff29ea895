"""Finds the submission to compare another with: near to it in time, and gone the other way.

`replay diff RUN` asks why this one failed and its neighbour did not. The log is read outwards from
the one, in ever wider windows, so that a neighbour is found without reading a long log.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import orjson

from events.lifecycle import RunDiscovered, State
from events.log import LogReader, Record
from events.notices import AGENT_STREAM
from replay.summary import outcome
from replay.timeline import Agents, Timeline

FIRST_WINDOW: Final = 2_000
"""Records on either side that are read first."""

MOST_LOOKED_AT: Final = 5_000
"""A log in which nothing ever fails has no neighbour for one that went well; this many of the
nearest are looked at before that is said, which takes a second or two."""


def neighbour(reader: LogReader, stream: str) -> str | None:
    """Return the nearest submission of the same deployment that went the other way.

    One that went well is compared with one that did not, and any other with one that went well.
    Where the deployment has none, or there is none, those of the same queue are looked at.
    """
    own = _timeline(reader, stream)
    run, began = own.submission.discovered, own.began
    if run is None or began is None:
        return None
    wants_good = not _went_well(own)
    by = ["deployment_id", "queue"] if run.deployment_id else ["queue"]
    for field in by:
        wanted = getattr(run, field)
        wanted = wanted if isinstance(wanted, str) else str(wanted)
        others = _outwards(reader, began.position, field, wanted)
        for other in itertools.islice(others, MOST_LOOKED_AT):
            if other == stream:
                continue
            timeline = _timeline(reader, other)
            if _went_well(timeline) if wants_good else _went_badly(timeline):
                return other
    return None


def _timeline(reader: LogReader, stream: str) -> Timeline:
    timeline = Timeline(stream, Agents(()))
    for record in reader.read_stream(stream):
        timeline.follow(record)
    return timeline


def _went_well(timeline: Timeline) -> bool:
    return timeline.state is State.EXITED and outcome(timeline)[1] == "good"


def _went_badly(timeline: Timeline) -> bool:
    return outcome(timeline)[1] == "bad"


def _outwards(reader: LogReader, position: int, field: str, value: str) -> Iterator[str]:
    """Yield streams whose run has a value in a field, nearest first."""
    last, window, seen = reader.last_position(), FIRST_WINDOW, 0
    while True:
        around = _discovered(reader, position - window, position + window)
        found = [
            (abs(record.position - position), record.stream)
            for record in around
            if abs(record.position - position) >= seen and _has(record, field, value)
        ]
        yield from (stream for _distance, stream in sorted(found))
        if window >= max(position, last - position):
            return
        seen, window = window + 1, window * 8


def _discovered(reader: LogReader, first: int, last: int) -> Iterator[Record]:
    records = reader.read_all(max(first - 1, 0))
    within = itertools.takewhile(lambda record: record.position <= last, records)
    return (r for r in within if r.type == RunDiscovered.__name__ and r.stream != AGENT_STREAM)


def _has(record: Record, field: str, value: str) -> bool:
    try:
        return bool(orjson.loads(record.data).get(field) == value)
    except (ValueError, AttributeError):
        return False
