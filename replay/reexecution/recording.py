"""A recorded stream as something to be lived again: its entries, and the agents' lives in it.

Pure. A life is what one agent wrote of the stream: it begins with the offer of the run, or with
the restart by which the agent took it over, and ends with the next restart or with the record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import attrs

from events.codec import UndecodableRecord, decode
from events.lifecycle import Effect, Event, RunDiscovered, Transition
from events.log import Record
from events.observations import (
    AgentRestarted,
    CommandEnded,
    CommandRefused,
    CommandStarted,
    EvidenceFound,
    InfrastructureResolved,
    LaunchUncertain,
    Observation,
    PidAcknowledged,
    ProposalAnswered,
    RequestFailed,
    ResolutionFailed,
    RunMissing,
    RunOffered,
    RunRead,
)
from replay.timeline import Agents, AgentStart

E = TypeVar("E", bound=Event)


class NotReexecutable(Exception):
    """A stream that can't be lived again. One line: which record, and why."""


@attrs.frozen
class Entry:
    """One record of the stream.

    Attributes:
        index: of it in the stream, from 0.
        due: seconds between the first record of its life and it.
    """

    index: int
    record: Record
    event: Event
    due: float


@attrs.frozen
class Life:
    """What one agent wrote of the stream.

    Attributes:
        agent: which one, where it introduced itself.
        entries: at least one.
    """

    agent: AgentStart | None
    entries: Sequence[Entry]

    @property
    def first(self) -> int:
        """The index of its first entry."""
        return self.entries[0].index

    @property
    def end(self) -> int:
        """The index after that of its last entry."""
        return self.entries[-1].index + 1

    def of_type(self, kind: type[E], after: int = 0) -> Iterator[E]:
        """Yield its events of a type, from an index on."""
        for entry in self.entries:
            if entry.index >= after and isinstance(entry.event, kind):
                yield entry.event


@attrs.frozen
class Recording:
    """A whole stream.

    Attributes:
        offer: the observation that opens it.
        discovered: what followed from that.
    """

    stream: str
    entries: Sequence[Entry]
    lives: Sequence[Life]
    offer: RunOffered
    discovered: RunDiscovered

    @property
    def is_closed(self) -> bool:
        """Whether the record says that nothing follows."""
        return self.entries[-1].record.closes


def read_recording(stream: str, records: Sequence[Record], agents: Agents) -> Recording:
    """Make a recording of a stream's records.

    Raises:
        NotReexecutable: this release can't read one of them, or they do not begin as a submission
            does.
    """
    events = [_event(record) for record in records]
    match events[:2]:
        case [RunOffered() as offer, RunDiscovered() as discovered]:
            pass
        case _:
            begins = " and ".join(record.type for record in records[:2]) or "nothing"
            raise NotReexecutable(
                f"{stream} can't be lived again: a submission begins with RunOffered and"
                f" RunDiscovered, and this stream with {begins}"
            )
    entries: list[Entry] = []
    began = records[0]
    for index, (record, event) in enumerate(zip(records, events, strict=True)):
        if isinstance(event, AgentRestarted):
            began = record
        due = (record.monotonic_ns - began.monotonic_ns) / 1e9
        entries.append(Entry(index, record, event, due))
    return Recording(stream, entries, list(_lives(entries, agents)), offer, discovered)


def effect_behind(event: Event) -> Effect | None:
    """Return the effect that an observation is the result of; None when it came by itself."""
    match event:
        case ProposalAnswered() | RunMissing() | RequestFailed():
            return event.effect
        case _:
            return _EFFECTS.get(type(event))


_EFFECTS: dict[type[Event], Effect] = {
    RunRead: Effect.READ_RUN,
    InfrastructureResolved: Effect.RESOLVE,
    ResolutionFailed: Effect.RESOLVE,
    CommandStarted: Effect.LAUNCH,
    CommandRefused: Effect.LAUNCH,
    LaunchUncertain: Effect.LAUNCH,
    EvidenceFound: Effect.EXAMINE,
    CommandEnded: Effect.WATCH,
    PidAcknowledged: Effect.REPORT_PID,
}


def _event(record: Record) -> Observation | Transition:
    try:
        event = decode(record)
    except UndecodableRecord as error:
        raise NotReexecutable(
            f"position {record.position} holds {record.type} of schema {record.schema}, with which"
            f" nothing can be executed: {error.reason}"
        ) from error
    if not isinstance(event, Observation | Transition):
        raise NotReexecutable(f"position {record.position} holds {record.type}, a notice")
    return event


def _lives(entries: Sequence[Entry], agents: Agents) -> Iterator[Life]:
    begins = [0, *(e.index for e in entries if isinstance(e.event, AgentRestarted))]
    for begin, end in zip(begins, [*begins[1:], len(entries)], strict=True):
        yield Life(agents.at(entries[begin].record.position), entries[begin:end])
