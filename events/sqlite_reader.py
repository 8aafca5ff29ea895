"""Reads a log in a SQLite file, also while an agent writes it, and never changes anything.

The replay tool opens a `SqliteReader`; the store in `events.sqlite` reads through one of its own.
The care here goes into what lies next to the log: SQLite would make its companion files anew
when they are missing, or refuse a folder that can't be written.
"""

from __future__ import annotations

import enum
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

import apsw

from events.chain import fields_of, genesis, link, verify_chain
from events.log import (
    ArchivedRange,
    ArchivedStream,
    LogDamaged,
    LostRange,
    NotALog,
    NotYetALog,
    Record,
    Row,
    Tip,
    TornStream,
)
from events.sqlite_file import (
    COLUMNS,
    DISAGREEMENT,
    OPEN_RECORDS,
    PATIENCE_MS,
    Identity,
    companions,
    identify,
    readable,
    refuse_what_is_no_file,
    set_up,
)

_OUT_OF_ORDER: Final = "the pages of the file are out of order"

_CHUNK: Final = 1000
"""Records read in one transaction: 4 ms, which is as long as a reader can hold up a checkpoint."""


_STREAMS_AT_ONCE: Final = 500


class _View(enum.Enum):
    """How a reader opens a log, by what lies next to it. Nothing there is ever made or changed.

    An agent leaves `-wal` and `-shm` in place when it stops, and makes them before it changes
    the log itself. So where one of them is missing nobody has written here, and nobody has begun
    to for as long as it is missing.
    """

    SHARED = "mode=ro&readonly_shm=1"
    """Both are there, so an agent may be at work: take part in SQLite's locking."""
    RECOVERED = "mode=ro&vfs=unix-none"
    """Only `-wal`, with records in it: a copy of a log. Index it in memory; there is nothing to
    lock, and so no lock to lose when the file is closed."""
    ALONE = "immutable=1"
    """Everything is in the log itself: a copy of a log, after a clean stop."""

    @classmethod
    def of(cls, path: Path) -> _View:
        wal, shm = companions(path)
        if wal.exists() and shm.exists():
            return cls.SHARED
        return cls.RECOVERED if wal.exists() and wal.stat().st_size else cls.ALONE


class SqliteReader:
    """A `LogReader` of a file. Open one with `open`; several threads may use it, one at a time.

    Attributes:
        path: the log's real path.
        log_id: the log's own id.
        created: when it was made, UTC, ISO 8601.
        kind: see `Identity`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = threading.Lock()
        self._view = _View.of(path)
        self._connection: apsw.Connection | None
        self._connection, identity = self._connect()
        self.log_id, self.created, self.kind = identity.log_id, identity.created, identity.kind
        self._is_open = True

    @classmethod
    def open(cls, path: Path | str) -> SqliteReader:
        """Open a log for reading; it is neither locked nor changed.

        A process that will also write the log opens its store first: SQLite shares one view of
        the shared memory among all of a process's connections, and ours may not write to it.

        Raises:
            NotALog: there is no such file, it can't be read, or it is something else.
            LogDamaged: part of it is lost.
        """
        real = Path(os.path.realpath(path))
        refuse_what_is_no_file(real)
        with readable(real):
            return cls(real)

    def last_position(self) -> int:
        """See `LogReader.last_position`."""
        return int(self._rows("SELECT ifnull(max(position), 0) FROM records")[0][0])

    def tip(self) -> Tip:
        """Return where the log ends by its own account, which is written with every commit."""
        return Tip(*self._rows("SELECT position, hash FROM tip")[0])

    @property
    def identity(self) -> Identity:
        """What the log says of itself."""
        return Identity(self.log_id, self.created, self.kind)

    def archived_at(self, position: int) -> ArchivedRange | None:
        """See `LogReader.archived_at`; in a salvaged copy, perhaps a `LostRange`."""
        query = (
            "SELECT first FROM archived_ranges WHERE first <= ?1 AND last >= ?1"
            " ORDER BY first DESC LIMIT 1"
        )
        rows = self._rows(query, (position,))
        return self.archived_range(rows[0][0] if rows else position)

    def archived_range(self, first: int) -> ArchivedRange | None:
        """See `LogReader.archived_range`; in a salvaged copy, perhaps a `LostRange`."""
        query = "SELECT first, last, hash_before, hash_after FROM archived_ranges WHERE first = ?"
        rows = self._rows(query, (first,))
        if not rows and self.kind is not None:
            lost = self._rows("SELECT * FROM lost_ranges WHERE first = ?", (first,))
            return LostRange(*lost[0]) if lost else None
        if rows and rows[0][1] < first:  # Who follows ranges would go round in circles.
            raise LogDamaged(self.path, first, "the archived range that begins here has no end")
        return ArchivedRange(*rows[0]) if rows else None

    def archived_streams(self) -> Iterator[ArchivedStream]:
        """Yield the streams that were moved to archives, by name."""
        after = ""
        while rows := self._rows(
            "SELECT * FROM archived_streams WHERE stream > ? ORDER BY stream LIMIT ?",
            (after, _CHUNK),
        ):
            if rows[-1][0] <= after:
                raise LogDamaged(self.path, None, _OUT_OF_ORDER)
            yield from (ArchivedStream(*row) for row in rows)
            after = rows[-1][0]

    def lost_ranges(self) -> Sequence[LostRange]:
        """Return what a salvaged copy has not, in order; nothing for any other log."""
        if self.kind is None:
            return ()
        return [LostRange(*row) for row in self._rows("SELECT * FROM lost_ranges ORDER BY first")]

    def torn_streams(self) -> Sequence[TornStream]:
        """Return the streams of which a salvaged copy has not everything, by name."""
        if self.kind is None:
            return ()
        rows = self._rows("SELECT * FROM torn_streams ORDER BY stream")
        return [TornStream(*row) for row in rows]

    def archived_before(self, position: int) -> bytes | None:
        """Return the hash of the record before a position, if that record is archived."""
        query = "SELECT hash_after FROM archived_ranges WHERE last = ?"
        rows = self._rows(query, (position - 1,))
        return rows[0][0] if rows else None

    def archived_records(self) -> int:
        """Return how many records were moved to archives (or are not in this archive)."""
        return int(self._rows("SELECT ifnull(sum(last - first + 1), 0) FROM archived_ranges")[0][0])

    def archive_of(self, stream: str) -> str | None:
        """Return the name of the archive that a stream was moved to, if it was."""
        query = "SELECT archive FROM archived_streams WHERE stream = ?"
        rows = self._rows(query, (stream,))
        return rows[0][0] if rows else None

    def is_archived(self, stream: str) -> bool:
        """See `LogReader.is_archived`."""
        return self.archive_of(stream) is not None

    def version_of(self, stream: str) -> int:
        """Return the version of a stream's last record, 0 when there is no such stream."""
        query = (
            "SELECT ifnull((SELECT max(version) FROM records WHERE stream = ?1), ifnull("
            "(SELECT version FROM archived_streams WHERE stream = ?1), 0))"
        )
        return int(self._rows(query, (stream,))[0][0])

    def read_stream(self, stream: str, after_version: int = 0) -> Sequence[Record]:
        """See `LogReader.read_stream`."""
        where = "stream = ? AND version > ? ORDER BY version"
        return self._records(where, (stream, after_version))

    def read_all(self, after_position: int = 0) -> Iterator[Record]:
        """See `LogReader.read_all`; what is committed meanwhile is yielded too.

        Raises:
            LogDamaged: a record can't be read; its position is named.
        """
        return map(record_of, self.read_rows(after_position))

    def read_rows(self, after_position: int = 0) -> Iterator[Row]:
        """See `LogReader.read_rows`; as `read_all`."""
        size = _CHUNK
        query = f"SELECT {COLUMNS} FROM records WHERE position > ? ORDER BY position LIMIT ?"  # noqa: S608 - ours
        while True:
            try:
                rows = self._rows(query, (after_position, size))
            except LogDamaged as error:
                if size == 1:
                    raise LogDamaged(self.path, after_position + 1, error.reason) from error
                size = 1  # one by one, up to the one that can't be read
                continue
            if not rows:
                return
            if rows[-1][0] <= after_position:  # Damaged pages can lead back to where we were.
                raise LogDamaged(self.path, after_position + 1, _OUT_OF_ORDER)
            yield from cast("list[Row]", rows)
            after_position = rows[-1][0]

    def open_streams(self) -> Sequence[str]:
        """See `LogReader.open_streams`."""
        return [name for (name,) in self._rows("SELECT stream FROM open_streams ORDER BY position")]

    def streams(self, prefix: str = "") -> Sequence[str]:
        """See `LogReader.streams`."""
        # The byte 0xff is greater than any that text can go on with.
        query = (
            "SELECT stream, position FROM records WHERE version = 1 AND stream >= ?1"
            " AND stream < ?1 || CAST(x'ff' AS TEXT) UNION ALL"
            " SELECT stream, position FROM archived_streams WHERE stream >= ?1"
            " AND stream < ?1 || CAST(x'ff' AS TEXT) ORDER BY position"
        )
        return [name for name, _position in self._rows(query, (prefix,))]

    def beginnings(
        self, *, newest_first: bool = False, since: str = "", until: str = "~"
    ) -> Iterator[str]:
        """Yield the streams by the position of their first record, without reading the rest.

        Args:
            newest_first: begin with the last one to begin.
            since, until: UTC, ISO 8601 as records have it; those that began then.
        """
        last, order, after = (1 << 62, "DESC", "<") if newest_first else (0, "ASC", ">")
        query = (
            "SELECT position, stream FROM records WHERE version = 1"  # noqa: S608 - all is ours
            f" AND position {after} ? AND recorded_at >= ? AND recorded_at < ?"
            f" ORDER BY position {order} LIMIT {_STREAMS_AT_ONCE}"
        )
        while rows := self._rows(query, (last, since, until)):
            yield from (stream for _position, stream in rows)
            if (rows[-1][0] <= last) is not newest_first:
                raise LogDamaged(self.path, last, _OUT_OF_ORDER)
            last = rows[-1][0]

    def read_streams(self, streams: Sequence[str]) -> Mapping[str, Sequence[Record]]:
        """Return the records of some streams, a few hundred at most."""
        marks = ", ".join("?" * len(streams))
        where = f"stream IN ({marks}) ORDER BY stream, version"
        found: dict[str, list[Record]] = {stream: [] for stream in streams}
        for record in self._records(where, tuple(streams)):
            found[record.stream].append(record)
        return found

    def select(self, query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query over the tables of `events.sqlite_file`.

        Args:
            query: of the caller's own making; values from outside are parameters.
            parameters: for its question marks.
        """
        return self._rows(query, parameters)

    def count_after(self, position: int) -> int:
        """Return how many records there are after a position."""
        query = "SELECT count(*) FROM records WHERE position > ?"
        return int(self._rows(query, (position,))[0][0])

    def read_of_type(self, type_: str, stream: str) -> Sequence[Record]:
        """Return the records of one type in one stream."""
        return self._records("stream = ? AND type = ? ORDER BY version", (stream, type_))

    def last_record(
        self, until: int | None = None, recorded_until: str | None = None
    ) -> Record | None:
        """Return the last record, None when there is none.

        Args:
            until: the last one up to this position.
            recorded_until: the last one that was recorded by then, UTC, ISO 8601.
        """
        where = "position <= ? AND recorded_at <= ? ORDER BY position DESC LIMIT 1"
        return next(iter(self._records(where, (until or 1 << 62, recorded_until or "~"))), None)

    def verified(self) -> Iterator[Record]:
        """Yield every record, each after it was found to be in order.

        Raises:
            ChainBroken: names the first record that is altered, missing, moved or foreign.
            LogDamaged: part of the file can't be read, or the end differs from its note.
        """
        yield from verify_chain(
            self.read_all(),
            self.log_id,
            path=self.path,
            tip=self.tip(),
            archived=self.archived_at,
            torn={each.stream for each in self.torn_streams()},
        )
        last, noted = self._rows("SELECT ifnull((SELECT max(position) FROM records), 0), position"
                                 " FROM tip")[0]  # fmt: skip
        if last != noted:
            raise LogDamaged(self.path, noted + 1, f"the log notes its end at {noted}, not {last}")

    def check_open_streams(self) -> None:
        """Check every record of the streams that are open: what recovery builds on.

        It costs what is open and not what is closed, so an agent can afford it at each start.

        Raises:
            LogDamaged: names the first record of them that is altered or missing.
        """
        before = genesis(self.log_id)
        versions: dict[str, int] = {}
        for *row, previous in self._rows(OPEN_RECORDS):
            record = record_of(row)
            if record.version != versions.get(record.stream, 0) + 1:
                reason = f"a record before version {record.version} of {record.stream} is missing"
                raise LogDamaged(self.path, record.position, reason)
            versions[record.stream] = record.version
            if link(previous or before, fields_of(record)) != record.hash:
                reason = f"{record.type}, version {record.version} of {record.stream}, was altered"
                raise LogDamaged(self.path, record.position, reason)

    def check_file(self) -> None:
        """Check what verification of the records does not see: every page, index and open stream.

        Raises:
            LogDamaged: with the first that is wrong.
        """
        verdict = self._rows("PRAGMA integrity_check(1)")[0][0]
        if verdict != "ok":
            raise LogDamaged(self.path, None, verdict)
        for position, stream in self._rows(DISAGREEMENT):
            reason = f"the table of open streams is wrong about {stream}"
            raise LogDamaged(self.path, position, reason)

    def close(self) -> None:
        """See `LogReader.close`."""
        with self._turn:
            self._is_open = False
            self._disconnect()

    def _records(self, where: str, parameters: tuple[Any, ...]) -> list[Record]:
        # The names are ours, and so is every condition: nothing from outside is in the text.
        rows = self._rows(f"SELECT {COLUMNS} FROM records WHERE {where}", parameters)  # noqa: S608
        return [record_of(row) for row in rows]

    def _rows(self, query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run one query in a transaction of its own, and again if an agent began to write."""
        with self._turn, readable(self.path):
            if not self._is_open:
                raise ValueError(f"the log {self.path} was closed")
            while True:
                if self._connection is None:
                    self._connection = self._reconnect()
                try:
                    rows: list[tuple[Any, ...]] = self._connection.execute(
                        query, parameters
                    ).fetchall()
                except (apsw.Error, UnicodeDecodeError):
                    if self._is_current():
                        raise
                else:
                    if self._is_current():
                        return rows
                self._disconnect()

    def _is_current(self) -> bool:
        return self._view is _View.SHARED or self._view is _View.of(self.path)

    def _reconnect(self) -> apsw.Connection:
        self._view = _View.of(self.path)
        connection, identity = self._connect()
        if identity.log_id != self.log_id:
            connection.close()
            raise NotALog(self.path, "another log took its place while it was read")
        return connection

    def _connect(self) -> tuple[apsw.Connection, Identity]:
        uri = f"file:{quote(str(self.path))}?{self._view.value}"
        connection = apsw.Connection(uri, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        with ExitStack() as undo:
            undo.callback(connection.close)
            connection.set_busy_timeout(PATIENCE_MS)
            # Or else, when it is closed, it removes a write-ahead log that it finds nothing in.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            set_up(connection)
            if self._view is _View.RECOVERED:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # no shared memory
            identity = identify(connection, self.path)
            if identity is None:
                raise NotYetALog(self.path)
            undo.pop_all()
        return connection, identity

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def record_of(row: Sequence[Any]) -> Record:
    """Return the record that a row of the table holds, its columns in their order."""
    at, stream, version, type_, schema, cause, closes, wall, boot, data, hash_ = row
    return Record(at, stream, version, type_, schema, cause, closes == 1, wall, boot, data, hash_)
