"""`replay tail`: the records of a whole log as they came, each with the run that it is about.

Records in, entries out, in the order of the log and from any place in it: a submission that is
under way there is read from its beginning when it is first met. Only open submissions are kept,
so that a log can be followed for weeks. Printing is `replay.tail_lines`, waiting for more is
`replay.following`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import attrs

from events.codec import EVENT_TYPES, UndecodableRecord, decode, unstructure
from events.lifecycle import Event, RunDiscovered, Transition
from events.log import LogReader, Record
from events.notices import AGENT_STREAM
from events.observations import RunOffered
from events.submission import Submission
from replay.player import Step, step
from replay.severity import is_never_wrong, severity
from replay.words import describe

WIDEST_LOOK_BACK: Final = 20_000
"""Records looked through at a time on the way back from the end: no more of them is in memory."""

FURTHEST_LOOK_BACK: Final = 100_000
"""Records looked through for those that filters let through: a few seconds, also when nothing has
gone wrong for months. Whoever wants more names a time."""

_ID: Final = re.compile(r"[0-9a-f-]+(?:/\d+)?", re.IGNORECASE)


@attrs.frozen
class Who:
    """What a stream is about, as people call it.

    Attributes:
        name: the run's; None when no record has told it.
        ordinal: which of the run's submissions it is, from 1.
        queue: None when no record has told it, and for the agent's own stream.
    """

    stream: str
    name: str | None = None
    ordinal: int = 1
    queue: str | None = None

    @property
    def again(self) -> str:
        """What tells a run's second and later submissions apart: `/2`."""
        return "" if self.ordinal == 1 else f"/{self.ordinal}"

    def told_by(self, event: Event | None) -> Who:
        """Return what is known after an event of the stream."""
        if not isinstance(event, RunOffered | RunDiscovered):
            return self
        return Who(self.stream, event.run_name, event.ordinal, event.queue)


@attrs.frozen
class Entry:
    """One record of the log, ready to be printed.

    Attributes:
        step: its trouble is only about the record where `placed` is True.
        said: the words of the observation that it follows from.
        placed: whether the fold before it is known. It is not when the beginning of the stream
            went to an archive in the very moment.
    """

    step: Step
    who: Who
    said: str = ""
    placed: bool = True

    @property
    def severity(self) -> str:
        """How bad it is, as `replay.severity` has it."""
        return severity(None if self.step.trouble and self.placed else self.step.event)

    @property
    def words(self) -> str:
        """What matters of it, in one line, perhaps nothing."""
        if self.step.trouble and self.placed:
            return self.step.trouble
        event = self.step.event
        if event is None:
            return "this release can't read it"
        said = self.said if isinstance(event, Transition) else ""
        return " ".join(describe(event, said).split())

    def telling_all(self) -> Entry:
        """Return the entry for where the observation that it follows from is not shown."""
        return attrs.evolve(self, said="")


@attrs.frozen
class Wanted:
    """Which records are to be shown: those that every given filter lets through.

    Attributes:
        runs: ids, beginnings of ids, names, or `agent`; any of them.
        queues: any of them.
        failed: only what goes wrong.
        transitions: only what was decided.
    """

    runs: Sequence[str] = ()
    queues: Sequence[str] = ()
    failed: bool = False
    transitions: bool = False

    @property
    def all(self) -> bool:
        """Whether nothing is filtered out."""
        return self == Wanted()

    def wants(self, entry: Entry) -> bool:
        """Tell whether an entry is to be shown."""
        record = entry.step.record
        return (
            self._wants_type(record)
            and (not self.failed or bool(entry.severity))
            and self._wants_stream(entry.who)
        )

    def may_want(self, record: Record, who: Who) -> bool:
        """Tell whether a record will be wanted, as far as can be told without its stream's fold."""
        return (
            self._wants_type(record)
            and self._wants_stream(who)
            and (not self.failed or _goes_wrong(record))
        )

    def _wants_type(self, record: Record) -> bool:
        known = EVENT_TYPES.get(record.type)
        return not self.transitions or (known is not None and issubclass(known, Transition))

    def _wants_stream(self, who: Who) -> bool:
        if self.queues and who.queue not in self.queues:
            return False
        return not self.runs or any(_is_named(who, run) for run in self.runs)


def _is_named(who: Who, run: str) -> bool:
    if AGENT_STREAM in (run, who.stream):
        return run == who.stream
    if who.name is not None and run in (who.name, f"{who.name}/{who.ordinal}"):
        return True
    if _ID.fullmatch(run) is None:
        return False
    wanted, slash, ordinal = run.lower().partition("/")
    id_, _, own = who.stream.partition("/")
    begins = id_.replace("-", "").startswith(wanted.replace("-", ""))
    return begins and (not slash or ordinal == own)


def _goes_wrong(record: Record) -> bool:
    return not is_never_wrong(record.type) and bool(severity(_event_in(record)))


def _event_in(record: Record) -> Event | None:
    try:
        return decode(record)
    except UndecodableRecord:
        return None


@attrs.define
class _Underway:
    """What is known of an open stream. `fold` is None when its beginning could not be read."""

    who: Who
    fold: Submission | None = attrs.field(factory=Submission)
    said: str = ""

    def take(self, record: Record) -> Entry:
        taken = step(self.fold or Submission(), record)
        event = taken.event
        self.who = self.who.told_by(event)
        entry = Entry(taken, self.who, self.said, placed=self.fold is not None)
        if self.fold is not None:
            self.fold = taken.after
        if event is not None and not isinstance(event, Transition):
            self.said = describe(event)
        return entry


@attrs.define
class Tail:
    """Makes entries of records that follow each other; remembers what is open and no more."""

    reader: LogReader
    underway: dict[str, _Underway] = attrs.field(factory=dict)

    def take(self, record: Record) -> Entry:
        """Take the next record of the log, or of those streams that are followed."""
        if record.stream == AGENT_STREAM:
            return Entry(step(Submission(), record), Who(AGENT_STREAM, AGENT_STREAM))
        stream = self.underway.get(record.stream)
        if stream is None:
            stream = self.underway[record.stream] = self._met(record)
        if record.closes:
            del self.underway[record.stream]
        return stream.take(record)

    def start_on(self, reader: LogReader) -> None:
        """Go on with another log: what was open in the one before says nothing about it."""
        self.reader = reader
        self.underway.clear()

    def _met(self, record: Record) -> _Underway:
        met = _Underway(Who(record.stream))
        if record.version == 1:
            return met
        last = 0
        for earlier in self.reader.read_stream(record.stream):
            if earlier.version >= record.version:
                break
            met.take(earlier)
            last = earlier.version
        if last != record.version - 1:
            met.fold = None
        return met


def position_before_last(
    reader: LogReader, count: int, wanted: Wanted, *, end: int, floor: int = 0
) -> int:
    """Return the position after which the last so many wanted records are, up to `end`.

    Goes back from the end, and no further than it must, or than `floor`.
    """
    missing, size = count, max(2 * count, 256)
    while missing > 0 and end > floor:
        size = min(size, WIDEST_LOOK_BACK)
        begin = max(end - size, floor)
        found = _wanted_positions(reader, wanted, begin, end)
        if len(found) >= missing:
            return found[-missing] - 1
        missing -= len(found)
        end, size = begin, size * 2
    return max(end, floor)


def _wanted_positions(reader: LogReader, wanted: Wanted, begin: int, end: int) -> list[int]:
    known: dict[str, Who] = {}
    everything = wanted.all
    return [
        record.position
        for record in itertools.takewhile(lambda r: r.position <= end, reader.read_all(begin))
        if everything or wanted.may_want(record, _who(reader, record, known))
    ]


def _who(reader: LogReader, record: Record, known: dict[str, Who]) -> Who:
    """Return whom a record is about, without reading more of its stream than tells that."""
    stream = record.stream
    if stream == AGENT_STREAM:
        return Who(AGENT_STREAM, AGENT_STREAM)
    if stream not in known:
        first = record if record.version == 1 else next(iter(reader.read_stream(stream)), None)
        known[stream] = Who(stream).told_by(_event_in(first) if first else None)
    return known[stream]


def position_before(reader: LogReader, moment: datetime) -> int:
    """Return the position after which the records of a moment (UTC) and later are.

    By halving: it takes the log's times to ascend, as they do but where a clock was set back.
    """
    low, high = 0, reader.last_position()
    sought = moment.isoformat(timespec="microseconds")
    while low < high:
        middle = (low + high) // 2
        record = next(iter(reader.read_all(middle)), None)
        if record is None or record.recorded_at >= sought:
            high = middle
        else:
            low = record.position
    return low


def records_of(reader: LogReader, streams: Iterable[str], end: int) -> Iterator[Record]:
    """Yield the records of some streams up to a position, in the order of the log."""
    records = [record for stream in streams for record in reader.read_stream(stream)]
    records.sort(key=lambda record: record.position)
    return (record for record in records if record.position <= end)


def entry_object(entry: Entry) -> dict[str, Any]:
    """Return an entry as JSON values."""
    taken, record, who = entry.step, entry.step.record, entry.who
    folded = entry.placed and record.stream != AGENT_STREAM
    return {
        "position": record.position,
        "recorded_at": record.recorded_at,
        "stream": record.stream,
        "run_name": None if record.stream == AGENT_STREAM else who.name,
        "ordinal": who.ordinal,
        "queue": who.queue,
        "version": record.version,
        "kind": taken.kind,
        "type": record.type,
        "schema": record.schema,
        "cause": record.cause,
        "closes": record.closes,
        "event": unstructure(taken.event) if taken.event else None,
        "state_before": taken.before.state.value if folded else None,
        "state": taken.after.state.value if folded else None,
        "owed": [effect.value for effect in taken.owed] if folded else [],
        "severity": entry.severity or None,
        "text": entry.words,
        "trouble": taken.trouble if entry.placed else None,
    }
