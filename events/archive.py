"""Moves closed streams from a log into an archive, and opens either for reading.

An archive is a log file of the same format and the same id, in which the other records are the
ones that are missing, compressed with gzip: whatever reads a log reads an archive, and both
verify, together and each by itself. `pluperfect log compact` is the caller, while an agent may be
writing the log.

The order of effects makes a kill at any moment harmless: first the archive is durable and was
read back, then the streams leave the log, some whole streams in each transaction. What was
archived but has not left yet is archived again the next time.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import apsw
import attrs

from events.chain import HASH_BYTES, genesis
from events.clock import system_clock
from events.copying import Copy, filling
from events.lock import LogLock
from events.log import ArchivedRange, LogDamaged, LogWriteFailed, Record
from events.sqlite_file import (
    COLUMNS,
    Identity,
    identify,
    in_words,
    readable,
    refuse_a_copy,
    set_up,
)
from events.sqlite_reader import SqliteReader, record_of

SUFFIX: Final = ".sqlite.gz"

STREAMS_AT_ONCE: Final = 200
"""Some 2000 records: an agent waits for such a transaction for some ten milliseconds."""

_PATIENCE_MS: Final = 120_000
_ROWS_AT_ONCE: Final = 1000
_UNFINISHED: Final = ".compacting-"
_GZIP_MAGIC: Final = b"\x1f\x8b"


@attrs.frozen
class Compaction:
    """What was moved.

    Attributes:
        archive: None when there was nothing to move.
    """

    archive: Path | None
    streams: int
    records: int


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[SqliteReader]:
    """Open a log or an archive for reading, whichever it is.

    An archive is unpacked into a private temporary file, which goes with the block.

    Raises:
        LogError: see `SqliteReader.open`.
    """
    with contextlib.ExitStack() as stack:
        if is_archive(path):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pluperfect-"))
            unpacked = Path(folder) / path.name.removesuffix(".gz")
            _unpack(path, unpacked)
            path = unpacked
        yield stack.enter_context(contextlib.closing(SqliteReader.open(path)))


def is_archive(path: Path) -> bool:
    """Tell whether a file is compressed, as archives are."""
    try:
        with path.open("rb") as file:
            return file.read(2) == _GZIP_MAGIC
    except OSError:
        return False  # the reader will say what is wrong with it


def _unpack(archive: Path, target: Path) -> None:
    try:
        with gzip.open(archive) as packed, target.open("xb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
    except (EOFError, gzip.BadGzipFile, OSError) as error:
        raise LogDamaged(archive, None, f"it can't be unpacked: {error}") from error


def compact(
    path: Path,
    archives: Path,
    closed_before: str,
    *,
    before_removal: Callable[[Sequence[Record]], None] = lambda _records: None,
) -> Compaction:
    """Move the streams that were closed before a time into a new archive.

    Args:
        path: the log; an agent may be writing it.
        archives: the folder for the archive; made if it is not there.
        closed_before: UTC, ISO 8601 as records have it.
        before_removal: is told the records of some streams, when they are in the archive and
            about to leave the log.

    Raises:
        LogLocked: another compaction is at work.
        LogError: the log can't be read or written; nothing of it is lost.
    """
    real = Path(os.path.realpath(path))
    SqliteReader.open(real).close()  # which says what is wrong, if anything is
    lock = LogLock.take(real.with_name(f"{real.name}.compact"), system_clock().wall)
    with contextlib.ExitStack() as stack:
        stack.callback(lock.release)
        connection = apsw.Connection(str(real), apsw.SQLITE_OPEN_READWRITE)
        stack.callback(connection.close)
        try:
            with readable(real):
                set_up(connection)
                identity = identify(connection, real)
            # The agent checkpoints when it wants to; we never do, nor when the file is closed.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            # An agent at full load hardly leaves a gap; it is the one that must not wait.
            connection.set_busy_timeout(_PATIENCE_MS)
            connection.execute("PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = FULL")
            if identity is None:
                return Compaction(None, 0, 0)
            refuse_a_copy(identity, real)
            streams = _choose(connection, closed_before)
            if not streams:
                return Compaction(None, 0, 0)
            archives.mkdir(mode=0o700, parents=True, exist_ok=True)
            archive, count = _write_archive(connection, identity, real, archives)
            for begin in range(0, len(streams), STREAMS_AT_ONCE):
                some = streams[begin : begin + STREAMS_AT_ONCE]
                before_removal(_records_of(connection, some))
                _remove(connection, identity, some, archive.name)
            return Compaction(archive, len(streams), count)
        except apsw.Error as error:
            raise LogWriteFailed(real, in_words(error)) from error
        except OSError as error:
            raise LogWriteFailed(error.filename or archives, in_words(error)) from error


def _choose(connection: apsw.Connection, closed_before: str) -> Sequence[str]:
    """Return the streams that are to be moved, and leave them in a temporary table."""
    connection.execute("CREATE TEMP TABLE moving (stream TEXT PRIMARY KEY, first INTEGER NOT NULL)")
    # The last record stays, so that the log's end is always in the log.
    connection.execute(
        "INSERT INTO moving SELECT stream,"
        " (SELECT position FROM records AS opening WHERE opening.stream = closing.stream"
        "  AND version = 1)"
        " FROM records AS closing WHERE closes = 1 AND recorded_at < ?"
        " AND position < (SELECT max(position) FROM records)",
        (closed_before,),
    )
    return [str(s) for (s,) in connection.execute("SELECT stream FROM moving ORDER BY first")]


def _records_of(connection: apsw.Connection, streams: Sequence[str]) -> list[Record]:
    found: list[Record] = []
    query = f"SELECT {COLUMNS} FROM records WHERE stream = ? ORDER BY version"  # noqa: S608 - ours
    for stream in streams:
        found += map(record_of, connection.execute(query, (stream,)))
    return found


# --- the archive ---------------------------------------------------------------------------


def _write_archive(
    connection: apsw.Connection, identity: Identity, path: Path, archives: Path
) -> tuple[Path, int]:
    """Write what is to be moved into an archive, make it durable, and read it back."""
    for left in archives.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left)  # by a compaction that was killed; ours is the only one now
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=archives) as name:
        file = Path(name) / "archive.sqlite"
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with filling(file, identity) as target:
            first, last, count = _fill(connection, target, identity)
        with contextlib.closing(SqliteReader.open(file)) as reader:
            if sum(1 for _ in reader.verified()) != count:
                raise LogDamaged(path, None, "what was archived is not what was read")
            reader.check_file()
        packed = Path(name) / "archive.gz"
        with (
            file.open("rb") as plain,
            open(os.open(packed, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as raw,
        ):
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, mtime=0) as out:
                shutil.copyfileobj(plain, out, 1 << 20)
            raw.flush()
            os.fsync(raw.fileno())
        final = archives / f"events-{first}-{last}-{uuid4().hex[:8]}{SUFFIX}"
        packed.rename(final)
    folder = os.open(archives, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return final, count


def _fill(connection: apsw.Connection, target: Copy, identity: Identity) -> tuple[int, int, int]:
    """Copy the records that are to be moved; return the first and last position and their count."""
    names = ", ".join(f"records.{column}" for column in COLUMNS.split(", "))
    query = (
        f"SELECT {names} FROM records JOIN moving USING (stream)"  # noqa: S608 - all of it is ours
        " WHERE records.position > ? ORDER BY records.position LIMIT ?"
    )
    first, last, previous = 0, 0, genesis(identity.log_id)
    while rows := connection.execute(query, (last, _ROWS_AT_ONCE)).fetchall():
        for record in map(record_of, rows):
            if record.position != last + 1:
                before = record.position - 1
                gap = ArchivedRange(last + 1, before, previous, _hash_at(connection, before))
                target.leave_out(gap)
            target.add(record)
            first, last, previous = first or record.position, record.position, record.hash
    return first, last, target.records


def _hash_at(connection: apsw.Connection, position: int) -> bytes:
    """Return the hash of a record, wherever that record is."""
    for query in (
        "SELECT hash FROM records WHERE position = ?",
        "SELECT hash_after FROM archived_ranges WHERE last = ?",
    ):
        row: tuple[Any, ...] | None = connection.execute(query, (position,)).fetchone()
        if row is not None and len(row[0]) == HASH_BYTES:
            found: bytes = row[0]
            return found
    raise LogDamaged(connection.filename, position, "the record is missing")


# --- leaving the log -----------------------------------------------------------------------


def _remove(
    connection: apsw.Connection, identity: Identity, streams: Sequence[str], archive: str
) -> None:
    """Let whole streams leave the log, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        positions: list[int] = []
        for stream in streams:
            query = "SELECT position FROM records WHERE stream = ? ORDER BY version"
            places: list[tuple[Any, ...]] = connection.execute(query, (stream,)).fetchall()
            positions += [position for (position,) in places]
            tombstone = (stream, places[0][0], len(places), archive)
            connection.execute("INSERT INTO archived_streams VALUES (?, ?, ?, ?)", tombstone)
        for first, last in _runs(sorted(positions)):
            before = genesis(identity.log_id) if first == 1 else _hash_at(connection, first - 1)
            gone = (first, last, before, _hash_at(connection, last))
            connection.execute("INSERT INTO archived_ranges VALUES (?, ?, ?, ?)", gone)
            connection.execute("DELETE FROM records WHERE position BETWEEN ? AND ?", (first, last))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _runs(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last of each run of consecutive numbers."""
    first = last = positions[0]
    for position in positions[1:]:
        if position != last + 1:
            yield first, last
            first = position
        last = position
    yield first, last
