"""The SQLite log on a disk that fails, fills up or loses its power, at every single operation.

The disk is SQLite's own with a say before each write, sync and truncation (`Disk`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import apsw
import pytest

from events.log import LogError, LogWriteFailed, Stamp
from events.sqlite import SqliteReader, SqliteStore
from events.sqlite_file import companions
from tests.unit.log_fixtures import Disk, accepted, append, copy_log, ticking_clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.unregister()


def fail(disk: Disk, operation: str, suffix: str, code: int) -> None:
    """Let each such operation on one of the log's files fail from now on."""

    def before(doing: str, name: str) -> None:
        if doing == operation and name == f"log{suffix}":
            raise apsw.exception_for(code)

    disk.before = before


def work(path: Path, disk: Disk, acknowledged: list[str]) -> None:
    """Make a log, append to it, checkpoint and close: a short life of an agent."""
    store = SqliteStore.open(path, ticking_clock(), vfs=disk.name)
    try:
        for number in range(4):
            one, two = f"{number}/one", f"{number}/two"
            store.commit([append(one, 0, 3), append(two, 0, 2, closes=True)])
            acknowledged += [one, two]
    finally:
        store.close()


def check_that_nothing_is_lost(path: Path, acknowledged: list[str]) -> None:
    """Open the log as the next agent: all that was acknowledged, the rest whole or not at all."""
    store = SqliteStore.open(path, ticking_clock())
    streams: dict[str, int] = {}
    for record in store.verified():
        streams[record.stream] = record.version
    assert set(acknowledged) <= set(streams)
    for stream, version in streams.items():
        assert version == (3 if stream.endswith("one") else 2), stream
    groups = {stream.split("/")[0] for stream in streams}
    assert len(streams) == 2 * len(groups), "a group is there as a whole"
    accepted(store.commit([append("next", 0)])[0])
    store.close()
    reader = SqliteReader.open(path)
    reader.check_file()
    reader.close()


# --- fail-stop -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "code", "words"),
    [
        ("write", apsw.SQLITE_FULL, "the disk is full"),
        ("write", apsw.SQLITE_IOERR_WRITE, r"I/O error \(SQLITE_IOERR_WRITE"),
        ("write", apsw.SQLITE_READONLY, "read-only"),
        ("sync", apsw.SQLITE_IOERR_FSYNC, r"I/O error \(SQLITE_IOERR_FSYNC"),
    ],
)
def test_a_failed_write_is_told_in_words_and_stops_the_store(
    path: Path, disk: Disk, operation: str, code: int, words: str
) -> None:
    store = SqliteStore.open(path, vfs=disk.name)
    store.commit([append("a", 0)])
    fail(disk, operation, "-wal", code)

    with pytest.raises(LogWriteFailed, match=words):
        store.commit([append("a", 1)])
    disk.before = lambda _operation, _name: None
    with pytest.raises(LogWriteFailed, match=words):
        store.commit([append("a", 1)])

    assert [r.version for r in store.read_stream("a")] == [1]
    store.close()
    check_that_nothing_is_lost_but_whole(path, ["a"])


def check_that_nothing_is_lost_but_whole(path: Path, streams: list[str]) -> None:
    store = SqliteStore.open(path)
    assert store.streams() == streams
    assert store.verified() is not None
    assert len(list(store.verified())) in {1, 2}, "in doubt: whole or absent"
    store.close()


def test_a_failed_store_touches_the_files_no_more(path: Path, disk: Disk) -> None:
    """A second sync would report a success that did not happen, and a checkpoint believe it."""
    store = SqliteStore.open(path, vfs=disk.name)
    store.commit([append("a", 0)])
    fail(disk, "sync", "-wal", apsw.SQLITE_IOERR_FSYNC)
    with pytest.raises(LogWriteFailed):
        store.commit([append("a", 1)])
    touched: list[tuple[str, str]] = []
    disk.before = lambda operation, name: touched.append((operation, name))

    with pytest.raises(LogWriteFailed):
        store.commit([append("b", 0)])
    store.close()

    assert touched == []


def test_a_failed_checkpoint_loses_no_commit_and_stops_the_store(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.sqlite._PAGES_BEFORE_CHECKPOINT", 1)
    store = SqliteStore.open(path, vfs=disk.name)
    fail(disk, "sync", "", apsw.SQLITE_IOERR_FSYNC)

    accepted(store.commit([append("a", 0)])[0])
    with pytest.raises(LogWriteFailed, match="SQLITE_IOERR_FSYNC"):
        store.commit([append("b", 0)])

    store.close()
    reopened = SqliteStore.open(path)
    assert reopened.streams() == ["a"]
    reopened.close()


def test_the_lock_is_kept_by_a_failed_store_until_it_is_closed(path: Path, disk: Disk) -> None:
    store = SqliteStore.open(path, vfs=disk.name)
    fail(disk, "write", "-wal", apsw.SQLITE_FULL)
    with pytest.raises(LogWriteFailed):
        store.commit([append("a", 0)])

    with pytest.raises(LogError, match="in use"):
        SqliteStore.open(path)
    store.close()

    SqliteStore.open(path).close()


def test_an_error_of_our_own_in_a_commit_stops_the_store_as_well(path: Path) -> None:
    broken = False
    good = ticking_clock()

    def clock() -> Stamp:
        if broken:
            raise RuntimeError("no clock")
        return good()

    store = SqliteStore.open(path, clock)
    store.commit([append("a", 0)])
    broken = True
    with pytest.raises(RuntimeError):
        store.commit([append("a", 1)])
    broken = False
    with pytest.raises(LogWriteFailed, match="no clock"):
        store.commit([append("a", 1)])

    store.close()
    check_that_nothing_is_lost_but_whole(path, ["a"])


# --- durable -------------------------------------------------------------------------------


def test_a_commit_is_synced_after_its_last_write_and_before_it_returns(
    path: Path, disk: Disk
) -> None:
    store = SqliteStore.open(path, vfs=disk.name)
    store.commit([append("first", 0)])  # it also begins the write-ahead log, with a sync more
    done: list[tuple[str, str]] = []
    disk.before = lambda operation, name: done.append((operation, name))

    store.commit([append("a", 0), append("b", 0)])

    assert done[-1] == ("sync", "log-wal")
    assert {operation for operation, _ in done[:-1]} == {"write"}, "one sync for the whole group"
    store.close()


def test_everything_is_in_the_log_itself_after_a_clean_stop(path: Path) -> None:
    store = SqliteStore.open(path)
    store.commit([append("a", 0)])
    store.close()

    reader = SqliteReader.open(copy_log(path, path.parent / "copy", wal=False))

    assert reader.last_position() == 1
    reader.close()


def test_what_a_killed_agent_left_unsynced_is_synced_before_it_is_read(
    path: Path, disk: Disk
) -> None:
    """Found in the page cache, it would be acted upon, and then lost with the power."""
    fail(disk, "sync", "-wal", apsw.SQLITE_IOERR_FSYNC)
    killed = SqliteStore.open(path)
    killed.commit([append("a", 0)])
    copied = copy_log(path, path.parent / "copy")

    disk.before = lambda _operation, _name: None
    store = SqliteStore.open(copied, vfs=disk.name)

    found = path.parent / "after a power cut"
    found.mkdir()
    (found / "log").write_bytes(disk.synced["log"])
    reader = SqliteReader.open(found / "log")
    assert reader.streams() == store.streams() == ["a"]
    for each in (reader, store, killed):
        each.close()


def test_a_lingering_reader_does_not_keep_an_agent_from_starting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No checkpoint can start the write-ahead log over, so it is written again where it is."""
    killed = SqliteStore.open(path)
    killed.commit([append("a", 0)])
    copied = copy_log(path, path.parent / "copy")
    lingering = apsw.Connection(str(copied))
    lingering.execute("BEGIN; SELECT count(*) FROM records")
    wal = companions(copied)[0].read_bytes()
    written: list[bytes] = []
    pwrite = os.pwrite

    def watch(descriptor: int, data: bytes, offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("-wal"):
            written.append(data)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr("events.sqlite.os.pwrite", watch)
    store = SqliteStore.open(copied)
    store.commit([append("b", 0)])

    assert b"".join(written) == wal
    assert lingering.execute("SELECT count(*) FROM records").get == 1
    assert store.streams() == ["a", "b"]
    lingering.close()
    assert len(list(store.verified())) == 2
    store.close()
    killed.close()


# --- every operation -----------------------------------------------------------------------


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("code", [apsw.SQLITE_FULL, apsw.SQLITE_IOERR_FSYNC], ids=["full", "io"])
def test_whichever_operation_fails_nothing_acknowledged_is_lost(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, code: int, sticky: bool
) -> None:
    """The first operation fails, then the second, and so on until none is left to fail."""
    monkeypatch.setattr("events.sqlite._PAGES_BEFORE_CHECKPOINT", 12)
    failing, survived = 0, False
    while not survived:
        failing += 1
        count = 0

        def before(_operation: str, _name: str) -> None:
            nonlocal count
            count += 1
            if count == failing or (sticky and count > failing):  # noqa: B023 - called in this turn
                raise apsw.exception_for(code)

        folder = tmp_path / str(failing)
        folder.mkdir()
        acknowledged: list[str] = []
        disk.before = before
        try:
            work(folder / "log", disk, acknowledged)
        except LogWriteFailed:
            assert len(acknowledged) < 8
        survived = count < failing
        disk.before = lambda _operation, _name: None
        check_that_nothing_is_lost(folder / "log", acknowledged)

    assert failing > 40, "the disk was asked for that much"


def test_wherever_the_power_fails_nothing_acknowledged_is_lost(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each operation: each file with all that was written to it, or as it was synced."""
    monkeypatch.setattr("events.sqlite._PAGES_BEFORE_CHECKPOINT", 12)
    home = tmp_path / "home"
    home.mkdir()
    names = ("log", "log-journal", "log-wal")
    acknowledged: list[str] = []
    moments: set[tuple[int, tuple[bytes | None, ...]]] = set()

    sync = os.fsync

    def sync_folder(descriptor: int) -> None:
        """What was removed from the folder can't come back from now on."""
        sync(descriptor)
        disk.synced = {n: c for n, c in disk.synced.items() if (home / n).exists()}

    monkeypatch.setattr("events.sqlite.os.fsync", sync_folder)

    def before(_operation: str, _name: str) -> None:
        written = {n: (home / n).read_bytes() for n in names if (home / n).exists()}
        for choice in product([True, False], repeat=len(names)):
            survives = tuple(
                written.get(name) if all_of_it else disk.synced.get(name)
                for name, all_of_it in zip(names, choice, strict=True)
            )
            moments.add((len(acknowledged), survives))

    disk.before = before
    work(home / "log", disk, acknowledged)
    disk.before = lambda _operation, _name: None

    assert len(moments) > 80
    for count, files in moments:
        folder = tmp_path / "found"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in zip(names, files, strict=True):
            if content is not None:
                (folder / name).write_bytes(content)
        check_that_nothing_is_lost(folder / "log", acknowledged[:count])
