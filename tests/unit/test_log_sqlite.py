"""The SQLite log as a file: crashes, locks, foreign files, tampering, and full disks."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from events.chain import first_damage
from events.log import (
    ABSENT,
    Append,
    Draft,
    LogDamaged,
    LogLocked,
    LogWriteFailed,
    NotALog,
)
from events.sqlite import APPLICATION_ID, SqliteReader, SqliteStore

X = Draft("X", 1, '{"a":1}')


def filled(path: Path, records: int = 6) -> Path:
    store = SqliteStore.open(path)
    for version in range(records):
        store.commit([Append("s", version, [X])])
    store.close()
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return filled(tmp_path / "events.sqlite")


def test_everything_is_ours_alone(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "events.sqlite")
    store.commit([Append("s", ABSENT, [X])])
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    store.close()
    assert len(modes) == 4
    assert set(modes.values()) == {0o600}


def test_what_was_committed_is_there_after_reopening(log: Path) -> None:
    store = SqliteStore.open(log)
    assert store.version_of("s") == 6
    store.commit([Append("s", 6, [X])])
    assert first_damage(store.read_all(), store.log_id) is None
    store.close()


def test_records_can_be_neither_changed_nor_removed(log: Path) -> None:
    connection = sqlite3.connect(log)
    for statement in ("UPDATE records SET data = '{}'", "DELETE FROM records"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_a_second_agent_is_told_who_holds_the_log(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    script = (
        "import sys, pathlib; from events.sqlite import SqliteStore;"
        " store = SqliteStore.open(pathlib.Path(sys.argv[1])); print('open', flush=True);"
        " sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(LogLocked, match=rf"in use by process {holder.pid}"):
            SqliteStore.open(path)
        reader = SqliteReader.open(path)
        assert reader.last_position() == 0
        reader.close()
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    SqliteStore.open(path).close()


WRITER = """
import pathlib, sys
from events.log import Append, Draft
from events.sqlite import SqliteStore
store = SqliteStore.open(pathlib.Path(sys.argv[1]))
version = store.version_of("s")
while True:
    store.commit([Append("s", version, [Draft("X", 1, "{}"), Draft("Y", 1, "{}", 1)])])
    version += 2
    print(version, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9_and_batches_stay_whole(tmp_path: Path) -> None:
    """This proves atomicity and order; that the disk has it is SQLite's FULL, not provable so."""
    path = tmp_path / "events.sqlite"
    rng = random.Random(7)
    for _life in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged = int(writer.stdout.readline())
        time.sleep(rng.random() * 0.05)
        writer.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(n) for n in writer.stdout.read().split("\n")[:-1])])
        writer.stdout.close()
        writer.wait()
        store = SqliteStore.open(path)
        assert store.version_of("s") >= acknowledged
        assert store.version_of("s") % 2 == 0
        assert first_damage(store.read_all(), store.log_id) is None
        store.close()


# --- files that are no logs ----------------------------------------------------------------


def text_file(path: Path) -> None:
    path.write_text("dear diary, today I launched a flow\n" * 9)


def foreign_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()


def newer_log(path: Path) -> None:
    filled(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (text_file, NotALog, "not a SQLite file"),
        (foreign_database, NotALog, "another program's"),
        (newer_log, NotALog, r"format 99.*newer"),
    ],
)
@pytest.mark.parametrize("opener", [SqliteReader.open, SqliteStore.open])
def test_a_file_that_is_no_log_is_left_alone_and_named(
    tmp_path: Path,
    opener: Callable[[Path], SqliteReader],
    make: Callable[[Path], None],
    error: type[Exception],
    words: str,
) -> None:
    path = tmp_path / "events.sqlite"
    make(path)
    before = path.read_bytes()
    with pytest.raises(error, match=words):
        opener(path)
    assert path.read_bytes() == before


def test_a_missing_log_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NotALog, match="no such file"):
        SqliteReader.open(tmp_path / "events.sqlite")


def test_a_truncated_log_is_damaged_and_not_silently_shorter(tmp_path: Path) -> None:
    log = filled(tmp_path / "events.sqlite", 300)
    with log.open("r+b") as file:
        file.truncate(os.path.getsize(log) // 2)
    with pytest.raises(LogDamaged):
        list(SqliteReader.open(log).read_all())


# --- tampering -----------------------------------------------------------------------------


def altered(edit: sqlite3.Connection) -> None:
    edit.execute("""UPDATE records SET data = '{"a":2}' WHERE position = 3""")


def removed(edit: sqlite3.Connection) -> None:
    edit.execute("DELETE FROM records WHERE position = 3")


def swapped(edit: sqlite3.Connection) -> None:
    edit.execute("UPDATE records SET position = -1 WHERE position = 3")
    edit.execute("UPDATE records SET position = 3 WHERE position = 4")
    edit.execute("UPDATE records SET position = 4 WHERE position = -1")


def retimed(edit: sqlite3.Connection) -> None:
    edit.execute("UPDATE records SET recorded_at = '1999' WHERE position = 3")


def spliced(edit: sqlite3.Connection) -> None:
    # A log's id is part of its chain: records of another one do not fit.
    edit.execute("UPDATE meta SET value = 'aaaaaaaa-0000-4000-8000-000000000000'")


@pytest.mark.parametrize(
    ("tamper", "position", "kind"),
    [
        (altered, 3, "altered"),
        (removed, 3, "missing"),
        (swapped, 3, "altered"),
        (retimed, 3, "altered"),
        (spliced, 1, "altered"),
    ],
)
def test_what_was_done_behind_sqlites_back_is_found_and_named(
    log: Path, tamper: Callable[[sqlite3.Connection], None], position: int, kind: str
) -> None:
    edit = sqlite3.connect(log, isolation_level=None)
    edit.execute("DROP TRIGGER records_are_never_changed")
    edit.execute("DROP TRIGGER records_are_never_removed")
    tamper(edit)
    edit.close()
    reader = SqliteReader.open(log)
    damage = first_damage(reader.read_all(), reader.log_id)
    reader.close()
    assert damage is not None
    assert (damage.position, damage.kind) == (position, kind)


# --- disks that fail -----------------------------------------------------------------------


class FailingFile(apsw.VFSFile):
    """A file that fails as it is told to, under the real SQLite."""

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - apsw's name
        if FailingDisk.failure is not None and FailingDisk.failing == "write":
            raise FailingDisk.failure
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802 - apsw's name
        if FailingDisk.failure is not None and FailingDisk.failing == "sync":
            raise FailingDisk.failure
        super().xSync(flags)


class FailingDisk(apsw.VFS):
    """The operating system's files, until `failure` is set."""

    failure: Exception | None = None
    failing = "write"

    def __init__(self) -> None:
        super().__init__("failing", "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return FailingFile("unix", name, flags)


@pytest.mark.parametrize("failing", ["write", "sync"])
@pytest.mark.parametrize("failure", [apsw.FullError("full"), apsw.IOError("broken")])
def test_a_disk_that_fails_loses_nothing_acknowledged_and_stops_the_writer(
    tmp_path: Path, failing: str, failure: Exception
) -> None:
    path = tmp_path / "events.sqlite"
    disk = FailingDisk()
    FailingDisk.failing = failing
    store = SqliteStore.open(path)
    try:
        store.commit([Append("s", ABSENT, [X])])
        FailingDisk.failure = failure
        with pytest.raises(LogWriteFailed):
            store.commit([Append("s", 1, [X])])
        FailingDisk.failure = None
        # A second fsync would report a success that did not happen: nothing more is accepted.
        with pytest.raises(LogWriteFailed):
            store.commit([Append("s", 1, [X])])
    finally:
        FailingDisk.failure = None
        store.close()
        disk.unregister()
    again = SqliteStore.open(path)
    assert again.version_of("s") == 1
    again.commit([Append("s", 1, [X])])
    assert first_damage(again.read_all(), again.log_id) is None
    again.close()


def test_the_file_says_whose_it_is(log: Path) -> None:
    assert int.from_bytes(log.read_bytes()[68:72], "big") == APPLICATION_ID
