"""Which submissions a report shows: the newest that touch a span of time, found without decoding.

The first of a report's two passes over a log. It holds the open submissions and as many as will be
shown, whatever the length of the log.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import attrs

from events.log import Record
from events.notices import AGENT_STREAM
from replay.timeline import Agents, Moment

NEWEST: Final = 20_000
"""So many submissions are shown where nothing else is asked for: a browser stays fluent."""

MOST_NOTICES: Final = 5_000
"""Of the agent's own notices, the last so many are kept."""

_EARLIEST: Final = ""
_LATEST: Final = "~"


@attrs.frozen
class Wanted:
    """What a person asked for.

    Attributes:
        newest: at most so many submissions, the last that began.
        since, until: only submissions that lived at some time between; UTC.
    """

    newest: int = NEWEST
    since: datetime | None = None
    until: datetime | None = None


@attrs.frozen
class Selection:
    """What will be shown, and what is needed to make sense of it.

    Attributes:
        streams: of the submissions that are shown.
        left_out: how many older ones touch the span of time, but are more than were wanted.
        first: the position from which the second pass has to read.
        last: where the log ended; what is written meanwhile is not shown.
        agents: all that ever wrote this log, for its clocks.
        notices: what happened to them, the last of it.
    """

    streams: frozenset[str]
    left_out: int
    first: int
    last: Moment | None
    agents: Agents
    notices: Sequence[Record]


def select(records: Iterable[Record], wanted: Wanted) -> Selection:
    """Choose the submissions for a report from all records of a log, in order."""
    chosen = _Newest(wanted.newest)
    since, until = _text(wanted.since, _EARLIEST), _text(wanted.until, _LATEST)
    began: dict[str, tuple[int, str]] = {}
    agents = Agents(())
    notices: deque[Record] = deque(maxlen=MOST_NOTICES)
    last: Record | None = None
    for record in records:
        last = record
        if record.stream == AGENT_STREAM:
            agents.follow(record)
            notices.append(record)
            continue
        begin = began.setdefault(record.stream, (record.position, record.recorded_at))
        if record.closes:
            del began[record.stream]
            if record.recorded_at >= since and begin[1] <= until:
                chosen.add(begin[0], record.stream)
    for stream, (position, at) in began.items():
        if at <= until:
            chosen.add(position, stream)
    streams = chosen.streams
    first = min(streams.values(), default=0)
    end = Moment.of(last) if last else None
    return Selection(frozenset(streams), chosen.left_out, first, end, agents, notices)


def _text(moment: datetime | None, otherwise: str) -> str:
    """Return a moment as the log writes it, so that texts can be compared."""
    if moment is None:
        return otherwise
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


class _Newest:
    """Keeps so many streams that began last, and counts the others."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[tuple[int, str]] = []
        self.left_out = 0

    def add(self, position: int, stream: str) -> None:
        if len(self._kept) < self._limit:
            heapq.heappush(self._kept, (position, stream))
            return
        heapq.heappushpop(self._kept, (position, stream))
        self.left_out += 1

    @property
    def streams(self) -> dict[str, int]:
        return {stream: position for position, stream in self._kept}
