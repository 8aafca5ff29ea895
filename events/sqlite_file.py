"""The SQLite log as a file: its schema, how it is known to be one, what SQLite's errors mean.

`events.sqlite` builds the store and the reader on this.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import UUID

import apsw
import attrs

from events.log import ForReadingOnly, LogDamaged, LogLocked, NotALog, Tip
from events.sql_views import VIEWS

APPLICATION_ID: Final = 0x706C7566
"""`pluf`, in the header of every log: what SQLite's tools and `file` can tell one by."""

FORMAT: Final = 1
"""The version of the schema, in the header as SQLite's user version."""

PATIENCE_MS: Final = 5000
"""How long to wait for what only takes a moment, such as another process's recovery."""

COLUMNS: Final = (
    "position, stream, version, type, schema, cause, closes, recorded_at, monotonic_ns, data, hash"
)

SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE records (
    position INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    type TEXT NOT NULL,
    schema INTEGER NOT NULL CHECK (schema >= 1),
    cause INTEGER CHECK (cause >= 1 AND cause < version),
    closes INTEGER NOT NULL CHECK (closes IN (0, 1)),
    recorded_at TEXT NOT NULL,
    monotonic_ns INTEGER NOT NULL,
    data TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 16),
    UNIQUE (stream, version)
) STRICT;

-- Lists streams without reading the rest of their records.
CREATE UNIQUE INDEX first_records ON records (stream, position) WHERE version = 1;

-- Lists what is open without reading what is closed. Written by the triggers below only.
CREATE TABLE open_streams (position INTEGER PRIMARY KEY, stream TEXT NOT NULL) STRICT;

-- Where the log ends, so that an end that was cut off is missed.
CREATE TABLE tip (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    position INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 16)
) STRICT;

-- What was moved to an archive, so that the chain can be followed over the gaps.
CREATE TABLE archived_ranges (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL UNIQUE CHECK (last >= first),
    hash_before BLOB NOT NULL CHECK (length(hash_before) = 16),
    hash_after BLOB NOT NULL CHECK (length(hash_after) = 16)
) STRICT;

-- Archived streams stay closed: their names are never used again.
CREATE TABLE archived_streams (
    stream TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    version INTEGER NOT NULL,
    archive TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The file itself refuses what is out of order, whoever writes; this is also what stops an
-- INSERT OR REPLACE, which deletes without asking the triggers on DELETE. It costs 6 % of the
-- records that can be committed in a second.
CREATE TRIGGER records_follow_each_other BEFORE INSERT ON records
WHEN NEW.position IS NOT 1 + ifnull((SELECT max(position) FROM records), 0)
  OR NEW.version IS NOT 1 + ifnull((SELECT max(version) FROM records WHERE stream = NEW.stream), 0)
  OR (SELECT closes FROM records WHERE stream = NEW.stream AND version = NEW.version - 1) = 1
  OR EXISTS (SELECT 1 FROM archived_streams WHERE stream = NEW.stream)
BEGIN SELECT RAISE(ABORT, 'a record that does not follow the one before it'); END;

CREATE TRIGGER records_are_never_changed BEFORE UPDATE ON records
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;

CREATE TRIGGER records_are_never_removed BEFORE DELETE ON records
WHEN NOT EXISTS (SELECT 1 FROM archived_streams WHERE stream = OLD.stream)
  OR ifnull((SELECT last FROM archived_ranges WHERE first <= OLD.position
             ORDER BY first DESC LIMIT 1), 0) < OLD.position
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;

CREATE TRIGGER archived_ranges_are_never_changed BEFORE UPDATE ON archived_ranges
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;

CREATE TRIGGER archived_ranges_are_never_removed BEFORE DELETE ON archived_ranges
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;

CREATE TRIGGER archived_streams_are_never_changed BEFORE UPDATE ON archived_streams
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;

CREATE TRIGGER archived_streams_are_never_removed BEFORE DELETE ON archived_streams
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;

CREATE TRIGGER streams_open AFTER INSERT ON records WHEN NEW.version = 1 AND NEW.closes = 0
BEGIN INSERT INTO open_streams VALUES (NEW.position, NEW.stream); END;

CREATE TRIGGER streams_close AFTER INSERT ON records WHEN NEW.closes = 1 AND NEW.version > 1
BEGIN
    DELETE FROM open_streams WHERE position =
        (SELECT position FROM records WHERE stream = NEW.stream AND version = 1);
END;
"""

COPY_SCHEMA: Final = """
-- What a salvaged copy has not, and of which streams. Empty in other copies.
CREATE TABLE lost_ranges (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL UNIQUE CHECK (last >= first),
    hash_before BLOB NOT NULL CHECK (length(hash_before) = 16),
    hash_after BLOB NOT NULL CHECK (length(hash_after) = 16),
    reason TEXT NOT NULL
) STRICT;

CREATE TABLE torn_streams (stream TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- Whatever opens it for writing, be it an agent that does not know of copies.
CREATE TRIGGER copies_are_never_continued BEFORE INSERT ON records
BEGIN SELECT RAISE(ABORT, 'this is a copy for reading; no agent may go on with it'); END;
"""
"""What a copy that is not for agents has besides `SCHEMA`; the trigger comes last."""

OPEN_RECORDS: Final = f"""
SELECT {", ".join(f"records.{column}" for column in COLUMNS.split(", "))},
    coalesce(before.hash, gone.hash_after)
FROM open_streams JOIN records USING (stream)
LEFT JOIN records AS before ON before.position = records.position - 1
LEFT JOIN archived_ranges AS gone ON gone.last = records.position - 1
ORDER BY open_streams.position, records.version
"""  # noqa: S608 - all of it is ours
"""The records of all open streams, each with the hash of the record before it in the log."""

DISAGREEMENT: Final = """
SELECT position, stream FROM (
    SELECT position, stream FROM records AS opened WHERE version = 1 AND NOT EXISTS
        (SELECT 1 FROM records WHERE stream = opened.stream AND closes = 1)
    EXCEPT SELECT position, stream FROM open_streams
) UNION ALL SELECT position, stream FROM (
    SELECT position, stream FROM open_streams
    EXCEPT SELECT position, stream FROM records AS opened WHERE version = 1 AND NOT EXISTS
        (SELECT 1 FROM records WHERE stream = opened.stream AND closes = 1)
) LIMIT 1
"""
"""Finds a stream of which the table of open streams says otherwise than the records."""


@attrs.frozen
class Identity:
    """What a log says of itself.

    Attributes:
        log_id: its own id.
        created: when it was made, UTC, ISO 8601.
        kind: None for an agent's log and its archives; `redacted` or `salvaged` for a copy that
            is for reading only.
    """

    log_id: UUID
    created: str
    kind: str | None = None


def set_up(connection: apsw.Connection) -> None:
    """Prepare any connection to a log, before it is known to be one."""
    connection.set_busy_timeout(PATIENCE_MS)
    connection.execute(
        "PRAGMA temp_store = MEMORY;"  # nothing of the log goes to a temporary file
        "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON"
    )


def make(connection: apsw.Connection, identity: Identity, beginning: Tip) -> None:
    """Turn an empty database into an empty log, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(SCHEMA)
    for statement in VIEWS.values():
        connection.execute(statement)
    said = [("log_id", str(identity.log_id)), ("created", identity.created)]
    if identity.kind is not None:
        connection.execute(COPY_SCHEMA)
        said.append(("kind", identity.kind))
    connection.executemany("INSERT INTO meta VALUES (?, ?)", said)
    connection.execute("INSERT INTO tip VALUES (1, ?, ?)", (beginning.position, beginning.hash))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def renew_views(connection: apsw.Connection) -> bool:
    """Give a log this release's views, if it has none or another's; tell whether it had to.

    Only views of these names are replaced: what else somebody has put into the file stays.

    Raises:
        apsw.Error: it can't be written to, or a table has the name of a view; nothing was changed.
    """
    query = "SELECT name, sql FROM sqlite_schema WHERE type = 'view'"
    present = {str(name): sql for name, sql in connection.execute(query)}
    outdated = {name: sql for name, sql in VIEWS.items() if present.get(name) != sql}
    if not outdated:
        return False
    connection.execute("BEGIN IMMEDIATE")
    try:
        for name, statement in outdated.items():
            connection.execute(f"DROP VIEW IF EXISTS {name}")
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return True


def identify(connection: apsw.Connection, path: Path) -> Identity | None:
    """Return what the log says of itself; None when the database is empty.

    Empty is what an agent leaves that was killed before its log was made.

    Raises:
        NotALog: it is another program's, or of a newer format.
        LogDamaged: it is a log, and does not say which.
    """
    with connection:  # one snapshot, should an agent be making it at this moment
        application_id = connection.execute("PRAGMA application_id").get
        format_ = connection.execute("PRAGMA user_version").get
        if (
            application_id == 0
            and connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
        ):
            return None
        if application_id != APPLICATION_ID:
            raise NotALog(path, "it is another program's SQLite file")
        if format_ > FORMAT:
            reason = f"it has format {format_}, and this release knows {FORMAT}: use a newer one"
            raise NotALog(path, reason)
        rows = connection.execute("SELECT key, value FROM meta").fetchall()
        said = {str(key): str(value) for key, value in rows}
    try:
        return Identity(UUID(said["log_id"]), said["created"], said.get("kind"))
    except (KeyError, ValueError) as error:
        raise LogDamaged(path, None, "its own description is not what an agent writes") from error


def refuse_a_copy(identity: Identity, path: Path) -> None:
    """Refuse to go on with a copy that is for reading only.

    Raises:
        ForReadingOnly: it is one.
    """
    if identity.kind is not None:
        raise ForReadingOnly(path, identity.kind)


def refuse_what_is_no_file(path: Path) -> None:
    """Refuse a folder, and what would keep SQLite waiting, such as a pipe.

    Raises:
        NotALog: with what it is.
    """
    with suppress(OSError):  # SQLite will say what is wrong with opening it
        if path.is_dir():
            raise NotALog(path, "it is a folder")
        if path.exists() and not path.is_file():
            raise NotALog(path, "it is not a regular file")


def companions(path: Path) -> tuple[Path, Path]:
    """Return the paths of a log's write-ahead log and of the shared memory that indexes it."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a log is read into an error that says so in its words."""
    try:
        yield
    except apsw.NotADBError as error:
        raise NotALog(path, "it is not a SQLite file, or its beginning is damaged") from error
    except apsw.CantOpenError as error:
        raise NotALog(path, _why_it_cannot_be_opened(path)) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise LogLocked(path, "another program, which lets nobody else read") from error
    except (apsw.Error, UnicodeDecodeError) as error:
        raise LogDamaged(path, None, in_words(error)) from error


def _why_it_cannot_be_opened(path: Path) -> str:
    for part in (path, *companions(path)):
        if part.exists() and not os.access(part, os.R_OK):
            return f"there is no permission to read {part}"
    return "it can't be opened" if path.exists() else "there is no such file"


_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (apsw.FullError, "the disk is full"),
    (apsw.ReadOnlyError, "the file or its file system is read-only"),
    (apsw.CantOpenError, "the file or one next to it can't be opened"),
    (apsw.BusyError, "another program is writing to it"),
    (apsw.LockedError, "another program is writing to it"),
    (apsw.CorruptError, "the database is malformed"),
    (apsw.IOError, "I/O error"),
    (UnicodeDecodeError, "text that is no Unicode"),
)


def in_words(error: BaseException, errno: int = 0) -> str:
    """Say what an error of SQLite or of the system means.

    Args:
        error: what was raised.
        errno: what the system call behind it left, 0 when unknown. SQLite notes it for I/O and
            opening only; otherwise it is that of some earlier call.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    words = next((w for type_, w in _WORDS if isinstance(error, type_)), str(error))
    code = apsw.mapping_extended_result_codes.get(getattr(error, "extendedresult", 0))
    details = [] if code is None else [str(code)]
    if errno and isinstance(error, apsw.IOError | apsw.CantOpenError):
        details.append(os.strerror(errno))
    return f"{words} ({', '.join(details)})" if details else words
