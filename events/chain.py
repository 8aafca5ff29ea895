"""The hash chain: what makes a changed, missing, moved or foreign record show itself.

Each record's hash covers the hash before it and everything the record holds, its place included;
the first builds on a hash of the log's id. The stores link records with `extend` as they append,
and the replay tool walks them again with `verify_chain`. Pure: no file, no clock.

It finds accidents, careless edits and mixed-up files. It can't find a forger who calculates the
whole chain anew: nothing here is secret.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

import attrs

from events.log import (
    Append,
    ArchivedRange,
    Fields,
    LogDamaged,
    Record,
    Row,
    Stamp,
    Tip,
    VersionConflict,
)

HASH_BYTES: Final = 16

_blake2b: Final = hashlib.blake2b

_CLOSED: Final = -1
"""Stands for the version of a closed stream; no version follows it."""

_NO_MORE: Final[Iterator[Record]] = iter(())

Outcome = Sequence[Record] | VersionConflict
"""What became of one append."""

Ending = Callable[[str], tuple[int, bool]]
"""Tells a stream's last version (0 when there is no such stream) and whether it is closed."""


fields_of: Final[Callable[[Record], Fields]] = attrgetter(
    *(field.name for field in attrs.fields(Record) if field.name != "hash")
)
"""Return what a record's hash covers besides its predecessor's hash."""


def genesis(log_id: UUID) -> bytes:
    """Return the hash before the first record, which ties every record to this one log."""
    return hashlib.blake2b(b"pluperfect log " + log_id.bytes, digest_size=HASH_BYTES).digest()


def link(previous: bytes, fields: Fields) -> bytes:
    """Return the hash of a record that follows the one whose hash is `previous`.

    The canonical bytes are one line of numbers (the lengths of the texts among them) and then
    the texts one after the other, so that no two records can have the same bytes. One string is
    formatted and hashed in 1.4 µs.
    """
    at, stream, version, type_, schema, cause, closes, recorded_at, monotonic_ns, data = fields
    canonical = (
        f"{at} {version} {schema} {cause} {closes:d} {monotonic_ns}"
        f" {len(stream)} {len(type_)} {len(recorded_at)}\n{stream}{type_}{recorded_at}{data}"
    )
    return hashlib.blake2b(previous + canonical.encode(), digest_size=HASH_BYTES).digest()


# --- appending -----------------------------------------------------------------------------


def check(append: Append) -> None:
    """Refuse an append that could never be right, before it reaches a transaction.

    Raises:
        ValueError: no drafts, a number out of range, a cause that comes later than its effect,
            or text that is not Unicode.
    """
    if not append.stream or append.expected_version < 0 or not append.drafts:
        raise ValueError(f"an append needs a stream, a version from 0 and a draft: {append}")
    for version, draft in enumerate(append.drafts, append.expected_version + 1):
        if draft.schema < 1 or not draft.type:
            raise ValueError(f"an event has a type, and its schemas count from 1: {draft}")
        if draft.cause is not None and not 1 <= draft.cause < version:
            raise ValueError(
                f"version {version} of {append.stream} can't be caused by version {draft.cause}"
            )
        f"{append.stream}{draft.type}{draft.data}".encode()  # UnicodeEncodeError is a ValueError


def extend(
    tip: Tip, appends: Sequence[Append], stamp: Stamp, ending_of: Ending
) -> tuple[Sequence[Outcome], Sequence[Record]]:
    """Give the appends their places after a tip.

    All of them get one stamp: what is committed together becomes durable at one moment, and the
    order within it is told by the positions.

    Returns:
        What becomes of each append, and all the records there will be, in order.
    """
    endings: dict[str, tuple[int, bool]] = {}
    outcomes: list[Outcome] = []
    records: list[Record] = []
    for append in appends:
        stream, expected = append.stream, append.expected_version
        version, closed = endings.get(stream) or ending_of(stream)
        if closed or version != expected:
            outcomes.append(VersionConflict(stream, expected, version, closed=closed))
            continue
        linked = _link(tip, append, stamp)
        tip = Tip(linked[-1].position, linked[-1].hash)
        endings[stream] = (linked[-1].version, append.closes)
        outcomes.append(linked)
        records += linked
    return outcomes, records


def _link(tip: Tip, append: Append, stamp: Stamp) -> Sequence[Record]:
    linked: list[Record] = []
    position, version, hash_ = tip.position, append.expected_version, tip.hash
    last = version + len(append.drafts)
    for draft in append.drafts:
        position, version = position + 1, version + 1
        fields = (
            position,
            append.stream,
            version,
            draft.type,
            draft.schema,
            draft.cause,
            append.closes and version == last,
            stamp.wall,
            stamp.monotonic_ns,
            draft.data,
        )
        hash_ = link(hash_, fields)
        linked.append(Record(*fields, hash_))
    return linked


# --- verifying -----------------------------------------------------------------------------


class DamageKind(enum.StrEnum):
    """In which way a log is not what was written."""

    ALTERED = "altered"
    """A record's content or hash was changed."""
    MISSING = "missing"
    """One or more records are gone."""
    REORDERED = "reordered"
    """The record that belongs here is elsewhere."""
    SPLICED = "spliced"
    """Neither the content nor the hash belongs here: it is another log's, or was made up."""
    UNLAWFUL = "unlawful"
    """The chain is whole, but a version, a cause or a closing record is against the rules."""


@attrs.frozen
class Damage:
    """The first thing that is wrong with a log, at the position where it shows."""

    position: int
    kind: DamageKind
    detail: str


class ChainBroken(LogDamaged):
    """A log does not verify. `damage` says where it begins and of which kind it is."""

    def __init__(self, path: Path | str, damage: Damage) -> None:
        self.damage = damage
        super().__init__(path, damage.position, f"{damage.kind}: {damage.detail}")


@attrs.define
class ChainVerifier:
    """Checks the records of a log one after the other, from the first one.

    Every stream's name is kept, closed ones too: about 0.2 kB for each submission in the log.

    Attributes:
        previous: the hash of the last record that was in order; `genesis` to begin with.
        position: that record's position.
        archived: finds the archived range that a position is in.
        torn: the streams that have lost records; in them, versions may be left out.
    """

    previous: bytes
    position: int = 0
    archived: Callable[[int], ArchivedRange | None] = lambda _first: None
    torn: set[str] = attrs.field(factory=set)
    _versions: dict[str, int] = attrs.field(factory=dict)

    def check(
        self, record: Record, rest: Iterator[Record] = _NO_MORE, tip: Tip | None = None
    ) -> Damage | None:
        """Take in the next record; return what is wrong with it, if anything is.

        Args:
            record: the one that comes next in the log.
            rest: what follows. It is read only when the record is damaged, to tell what was
                done: without it, a record that was moved or spliced is called altered.
            tip: where the log ends by its own account; it tells more about a damaged end.
        """
        if self.accepts((*fields_of(record), record.hash)):
            return None
        if record.position != self.position + 1:
            return _diagnose(self, record, rest, tip)
        if link(self.previous, fields_of(record)) != record.hash:
            return _diagnose(self, record, rest, tip)
        objection = self.objection(record) or "it is against the rules"
        return Damage(record.position, DamageKind.UNLAWFUL, objection)

    def accepts(self, row: Row) -> bool:
        """Take in the next record, as a tuple, if it is in order; `check` says why it is not."""
        position, stream, version, type_, schema, cause, closes, wall, boot, data, hash_ = row
        if position != self.position + 1:
            self._skip_what_was_archived(position)
            if position != self.position + 1:
                return False
        # `link`, written out: this is where verifying a million records spends its time.
        canonical = (
            f"{position} {version} {schema} {cause} {closes:d} {boot}"
            f" {len(stream)} {len(type_)} {len(wall)}\n{stream}{type_}{wall}{data}"
        )
        if _blake2b(self.previous + canonical.encode(), digest_size=HASH_BYTES).digest() != hash_:
            return False
        expected = self._versions.get(stream, 0) + 1
        if version != expected and not self._leaps(stream, version):  # always, once it is closed
            return False
        if cause is not None and not 1 <= cause < version:
            return False
        self._versions[stream] = _CLOSED if closes else version
        self.previous, self.position = hash_, position
        return True

    def believe(self, record: Record) -> None:
        """Take note of a record of a stream that goes on; it was checked some other time."""
        self._versions[record.stream] = _CLOSED if record.closes else record.version

    def _skip_what_was_archived(self, position: int) -> None:
        """Go on after archived ranges that lead from here towards a position."""
        while self.position + 1 < position:
            gone = self.archived(self.position + 1)
            if gone is None:
                return
            # One that begins earlier was moved while this went on; its beginning was checked.
            if gone.first == self.position + 1 and gone.hash_before != self.previous:
                return
            self.previous, self.position = gone.hash_after, gone.last

    def _leaps(self, stream: str, version: int) -> bool:
        """Tell whether a stream may go on with a later version than the next one."""
        return stream in self.torn and version > self._versions.get(stream, 0) != _CLOSED

    def objection(self, record: Record) -> str | None:
        """Say which rule a record breaks if it comes next, its hash aside."""
        stream, version = record.stream, record.version
        expected = self._versions.get(stream, 0) + 1
        if expected == _CLOSED + 1:
            return f"stream {stream} was closed before"
        if version != expected and not self._leaps(stream, version):
            return f"stream {stream} goes on with version {version}, not {expected}"
        if record.cause is not None and not 1 <= record.cause < version:
            return f"version {version} of {stream} names version {record.cause} as its cause"
        return None


def verify_chain(
    records: Iterable[Record],
    log_id: UUID,
    *,
    path: Path | str = "(no file)",
    tip: Tip | None = None,
    archived: Callable[[int], ArchivedRange | None] = lambda _first: None,
    torn: Iterable[str] = (),
) -> Iterator[Record]:
    """Yield the records of a whole log, each after it was found to be in order.

    Args:
        records: from the first one.
        log_id: that of the log they should belong to.
        path: names the log in errors.
        tip: where the log ended, by its own account, before reading began. Without it, a cut
            off end goes unnoticed.
        archived: finds the archived range that a position is in.
        torn: the streams that have lost records.

    Raises:
        ChainBroken: at the first record that is not as it was written.
    """
    rest = iter(records)
    verifier = ChainVerifier(genesis(log_id), archived=archived, torn={*torn})
    if tip is not None and tip.position == 0 and tip.hash != verifier.previous:
        detail = "the log's own note of where it begins is not that of its id"
        raise ChainBroken(path, Damage(0, DamageKind.ALTERED, detail))
    for record in rest:
        damage = verifier.check(record, rest, tip)
        if damage is not None:
            raise ChainBroken(path, damage)
        if tip is not None and tip.position == record.position and tip.hash != record.hash:
            detail = "the log's own note of its last record differs from that record"
            raise ChainBroken(path, Damage(record.position, DamageKind.ALTERED, detail))
        yield record
    if tip is not None and tip.position > verifier.position:
        detail = f"the log ends here, but had {_count(tip.position - verifier.position)} more"
        raise ChainBroken(path, Damage(verifier.position + 1, DamageKind.MISSING, detail))


def first_damage(
    records: Iterable[Record], log_id: UUID, *, tip: Tip | None = None
) -> Damage | None:
    """Walk a whole log; return the first thing that is wrong, or None."""
    try:
        for _ in verify_chain(records, log_id, tip=tip):
            pass
    except ChainBroken as error:
        return error.damage
    return None


def _count(records: int) -> str:
    return "one record" if records == 1 else f"{records} records"


def _diagnose(
    verifier: ChainVerifier, record: Record, rest: Iterator[Record], tip: Tip | None
) -> Damage:
    """Say what is wrong with a record that does not follow where the log is in order so far.

    Reads the rest of the log, once: the record that belongs here may be further on.
    """
    here, previous = verifier.position + 1, verifier.previous
    after, last = None, record
    breaks_again = ends_otherwise = False
    # What can't be read further on is no evidence; the damage that was found comes before it.
    with suppress(LogDamaged):
        for other in chain([record], rest):
            if _hash_at(here, previous, other) == other.hash:
                where = f"the record that belongs here is at position {other.position}"
                return Damage(here, DamageKind.REORDERED, where)
            if other is not record:
                after = after or other
                breaks_again |= link(last.hash, fields_of(other)) != other.hash
            if tip is not None and other.position == tip.position:
                ends_otherwise = other.hash != tip.hash
            last = other
    if record.position < here:
        detail = f"position {record.position} comes again, or too late"
        return Damage(here, DamageKind.REORDERED, detail)
    if record.position > here:
        missing = f"{_count(record.position - here)} before position {record.position}"
        return Damage(here, DamageKind.MISSING, missing)

    def leads_on(hash_: bytes, shift: int = 0) -> bool | None:
        if after is not None:
            return _hash_at(after.position + shift, hash_, after) == after.hash
        return None if tip is None else tip == Tip(here + shift, hash_)

    # One altered record breaks the chain once. That it breaks again may mean a second one, or
    # the end of a part of another log, which seldom happens to go on with the same streams.
    foreign = ends_otherwise or (breaks_again and verifier.objection(record) is not None)
    true_hash = link(previous, fields_of(record))
    return _diagnose_in_place(record, true_hash, leads_on, foreign=foreign)


def _hash_at(position: int, previous: bytes, record: Record) -> bytes:
    """Return the hash that a record would have at a position, after another record."""
    return link(previous, (position, *fields_of(record)[1:]))


class _LeadsOn(Protocol):
    """Whether the log goes on (or ends) as if the record at hand had a certain hash.

    `shift` is by how much the positions of what follows would have been greater. None: nothing
    follows that could tell.
    """

    def __call__(self, hash_: bytes, shift: int = 0) -> bool | None: ...


def _diagnose_in_place(
    record: Record, true_hash: bytes, leads_on: _LeadsOn, *, foreign: bool
) -> Damage:
    """Tell apart what can be wrong with a record at the right position, by what builds on it."""
    here, who = record.position, f"{record.type}, version {record.version} of {record.stream}"
    if leads_on(true_hash):
        return Damage(here, DamageKind.ALTERED, f"the hash of {who} was changed")
    if leads_on(record.hash) is not False:
        if foreign and leads_on(record.hash):
            detail = f"from {who} on, records are another log's"
            return Damage(here, DamageKind.SPLICED, detail)
        return Damage(here, DamageKind.ALTERED, f"{who} is not what was written here")
    for gone in range(1, _MOST_RENUMBERED + 1):
        if leads_on(record.hash, gone):
            detail = f"{_count(gone)} before {who}; what follows was renumbered"
            return Damage(here, DamageKind.MISSING, detail)
    detail = f"neither content nor hash of {who} belongs here"
    return Damage(here, DamageKind.SPLICED, detail)


_MOST_RENUMBERED: Final = 1000
"""As many missing records are looked for where those that follow were renumbered."""
