"""`replay redact`: a copy of a log that strangers may see, and that verifies as the log does.

What was learned is mapped field by field (`replay.pseudonyms`), and what follows from it is decided
again, by the same decider: launch keys and transition ids derive from ids, and so do theirs in the
copy. Where the log has something else than what is decided, that is mapped as well, so that the
copy diverges at the same position. Only open submissions are kept in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import attrs

from events.chain import ChainBroken, ChainVerifier, fields_of, genesis, link
from events.codec import UndecodableRecord, decode, encode
from events.copying import contents, new_log
from events.decider import decide
from events.lifecycle import Event, Transition
from events.log import ArchivedRange, ArchivedStream, LogError, LostRange, Record, TornStream
from events.notices import AGENT_STREAM
from events.observations import Observation
from events.sqlite_file import Identity
from events.sqlite_reader import SqliteReader
from events.submission import Submission, evolve
from replay.pseudonyms import DERIVED_IDS, Pseudonyms

KIND: Final = "redacted"

_VERSION: Final = re.compile(r"\d{1,4}(\.\d{1,4}){0,3}(\.?(a|b|rc|dev|post)\d{1,4})?", re.ASCII)
_STREAM: Final = re.compile(r"([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})(/\d{1,9})", re.ASCII)
_ARCHIVE: Final = re.compile(r"events-\d{1,20}-\d{1,20}-[0-9a-f]{8}\.sqlite\.gz", re.ASCII)
_PID: Final = re.compile(r"(.*):(\d{1,9})", re.ASCII | re.DOTALL)
_LONGEST_TIME: Final = 40

E = TypeVar("E", bound=Event)


class CannotRedact(LogError):
    """There is something in a log that this release does not know how to redact."""

    def __init__(self, record: Record, reason: str) -> None:
        self.record, self.reason = record, reason
        super().__init__(
            f"position {record.position} (stream {record.stream}) can't be redacted: {reason};"
            " nothing was written"
        )


def redact(reader: SqliteReader, key: bytes, path: Path) -> int:
    """Write a redacted copy of a log, as it is now, to a path where nothing is.

    Args:
        reader: of the log. Its chain is checked on the way: a copy would hide damage.
        key: of the pseudonyms; `KEY_BYTES` random bytes.
        path: of the copy.

    Returns:
        How many records it has.

    Raises:
        CannotRedact: a record can't be read by this release.
        ChainBroken: the log is damaged.
        LogDamaged, CompactedMeanwhile: see `contents`.
        CopyFailed: the copy can't be written.
    """
    pseudonyms = Pseudonyms(key)
    torn = {each.stream: each.version for each in reader.torn_streams()}
    start = genesis(reader.log_id)
    chain = ChainVerifier(start, archived=reader.archived_range, torn=set(torn))
    redaction = Redaction(pseudonyms, torn)
    identity = Identity(pseudonyms.uuid(reader.log_id), reader.created, KIND)
    tip, previous = reader.tip(), genesis(identity.log_id)
    with new_log(path, identity) as copy:
        for item in contents(reader, tip):
            if isinstance(item, Record):
                damage = chain.check(item)
                if damage is not None:
                    raise ChainBroken(reader.path, damage)
                fields = redaction.fields(item)
                previous = link(previous, fields)
                copy.add(Record(*fields, previous))
            else:
                gone = redaction.range(item, previous)
                copy.leave_out(gone)
                previous = gone.hash_after
        if chain.previous != tip.hash:
            # The note of the last record is not that record's: so it is in the copy.
            copy.tip = attrs.evolve(copy.tip, hash=redaction.hash(tip.hash))
        for stream in reader.archived_streams():
            copy.add_archived(redaction.archived(stream))
        for name, version in torn.items():
            copy.add_torn(TornStream(redaction.stream(name), version))
        return copy.records


Fields = tuple[int, str, int, str, int, int | None, bool, str, int, str]


@attrs.define
class _Submission:
    """A submission beside its copy.

    Attributes:
        here, there: the folds.
        due, due_there: what was decided from the last observation and is still to come.
        diverged: the log has something else than what is decided; what follows is only mapped.
        derived: the ids that follow from others, here and there.
    """

    here: Submission = attrs.field(factory=Submission)
    there: Submission = attrs.field(factory=Submission)
    due: list[tuple[Transition, Transition]] = attrs.field(factory=list)
    diverged: bool = False
    derived: dict[str, str] = attrs.field(factory=dict)


@attrs.define
class Redaction:
    """One redaction under way.

    Attributes:
        torn: the streams of which records are lost, with the first version that is.
    """

    pseudonyms: Pseudonyms
    torn: Mapping[str, int] = attrs.field(factory=dict)
    _open: dict[str, _Submission] = attrs.field(factory=dict)

    def fields(self, record: Record) -> Fields:
        """Return what the copy has in the place of a record, without its hash.

        Raises:
            CannotRedact: this release can't read it.
        """
        try:
            event = decode(record)
        except UndecodableRecord as error:
            raise CannotRedact(record, str(error)) from error
        if not _is_time(record.recorded_at):
            raise CannotRedact(record, "the time that it was recorded at is none")
        try:
            draft = encode(self._event(record, event))
        except (ValueError, TypeError, LookupError) as error:
            raise CannotRedact(record, f"nothing can be decided from it ({error})") from error
        at, _stream, version, type_, _schema, cause, closes, wall, boot, _data = fields_of(record)
        stream = self.stream(record.stream)
        if closes:
            self._open.pop(record.stream, None)
        return (at, stream, version, type_, draft.schema, cause, closes, wall, boot, draft.data)

    def hash(self, hash_: bytes) -> bytes:
        """Return what stands for the hash of a record that is not in the copy."""
        return self.pseudonyms.digest(hash_, b"hash", len(hash_))

    def range(self, gone: ArchivedRange, hash_before: bytes) -> ArchivedRange:
        """Return what the copy says of records that it has not either."""
        told = attrs.evolve(gone, hash_before=hash_before, hash_after=self.hash(gone.hash_after))
        if isinstance(told, LostRange):
            return attrs.evolve(told, reason=self.pseudonyms.text(told.reason))
        return told

    def archived(self, stream: ArchivedStream) -> ArchivedStream:
        """Return what the copy says of an archived stream."""
        known = _ARCHIVE.fullmatch(stream.archive) is not None
        archive = stream.archive if known else self.pseudonyms.name(stream.archive)
        return attrs.evolve(stream, stream=self.stream(stream.stream), archive=archive)

    def stream(self, name: str) -> str:
        """Return a stream's name in the copy."""
        if name == AGENT_STREAM:
            return name
        match = _STREAM.fullmatch(name)
        if match is None:
            return self.pseudonyms.name(name)
        return f"{self.pseudonyms.uuid(UUID(match[1]))}{match[2]}"

    def _event(self, record: Record, event: Event) -> Event:
        if record.stream == AGENT_STREAM:
            return self._mapped(event, {})
        submission = self._open.setdefault(record.stream, _Submission())
        first_lost = self.torn.get(record.stream)
        if first_lost is not None and record.version > first_lost:
            submission.diverged = True
        if isinstance(event, Observation):
            return self._observation(submission, event)
        return self._decided(submission, event) or self._other(submission, event)

    def _observation(self, submission: _Submission, event: Observation) -> Observation:
        mapped = self._mapped(event, submission.derived)
        if not submission.diverged:
            submission.due = self._decisions(submission, event, mapped)
        return mapped

    def _decisions(
        self, submission: _Submission, event: Observation, mapped: Observation
    ) -> list[tuple[Transition, Transition]]:
        here, there = decide(submission.here, event), decide(submission.there, mapped)
        if [*map(type, here)] != [*map(type, there)]:
            raise ValueError("in a copy, something else would be decided")
        return [*zip(here, there, strict=True)]

    def _decided(self, submission: _Submission, event: Event) -> Event | None:
        """Return what is decided in the copy, if `event` is what is decided here."""
        if submission.diverged or not submission.due or submission.due[0][0] != event:
            return None
        here, there = submission.due.pop(0)
        submission.derived |= _derived_ids(here, there)
        submission.here = evolve(submission.here, here)
        submission.there = evolve(submission.there, there)
        return there

    def _other(self, submission: _Submission, event: Event) -> Event:
        submission.diverged = True
        return self._mapped(event, submission.derived)

    def _mapped(self, event: E, derived: DERIVED_IDS) -> E:
        """Return an event with every field mapped."""
        return attrs.evolve(
            event,
            **{
                field.name: self._value(field.name, getattr(event, field.name), derived)
                for field in attrs.fields(type(event))
            },
        )

    def _value(self, name: str, value: Any, derived: DERIVED_IDS) -> Any:
        match value:
            case UUID():
                return self.pseudonyms.uuid(value, derived)
            case str():
                return self._text(name, value, derived)
            case tuple():
                return tuple(self._text(name, each, derived) for each in value)
            case Mapping():
                return self._mapping(name, value, derived)
            case _:
                return value  # A number, an enumeration, true or false, or nothing.

    def _text(self, name: str, value: str, derived: DERIVED_IDS) -> str:
        pseudonyms = self.pseudonyms
        if name in KEPT_WHEN and KEPT_WHEN[name](value):
            return value
        if name == "infrastructure_pid" and (match := _PID.fullmatch(value)):
            return f"{pseudonyms.name(match[1], derived)}:{match[2]}"
        if name == "submission":
            return self.stream(value)
        if name == "command":
            return pseudonyms.command(value, derived)
        if name in TEXTS:
            return pseudonyms.text(value, derived)
        return pseudonyms.name(value, derived)

    def _mapping(
        self, name: str, value: Mapping[str, str | None], derived: DERIVED_IDS
    ) -> Mapping[str, str | None]:
        key = self.pseudonyms.variable if name == "env" else self.pseudonyms.text
        return {
            key(each, derived): None if text is None else self.pseudonyms.name(text, derived)
            for each, text in value.items()
        }


def _derived_ids(here: Transition, there: Transition) -> dict[str, str]:
    """Return the ids of a transition that the decider has made, here and in the copy."""
    derived: dict[str, str] = {}
    for name in ("transition_id", "launch_key"):
        one, other = getattr(here, name, None), getattr(there, name, None)
        match one, other:
            case (UUID(), UUID()):
                derived[one.hex] = other.hex
            case (str(), str()):
                derived[one] = other
    return derived


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return len(text) <= _LONGEST_TIME


KEPT_WHEN: Final[Mapping[str, Callable[[str], object]]] = {
    "scheduled_time": _is_time,
    "version": _VERSION.fullmatch,
}
"""Fields that stay as they are if they are that, and are names otherwise."""

TEXTS: Final = frozenset({
    "answer", "detail", "error", "infrastructure", "message", "reason", "server", "server_state",
    "state_name", "state_type", "status", "step", "before_type", "before_name", "working_dir",
})  # fmt: skip
"""Fields in which words of the vocabulary stay. Every other text is a name."""

NAMES: Final = frozenset({
    "boot_id", "env", "evidence_id", "hostname", "infrastructure_pid", "labels", "launch_key",
    "name", "queue", "queues", "run_name",
})  # fmt: skip
"""The names there are; a test holds that no field was forgotten."""
