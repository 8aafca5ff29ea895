"""Plays a recorded log again: each record with the event in it and the state around it.

Pure: records in, steps out, whatever they were read from. It keeps the folds of open submissions
and nothing else, so a log far larger than memory can be played. `replay.show` prints the steps;
`replay.verification` is its strict sibling, which accepts nothing that the rules do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from events.codec import UndecodableRecord, decode
from events.lifecycle import Effect, Event, IllegalTransition, Transition
from events.log import Record
from events.notices import Notice
from events.observations import Observation
from events.submission import Submission, evolve, what_next


@attrs.frozen
class Step:
    """One record, and what it did.

    Attributes:
        event: what the record holds; None when this release can't read it.
        before, after: the fold of the stream without and with this record.
        trouble: why the record could not be read or folded, in words; the fold then stays as it
            was, and what follows in this stream is shown as well as it can be.
    """

    record: Record
    event: Event | None
    before: Submission
    after: Submission
    trouble: str | None = None

    @property
    def kind(self) -> str:
        """Which family the event is of: observation, transition, notice; unknown if unread."""
        match self.event:
            case Transition():
                return "transition"
            case Observation():
                return "observation"
            case Notice():
                return "notice"
            case _:
                return "unknown"

    @property
    def owed(self) -> tuple[Effect, ...]:
        """What is owed after this record."""
        return what_next(self.after)


def step(submission: Submission, record: Record) -> Step:
    """Take one record of a stream whose fold so far is `submission`. Never raises."""
    try:
        event = decode(record)
    except UndecodableRecord as error:
        return Step(record, None, submission, submission, str(error))
    try:
        after = evolve(submission, event, record.stream)
    except IllegalTransition as error:
        return Step(record, event, submission, submission, str(error))
    return Step(record, event, submission, after)


def play(records: Iterable[Record]) -> Iterator[Step]:
    """Step through records in the order of the log, whatever streams they belong to."""
    folds: dict[str, Submission] = {}
    for record in records:
        taken = step(folds.pop(record.stream, Submission()), record)
        if not record.closes:
            folds[record.stream] = taken.after
        yield taken
