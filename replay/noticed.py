"""Which notices another setting would have led to: runs left alone, submissions said to be overdue.

Neither is a decision of the decider: the agent says them beside it. Each class here follows a log,
record by record, and keeps what would have been otherwise. Pure; `replay check` uses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import attrs

from events.codec import EVENT_TYPES, UndecodableRecord, decode
from events.lifecycle import ON_THE_WAY, TRANSITIONS, State, Transition
from events.log import Record
from events.notices import AGENT_STREAM, RunLeftAlone, SubmissionOverdue
from events.observations import AgentRestarted
from replay.timeline import Agents, Moment
from replay.words import duration

KEPT: Final = 5
"""How many notices of a kind are kept as examples."""


@attrs.define
class Notices:
    """Notices of one kind that would have been said, or would not have been.

    Attributes:
        examples: position, stream or flow run, and what there is to say about it.
    """

    kind: str
    count: int = 0
    examples: list[tuple[int, str, str]] = attrs.field(factory=list)

    def add(self, position: int, about: str, words: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.examples) < KEPT:
            self.examples.append((position, about, words))


class Watcher(Protocol):
    """Follows a log and keeps notices."""

    def follow(self, record: Record) -> None:
        """Take the next record."""
        ...

    def finish(self) -> list[Notices]:
        """Return what would have been otherwise."""
        ...


def watched(records: Iterable[Record], watchers: Iterable[Watcher]) -> Iterator[Record]:
    """Yield records after each watcher has seen them."""
    watchers = list(watchers)
    for record in records:
        for watcher in watchers:
            watcher.follow(record)
        yield record


class Claimed:
    """Finds runs that were left alone as too late, and would not be with another `--max-late`."""

    def __init__(self, max_late_seconds: float) -> None:
        self._max_late = max_late_seconds
        self._notices = Notices("claimed instead of RunLeftAlone")

    def follow(self, record: Record) -> None:
        """Take the next record."""
        if record.type != RunLeftAlone.__name__:
            return
        try:
            notice = decode(record)
        except UndecodableRecord:
            return
        if isinstance(notice, RunLeftAlone) and notice.late_seconds <= self._max_late:
            words = f"{notice.run_name}, late by {duration(notice.late_seconds)}"
            self._notices.add(record.position, str(notice.flow_run_id), words)

    def finish(self) -> list[Notices]:
        """Return what would have been otherwise."""
        return [self._notices]


class Overdue:
    """Finds which submissions would be said to be overdue with another `--overdue-after`.

    An agent looks every few seconds and knows only what it saw itself, so a restart begins anew;
    the log tells by when a state was entered and left.
    """

    def __init__(self, after_seconds: float) -> None:
        self._after = after_seconds
        self._agents = Agents(())
        self._states: dict[str, tuple[State, Moment]] = {}
        self._told: set[tuple[str, str]] = set()
        self._latest: Moment | None = None
        self._more = Notices("SubmissionOverdue in addition")
        self._fewer = Notices("no SubmissionOverdue")

    def follow(self, record: Record) -> None:
        """Take the next record."""
        self._latest = Moment.of(record)
        if record.stream == AGENT_STREAM:
            self._agents.follow(record)
            self._note_told(record)
            return
        state, since = self._states.get(record.stream, (State.ABSENT, self._latest))
        event_class = EVENT_TYPES.get(record.type)
        after = state
        if event_class is not None and issubclass(event_class, Transition):
            after = TRANSITIONS[state].get(event_class, state)
        if after is not state or event_class is AgentRestarted:
            self._leave(record.stream, state, since, self._latest)
            since = self._latest
        self._states[record.stream] = after, since
        if record.closes:
            del self._states[record.stream]

    def finish(self) -> list[Notices]:
        """Return what would have been otherwise."""
        if self._latest is not None:
            for stream, (state, since) in self._states.items():
                self._leave(stream, state, since, self._latest)
        return [self._more, self._fewer]

    def _note_told(self, record: Record) -> None:
        if record.type != SubmissionOverdue.__name__:
            return
        try:
            notice = decode(record)
        except UndecodableRecord:
            return
        if isinstance(notice, SubmissionOverdue):
            self._told.add((notice.submission, notice.state.value))

    def _leave(self, stream: str, state: State, since: Moment, now: Moment) -> None:
        if state not in ON_THE_WAY:
            return
        told = (stream, state.value) in self._told
        self._told.discard((stream, state.value))
        seconds = self._agents.seconds_between(since, now)
        overdue = seconds >= self._after
        if overdue == told:
            return
        words = f"{state.name} for {duration(seconds)}"
        (self._more if overdue else self._fewer).add(since.position, stream, words)
