"""How the views for SQL come into a log, and that they are never in its way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from events.log import LogWriteFailed
from events.sql_views import VIEWS
from events.sqlite import SqliteStore
from tests.unit.log_fixtures import Disk, append, ticking_clock

KEPT = Path(__file__).parents[1] / "samples" / "v0.1.0.sqlite"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A log of release 0.1.0, which knew no views."""
    return Path(shutil.copy(KEPT, tmp_path / "log"))


def execute(path: Path, statements: str) -> list[tuple[object, ...]]:
    with closing(apsw.Connection(str(path))) as connection:
        return list(connection.execute(statements))


def views_of(path: Path) -> dict[str, str]:
    rows = execute(path, "SELECT name, sql FROM sqlite_schema WHERE type = 'view'")
    return {str(name): str(sql) for name, sql in rows}


def open_and_close(path: Path, vfs: str | None = None) -> None:
    SqliteStore.open(path, ticking_clock(), vfs=vfs).close()


def test_a_new_log_has_them(tmp_path: Path) -> None:
    open_and_close(tmp_path / "log")

    assert views_of(tmp_path / "log") == VIEWS


def test_a_log_of_an_older_release_gets_them_when_an_agent_opens_it(older: Path) -> None:
    before = execute(older, "SELECT * FROM records")
    assert views_of(older) == {}

    open_and_close(older)

    assert views_of(older) == VIEWS
    assert execute(older, "SELECT * FROM records") == before
    assert execute(older, "SELECT count(*) FROM submissions") == [(12,)]


def test_those_of_another_release_are_replaced_and_a_persons_own_stay(older: Path) -> None:
    execute(older, "CREATE VIEW events AS SELECT 'of another release'")
    execute(older, "CREATE VIEW mine AS SELECT 'my own'")

    open_and_close(older)

    assert views_of(older) == {**VIEWS, "mine": "CREATE VIEW mine AS SELECT 'my own'"}


def test_a_log_that_has_them_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    open_and_close(path)
    before = path.read_bytes()

    open_and_close(path)

    assert path.read_bytes() == before


def test_a_table_that_has_the_name_of_one_keeps_it_and_the_log_opens(older: Path) -> None:
    execute(older, "CREATE TABLE events (mine)")

    open_and_close(older)

    assert views_of(older) == {}
    assert execute(older, "SELECT count(*) FROM events") == [(0,)]


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.unregister()


def refuse_writes(disk: Disk, code: int) -> None:
    def refuse(operation: str, name: str) -> None:
        if operation == "write" and name == "log-wal":
            raise apsw.exception_for(code)

    disk.before = refuse


def test_a_full_disk_leaves_the_log_without_them_and_open(older: Path, disk: Disk) -> None:
    refuse_writes(disk, apsw.SQLITE_FULL)

    store = SqliteStore.open(older, ticking_clock(), vfs=disk.name)
    disk.before = lambda _operation, _name: None
    store.commit([append("a", 0)])
    store.close()

    assert views_of(older) == {}
    open_and_close(older)
    assert views_of(older) == VIEWS


def test_after_an_io_error_nothing_more_is_written(older: Path, disk: Disk) -> None:
    refuse_writes(disk, apsw.SQLITE_IOERR_WRITE)

    with pytest.raises(LogWriteFailed, match="I/O error"):
        SqliteStore.open(older, ticking_clock(), vfs=disk.name)

    disk.before = lambda _operation, _name: None
    open_and_close(older)
    assert views_of(older) == VIEWS


def test_they_work_for_a_connection_that_does_not_trust_the_schema(older: Path) -> None:
    open_and_close(older)

    for name in VIEWS:
        assert execute(older, f"PRAGMA trusted_schema = OFF; SELECT * FROM {name}")
