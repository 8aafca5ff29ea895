"""What is left in a damaged log file: everything found on any page, sorted, in a database aside.

The file is read page by page (`events.sqlite_pages`), and what looks like a part of a log is put
into a temporary database, so that a log larger than memory can be sorted by position. Nothing
here is known to be true; `replay.salvaging` proves it. Each row is known by its shape alone, since
the page that says which table it belongs to may be lost as well.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import apsw
import attrs

from events.chain import HASH_BYTES, fields_of
from events.log import ArchivedRange, ArchivedStream, LostRange, Record, Tip, TornStream
from events.sqlite_file import COLUMNS, Identity
from events.sqlite_pages import Pages, Row, Value
from events.sqlite_reader import record_of

_ROWS_AT_ONCE: Final = 1000
_MOST_TIPS: Final = 100_000
_LEAST_RECORD: Final = 100
"""Bytes; the shortest there are take about 150."""

_SCHEMA: Final = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768;
PRAGMA locking_mode = EXCLUSIVE;
CREATE TABLE records (
    position, stream, version, type, schema, cause, closes, recorded_at, monotonic_ns, data, hash,
    digest, PRIMARY KEY (position, digest)
) WITHOUT ROWID;
CREATE TABLE ranges (first, last, hash_before, hash_after, reason,
    PRIMARY KEY (first, last, hash_before, hash_after)) WITHOUT ROWID;
CREATE TABLE archived (stream PRIMARY KEY, position, version, archive) WITHOUT ROWID;
CREATE TABLE torn (stream PRIMARY KEY, version) WITHOUT ROWID;
"""

_FOUND: Final = f"""
SELECT {COLUMNS} FROM records WHERE position BETWEEN ? AND ? AND (
    NOT EXISTS (SELECT 1 FROM archived WHERE archived.stream = records.stream)
    OR ifnull((SELECT last FROM ranges WHERE first <= position
               ORDER BY first DESC LIMIT 1), position - 1) < position
) ORDER BY position, digest LIMIT ? OFFSET ?
"""  # noqa: S608 - all of it is ours
"""What was moved to an archive may still be on free pages; it stays in the archive."""


@attrs.define
class Remains:
    """What was found in a file.

    Attributes:
        said: what the log says of itself, as far as that was found.
        tips: the hashes that the log once noted as that of its last record, by position.
        open_streams: those that the log's list of open streams has, or had.
        unreadable: the pages of the file that can't be read.
        room: how many records there can have been at most, by the size of the file.
    """

    _database: apsw.Connection
    said: dict[str, str] = attrs.field(factory=dict)
    tips: dict[int, set[bytes]] = attrs.field(factory=dict)
    open_streams: set[str] = attrs.field(factory=set)
    unreadable: Sequence[int] = ()
    room: int = 0

    @classmethod
    def of(cls, pages: Pages, aside: Path) -> Remains:
        """Gather what is on the pages.

        Args:
            pages: of the file.
            aside: where the database is to be made; it takes about as much room as the file.

        Raises:
            apsw.Error: there is no room.
        """
        database = apsw.Connection(str(aside))
        database.execute(_SCHEMA).fetchall()  # all of it: a pragma's row would be the end of it
        database.execute("BEGIN")
        remains = cls(database)
        for row in pages.rows():
            remains._take(row)
        database.execute("COMMIT")
        remains.unreadable = tuple(pages.unreadable)
        remains.room = pages.largest // _LEAST_RECORD
        return remains

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    @property
    def is_empty(self) -> bool:
        """Whether there is no record."""
        return next(self.records(1), None) is None

    def records(self, first: int, last: int = 2**62) -> Iterator[Record]:
        """Yield what was found at some positions, in order; perhaps several for one position."""
        position, skip = first, 0
        rows: list[tuple[Any, ...]]
        while rows := self._database.execute(
            _FOUND, (position, last, _ROWS_AT_ONCE, skip)
        ).fetchall():
            yield from map(record_of, rows)
            if rows[-1][0] != position:
                position, skip = rows[-1][0], 0
            skip += sum(row[0] == position for row in rows)

    def range_at(self, first: int, hash_before: bytes) -> ArchivedRange | None:
        """Return the range that begins at a position, after a record with this hash."""
        query = "SELECT * FROM ranges WHERE first = ? AND hash_before = ?"
        row = self._database.execute(query, (first, hash_before)).fetchone()
        return None if row is None else _range(row)

    def ranges_from(self, first: int) -> Iterator[ArchivedRange]:
        """Yield the ranges that begin at a position or later."""
        query = "SELECT * FROM ranges WHERE first >= ? ORDER BY first LIMIT 1000"
        for row in self._database.execute(query, (first,)).fetchall():
            yield _range(row)

    def archived_streams(self) -> Iterator[ArchivedStream]:
        """Yield the streams that were moved to archives, by name."""
        for row in self._database.execute("SELECT * FROM archived ORDER BY stream"):
            yield ArchivedStream(*row)

    def was_closed(self, stream: str) -> bool:
        """Tell whether the log's list of open streams shows that a stream was closed."""
        is_whole = bool(self.open_streams) or not self.unreadable
        return is_whole and "kind" not in self.said and stream not in self.open_streams

    def is_archived(self, stream: str) -> bool:
        """Tell whether a stream was moved to an archive."""
        query = "SELECT EXISTS (SELECT 1 FROM archived WHERE stream = ?)"
        return bool(self._database.execute(query, (stream,)).get)

    def torn_streams(self) -> Iterator[TornStream]:
        """Yield the streams that had lost records before, if this is a salvaged copy itself."""
        for row in self._database.execute("SELECT * FROM torn ORDER BY stream"):
            yield TornStream(*row)

    def identity(self) -> Identity | None:
        """Return what the log says of itself, None where that is lost."""
        try:
            return Identity(UUID(self.said["log_id"]), self.said["created"])
        except (KeyError, ValueError):
            return None

    def last_tip(self) -> Tip | None:
        """Return the latest end that the log has noted, as far as can be found and believed."""
        position = max((each for each in self.tips if 0 <= each <= self.room), default=None)
        if position is None:
            return None
        return Tip(position, min(self.tips[position]))

    def _take(self, row: Row) -> None:
        match row.rowid, row.values:
            case None, values:
                self._take_entry(values)
            case int(), values if len(values) == len(attrs.fields(Record)):
                if (record := record_in(row)) is not None:
                    self._take_record(record)
            case 1, (None, int() as at, bytes() as hash_) if _is_hash(hash_):
                if len(self.tips) < _MOST_TIPS:
                    self.tips.setdefault(at, set()).add(hash_)
            case int(), (None, str() as stream):
                self.open_streams.add(stream)
            case int() as first, (None, int() as last, bytes() as before, bytes() as after, *why):
                if last >= first and _is_hash(before) and _is_hash(after) and len(why) < 2:
                    reason = why[0] if why else None
                    self._insert("ranges", (first, last, before, after, reason))

    def _take_entry(self, values: tuple[Value, ...]) -> None:
        match values:
            case ("log_id" | "created" | "kind") as key, str() as value:
                self.said[key] = value
            case str() as stream, int() as version:
                self._insert("torn", (stream, version))
            case str() as stream, int() as position, int() as version, str() as archive:
                self._insert("archived", (stream, position, version, archive))

    def _take_record(self, record: Record) -> None:
        row = (*fields_of(record), record.hash)
        digest = hashlib.blake2b(repr(row).encode(), digest_size=8).digest()
        self._insert("records", (*row, digest))

    def _insert(self, table: str, row: tuple[Any, ...]) -> None:
        marks = ", ".join("?" * len(row))
        # The names are ours: nothing from outside is in the text.
        statement = f"INSERT OR IGNORE INTO {table} VALUES ({marks})"  # noqa: S608
        self._database.execute(statement, row)


def record_in(row: Row) -> Record | None:
    """Return the record that a row may be; nothing proves it yet."""
    match row.rowid, row.values:
        case int() as at, (None, str(), int(), str(), int(), None | int(), 0 | 1, str(), int(),
                           str(), bytes() as hash_) if _is_hash(hash_) and at > 0:  # fmt: skip
            return record_of((at, *row.values[1:]))
        case _:
            return None


def _is_hash(value: bytes) -> bool:
    return len(value) == HASH_BYTES


def _range(row: Sequence[Any]) -> ArchivedRange:
    first, last, before, after, reason = row
    if reason is None:
        return ArchivedRange(first, last, before, after)
    return LostRange(first, last, before, after, reason)


@attrs.frozen
class Place:
    """What an index knows of a record: enough to say what was lost, and no proof.

    Attributes:
        version: None where the index does not tell.
    """

    position: int
    stream: str
    version: int | None


def places(pages: Pages, lost: Sequence[ArchivedRange]) -> Iterator[Place]:
    """Yield what the indexes know of the records that are lost."""
    firsts = [gone.first for gone in lost]
    for row in pages.entries():
        match row.values:
            case (str() as stream, int() as version, int() as position):
                index = bisect.bisect_right(firsts, position) - 1
                if index >= 0 and position <= lost[index].last:
                    # The index of first records has the position where the other has a version.
                    yield Place(position, stream, None if version == position else version)
            case _:
                pass


def fields_at(position: int, record: Record) -> Any:
    """Return what a record's hash covers, if it belongs to another position."""
    return (position, *fields_of(record)[1:])
