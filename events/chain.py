"""The hash chain: what makes a changed, missing, moved or foreign record show itself.

Each record's hash covers its predecessor's hash and all of its own content, its place included;
the first one's predecessor is a hash of the log's id. Used by the stores when they append and by
the replay tool when it verifies. BLAKE2b-128 costs 0.7 µs a record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final
from uuid import UUID

import attrs
import orjson

from events.log import Append, Record, Stamp

HASH_BYTES: Final = 16


def genesis(log_id: UUID) -> bytes:
    """Return the hash before the first record, which ties every record to its log."""
    return hashlib.blake2b(b"pluperfect/" + log_id.bytes, digest_size=HASH_BYTES).digest()


def link(previous: bytes, fields: tuple[object, ...]) -> bytes:
    """Return the hash of a record whose fields are given in `Record`'s order, without the hash."""
    return hashlib.blake2b(previous + orjson.dumps(fields), digest_size=HASH_BYTES).digest()


def fields_of(record: Record) -> tuple[object, ...]:
    """Return what a record's hash covers besides its predecessor's hash."""
    return (
        record.position,
        record.stream,
        record.version,
        record.type,
        record.schema,
        record.cause,
        record.closes,
        record.recorded_at,
        record.monotonic_ns,
        record.data,
    )


def chained(previous: bytes, position: int, append: Append, stamp: Stamp) -> Iterator[Record]:
    """Yield the records that an append becomes when it follows `previous` from `position` on."""
    last = len(append.drafts) - 1
    for index, draft in enumerate(append.drafts):
        fields = (
            position + index,
            append.stream,
            append.expected_version + index + 1,
            draft.type,
            draft.schema,
            draft.cause,
            append.closes and index == last,
            stamp.wall,
            stamp.monotonic_ns,
            draft.data,
        )
        previous = link(previous, fields)
        yield Record(*fields, previous)


@attrs.frozen
class Damage:
    """The first thing found wrong with a chain.

    Attributes:
        position: of the first record that is not as it was written.
        kind: `missing`, `reordered`, `altered`, `version`, `closed` or `cause`.
        detail: for people.
    """

    position: int
    kind: str
    detail: str


@attrs.define
class ChainVerifier:
    """Checks records one after the other, in the log's order.

    Holds one version for each stream that is open, so it can walk a log larger than memory. It
    must begin at the first record.
    """

    previous: bytes
    position: int = 0
    _versions: dict[str, int] = attrs.field(factory=dict)
    _closed: set[bytes] = attrs.field(factory=set)

    def check(self, record: Record) -> Damage | None:
        """Take in the next record; return what is wrong with it, if anything is."""
        expected = self.position + 1
        if record.position != expected:
            kind = "missing" if record.position > expected else "reordered"
            detail = f"position {expected} was expected, {record.position} follows"
            return Damage(expected, kind, detail)
        computed = link(self.previous, fields_of(record))
        if computed != record.hash:
            detail = (
                f"{record.type} (stream {record.stream}, version {record.version}) is not what was"
                " written here after the record before it"
            )
            return Damage(record.position, "altered", detail)
        damage = self._check_place(record)
        self.previous, self.position = record.hash, record.position
        return damage

    def _check_place(self, record: Record) -> Damage | None:
        key = hashlib.blake2b(record.stream.encode(), digest_size=8).digest()
        if key in self._closed:
            return Damage(record.position, "closed", f"stream {record.stream} was closed before")
        version = self._versions.get(record.stream, 0) + 1
        if record.version != version:
            detail = f"stream {record.stream} should go on with version {version}"
            return Damage(record.position, "version", f"{detail}, not {record.version}")
        if record.cause is not None and not 0 < record.cause < record.version:
            return Damage(record.position, "cause", f"caused by version {record.cause}")
        if record.closes:
            self._versions.pop(record.stream, None)
            self._closed.add(key)
        else:
            self._versions[record.stream] = version
        return None


def first_damage(records: Iterable[Record], log_id: UUID) -> Damage | None:
    """Return what is wrong first in a whole log, or None."""
    verifier = ChainVerifier(genesis(log_id))
    return next((d for d in map(verifier.check, records) if d is not None), None)
