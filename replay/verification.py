"""Makes every recorded decision again, and names the first place where log and rules part.

Four things are held against each other: the hash chain (is this what was written?), the shape of
a stream (versions, causes, the closing mark), the table (is this move legal?) and the decider
(would it decide the same, field by field?). Streaming: only open submissions are kept in memory.
`replay verify` is the caller; another `decide` can be passed in, so that a new version of the
decider can be tried on an old log.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import attrs

from events import decider
from events.chain import ChainVerifier, fields_of, genesis
from events.codec import (
    EVENT_TYPES,
    UndecodableRecord,
    canonical,
    decode,
    decode_fields,
    unstructure,
)
from events.lifecycle import TRANSITIONS, Event, RunDiscovered, Transition
from events.log import LogError, LogReader, Record, Row, Tip
from events.notices import AGENT_STREAM, Notice
from events.observations import Observation
from events.submission import Submission, evolve, stream_name

Decide = Callable[[Submission, Observation], Sequence[Transition]]

MISSING: Final = "(nothing)"

_NONE_TORN: Final[Mapping[str, int]] = MappingProxyType({})


class Kind(enum.Enum):
    """Which of the four checks failed."""

    CHAIN = "chain"
    SHAPE = "shape"
    LEGALITY = "legality"
    DECISION = "decision"


@attrs.frozen
class FieldDifference:
    """One field that the log has otherwise than the decision made again.

    Attributes:
        path: where in the event, e.g. `$.command[2]`; without `$`, a column of the record itself.
    """

    path: str
    recorded: Any
    decided: Any


@attrs.frozen
class Divergence:
    """One place where the log is not what the rules make of it.

    Attributes:
        position: where in the log.
        stream, version, type: of the record there; None when it is missing.
        problem: what is wrong, for people.
        fields: which fields differ, when the right event was recorded with other contents.
    """

    kind: Kind
    position: int
    problem: str
    stream: str | None = None
    version: int | None = None
    type: str | None = None
    fields: tuple[FieldDifference, ...] = ()


class NeedsNewerRelease(LogError):
    """The log holds an event that only a newer pluperfect can check."""

    def __init__(self, record: Record, error: UndecodableRecord) -> None:
        self.record, self.reason = record, error.reason
        super().__init__(
            f"position {record.position} (stream {record.stream}) holds {record.type} of schema"
            f" {record.schema}, which can't be checked: {error.reason}"
        )


@attrs.define
class Tally:
    """What has been checked so far; it grows while a verification goes on."""

    records: int = 0
    submissions: int = 0
    decisions: int = 0


def verify(
    reader: LogReader,
    log_id: UUID,
    tally: Tally,
    *,
    decide: Decide = decider.decide,
    after: Tip | None = None,
    torn: Mapping[str, int] = _NONE_TORN,
    watch: Callable[[Iterator[Row]], Iterator[Row]] = iter,
) -> Iterator[Divergence]:
    """Yield the first divergence of each stream, in the order of the log.

    What comes after a divergence in the same stream builds on it and is not checked; after a
    broken chain nothing is. A log that grows meanwhile is followed to its end.

    Args:
        reader: the log.
        log_id: that of the log it should be.
        tally: is kept up to date.
        decide: another decider than today's.
        after: the record to begin behind; it and those before it are believed, but submissions
            that go on behind it are checked from their first record on.
        torn: of a salvaged copy, the streams that have lost records, each with the first version
            that is lost: up to there it is checked.
        watch: is given the rows that are read and passes them on.

    Raises:
        NeedsNewerRelease: a record holds an event that this release does not know.
        LogDamaged: the file can't be read to its end.
    """
    after = after or Tip(0, genesis(log_id))
    chain = ChainVerifier(after.hash, after.position, archived=reader.archived_at)
    chain.torn |= {*torn}
    checks = _Checks(chain, decide, tally, torn, _earlier_records(reader, after.position))
    while True:
        tip = reader.tip()
        rows = watch(reader.read_rows(checks.chain.position))
        for row in rows:
            divergence = checks.check(row, rows, tip)
            if divergence is not None:
                yield divergence
                if divergence.kind is Kind.CHAIN:
                    return
        if tip.position > checks.chain.position:
            yield checks.cut_off(tip)
            return
        # The list of open streams is no part of the chain, but recovery goes by it. It can be
        # compared only if nothing was written since the last record was read.
        listed = reader.open_streams()
        # What was closed and archived while this went on is not there to be read to its end.
        for name in [name for name in checks.streams if reader.is_archived(name)]:
            del checks.streams[name]
        if reader.last_position() == checks.chain.position:
            break
    if after.position:
        # What was opened and left alone before was not looked at.
        listed = [name for name in listed if name in checks.streams]
    yield from checks.ending(listed)


Earlier = Callable[[str], Sequence[Record]]
"""Returns the records of a stream that come before the part that is verified."""


def _earlier_records(reader: LogReader, position: int) -> Earlier:
    if position == 0:
        return lambda _stream: ()
    return lambda stream: [r for r in reader.read_stream(stream) if r.position <= position]


@attrs.define
class _Checks:
    """A whole log that is being checked, one record after the other."""

    chain: ChainVerifier
    decide: Decide
    tally: Tally
    torn: Mapping[str, int] = _NONE_TORN
    earlier: Earlier = lambda _stream: ()
    streams: dict[str, _Stream] = attrs.field(factory=dict)
    diverged: set[str] = attrs.field(factory=set)

    def check(self, row: Row, rest: Iterator[Row], tip: Tip) -> Divergence | None:
        name, version = row[1], row[2]
        divergence = None
        if version > 1 and name not in self.streams and name not in self.diverged:
            divergence = self._catch_up(name)
        if not self.chain.accepts(row):
            return self._broken(_record(row), map(_record, rest), tip)
        if row[0] == tip.position and row[-1] != tip.hash:
            problem = "the log's own note of its last record differs from this record"
            return _at(_record(row), Kind.CHAIN, problem)
        self.tally.records += 1
        divergence = divergence or self._check_in_stream(row)
        if row[6]:
            self.streams.pop(name, None)
        return divergence

    def _check_in_stream(self, row: Row) -> Divergence | None:
        name = row[1]
        stream = self.streams.get(name)
        if stream is None:
            stream = self.streams[name] = _Stream(name, self.decide, self.tally)
        if name in self.torn and row[2] > self.torn[name]:
            self.diverged.add(name)  # What came before is not known.
        if name in self.diverged or stream.accepts(row):
            return None
        divergence = stream.check(_record(row))
        if divergence is not None:
            self.diverged.add(name)
        return divergence

    def _catch_up(self, name: str) -> Divergence | None:
        """Check what a stream has before the part that is verified; its hashes are believed."""
        divergence = None
        for record in self.earlier(name):
            self.chain.believe(record)
            divergence = divergence or self._check_in_stream(_row(record))
        return divergence

    def _broken(self, record: Record, rest: Iterator[Record], tip: Tip) -> Divergence:
        damage = self.chain.check(record, rest, tip)
        if damage is None:
            raise AssertionError(f"the chain refused position {record.position}, and then took it")
        problem = f"{damage.kind}: {damage.detail}"
        if damage.position != record.position:
            return Divergence(Kind.CHAIN, damage.position, problem)
        return _at(record, Kind.CHAIN, problem)

    def cut_off(self, tip: Tip) -> Divergence:
        """Say that the log ends before where it says it does."""
        end = self.chain.position
        problem = f"missing: the log ends at position {end}, and notes its end at {tip.position}"
        return Divergence(Kind.CHAIN, end + 1, problem)

    def ending(self, listed: Sequence[str]) -> Iterator[Divergence]:
        """Say what is wrong when nothing follows any more."""
        for name, stream in self.streams.items():
            if name in self.torn:
                continue  # What follows may be lost.
            if name not in self.diverged and (divergence := stream.ending()) is not None:
                yield divergence
        for name in ({*listed} ^ {*self.streams}) - {*self.torn}:
            what = "is open, but not in" if name in self.streams else "is not open, but in"
            problem = f"the stream {name} {what} the list of open streams, which recovery goes by"
            yield Divergence(Kind.SHAPE, self.chain.position, problem, name)


@attrs.define
class _Stream:
    """One stream that is being checked; versions and order are the chain's business.

    Attributes:
        submission: the fold of what is recorded.
        last_transition: the version of the last transition, which the next observation names as
            its cause.
        seen: the record of the last observation.
        due: what the decider makes of it and is still to come.
    """

    name: str
    decide: Decide
    tally: Tally
    submission: Submission = attrs.field(factory=Submission)
    last_transition: int | None = None
    seen: Row | None = None
    due: Sequence[Transition] = ()

    def accepts(self, row: Row) -> bool:
        """Take in the next record if it is as it should be; `check` says why it is not.

        Nearly all are. A transition that is due need not be decoded to be compared: equal events
        have equal texts.
        """
        if self.due:
            return self._is_due(row)
        _position, _stream, _version, type_, schema, cause, closes, *_, data, _hash = row
        event_class = EVENT_TYPES.get(type_)
        if (
            event_class is None
            or not issubclass(event_class, Observation)
            or self.name == AGENT_STREAM
            or cause != self.last_transition
        ):
            return False
        try:
            event = decode_fields(type_, schema, data)
        except UndecodableRecord:
            return False
        due = self.decide(self.submission, event)  # type: ignore[arg-type] # by its class
        if bool(closes) is not (not due and self.submission.is_closed):
            return False
        self.tally.submissions += self.seen is None
        self.tally.decisions += 1
        self.seen, self.due = row, due
        return True

    def _is_due(self, row: Row) -> bool:
        _position, _stream, version, type_, schema, cause, closes, *_, data, _hash = row
        due, rest = self.due[0], self.due[1:]
        if (
            type_ != type(due).__name__
            or canonical(due) != data
            or schema != due.SCHEMA
            or self.seen is None
            or cause != self.seen[2]
            or type(due) not in TRANSITIONS[self.submission.state]
            or (isinstance(due, RunDiscovered) and not self._is_at_home(due))
        ):
            return False
        after = evolve(self.submission, due, self.name)
        if bool(closes) is not (not rest and after.is_closed):
            return False
        self.submission, self.due, self.last_transition = after, rest, version
        return True

    def _is_at_home(self, event: RunDiscovered) -> bool:
        return stream_name(event.flow_run_id, event.ordinal) == self.name

    def check(self, record: Record) -> Divergence | None:
        """Hold the next record of the stream against the rules."""
        try:
            event = decode(record)
        except UndecodableRecord as error:
            known = EVENT_TYPES.get(record.type)
            if known is None or record.schema > known.SCHEMA:
                raise NeedsNewerRelease(record, error) from error
            return _at(record, Kind.SHAPE, f"its fields don't fit: {error.reason}")
        if self.name == AGENT_STREAM:
            return _check_notice(record, event)
        match event:
            case Observation():
                return self._check_observation(record, event)
            case Transition():
                return self._check_transition(record, event)
            case _:
                return _at(record, Kind.SHAPE, "only the agent's own stream holds notices")

    def ending(self) -> Divergence | None:
        """Say what is wrong when nothing follows any more."""
        if self.seen is None or not self.due:
            return None
        problem = f"{_name(self.due[0])} follows from it, and is missing"
        return _at(_record(self.seen), Kind.DECISION, problem)

    def _check_observation(self, record: Record, event: Observation) -> Divergence | None:
        if self.seen is None:
            self.tally.submissions += 1
        elif self.due:
            problem = f"{self._follows(self.due[0])}, and is missing before this record"
            return _at(record, Kind.DECISION, problem)
        if record.cause != self.last_transition:
            return _wrong_cause(record, self.last_transition, "the last transition before it")
        self.tally.decisions += 1
        self.seen = _row(record)
        self.due = self.decide(self.submission, event)
        return self._check_closing(record)

    def _check_transition(self, record: Record, event: Transition) -> Divergence | None:
        if self.seen is None:
            return _at(record, Kind.SHAPE, "a transition that follows from no observation")
        divergence = self._check_legality(record, event) or self._check_decision(record, event)
        if divergence is not None:
            return divergence
        if record.cause != self.seen[2]:
            return _wrong_cause(record, self.seen[2], "the observation it follows from")
        self.due = self.due[1:]
        self.last_transition = record.version
        self.submission = evolve(self.submission, event, self.name)
        return self._check_closing(record)

    def _check_legality(self, record: Record, event: Transition) -> Divergence | None:
        state = self.submission.state
        if type(event) not in TRANSITIONS[state]:
            instead = self._follows(self.due[0]) if self.due else self._nothing_follows()
            return _at(record, Kind.LEGALITY, f"not legal in {state.name}; {instead}")
        if isinstance(event, RunDiscovered) and not self._is_at_home(event):
            own_name = stream_name(event.flow_run_id, event.ordinal)
            return _at(record, Kind.SHAPE, f"what it tells belongs in the stream {own_name}")
        return None

    def _check_decision(self, record: Record, event: Transition) -> Divergence | None:
        if not self.due:
            return _at(record, Kind.DECISION, self._nothing_follows())
        due = self.due[0]
        if type(event) is not type(due):
            return _at(record, Kind.DECISION, self._follows(due))
        if event != due:
            fields = tuple(differences(unstructure(event), unstructure(due)))
            problem = f"{self._place} is now decided otherwise"
            return _at(record, Kind.DECISION, problem, fields)
        return None

    def _check_closing(self, record: Record) -> Divergence | None:
        closes = not self.due and self.submission.is_closed
        if record.closes == closes:
            return None
        problem = (
            "nothing is owed after it, but it is not marked as the stream's last"
            if closes
            else "marked as the stream's last, but more is owed or due after it"
        )
        return _at(record, Kind.SHAPE, problem)

    def _follows(self, due: Transition) -> str:
        return f"from {self._place} {_name(due)} follows"

    def _nothing_follows(self) -> str:
        return f"from {self._place} nothing (more) follows"

    @property
    def _place(self) -> str:
        seen = self.seen
        return f"{seen[3]} at position {seen[0]}" if seen else "nothing"


def _check_notice(record: Record, event: Event) -> Divergence | None:
    if not isinstance(event, Notice):
        return _at(record, Kind.SHAPE, "the agent's own stream holds notices only")
    if record.closes:
        return _at(record, Kind.SHAPE, "the agent's own stream is never closed")
    return None


def differences(recorded: Any, decided: Any, path: str = "$") -> Iterator[FieldDifference]:
    """Yield the fields in which two unstructured values differ, by their innermost path."""
    match recorded, decided:
        case (Mapping(), Mapping()):
            for key in sorted({*recorded, *decided}):
                pair = recorded.get(key, MISSING), decided.get(key, MISSING)
                yield from differences(*pair, f"{path}.{key}")
        case (list() | tuple(), list() | tuple()):
            for index in range(max(len(recorded), len(decided))):
                pair = _item(recorded, index), _item(decided, index)
                yield from differences(*pair, f"{path}[{index}]")
        case _:
            if recorded != decided:
                yield FieldDifference(path, recorded, decided)


def _item(values: Sequence[Any], index: int) -> Any:
    return values[index] if index < len(values) else MISSING


def _at(
    record: Record, kind: Kind, problem: str, fields: tuple[FieldDifference, ...] = ()
) -> Divergence:
    return Divergence(
        kind, record.position, problem, record.stream, record.version, record.type, fields
    )


def _wrong_cause(record: Record, expected: int | None, what: str) -> Divergence:
    field = FieldDifference("cause", record.cause, expected)
    return _at(record, Kind.SHAPE, f"its cause is not {what}", (field,))


def _record(row: Row) -> Record:
    return Record(*row)


def _row(record: Record) -> Row:
    return (*fields_of(record), record.hash)


def _name(event: Event) -> str:
    return type(event).__name__
