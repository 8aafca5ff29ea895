"""Reads a log to make another of it, and writes that: an archive, an import, a copy for reading.

This is the one way to write a log that is not an agent's own appending. What it writes is given
record by record, so that a log far larger than memory can be copied; each record's hash is the
caller's business. A new log appears at its path whole and durable, or not at all.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import attrs

from events.chain import fields_of, genesis
from events.log import (
    ArchivedRange,
    ArchivedStream,
    LogDamaged,
    LogError,
    LostRange,
    Record,
    Tip,
    TornStream,
)
from events.sqlite_file import Identity, companions, in_words, make
from events.sqlite_reader import SqliteReader

_ROWS_AT_ONCE: Final = 1000

_TRIGGERS: Final = ("records_follow_each_other", "copies_are_never_continued")
"""They would refuse what has gaps, and what is a copy; they are put back at the end."""


class CopyFailed(LogError):
    """A new log can't be written; nothing was put in its place."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"can't write {path}: {reason}")


class CompactedMeanwhile(LogError):
    """Records left the log for an archive while it was read: what was read is no one log."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(f"the log {path} was compacted while it was read; try again")


def contents(reader: SqliteReader, tip: Tip) -> Iterator[Record | ArchivedRange]:
    """Yield what a log holds: each record, and each range that is not in it, in its place.

    What is appended after the tip was read is left out. The log is read in many short transactions,
    so that an agent is not held up, however large the log is.

    Raises:
        LogDamaged: a record is missing or can't be read.
        CompactedMeanwhile: at the end; what was read is to be thrown away.
    """
    archived = reader.archived_records()
    try:
        yield from _contents(reader, tip)
    except LogDamaged:
        if reader.archived_records() == archived:
            raise
    if reader.archived_records() != archived:
        raise CompactedMeanwhile(reader.path)


def _contents(reader: SqliteReader, tip: Tip) -> Iterator[Record | ArchivedRange]:
    position = 0
    for record in reader.read_all():
        if record.position > tip.position:
            break
        while position + 1 < record.position:
            gone = reader.archived_range(position + 1)
            if gone is None:
                reason = f"there is no record before position {record.position}"
                raise LogDamaged(reader.path, position + 1, reason)
            yield gone
            position = gone.last
        yield record
        position = record.position
    # In a salvaged copy, what was lost at the end.
    while (gone := reader.archived_range(position + 1)) is not None:
        yield gone
        position = gone.last
    if position < tip.position:
        reason = f"the log ends here, and notes its end at {tip.position}"
        raise LogDamaged(reader.path, position + 1, reason)


@attrs.define
class Copy:
    """A log that is being written. Everything is added in the order of positions.

    Attributes:
        identity: what it says of itself.
        tip: where it ends so far.
        records: how many it has so far.
    """

    _connection: apsw.Connection
    identity: Identity
    tip: Tip
    records: int = 0
    _rows: list[tuple[Any, ...]] = attrs.field(factory=list)

    def add(self, record: Record) -> None:
        """Add a record."""
        self._rows.append((*fields_of(record), record.hash))
        self.tip = Tip(record.position, record.hash)
        self.records += 1
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._flush()

    def leave_out(self, gone: ArchivedRange) -> None:
        """Note that a range is not in this log: archived, or lost."""
        row = attrs.astuple(gone)
        table = "lost_ranges" if isinstance(gone, LostRange) else "archived_ranges"
        self._insert(table, row)

    def add_archived(self, stream: ArchivedStream) -> None:
        """Note that a stream is in an archive."""
        self._insert("archived_streams", attrs.astuple(stream))

    def add_torn(self, stream: TornStream) -> None:
        """Note that a stream has lost records."""
        self._insert("torn_streams", attrs.astuple(stream))

    def _insert(self, table: str, row: tuple[Any, ...]) -> None:
        marks = ", ".join("?" * len(row))
        # The names are ours: nothing from outside is in the text.
        self._connection.execute(f"INSERT INTO {table} VALUES ({marks})", row)  # noqa: S608

    def _flush(self) -> None:
        marks = ", ".join("?" * len(attrs.fields(Record)))
        self._connection.executemany(f"INSERT INTO records VALUES ({marks})", self._rows)  # noqa: S608
        self._rows.clear()


@contextlib.contextmanager
def filling(file: Path, identity: Identity) -> Iterator[Copy]:
    """Make an empty file a log, for the block to fill; it is durable after the block.

    Raises:
        apsw.Error: it can't be written.
    """
    connection = apsw.Connection(str(file), apsw.SQLITE_OPEN_READWRITE)
    try:
        # Nobody looks at it before it is done, so it needs no journal; the last sync is enough.
        connection.execute("PRAGMA journal_mode = OFF").fetchall()
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -65536")  # the index is written in random order
        beginning = Tip(0, genesis(identity.log_id))
        make(connection, identity, beginning)
        triggers = _take_away(connection)
        connection.execute("BEGIN")
        copy = Copy(connection, identity, beginning)
        yield copy
        copy._flush()
        end = (copy.tip.position, copy.tip.hash)
        connection.execute("UPDATE tip SET position = ?, hash = ?", end)
        for trigger in triggers:
            connection.execute(trigger)
        connection.execute("COMMIT")
    finally:
        connection.close()
    _sync(file, os.O_RDWR)


def _take_away(connection: apsw.Connection) -> list[str]:
    found: list[str] = []
    for name in _TRIGGERS:
        sql = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).get
        if sql is not None:
            found.append(sql)
            connection.execute(f"DROP TRIGGER {name}")
    return found


@contextlib.contextmanager
def new_log(path: Path, identity: Identity) -> Iterator[Copy]:
    """Write a log at a path where nothing is; it is there when the block is left without error.

    It is its owner's alone (mode 0600), like every log.

    Raises:
        CopyFailed: something is there already, or it can't be written.
    """
    refuse_what_is_there(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        partial = Path(name)
        try:
            with filling(partial, identity) as copy:
                yield copy
            _put_in_place(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except (apsw.Error, OSError) as error:
        raise CopyFailed(path, in_words(error)) from error


def refuse_what_is_there(path: Path) -> None:
    """Refuse to write where a log is, or where one has left its companions.

    SQLite would take what is in an older log's `-wal` for the new one's.

    Raises:
        CopyFailed: with what is there.
    """
    for part in (path, *companions(path)):
        if part.exists() or part.is_symlink():
            raise CopyFailed(path, f"{part} is there already")


def _put_in_place(partial: Path, path: Path) -> None:
    """Give the file its name, unless something has taken that meanwhile."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links, such as that of a memory stick
        if path.exists():
            raise
        partial.rename(path)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
