"""The log as a SQLite file: one writer with durable commits, any number of readers.

SQLite comes through apsw, whose wheels carry a current one (the standard library's may lie in the
range of the WAL-reset corruption bug, 3.7.0 to 3.51.2). WAL with synchronous=FULL makes a commit
durable when it returns; triggers refuse to change or remove a record; the hash chain shows what was
done to the file behind SQLite's back. The daemon opens a `SqliteStore`, the replay tool a
`SqliteReader`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import apsw
import attrs

from events.chain import chained, genesis
from events.log import (
    Append,
    Clock,
    LogDamaged,
    LogLocked,
    LogWriteFailed,
    NotALog,
    Record,
    Stamp,
    VersionConflict,
)

APPLICATION_ID: Final = 0x706C7566
"""`pluf` in the file's header: what `file` and SQLite tools can tell a log by."""

FORMAT: Final = 1
"""The version of the tables below, kept as SQLite's user_version."""

CHUNK: Final = 2000
"""Records read at a time: enough to be fast, few enough that a reader never holds a checkpoint."""

BUSY_MILLISECONDS: Final = 5000

TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE records (
    position INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    type TEXT NOT NULL,
    schema INTEGER NOT NULL,
    cause INTEGER,
    closes INTEGER NOT NULL,
    recorded_at TEXT NOT NULL,
    monotonic_ns INTEGER NOT NULL,
    data TEXT NOT NULL,
    hash BLOB NOT NULL,
    UNIQUE (stream, version)
) STRICT;
CREATE TABLE open_streams (first_position INTEGER PRIMARY KEY, stream TEXT NOT NULL UNIQUE) STRICT;
CREATE TRIGGER records_are_never_changed BEFORE UPDATE ON records
    BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER records_are_never_removed BEFORE DELETE ON records
    BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
-- A stream that one record opens and closes must not depend on the order that triggers fire in.
CREATE TRIGGER streams_open AFTER INSERT ON records WHEN NEW.version = 1 AND NEW.closes = 0
    BEGIN INSERT INTO open_streams VALUES (NEW.position, NEW.stream); END;
CREATE TRIGGER streams_close AFTER INSERT ON records WHEN NEW.closes = 1
    BEGIN DELETE FROM open_streams WHERE stream = NEW.stream; END;
"""

_COLUMNS: Final = (
    "position, stream, version, type, schema, cause, closes, recorded_at, monotonic_ns, data, hash"
)
_SELECT: Final = f"SELECT {_COLUMNS} FROM records"  # noqa: S608 - a constant
_INSERT: Final = f"INSERT INTO records ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608


def system_clock() -> Stamp:
    """Return the host's wall clock (UTC) and the time since it booted, sleep included."""
    wall = datetime.now(UTC).isoformat(timespec="microseconds")
    return Stamp(wall, time.clock_gettime_ns(time.CLOCK_BOOTTIME))


@attrs.define(eq=False)
class SqliteReader:
    """A log opened for reading: it needs no lock, and changes nothing beside the log."""

    path: Path
    log_id: UUID
    _connection: apsw.Connection

    @classmethod
    def open(cls, path: Path) -> SqliteReader:
        """Open a log that may be written meanwhile, or was copied here.

        Raises:
            NotALog: it is missing, another program's, or of a newer version.
            LogDamaged: it can't be read as the database that it was.
        """
        _refuse_what_is_no_database(path)
        connection = _connect_read_only(path)
        return cls(path, _identify(path, connection), connection)

    def last_position(self) -> int:
        """See `LogReader`."""
        return int(self._value("SELECT coalesce(max(position), 0) FROM records"))

    def version_of(self, stream: str) -> int:
        """See `LogReader`."""
        query = "SELECT coalesce(max(version), 0) FROM records WHERE stream = ?"
        return int(self._value(query, stream))

    def read_stream(self, stream: str, after_version: int = 0) -> Sequence[Record]:
        """See `LogReader`."""
        query = f"{_SELECT} WHERE stream = ? AND version > ? ORDER BY version"
        return [_record(row) for row in self._rows(query, stream, after_version)]

    def read_all(self, after_position: int = 0) -> Iterator[Record]:
        """See `LogReader`. Reads in chunks, so it never keeps the writer from checkpointing."""
        query = f"{_SELECT} WHERE position > ? ORDER BY position LIMIT {CHUNK}"
        while rows := self._rows(query, after_position):
            yield from map(_record, rows)
            after_position = rows[-1][0]

    def open_streams(self) -> Sequence[str]:
        """See `LogReader`."""
        query = "SELECT stream FROM open_streams ORDER BY first_position"
        return [row[0] for row in self._rows(query)]

    def streams(self, prefix: str = "") -> Sequence[str]:
        """See `LogReader`."""
        # A range over the unique index; U+10FFFF sorts after all that a stream's name can hold.
        query = (
            "SELECT stream FROM records WHERE version = 1 AND stream >= ? AND stream < ?"
            " ORDER BY position"
        )
        return [row[0] for row in self._rows(query, prefix, prefix + "\U0010ffff")]

    def close(self) -> None:
        """See `LogReader`."""
        self._connection.close()

    def _value(self, query: str, *bindings: Any) -> Any:
        return self._rows(query, *bindings)[0][0]

    def _rows(self, query: str, *bindings: Any) -> list[tuple[Any, ...]]:
        try:
            return list(self._connection.execute(query, bindings))
        except (apsw.CorruptError, apsw.NotADBError, apsw.IOError) as error:
            raise LogDamaged(self.path, None, str(error)) from error


@attrs.define(eq=False)
class SqliteStore(SqliteReader):
    """A log opened for writing, by one process at a time."""

    clock: Clock = system_clock
    _lock: int = -1
    _position: int = 0
    _last_hash: bytes = b""
    _failure: LogWriteFailed | None = None

    @classmethod
    def open(cls, path: Path, clock: Clock = system_clock) -> SqliteStore:
        """Open a log, or create it in a folder that exists.

        Raises:
            LogLocked: another living process writes to it.
            NotALog: it is another program's file, or of a newer version.
            LogDamaged: it can't be read as the database that it was.
            LogWriteFailed: it can't be created or prepared.
        """
        lock = _lock(path)
        try:
            _refuse_what_is_no_database(path, may_be_missing=True)
            connection = _connect_for_writing(path)
            store = cls(path, _identify(path, connection), connection, clock=clock, lock=lock)
            store._find_the_end()
        except BaseException:
            os.close(lock)
            raise
        return store

    def commit(self, appends: Sequence[Append]) -> Sequence[Sequence[Record] | VersionConflict]:
        """See `EventStore.commit`."""
        if self._failure is not None:
            raise self._failure
        position, last_hash = self._position, self._last_hash
        try:
            with contextlib.closing(self._connection.cursor()) as cursor:
                cursor.execute("BEGIN IMMEDIATE")
                outcomes = [self._append(cursor, append) for append in appends]
                cursor.execute("COMMIT")
        except apsw.Error as error:
            self._position, self._last_hash = position, last_hash
            with contextlib.suppress(apsw.Error):  # SQLite may have rolled back by itself
                self._connection.execute("ROLLBACK")
            self._failure = LogWriteFailed(self.path, _in_words(error))
            raise self._failure from error
        return outcomes

    def _append(self, cursor: apsw.Cursor, append: Append) -> Sequence[Record] | VersionConflict:
        query = "SELECT version, closes FROM records WHERE stream = ? ORDER BY version DESC LIMIT 1"
        last = cursor.execute(query, (append.stream,)).fetchone()
        version, closed = (last[0], bool(last[1])) if last else (0, False)
        if closed or version != append.expected_version:
            return VersionConflict(append.stream, append.expected_version, version, closed=closed)
        records = list(chained(self._last_hash, self._position + 1, append, self.clock()))
        cursor.executemany(_INSERT, [attrs.astuple(record) for record in records])
        self._position, self._last_hash = records[-1].position, records[-1].hash
        return records

    def _find_the_end(self) -> None:
        rows = self._rows("SELECT position, hash FROM records ORDER BY position DESC LIMIT 1")
        self._position, self._last_hash = rows[0] if rows else (0, genesis(self.log_id))

    def close(self) -> None:
        """Checkpoint and let the next agent in."""
        if self._lock >= 0:
            self._connection.close()
            os.close(self._lock)
            self._lock = -1


def _record(row: tuple[Any, ...]) -> Record:
    return Record(*row[:6], bool(row[6]), *row[7:])  # type: ignore[call-arg]  # in its order


# --- opening -------------------------------------------------------------------------------


def _lock(path: Path) -> int:
    """Take the log's lock: a file of its own, for opening and closing the database itself would
    drop the locks that SQLite holds on it (POSIX locks belong to the process, not the handle).
    """
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LogWriteFailed(path, f"can't lock it: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(lock)
        raise LogLocked(path, holder) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} since {system_clock().wall}\n".encode(), 0)
    return lock


def _refuse_what_is_no_database(path: Path, *, may_be_missing: bool = False) -> None:
    # Looked at with a plain read only before SQLite has the file open in this process.
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        if may_be_missing:
            return
        raise NotALog(path, "there is no such file") from None
    except OSError as error:
        raise NotALog(path, error.strerror or str(error)) from error
    if head and head != b"SQLite format 3\x00":
        raise NotALog(path, "it is not a SQLite file")
    if not head and not may_be_missing:
        raise NotALog(path, "it is empty")


def _connect_read_only(path: Path) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    # Without a WAL there is no writer (it is removed when the last one closes), and then SQLite
    # must not make one in a folder that isn't ours.
    query = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    try:
        connection = apsw.Connection(f"file:{_quoted(path)}?{query}", flags=flags)
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        connection.execute("PRAGMA query_only = 1")
        connection.execute("SELECT count(*) FROM sqlite_schema")
    except apsw.CantOpenError as error:
        # Ignoring the WAL would read an older log as if it were all.
        reason = (
            f"its last records are in {path.name}-wal, which needs a folder that can be written"
        )
        raise NotALog(path, f"{reason}; copy both files to one") from error
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise LogDamaged(path, None, str(error)) from error
    return connection


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _connect_for_writing(path: Path) -> apsw.Connection:
    try:
        # SQLite gives -wal and -shm the mode of the database, so all three are ours alone.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        is_new = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
        if not is_new:
            _identify(path, connection)  # nothing is changed in a file that is not ours
        connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        if is_new:
            _create(connection)
            _sync_directory(path.parent)
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise LogDamaged(path, None, str(error)) from error
    except (apsw.Error, OSError) as error:
        raise LogWriteFailed(path, _in_words(error)) from error
    return connection


def _create(connection: apsw.Connection) -> None:
    """Make the tables in one transaction: a log is whole or empty, never half made."""
    with connection:
        connection.execute(TABLES)
        meta = {"log_id": str(uuid4()), "created": system_clock().wall}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")


def _sync_directory(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _identify(path: Path, connection: apsw.Connection) -> UUID:
    """Return the log's id, or say why this is not a log that can be read here."""
    try:
        application, format_ = (
            connection.pragma("application_id"),
            connection.pragma("user_version"),
        )
        if application != APPLICATION_ID:
            raise NotALog(path, "it is another program's SQLite file")
        if format_ > FORMAT:
            raise NotALog(
                path, f"it has format {format_}, and this release knows {FORMAT}: use a newer one"
            )
        meta: Mapping[str, str] = dict(connection.execute("SELECT key, value FROM meta"))
        return UUID(meta["log_id"])
    except (apsw.Error, KeyError, ValueError) as error:
        raise LogDamaged(path, None, str(error)) from error


_WORDS: Final[Mapping[type[Exception], str]] = {
    apsw.FullError: "the disk is full",
    apsw.IOError: "input/output error",
    apsw.ReadOnlyError: "it can't be written (read-only)",
    apsw.CantOpenError: "it can't be opened",
    apsw.BusyError: "another program holds it locked",
    apsw.CorruptError: "it is damaged",
}


def _in_words(error: Exception) -> str:
    return f"{_WORDS.get(type(error), type(error).__name__)} ({error})"
