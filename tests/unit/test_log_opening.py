"""Making a log, opening it, and every file that is none."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from events.log import LogDamaged, LogError, LogWriteFailed, NotALog
from events.sqlite import SqliteReader, SqliteStore
from tests.unit.log_fixtures import append, copy_log, ticking_clock

Opener = Callable[[Path], object]
OPENERS = pytest.mark.parametrize(
    "opener", [SqliteStore.open, SqliteReader.open], ids=["store", "reader"]
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def written(path: Path) -> Path:
    """Return the path of a log that was written and closed."""
    with_two_records(path)
    return path


def with_two_records(path: Path) -> None:
    store = SqliteStore.open(path, ticking_clock())
    store.commit([append("a", 0), append("b", 0)])
    store.close()


def test_a_log_is_made_where_there_is_none_and_opened_where_there_is(path: Path) -> None:
    made = SqliteStore.open(path)
    made.commit([append("a", 0)])
    made.close()

    opened = SqliteStore.open(path)

    assert (opened.log_id, opened.created) == (made.log_id, made.created)
    assert opened.open_streams() == ["a"]
    opened.close()


def test_two_logs_have_different_ids(tmp_path: Path) -> None:
    one, two = SqliteStore.open(tmp_path / "one"), SqliteStore.open(tmp_path / "two")

    assert one.log_id != two.log_id
    one.close()
    two.close()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o177])
def test_only_the_owner_may_read_a_log_and_what_lies_next_to_it(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = SqliteStore.open(path)
        store.commit([append("a", 0)])
    finally:
        os.umask(before)

    modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in path.parent.iterdir()}
    assert modes == dict.fromkeys(["log", "log-wal", "log-shm", "log.lock"], 0o600)
    store.close()


def test_the_file_is_the_owners_alone_before_anything_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    connect = apsw.Connection

    def look_first(*args: object, **kwargs: object) -> object:
        seen.append(stat.S_IMODE(path.stat().st_mode))
        return connect(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("events.sqlite.apsw.Connection", look_first)
    before = os.umask(0)
    try:
        SqliteStore.open(path).close()
    finally:
        os.umask(before)

    assert seen
    assert set(seen) == {0o600}


def test_a_path_with_signs_that_mean_something_in_a_uri_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "50%3f log?mode=rw#1 ü"
    with_two_records(path)

    reader = SqliteReader.open(path)

    assert reader.last_position() == 2
    reader.close()


def test_a_link_to_a_log_is_the_same_log(written: Path) -> None:
    link = written.parent / "link"
    link.symlink_to(written)

    store = SqliteStore.open(link)

    assert store.path == written
    with pytest.raises(LogError, match="in use"):
        SqliteStore.open(written)
    store.close()


def test_a_log_that_was_just_made_is_empty_for_a_reader(path: Path) -> None:
    SqliteStore.open(path).close()

    reader = SqliteReader.open(path)

    assert list(reader.verified()) == []
    reader.close()


# --- half made -----------------------------------------------------------------------------


def empty_file(path: Path) -> None:
    path.touch()


def empty_database(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


@pytest.mark.parametrize("half_made", [empty_file, empty_database])
def test_what_an_agent_left_half_made_becomes_a_log(
    path: Path, half_made: Callable[[Path], None]
) -> None:
    half_made(path)

    store = SqliteStore.open(path)
    store.commit([append("a", 0)])

    assert len(list(store.verified())) == 1
    store.close()


@pytest.mark.parametrize("half_made", [empty_file, empty_database])
def test_a_reader_says_that_nothing_was_made_yet(
    path: Path, half_made: Callable[[Path], None]
) -> None:
    half_made(path)

    with pytest.raises(NotALog, match="empty"):
        SqliteReader.open(path)


# --- not a log -----------------------------------------------------------------------------


@OPENERS
def test_a_text_file_is_not_a_log_and_is_left_as_it_is(path: Path, opener: Opener) -> None:
    text = "some notes\n" * 1000
    path.write_text(text)

    with pytest.raises(NotALog, match="not a SQLite file"):
        opener(path)

    assert path.read_text() == text


@OPENERS
def test_the_database_of_another_program_is_not_a_log(path: Path, opener: Opener) -> None:
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE records (position); INSERT INTO records VALUES (1)")
    other.close()
    before = path.read_bytes()

    with pytest.raises(NotALog, match="another program's"):
        opener(path)

    assert path.read_bytes() == before


@OPENERS
def test_a_log_of_a_newer_version_is_refused_by_its_format(written: Path, opener: Opener) -> None:
    newer = apsw.Connection(str(written))
    newer.execute("PRAGMA user_version = 7")
    newer.close()

    with pytest.raises(NotALog, match=r"format 7.*newer"):
        opener(written)


@OPENERS
def test_a_folder_is_not_a_log(path: Path, opener: Opener) -> None:
    path.mkdir()

    with pytest.raises(NotALog, match="folder"):
        opener(path)


@OPENERS
def test_a_pipe_is_not_a_log_and_is_not_waited_for(path: Path, opener: Opener) -> None:
    os.mkfifo(path)

    with pytest.raises(NotALog, match="not a regular file"):
        opener(path)


def test_a_reader_does_not_make_a_log(path: Path) -> None:
    with pytest.raises(NotALog, match="no such file"):
        SqliteReader.open(path)

    assert list(path.parent.iterdir()) == []


def test_a_log_is_not_made_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LogWriteFailed, match="No such file or directory"):
        SqliteStore.open(tmp_path / "nowhere" / "log")


# --- damaged -------------------------------------------------------------------------------


@OPENERS
@pytest.mark.parametrize("missing", [4096, 10_000, 40_000])
def test_a_log_that_was_cut_off_is_damaged(path: Path, opener: Opener, missing: int) -> None:
    store = SqliteStore.open(path)
    store.commit([append("a", 0, 200)])
    store.close()
    os.truncate(path, path.stat().st_size - missing)

    with pytest.raises(LogDamaged, match="malformed"):
        opener(path)


def test_a_log_that_lost_part_of_its_last_page_is_found_when_it_is_checked(path: Path) -> None:
    """SQLite takes what is missing for zeros; opening does not read every page."""
    store = SqliteStore.open(path)
    store.commit([append("a", 0, 200)])
    store.close()
    os.truncate(path, path.stat().st_size - 4000)
    reader = SqliteReader.open(path)

    with pytest.raises(LogDamaged):
        reader.check_file()
    reader.close()


@OPENERS
def test_a_log_that_does_not_know_its_id_is_damaged(written: Path, opener: Opener) -> None:
    connection = apsw.Connection(str(written))
    connection.execute("UPDATE meta SET value = 'lost' WHERE key = 'log_id'")
    connection.close()

    with pytest.raises(LogDamaged, match="description"):
        opener(written)


def test_an_agent_does_not_go_on_after_an_end_that_was_cut_off(written: Path) -> None:
    connection = apsw.Connection(str(written))
    connection.execute(
        "DROP TRIGGER records_are_never_removed; DELETE FROM records WHERE position = 2"
    )
    connection.close()

    with pytest.raises(LogDamaged, match="position 2"):
        SqliteStore.open(written)


def test_an_agent_does_not_go_on_after_a_last_record_that_was_altered(written: Path) -> None:
    connection = apsw.Connection(str(written))
    connection.execute(
        "DROP TRIGGER records_are_never_changed; UPDATE records SET data = 0 WHERE position = 2"
    )
    connection.close()

    with pytest.raises(LogDamaged, match="position 2"):
        SqliteStore.open(written)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("UPDATE records SET data = 0 WHERE position = 2", "was altered"),
        ("DELETE FROM records WHERE position = 2", "missing"),
    ],
)
def test_an_agent_does_not_go_on_from_an_open_stream_that_was_changed(
    path: Path, change: str, complaint: str
) -> None:
    with closing(SqliteStore.open(path, ticking_clock())) as store:
        store.commit([append("open", 0, 3), append("closed", 0, 4, closes=True)])
    connection = apsw.Connection(str(path))
    connection.execute(
        f"DROP TRIGGER records_are_never_removed; DROP TRIGGER records_are_never_changed; {change}"
    )
    connection.close()

    with pytest.raises(LogDamaged, match=f"position [23]: .*{complaint}"):
        SqliteStore.open(path)


def test_a_refused_log_can_be_opened_once_it_is_mended(written: Path) -> None:
    """A failed opening keeps neither the lock nor a connection."""
    good = written.read_bytes()
    os.truncate(written, 5000)
    with pytest.raises(LogDamaged):
        SqliteStore.open(written)

    written.write_bytes(good)

    SqliteStore.open(written).close()


# --- what the file itself refuses ----------------------------------------------------------

REFUSED = {
    "a change": "UPDATE records SET data = '' WHERE position = 1",
    "a removal": "DELETE FROM records",
    "a replacement by position": (
        "INSERT OR REPLACE INTO records VALUES (1,'a',1,'T',1,NULL,0,'',0,'',zeroblob(16))"
    ),
    "a replacement by version": (
        "INSERT OR REPLACE INTO records VALUES (3,'a',1,'T',1,NULL,0,'',0,'',zeroblob(16))"
    ),
    "a gap in the positions": (
        "INSERT INTO records VALUES (4,'a',2,'T',1,NULL,0,'',0,'',zeroblob(16))"
    ),
    "a gap in the versions": (
        "INSERT INTO records VALUES (3,'a',3,'T',1,NULL,0,'',0,'',zeroblob(16))"
    ),
    "a record after the closing one": (
        "INSERT INTO records VALUES (3,'c',2,'T',1,NULL,0,'',0,'',zeroblob(16))"
    ),
    "a cause that comes later": (
        "INSERT INTO records VALUES (3,'a',2,'T',1,2,0,'',0,'',zeroblob(16))"
    ),
    "a number for a text": "INSERT INTO records VALUES (3,'a',2,'T',1,1,0,'',0,x'00',zeroblob(16))",
}


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED.keys())
def test_the_file_itself_refuses(path: Path, statement: str) -> None:
    store = SqliteStore.open(path)
    store.commit([append("a", 0), append("c", 0, closes=True)])
    store.close()
    intruder = apsw.Connection(str(path))

    with pytest.raises(apsw.ConstraintError):
        intruder.execute(statement)

    intruder.close()
    reader = SqliteReader.open(path)
    assert len(list(reader.verified())) == 2
    reader.close()


def test_a_record_that_somebody_else_added_properly_stops_the_agent(path: Path) -> None:
    """The store does not overwrite what it does not know; it stops."""
    store = SqliteStore.open(path)
    store.commit([append("a", 0)])
    intruder = apsw.Connection(str(path))
    intruder.execute("INSERT INTO records VALUES (2,'a',2,'T',1,1,0,'',0,'',zeroblob(16))")
    intruder.close()

    with pytest.raises(LogWriteFailed, match="does not follow"):
        store.commit([append("b", 0)])

    store.close()


def test_a_copy_taken_without_its_write_ahead_log_is_an_older_state(path: Path) -> None:
    """Nothing can tell: the copy is whole. docs/ says to copy both, or to stop the agent first."""
    store = SqliteStore.open(path)
    store.commit([append("a", 0)])
    copied = SqliteReader.open(copy_log(path, path.parent / "copy", wal=False))

    assert copied.last_position() == 0

    copied.close()
    store.close()
