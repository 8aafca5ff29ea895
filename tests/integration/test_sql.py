"""docs/sql.md as its reader follows it: sqlite3, Datasette and DuckDB pointed at a log."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from events.archive import compact
from events.sql_views import VIEWS
from events.sqlite import SqliteStore
from tests.samples.make_sample import Recorder, Run, SettableClock, good_run, tell_everything

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sql.md").read_text()
QUERIES = dict(re.findall(r"^([^\n|`]+):\n\n```sql\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that tells every story there is. Not to be changed."""
    path = tmp_path_factory.mktemp("night") / "events.sqlite"
    clock = SettableClock()
    store = SqliteStore.open(path, clock)
    tell_everything(Recorder(store, clock))
    store.close()
    return path


def shell(log: Path, query: str) -> Rows:
    """Ask with Debian's sqlite3, as the page says."""
    done = subprocess.run(
        ["sqlite3", "-readonly", "-json", log, query], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows: Rows = json.loads(done.stdout or "[]")
    return rows


def datasette(log: Path, path: str) -> Any:
    command = [sys.executable, "-m", "datasette", str(log), "--get", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    package = importlib.util.find_spec("duckdb_extension_sqlite_scanner")
    assert package is not None
    assert package.origin is not None
    (extension,) = Path(package.origin).parent.rglob("*.duckdb_extension")
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{extension}'")
        yield connection


# --- the page --------------------------------------------------------------------------------


def test_the_page_names_every_column_and_no_other(night: Path) -> None:
    for view in VIEWS:
        (section,) = re.findall(rf"^\*\*{view}\*\*:(.*?)^(?=\*\*|Times are)", PAGE, re.S | re.M)
        first_cells = re.findall(r"^\|([^|]+)\|", section, re.M)
        named = re.findall(r"`(\w+)`", "".join(first_cells) if first_cells else section)
        columns = [row["name"] for row in shell(night, f"PRAGMA table_info({view})")]
        if view == "submissions":
            assert sorted(named) == sorted(columns)
        else:
            assert set(columns) <= set(named)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_a_query_of_the_page_finds_something_with_sqlite3(night: Path, query: str) -> None:
    assert shell(night, query)


def test_the_page_has_ten_queries() -> None:
    assert len(QUERIES) >= 10


def test_what_failed_is_what_replay_lists_as_failed(night: Path) -> None:
    condition = re.search(r"AND (\(state = 'failed'.*?\)\))\n", PAGE, re.S)
    assert condition

    found = shell(night, f"SELECT stream FROM submissions WHERE {condition[1]}")

    command = [sys.executable, "-m", "replay", "list", "--failed", "--json", str(night)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = [json.loads(line)["stream"] for line in told.splitlines()]
    assert sorted(row["stream"] for row in found) == sorted(listed)
    assert listed


def test_the_95th_percentile_is_that_of_the_seconds_that_replay_tells(night: Path) -> None:
    (query,) = (each for each in QUERIES.values() if "p95" in each)

    found = {row["queue"]: (row["runs"], row["p95"]) for row in shell(night, query)}

    # Of seven, the slowest: it had to read the run again after 31 s without an answer.
    assert found == {
        "default": (7, pytest.approx(31.239, abs=1e-6)),
        "reports": (1, pytest.approx(0.239, abs=1e-6)),
    }


# --- live logs, archives, copies -------------------------------------------------------------


def test_a_living_log_is_read_by_sqlite3_and_its_writer_goes_on(tmp_path: Path) -> None:
    path, clock = tmp_path / "events.sqlite", SettableClock()
    store = SqliteStore.open(path, clock)
    recorder = Recorder(store, clock)
    run = Run("first")
    for _seconds, _run, observation in good_run(run, 1.0)[:3]:
        recorder.observe(run.stream, observation)

    (seen,) = shell(path, "SELECT run_name, state, open FROM submissions")
    for _seconds, _run, observation in good_run(run, 1.0)[3:]:
        recorder.observe(run.stream, observation)
    (seen_later,) = shell(path, "SELECT run_name, state, open FROM submissions")
    store.close()

    assert seen == {"run_name": "first", "state": "launching", "open": 1}
    assert seen_later == {"run_name": "first", "state": "exited", "open": 0}


def test_reading_with_sqlite3_changes_neither_the_log_nor_what_lies_beside_it(
    night: Path, tmp_path: Path
) -> None:
    for file in night.parent.iterdir():
        shutil.copy(file, tmp_path)
    before = {
        file.name: file.read_bytes() for file in tmp_path.iterdir() if "-shm" not in file.name
    }

    shell(tmp_path / night.name, "SELECT * FROM submissions")

    after = {file.name: file.read_bytes() for file in tmp_path.iterdir() if "-shm" not in file.name}
    assert after == before


def test_an_archive_is_read_once_it_is_unpacked(night: Path, tmp_path: Path) -> None:
    log = Path(shutil.copy(night, tmp_path / "events.sqlite"))
    archive = compact(log, tmp_path / "archive", "2026-11-24T02:05").archive
    assert archive is not None
    unpacked = tmp_path / "archive.sqlite"
    unpacked.write_bytes(gzip.decompress(archive.read_bytes()))

    both = "SELECT stream, state, open, began, ended, seconds, reason FROM submissions"
    whole = sorted(shell(night, both), key=str)
    moved, kept = shell(unpacked, both), shell(log, both)

    assert len(moved) == 10
    for row in (*moved, *kept, *whole):
        row["seconds"] = round(row["seconds"], 3)
    assert sorted([*moved, *kept], key=str) == whole


# --- other tools -----------------------------------------------------------------------------


def test_datasette_shows_the_views(night: Path) -> None:
    rows = datasette(night, "/events/submissions.json?_shape=array&run_name=hungry-bear")
    count = datasette(night, "/events.json?sql=select+count(*)+as+n+from+events&_shape=array")

    assert [(row["state"], row["exit_code"], row["reported"]) for row in rows] == [
        ("exited", -9, "CRASHED")
    ]
    assert count == [{"n": 196}]


@pytest.mark.parametrize("view", VIEWS)
def test_duckdb_reads_a_view_as_sqlite_does(
    night: Path, duck: duckdb.DuckDBPyConnection, view: str
) -> None:
    duck.execute(f"ATTACH '{night}' AS log (TYPE sqlite, READ_ONLY)")

    found = duck.execute(f"SELECT * FROM log.{view} ORDER BY position::INTEGER").fetchall()

    expected = shell(night, f"SELECT * FROM {view} ORDER BY position")
    assert len(found) == len(expected)
    for row, values in zip(found, expected, strict=True):
        assert [_number(value) for value in row] == [_number(value) for value in values.values()]


def _number(value: Any) -> Any:
    """Numbers come as text, and may have been rounded by the shell."""
    try:
        return None if value is None else pytest.approx(float(value), abs=1e-5)
    except ValueError:
        return value


def test_duckdb_calculates_with_what_is_cast(night: Path, duck: duckdb.DuckDBPyConnection) -> None:
    (block,) = re.findall(r"^    (ATTACH .*?)\n\n", PAGE, re.S | re.M)
    script = block.replace("/var/lib/pluperfect/events.sqlite", str(night))

    found = dict(duck.execute(script).fetchall())

    assert set(found) >= {"discovered", "resolving", "started"}
    query = "SELECT * FROM sqlite_query('log', 'SELECT count(*) FROM submissions')"
    assert duck.execute(query).fetchall() == [("12",)]
