"""The log in a SQLite file, as the one agent that may write it has it.

`SqliteStore` is the daemon's; `SqliteReader` (`events.sqlite_reader`) is for everybody else.
SQLite comes through apsw, whose wheels carry a current one: the standard library's may lie in the
range of the WAL-reset corruption bug, 3.7.0 to 3.51.2. It is asked for a write-ahead log that is
synced at every commit and checkpointed when the store says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from operator import attrgetter
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import apsw
import attrs

from events.chain import check, extend, fields_of, genesis, link
from events.clock import system_clock
from events.lock import LogLock
from events.log import (
    Append,
    ArchivedRange,
    Clock,
    LogDamaged,
    LogWriteFailed,
    Record,
    Row,
    Tip,
    VersionConflict,
)
from events.sqlite_file import (
    APPLICATION_ID,
    PATIENCE_MS,
    Identity,
    companions,
    identify,
    in_words,
    make,
    readable,
    refuse_a_copy,
    refuse_what_is_no_file,
    renew_views,
    set_up,
)
from events.sqlite_reader import SqliteReader

__all__ = ["APPLICATION_ID", "SqliteReader", "SqliteStore", "system_clock"]

_PAGES_BEFORE_CHECKPOINT: Final = 1000
"""About 4 MB of write-ahead log, which is copied into the log itself in some 10 ms."""

_PAGES_BEFORE_WAITING: Final = 4000
"""From here on a checkpoint waits for the readers, so that the write-ahead log starts over."""

_READERS_MS: Final = 100
"""Longer than any of our readers' transactions; new ones don't hold up a finished checkpoint."""

_INSERT: Final = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_row: Final = attrgetter(*(field.name for field in attrs.fields(Record)))
"""A record as a row; `attrs.astuple` takes twenty times as long."""


class SqliteStore:
    """An `EventStore` in a file. Open it with `open`.

    Reads go through a connection of their own: they may come from another thread while one
    commits. Two threads must not commit at once.

    Attributes:
        path: the log's real path.
        log_id: the log's own id, made when the log was made.
        created: when that was, UTC, ISO 8601.
    """

    def __init__(
        self, connection: apsw.Connection, reader: SqliteReader, lock: LogLock, clock: Clock
    ) -> None:
        self.path, self.log_id, self.created = reader.path, reader.log_id, reader.created
        self._connection, self._reader, self._lock, self._clock = connection, reader, lock, clock
        self._failure: str | None = None
        self._is_open = True
        self._wal_pages = 0
        self._checkpoint_at = _PAGES_BEFORE_CHECKPOINT
        # Kept for the next append's sake only; what is true is in the file.
        self._tip = _end_of(reader)
        connection.set_wal_hook(self._on_commit)

    @classmethod
    def open(
        cls,
        path: Path | str,
        clock: Clock = system_clock,
        *,
        vfs: str | None = None,
        new_id: Callable[[], UUID] = uuid4,
    ) -> SqliteStore:
        """Open a log to write to it; make it when there is none. Its folder must be there.

        Args:
            path: where it is.
            clock: where the stamps come from.
            vfs: the name of a SQLite VFS to write through; None for SQLite's own.
            new_id: makes the id of a new log.

        Raises:
            LogLocked: a living agent has it.
            NotALog: the file is something else, of a newer format, or a copy for reading only.
            LogDamaged: its end, or a record of an open stream, is missing or altered. What is
                closed is not read; `replay verify` checks that.
            LogWriteFailed: it can't be made or written to.
        """
        real = Path(os.path.realpath(path))
        refuse_what_is_no_file(real)
        since = clock().wall
        with ExitStack() as undo:
            lock = LogLock.take(real, since)
            undo.callback(lock.release)
            _create(real)
            with readable(real):
                connection = apsw.Connection(str(real), apsw.SQLITE_OPEN_READWRITE, vfs)
                undo.callback(connection.close)
                set_up(connection)
                identity = identify(connection, real)
            if identity is not None:
                refuse_a_copy(identity, real)
            _prepare(connection, real, None if identity else Identity(new_id(), since))
            reader = SqliteReader.open(real)
            undo.callback(reader.close)
            store = cls(connection, reader, lock, clock)
            reader.check_open_streams()
            _renew_views(connection, real)
            undo.pop_all()
        return store

    def commit(self, appends: Sequence[Append]) -> Sequence[Sequence[Record] | VersionConflict]:
        """See `EventStore.commit`.

        Raises:
            LogWriteFailed: see `EventStore.commit`.
            ValueError: an append that could never be right; nothing was appended.
        """
        if not self._is_open:
            raise ValueError(f"the log {self.path} was closed")
        if self._failure is not None:
            raise LogWriteFailed(self.path, self._failure)
        for append in appends:
            check(append)
        try:
            outcomes = self._commit(appends)
        except (apsw.Error, OSError) as error:
            raise LogWriteFailed(self.path, self._fail(error)) from error
        except BaseException as error:
            self._fail(error)
            raise
        self._checkpoint_when_due()
        return outcomes

    def last_position(self) -> int:
        """See `LogReader.last_position`."""
        return self._reader.last_position()

    def tip(self) -> Tip:
        """See `SqliteReader.tip`."""
        return self._reader.tip()

    def archived_range(self, first: int) -> ArchivedRange | None:
        """See `LogReader.archived_range`."""
        return self._reader.archived_range(first)

    def archived_at(self, position: int) -> ArchivedRange | None:
        """See `LogReader.archived_at`."""
        return self._reader.archived_at(position)

    def is_archived(self, stream: str) -> bool:
        """See `LogReader.is_archived`."""
        return self._reader.is_archived(stream)

    def version_of(self, stream: str) -> int:
        """See `SqliteReader.version_of`."""
        return self._reader.version_of(stream)

    def read_stream(self, stream: str, after_version: int = 0) -> Sequence[Record]:
        """See `LogReader.read_stream`."""
        return self._reader.read_stream(stream, after_version)

    def read_all(self, after_position: int = 0) -> Iterator[Record]:
        """See `LogReader.read_all`."""
        return self._reader.read_all(after_position)

    def read_rows(self, after_position: int = 0) -> Iterator[Row]:
        """See `LogReader.read_rows`."""
        return self._reader.read_rows(after_position)

    def open_streams(self) -> Sequence[str]:
        """See `LogReader.open_streams`."""
        return self._reader.open_streams()

    def streams(self, prefix: str = "") -> Sequence[str]:
        """See `LogReader.streams`."""
        return self._reader.streams(prefix)

    def verified(self) -> Iterator[Record]:
        """See `SqliteReader.verified`."""
        return self._reader.verified()

    def close(self) -> None:
        """Move everything into the log itself, unless writing failed, and let others have it."""
        if not self._is_open:
            return
        self._is_open = False
        self._reader.close()
        if self._failure is None:
            # What was acknowledged is in the write-ahead log; the next agent finds it there.
            with suppress(apsw.Error):
                self._connection.set_busy_timeout(_READERS_MS)
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._connection.close()
        self._lock.release()

    def _commit(self, appends: Sequence[Append]) -> Sequence[Sequence[Record] | VersionConflict]:
        write = self._connection
        write.execute("BEGIN IMMEDIATE")
        outcomes, records = extend(self._tip, appends, self._clock(), self._ending_of)
        if records:
            write.executemany(_INSERT, map(_row, records))
            tip = Tip(records[-1].position, records[-1].hash)
            write.execute("UPDATE tip SET position = ?, hash = ?", (tip.position, tip.hash))
        write.execute("COMMIT")
        if records:
            self._tip = tip
        return outcomes

    def _ending_of(self, stream: str) -> tuple[int, bool]:
        query = "SELECT version, closes FROM records WHERE stream = ? ORDER BY version DESC LIMIT 1"
        row = self._connection.execute(query, (stream,)).fetchone()
        if row is not None:
            return (row[0], row[1] == 1)
        query = "SELECT version FROM archived_streams WHERE stream = ?"
        row = self._connection.execute(query, (stream,)).fetchone()
        return (0, False) if row is None else (row[0], True)

    def _fail(self, error: BaseException) -> str:
        """Accept nothing from now on: promise 6. Return the reason."""
        errno = self._connection.system_errno if isinstance(error, apsw.Error) else 0
        self._failure = in_words(error, errno)
        # SQLite has often rolled back by itself; what is left open is gone when it is closed.
        with suppress(apsw.Error):
            self._connection.execute("ROLLBACK")
        return self._failure

    def _on_commit(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint_when_due(self) -> None:
        """Keep the write-ahead log short, in the moments between two commits.

        SQLite starts it over once all of it was copied and no reader uses it. As long as readers
        come and go all the time that moment may never be, so from some length on we wait for it.
        """
        if self._wal_pages < self._checkpoint_at:
            if self._wal_pages < _PAGES_BEFORE_CHECKPOINT:
                self._checkpoint_at = _PAGES_BEFORE_CHECKPOINT
            return
        self._checkpoint_at = self._wal_pages + _PAGES_BEFORE_CHECKPOINT
        waiting = self._wal_pages >= _PAGES_BEFORE_WAITING
        mode = apsw.SQLITE_CHECKPOINT_RESTART if waiting else apsw.SQLITE_CHECKPOINT_PASSIVE
        try:
            self._connection.set_busy_timeout(_READERS_MS)
            with suppress(apsw.BusyError):  # a reader lingers: try again some pages later
                self._connection.wal_checkpoint(mode=mode)
            self._connection.set_busy_timeout(PATIENCE_MS)
        except apsw.Error as error:
            # What was just committed is durable in the write-ahead log; the next commit is not
            # even tried, for a second checkpoint would believe that the first one's pages were
            # written.
            self._fail(error)


def _create(path: Path) -> None:
    """Make sure that there is a file, readable by its owner alone from the first moment.

    SQLite gives its own files next to it the same mode.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise LogWriteFailed(path, f"can't make it: {error.strerror}") from error
    os.close(descriptor)


def _prepare(connection: apsw.Connection, path: Path, new: Identity | None) -> None:
    """Make the database fit to be written to: a log, and all that is in it durable."""
    if connection.readonly("main"):
        raise LogWriteFailed(path, "there is no permission to write to it")
    try:
        # No checkpoint by SQLite's own choice: after a failed one there must not be another. And
        # with none on closing it leaves -wal and -shm in place, on which readers rely.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        # The pragma does not fail when it could not write; it says which mode is on.
        mode = connection.execute("PRAGMA journal_mode = WAL").get
        if mode != "wal":
            raise LogWriteFailed(path, "SQLite can't keep a write-ahead log here")
        connection.execute("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0")
        if new is not None:
            make(connection, new, Tip(0, genesis(new.log_id)))
        _make_durable(connection, path)
        connection.set_busy_timeout(PATIENCE_MS)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except apsw.CorruptError as error:
        raise LogDamaged(path, None, in_words(error)) from error
    except (apsw.Error, OSError) as error:
        errno = connection.system_errno if isinstance(error, apsw.Error) else 0
        raise LogWriteFailed(path, in_words(error, errno)) from error


def _renew_views(connection: apsw.Connection, path: Path) -> None:
    """Bring the views for SQL up to date. They are a convenience: a log is as good without them.

    But after an I/O error, which may have been a sync's, nothing more is written: promise 6.
    """
    try:
        renew_views(connection)
    except apsw.IOError as error:
        raise LogWriteFailed(path, in_words(error, connection.system_errno)) from error
    except apsw.Error:
        return  # a full disk, or somebody's table of that name: the next start tries again


def _make_durable(connection: apsw.Connection, path: Path) -> None:
    """Bring everything that can be read onto the disk, before anything acts on it.

    A commit whose sync failed or was never reached (the agent was killed) is found in the page
    cache. It counts as having happened from now on, but the kernel may take it for written
    already: so it is written anew, by a checkpoint.
    """
    try:
        connection.set_busy_timeout(_READERS_MS)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError:
        # Some reader holds on to the write-ahead log, to which we shall append: put the same
        # bytes in their place again. It carries no lock that closing it could drop.
        _write_again(companions(path)[0])


def _write_again(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        offset = 0
        while part := os.pread(descriptor, 1 << 20, offset):
            offset += os.pwrite(descriptor, part, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _end_of(reader: SqliteReader) -> Tip:
    """Return where the log ends, having looked at the last two records.

    Raises:
        LogDamaged: the last record is missing or altered.
    """
    tip, last = reader.tip(), reader.last_position()
    if tip.position != last:
        at, reason = min(tip.position, last) + 1, f"it notes its end at {tip.position}, not {last}"
        raise LogDamaged(reader.path, at, reason)
    before = reader.archived_before(last)
    end = Tip(last - 1, before) if before is not None else Tip(0, genesis(reader.log_id))
    for record in reader.read_all(max(last - 2, 0)):
        if record.position == last and link(end.hash, fields_of(record)) != record.hash:
            raise LogDamaged(reader.path, last, "the last record was altered")
        end = Tip(record.position, record.hash)
    if tip != end:
        raise LogDamaged(reader.path, last, "its note of the last record differs from that record")
    return tip
