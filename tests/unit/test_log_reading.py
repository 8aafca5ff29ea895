"""Reading a log that others write, that was copied, or that may not be written here.

A reader must never make or change anything next to the log.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from events.log import LogDamaged, NotALog
from events.sqlite import SqliteReader, SqliteStore
from events.sqlite_file import companions
from tests.unit.log_fixtures import REPOSITORY, append, copy_log, line_of, process

Contents = dict[str, tuple[bytes, int, int]]


def contents(folder: Path) -> Contents:
    """Return every file's bytes, mode and time of change."""
    return {
        f.name: (f.read_bytes(), f.stat().st_mode, f.stat().st_mtime_ns) for f in folder.iterdir()
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home" / "log"


@pytest.fixture
def hot(path: Path) -> Iterator[SqliteStore]:
    """Give a log whose records are in the write-ahead log alone, its agent being alive."""
    store = SqliteStore.open(path)
    store.commit([append("a", 0, 2)])
    store.commit([append("b", 0, closes=True)])
    yield store
    store.close()


# How a log can lie in a folder. Each takes the log of a living agent, and returns the copy's path.


def copied_whole(path: Path, folder: Path) -> Path:
    copied = copy_log(path, folder)
    companions(copied)[1].write_bytes(companions(path)[1].read_bytes())
    return copied


def copied_without_shared_memory(path: Path, folder: Path) -> Path:
    return copy_log(path, folder)


def checkpointed_alone(path: Path, folder: Path) -> Path:
    copied = copy_log(path, folder)
    SqliteStore.open(copied).close()
    for other in folder.iterdir():
        if other != copied:
            other.unlink()
    return copied


def stopped(path: Path, folder: Path) -> Path:
    copied = copy_log(path, folder)
    SqliteStore.open(copied).close()
    return copied


def stopped_without_shared_memory(path: Path, folder: Path) -> Path:
    copied = stopped(path, folder)
    companions(copied)[1].unlink()
    return copied


def stopped_without_write_ahead_log(path: Path, folder: Path) -> Path:
    copied = stopped(path, folder)
    companions(copied)[0].unlink()
    return copied


WAYS = [
    copied_whole,
    copied_without_shared_memory,
    checkpointed_alone,
    stopped,
    stopped_without_shared_memory,
    stopped_without_write_ahead_log,
]

READ_ALL = """
    import json
    reader = SqliteReader.open(path)
    reader.check_file()
    say(json.dumps([r.position for r in reader.verified()] + reader.open_streams()))
    reader.close()
"""


@pytest.mark.parametrize("way", WAYS)
def test_a_log_is_read_whole_and_nothing_next_to_it_changes(
    hot: SqliteStore, tmp_path: Path, way: Callable[[Path, Path], Path]
) -> None:
    copied = way(hot.path, tmp_path / "copy")
    before = contents(copied.parent)

    with process(READ_ALL, copied) as reader:
        assert line_of(reader) == '[1, 2, 3, "a"]'
        assert reader.wait() == 0

    assert contents(copied.parent) == before


@pytest.mark.parametrize("way", WAYS)
def test_an_agent_that_starts_while_a_log_is_read_is_noticed(
    hot: SqliteStore, tmp_path: Path, way: Callable[[Path, Path], Path]
) -> None:
    copied = way(hot.path, tmp_path / "copy")
    reader = SqliteReader.open(copied)
    assert reader.last_position() == 3

    agent = """
        store = SqliteStore.open(path)
        store.commit([append("a", 2, 2000, closes=True)])
        say("committed")
        input()
        store.close()
    """
    with process(agent, copied) as running:
        assert line_of(running) == "committed"
        assert len(list(reader.verified())) == 2003
        assert reader.open_streams() == []
        running.communicate("\n")
    assert reader.last_position() == 2003
    reader.close()


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_reader_in_another_process_joins_after_the_very_first_commit(
    path: Path, earlier: int
) -> None:
    """One who may not write to the shared memory depends on the marks that others set there."""
    for _ in range(earlier):
        SqliteStore.open(path).close()
    companions(path)[1].unlink(missing_ok=True)
    store = SqliteStore.open(path)
    store.commit([append("a", 0)])

    with process(READ_ALL, path) as reader:
        assert line_of(reader) == '[1, "a"]'

    store.close()


def test_a_write_ahead_log_that_sqlite_finds_nothing_in_is_left_where_it_is(
    hot: SqliteStore, tmp_path: Path
) -> None:
    """It may hold all there is, behind one damaged byte; SQLite would remove it on closing."""
    copied = copy_log(hot.path, tmp_path / "copied")
    wal = companions(copied)[0]
    damaged = bytearray(wal.read_bytes())
    damaged[40] ^= 1
    wal.write_bytes(damaged)
    before = contents(copied.parent)

    reader = SqliteReader.open(copied)
    list(reader.read_all())
    reader.close()

    assert contents(copied.parent) == before


def test_a_stopped_agent_leaves_what_readers_need_in_place(path: Path) -> None:
    """While they read, the next agent may start, write and stop: they must be able to tell."""
    SqliteStore.open(path).close()

    assert all(companion.exists() for companion in companions(path))


def test_a_reader_follows_while_an_agent_commits_and_checkpoints(path: Path) -> None:
    agent = """
        store = SqliteStore.open(path)
        say("open")
        n = 0
        while True:
            store.commit([append(f"s{n}", 0, 5)])
            n += 1
    """
    with process(agent, path) as writer:
        assert line_of(writer) == "open"
        reader = SqliteReader.open(path)
        seen = [0]
        while seen[-1] < 10_000:
            seen.append(len(list(reader.verified())))
            assert seen[-1] % 5 == 0, "a commit is seen whole or not at all"
            assert writer.poll() is None
        reader.close()

    assert seen == sorted(seen)


def test_a_log_is_read_without_permission_to_write_anything(
    hot: SqliteStore, tmp_path: Path
) -> None:
    """As another user would: reading is allowed, writing (the folder included) is not."""
    where = [hot.path.parent]
    for way in WAYS:
        where.append(way(hot.path, tmp_path / way.__name__).parent)
    for folder in where:
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
    for parent in tmp_path.parents[:2]:
        parent.chmod(parent.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    code = (
        "import os, sys\nfrom events.sqlite import SqliteReader\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try: open(path, 'r+'); sys.exit(f'{path} may be written')\n"
        "    except PermissionError: pass\n"
        "    print(len(list(SqliteReader.open(path).verified())))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, *(str(folder / "log") for folder in where)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip

    for folder in where:
        folder.chmod(0o755)  # so that the temporary folder can be removed
    assert (done.stdout, done.stderr) == ("3\n" * len(where), "")


def test_a_log_that_may_not_be_read_says_which_file(hot: SqliteStore) -> None:
    hot.path.chmod(0o644)
    code = (
        "import os, sys\nfrom events.sqlite import SqliteReader\n"
        "from events.log import NotALog\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: SqliteReader.open(sys.argv[1])\n"
        "except NotALog as error: print(error)\n"
    )
    for folder in hot.path.parents[:4]:
        folder.chmod(folder.stat().st_mode | 0o055)
    companions(hot.path)[0].chmod(0)

    done = subprocess.run(
        [sys.executable, "-c", code, str(hot.path)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert f"no permission to read {companions(hot.path)[0]}" in done.stdout, done.stderr


def test_a_reader_stays_at_its_log_when_another_takes_the_place(
    hot: SqliteStore, tmp_path: Path
) -> None:
    copied = checkpointed_alone(hot.path, tmp_path / "copy")
    reader = SqliteReader.open(copied)
    copied.unlink()
    another = SqliteStore.open(copied)

    with pytest.raises(NotALog, match="another log"):
        reader.last_position()

    another.close()
    reader.close()


def test_many_readers_and_the_agent_share_a_log_in_one_process(hot: SqliteStore) -> None:
    readers = [SqliteReader.open(hot.path) for _ in range(5)]
    hot.commit([append("c", 0)])

    assert [reader.last_position() for reader in readers] == [4] * 5
    for reader in readers:
        reader.close()
    hot.commit([append("d", 0)])
    assert hot.last_position() == 5


def test_a_record_that_cannot_be_read_is_named_after_those_that_can(
    hot: SqliteStore, tmp_path: Path
) -> None:
    copied = stopped(hot.path, tmp_path / "copy")
    connection = apsw.Connection(str(copied))
    connection.execute("DROP TRIGGER records_are_never_changed")
    connection.execute("UPDATE records SET data = CAST(x'ff' AS TEXT) WHERE position = 2")
    connection.close()
    reader = SqliteReader.open(copied)
    read: list[int] = []

    with pytest.raises(LogDamaged, match="position 2: text that is no Unicode") as caught:
        read.extend(record.position for record in reader.read_all())

    assert caught.value.position == 2
    reader.close()


def test_the_replay_side_needs_no_event_loop() -> None:
    code = (
        "import sys, events.sqlite\n"
        "print([m for m in ('trio', 'httpx', 'pendulum', 'cattrs') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"
