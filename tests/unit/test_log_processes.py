"""The SQLite log among real processes: kill -9, the lock, checkpoints beside readers.

SIGKILL leaves the page cache as it is, so it proves atomicity and order, not durability: for
that, see test_log_faults.py.
"""

from __future__ import annotations

import random
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest

from events.log import LogError, LogLocked, LogWriteFailed
from events.sqlite import SqliteReader, SqliteStore
from events.sqlite_file import companions
from tests.unit.log_fixtures import append, line_of, process, ticking_clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


# --- killed --------------------------------------------------------------------------------

APPEND_FOR_EVER = """
    import events.sqlite
    events.sqlite._PAGES_BEFORE_CHECKPOINT = 50
    store = SqliteStore.open(path)
    n = store.last_position()
    while True:
        group = [append(f"{n}/{k}", 0, 3, closes=k == 1) for k in range(1 + n % 3)]
        records = store.commit(group)
        n = records[-1][-1].position
        say(n)
"""


def test_a_killed_agent_loses_nothing_that_it_acknowledged(path: Path) -> None:
    """The ledger is the pipe: what was said there before the kill must be in the log."""
    chance = random.Random(20)
    acknowledged = 0
    for _ in range(12):
        with process(APPEND_FOR_EVER, path) as agent:
            for _ in range(chance.randrange(1, 60)):
                line_of(agent)
            agent.send_signal(signal.SIGKILL)
            rest, _ = agent.communicate()
            acknowledged = max([acknowledged, *map(int, rest.split())])

        reader = SqliteReader.open(path)
        records = list(reader.verified())
        assert len(records) >= acknowledged
        lengths = {stream: reader.version_of(stream) for stream in reader.streams()}
        assert set(lengths.values()) == {3}, "an append is there as a whole or not at all"
        reader.check_file()
        reader.close()
        acknowledged = len(records)


def test_a_log_whose_agent_was_killed_is_read_before_another_starts(path: Path) -> None:
    with process(APPEND_FOR_EVER, path) as agent:
        said = int(line_of(agent))
        agent.kill()

    reader = SqliteReader.open(path)

    assert reader.last_position() >= said
    reader.close()


# --- the lock ------------------------------------------------------------------------------

HOLD = """
    store = SqliteStore.open(path)
    say("open")
    input()
"""


def test_a_second_agent_is_told_who_has_the_log(path: Path) -> None:
    with process(HOLD, path) as agent:
        line_of(agent)

        with pytest.raises(LogLocked, match=f"process {agent.pid} on .*, since 20") as caught:
            SqliteStore.open(path)

        assert caught.value.path == path
        assert f"process {agent.pid}" in caught.value.holder


def test_an_agent_in_the_same_process_is_a_second_one_too(path: Path) -> None:
    store = SqliteStore.open(path)

    with pytest.raises(LogLocked):
        SqliteStore.open(path)

    store.close()
    SqliteStore.open(path).close()


def test_the_lock_goes_with_the_process_that_had_it(path: Path) -> None:
    with process(HOLD, path) as agent:
        line_of(agent)
        agent.kill()
        agent.wait()

        SqliteStore.open(path).close()


def test_a_command_that_the_agent_launched_does_not_have_the_lock(path: Path) -> None:
    launch = """
        import subprocess
        store = SqliteStore.open(path)
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
        say(child.pid)
        input()
    """
    with process(launch, path) as agent:
        child = int(line_of(agent))
        agent.kill()
        agent.wait()
        try:
            SqliteStore.open(path).close()
        finally:
            subprocess.run(["kill", str(child)], check=True)


def test_an_agent_that_is_refused_leaves_the_lock_and_the_log_alone(path: Path) -> None:
    store = SqliteStore.open(path, ticking_clock())
    lock = path.with_name("log.lock")
    before = lock.read_text()

    with pytest.raises(LogLocked):
        SqliteStore.open(path)

    assert lock.read_text() == before
    store.commit([append("a", 0)])
    store.close()


def test_a_lock_file_that_is_a_link_is_not_followed(path: Path) -> None:
    """Else whoever may write to the folder could have the agent overwrite any file."""
    target = path.with_name("precious")
    target.write_text("precious")
    path.with_name("log.lock").symlink_to(target)

    with pytest.raises(LogWriteFailed, match="lock file"):
        SqliteStore.open(path)

    assert target.read_text() == "precious"


def test_a_holder_that_did_not_say_its_name_is_another_process(path: Path) -> None:
    store = SqliteStore.open(path)
    path.with_name("log.lock").write_text("")

    with pytest.raises(LogLocked, match="another process"):
        SqliteStore.open(path)

    store.close()


@pytest.mark.parametrize("part", ["log", "log.lock"])
def test_a_log_that_may_not_be_written_says_so(path: Path, part: str) -> None:
    SqliteStore.open(path).close()
    for folder in path.parents[:3]:
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    for file in path.parent.iterdir():
        file.chmod(0o666)
    path.with_name(part).chmod(0o444)
    code = (
        "import os, sys\nfrom events.sqlite import *\nfrom events.log import LogError\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: SqliteStore.open(sys.argv[1])\n"
        "except LogError as error: print(type(error).__name__, error)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip

    assert done.stdout.startswith("LogWriteFailed"), done
    assert "no permission" in done.stdout or "Permission denied" in done.stdout


# --- checkpoints ---------------------------------------------------------------------------

PAGE = 4096 + 24


@pytest.fixture
def _early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("events.sqlite._PAGES_BEFORE_CHECKPOINT", 40)
    monkeypatch.setattr("events.sqlite._PAGES_BEFORE_WAITING", 80)


def wal_pages(path: Path) -> float:
    return companions(path)[0].stat().st_size / PAGE


@pytest.mark.usefixtures("_early")
def test_the_write_ahead_log_stays_short(path: Path) -> None:
    store = SqliteStore.open(path)
    for number in range(200):
        store.commit([append(f"s{number}", 0)])

    assert wal_pages(path) < 60
    store.close()
    assert wal_pages(path) == 0


@pytest.mark.usefixtures("_early")
def test_the_write_ahead_log_stays_short_while_readers_come_and_go(path: Path) -> None:
    """There is always one that reads, so no checkpoint in passing finds the log unused."""
    store = SqliteStore.open(path)
    store.commit([append("first", 0, 2000)])
    done = threading.Event()
    reading = [threading.Event(), threading.Event()]

    def overlap(mine: int) -> None:
        connection = apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(1000)
        while not done.is_set():
            connection.execute("BEGIN; SELECT sum(length(data)) FROM records")
            reading[mine].set()
            reading[1 - mine].wait(0.01)  # let go only when the other one has begun
            reading[1 - mine].clear()
            connection.execute("COMMIT")
        connection.close()

    threads = [threading.Thread(target=overlap, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    longest = 0.0
    for number in range(300):
        store.commit([append(f"s{number}", 0)])
        longest = max(longest, wal_pages(path))
    done.set()
    for thread in threads:
        thread.join()

    assert longest < 400
    store.close()


@pytest.mark.usefixtures("_early")
def test_a_reader_that_lingers_stops_no_commit_and_only_delays_the_checkpoint(path: Path) -> None:
    store = SqliteStore.open(path)
    store.commit([append("a", 0)])
    lingering = apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)
    lingering.execute("BEGIN; SELECT count(*) FROM records")

    for number in range(60):
        store.commit([append(f"s{number}", 0)])
    grown = wal_pages(path)
    assert lingering.execute("SELECT count(*) FROM records").get == 1
    lingering.close()
    for number in range(60, 200):
        store.commit([append(f"s{number}", 0)])

    assert grown > 150
    assert wal_pages(path) < grown + 45, "it was started over as soon as it could be"
    assert len(list(store.verified())) == 201
    store.close()


def test_a_clean_stop_is_not_hindered_by_a_reader(path: Path) -> None:
    store = SqliteStore.open(path)
    store.commit([append("a", 0)])
    lingering = apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)
    lingering.execute("BEGIN; SELECT count(*) FROM records")

    store.close()

    lingering.close()
    reopened = SqliteStore.open(path)
    assert reopened.streams() == ["a"]
    reopened.close()


def test_another_program_that_writes_is_waited_for_and_then_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("events.sqlite.PATIENCE_MS", 10)
    store = SqliteStore.open(path)
    intruder = apsw.Connection(str(path))
    intruder.execute("BEGIN IMMEDIATE")

    with pytest.raises(LogError, match="another program is writing"):
        store.commit([append("a", 0)])

    intruder.close()
    store.close()
