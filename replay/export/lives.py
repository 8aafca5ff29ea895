"""Submissions as spans of time, for the formats that draw them. Pure.

A log has two clocks and they disagree; tools that draw want one that never goes back. Here each
submission begins by the wall clock, and goes on by the clock that `replay.timeline` trusts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import attrs

from events.codec import EVENT_TYPES
from events.lifecycle import TRANSITIONS, State, Transition
from events.log import Record
from replay.selection import Selection
from replay.timeline import Moment, Timeline


@attrs.frozen
class Span:
    """A state that a submission was in, with what was recorded while it was.

    Attributes:
        version: of the record that led to it; 0 for what came before the first state.
        begin, end: nanoseconds since 1970, never going back within a submission.
        records: each with its time. The one that led out of the state is the last of them.
    """

    state: State
    version: int
    begin: int
    end: int
    records: Sequence[tuple[int, Record]]


@attrs.frozen
class Life:
    """One submission from its beginning to its end, or to the end of the log.

    Attributes:
        spans: its states, in order; the first is that of an empty stream, and takes no time.
    """

    timeline: Timeline
    spans: Sequence[Span]

    @property
    def begin(self) -> int:
        """When it began, in nanoseconds since 1970."""
        return self.spans[0].begin

    @property
    def end(self) -> int:
        """When it ended, or the log did."""
        return self.spans[-1].end


def lives(selection: Selection) -> Iterator[Life]:
    """Yield the submissions that are wanted, in the order in which they began."""
    for timeline, records in selection.with_records():
        yield life_of(timeline, records, selection.now)


def life_of(timeline: Timeline, records: Sequence[Record], now: Moment | None) -> Life:
    """Tell a submission's life.

    Args:
        timeline: what the records fold to.
        records: at least one.
        now: the end of the log, up to which an open submission is drawn.
    """
    times = _times(timeline, records)
    spans: list[Span] = []
    state, version, begin = State.ABSENT, 0, times[0]
    during: list[tuple[int, Record]] = []
    for time, record in zip(times, records, strict=True):
        during.append((time, record))
        after = state_after(state, record)
        if after is not state:
            spans.append(Span(state, version, begin, time, during))
            state, version, begin, during = after, record.version, time, []
    end = times[-1]
    if timeline.is_open and now is not None:
        end = max(end, _time_of(timeline, records[0], now))
    return Life(timeline, [*spans, Span(state, version, begin, end, during)])


def state_after(state: State, record: Record) -> State:
    """Return where a record leads by the table alone; what is not legal leads nowhere."""
    kind = EVENT_TYPES.get(record.type)
    if kind is None or not issubclass(kind, Transition):
        return state
    return TRANSITIONS[state].get(kind, state)


def _times(timeline: Timeline, records: Sequence[Record]) -> list[int]:
    times = [wall_nanoseconds(Moment.of(records[0]))]
    for record in records[1:]:
        # A wall clock that was set back while the host was down takes nobody back.
        times.append(max(times[-1], _time_of(timeline, records[0], Moment.of(record))))
    return times


def _time_of(timeline: Timeline, first: Record, moment: Moment) -> int:
    began = Moment.of(first)
    seconds = timeline.agents.seconds_between(began, moment)
    return wall_nanoseconds(began) + (0 if math.isnan(seconds) else round(seconds * 1e9))


def wall_nanoseconds(moment: Moment) -> int:
    """Return what the wall clock said, in nanoseconds since 1970; 0 where it can't be read."""
    seconds = moment.wall_seconds
    # In two steps: a number of this size has no nanoseconds, but its microseconds are exact.
    return 0 if math.isnan(seconds) else round(seconds * 1e6) * 1000
