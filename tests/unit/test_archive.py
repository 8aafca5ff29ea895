"""What leaves a log for an archive: nothing is lost, everything verifies, names stay used."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.archive import Compaction, compact, open_log
from events.chain import ChainBroken, ChainVerifier, first_damage, genesis
from events.lock import LogLock
from events.log import LogDamaged, LogLocked, Record, VersionConflict
from events.sqlite import SqliteReader, SqliteStore
from tests.unit.log_fixtures import REPOSITORY, append, ticking_clock

EVERYTHING = "9999"
"""Later than any record."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def fill(path: Path, streams: int, *, prefix: str = "s") -> None:
    """Append to a log: streams that interleave, every third of them left open."""
    with closing(SqliteStore.open(path, ticking_clock())) as store:
        names = [f"{prefix}{number}" for number in range(streams)]
        store.commit([append(name, 0, 2) for name in names])
        store.commit([append(n, 2, 1, closes=i % 3 != 0) for i, n in enumerate(names)])
        store.commit([append(f"{prefix}-end", 0)])


def records_in(*paths: Path) -> list[Record]:
    """All records of some logs and archives, in order, each once."""
    found: dict[int, Record] = {}
    for path in paths:
        with open_log(path) as reader:
            found |= {record.position: record for record in reader.read_all()}
    return [found[position] for position in sorted(found)]


def archives_of(path: Path) -> list[Path]:
    return sorted((path.parent / "archive").glob("events-*.sqlite.gz"))


def squeeze(path: Path, before: str = EVERYTHING) -> Compaction:
    return compact(path, path.parent / "archive", before)


def expect_sound(*paths: Path) -> None:
    for path in paths:
        with open_log(path) as reader:
            for _ in reader.verified():
                pass
            reader.check_file()


def test_closed_streams_move_and_open_ones_stay(path: Path) -> None:
    fill(path, 6)
    before = records_in(path)

    moved = squeeze(path)

    assert (moved.streams, moved.records) == (4, 12)
    assert moved.archive is not None
    assert {r.stream for r in records_in(path)} == {"s0", "s3", "s-end"}
    assert {r.stream for r in records_in(moved.archive)} == {"s1", "s2", "s4", "s5"}
    assert records_in(path, moved.archive) == before
    expect_sound(path, moved.archive)


def test_log_and_archives_together_are_the_whole_chain(path: Path) -> None:
    fill(path, 9)
    before = records_in(path)
    squeeze(path)
    fill(path, 9, prefix="t")
    squeeze(path)

    together = records_in(path, *archives_of(path))

    assert len(archives_of(path)) == 2
    assert together[: len(before)] == before
    with open_log(path) as reader:
        assert first_damage(together, reader.log_id, tip=reader.tip()) is None


def test_an_archive_is_the_owners_alone(path: Path) -> None:
    fill(path, 3)
    moved = squeeze(path)

    assert moved.archive is not None
    assert stat.S_IMODE(moved.archive.stat().st_mode) == 0o600
    assert stat.S_IMODE(moved.archive.parent.stat().st_mode) == 0o700
    assert os.listdir(moved.archive.parent) == [moved.archive.name]


def test_an_archived_stream_stays_closed_and_known(path: Path) -> None:
    fill(path, 3)
    squeeze(path)

    with closing(SqliteStore.open(path, ticking_clock())) as store:
        assert store.version_of("s1") == 3
        assert store.is_archived("s1")
        assert list(store.streams("s")) == ["s0", "s1", "s2", "s-end"]
        for expected in (0, 3):
            (outcome,) = store.commit([append("s1", expected)])
            assert isinstance(outcome, VersionConflict)
            assert outcome.closed


def test_an_agent_goes_on_after_a_compaction(path: Path) -> None:
    fill(path, 6)
    squeeze(path)
    fill(path, 6, prefix="t")

    expect_sound(path)


def test_the_last_record_stays(path: Path) -> None:
    with closing(SqliteStore.open(path, ticking_clock())) as store:
        store.commit([append("a", 0, 2, closes=True), append("b", 0, 2, closes=True)])

    assert squeeze(path).streams == 1
    assert [record.stream for record in records_in(path)] == ["b", "b"]
    SqliteStore.open(path).close()


def test_what_is_not_old_enough_stays(path: Path) -> None:
    fill(path, 6)

    assert squeeze(path, before="1999") == Compaction(None, 0, 0)
    assert archives_of(path) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM records WHERE stream = 's0'",
        "DELETE FROM archived_ranges",
        "DELETE FROM archived_streams",
        "UPDATE archived_ranges SET hash_after = hash_before",
        "UPDATE archived_streams SET version = 0",
    ],
)
def test_the_file_refuses_what_is_no_compaction(path: Path, statement: str) -> None:
    fill(path, 6)
    squeeze(path)
    with closing(apsw.Connection(str(path))) as connection, pytest.raises(apsw.ConstraintError):
        connection.execute(statement)


def test_a_record_that_is_missing_beside_an_archived_range_is_found(path: Path) -> None:
    fill(path, 6)
    squeeze(path)
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("DROP TRIGGER records_are_never_removed")
        connection.execute("DELETE FROM records WHERE stream = 's3' AND version = 2")

    with closing(SqliteReader.open(path)) as reader, pytest.raises(ChainBroken, match="missing"):
        list(reader.verified())


def test_an_altered_range_is_found(path: Path) -> None:
    fill(path, 6)
    squeeze(path)
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("DROP TRIGGER archived_ranges_are_never_changed")
        connection.execute("UPDATE archived_ranges SET hash_after = zeroblob(16)")

    with closing(SqliteReader.open(path)) as reader, pytest.raises(ChainBroken):
        list(reader.verified())


def test_an_archive_that_was_cut_off_is_damaged(path: Path) -> None:
    fill(path, 6)
    archive = squeeze(path).archive
    assert archive is not None
    os.truncate(archive, archive.stat().st_size // 2)

    with pytest.raises(LogDamaged, match="unpacked"):
        records_in(archive)


def test_a_second_compaction_at_the_same_time_is_refused(path: Path) -> None:
    fill(path, 3)
    lock = LogLock.take(path.with_name("log.compact"), "now")
    try:
        with pytest.raises(LogLocked):
            squeeze(path)
    finally:
        lock.release()


def test_a_compaction_beside_an_agent_that_commits_loses_nothing(path: Path) -> None:
    fill(path, 900)
    code = "import sys; from tests.unit.test_archive import *; squeeze(Path(sys.argv[1]))"
    with closing(SqliteStore.open(path, ticking_clock())) as store:
        compactor = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=REPOSITORY)
        committed = 0
        while compactor.poll() is None:
            store.commit([append(f"meanwhile{committed}", 0, 2)])
            committed += 1
        assert compactor.returncode == 0

    assert committed > 0
    assert len(records_in(path, *archives_of(path))) == 900 * 3 + 1 + 2 * committed
    expect_sound(path, *archives_of(path))


@pytest.mark.parametrize("moment", ["before the archive", "1", "2", "3", "in a removal"])
def test_a_compaction_that_is_killed_loses_nothing_and_is_finished_by_the_next(
    path: Path, moment: str
) -> None:
    fill(path, 900)
    before = records_in(path)
    code = """
import os, signal, sys
from events import archive
from tests.unit.test_archive import *
path, moment = Path(sys.argv[1]), sys.argv[2]
calls = 0
def die(*_anything, **_more):
    os.kill(os.getpid(), signal.SIGKILL)
def die_at_last(_records):
    global calls
    calls += 1
    if str(calls) == moment:
        die()
if moment == "before the archive":
    archive.gzip.GzipFile = die
if moment == "in a removal":
    archive._runs = die
archive.compact(path, path.parent / "archive", EVERYTHING, before_removal=die_at_last)
"""
    killed = subprocess.run(
        [sys.executable, "-c", code, str(path), moment], cwd=REPOSITORY, check=False
    )
    assert killed.returncode == -signal.SIGKILL

    assert records_in(path, *archives_of(path)) == before
    expect_sound(path, *archives_of(path))
    squeeze(path)
    assert {r.stream for r in records_in(path) if r.closes} == set()
    assert set(archives_of(path)) == set((path.parent / "archive").iterdir())
    assert records_in(path, *archives_of(path)) == before
    expect_sound(path, *archives_of(path))


@settings(max_examples=25, deadline=None)
@given(
    rounds=st.lists(
        st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=8),
        min_size=1,
        max_size=4,
    )
)
def test_however_often_a_log_is_compacted_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory, rounds: Sequence[Sequence[tuple[int, bool]]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    expected = 0
    for number, streams in enumerate(rounds):
        with closing(SqliteStore.open(path, ticking_clock())) as store:
            for index, (count, closes) in enumerate(streams):
                store.commit([append(f"{number}/{index}", 0, count, closes=closes)])
                expected += count
        squeeze(path)

    together = records_in(path, *archives_of(path))

    assert [record.position for record in together] == list(range(1, expected + 1))
    expect_sound(path, *archives_of(path))


COMPACTION = """
import sys
from pathlib import Path
from events.archive import compact
path = Path(sys.argv[1])
assert compact(path, path.parent / "archive", "9999").streams
"""


def test_a_log_that_is_compacted_while_it_is_verified_is_sound(path: Path) -> None:
    fill(path, 1200)
    with closing(SqliteReader.open(path)) as reader:
        verifier = ChainVerifier(genesis(reader.log_id), archived=reader.archived_at)
        for number, row in enumerate(reader.read_rows(), 1):
            if number == 700:  # in the middle of what was read at once
                command = [sys.executable, "-c", COMPACTION, str(path)]
                subprocess.run(command, cwd=REPOSITORY, check=True)
            assert verifier.accepts(row)
        assert verifier.position == reader.last_position()
