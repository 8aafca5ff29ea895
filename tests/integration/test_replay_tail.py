"""`python -m replay tail` as a person runs it: the end of a log, and a log that is followed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import pytest

from events.archive import compact
from events.notices import AGENT_STREAM
from events.sqlite import SqliteStore
from tests.integration.test_replay_cli import ROOT, good, imported_by, refused, replay
from tests.samples.make_sample import (
    Happening,
    Recorder,
    Run,
    SettableClock,
    failed_launch,
    good_run,
    write_night,
)

PATIENCE_SECONDS = 60.0
BUDGIE, VOLE = Run("bright-budgie"), Run("vexed-vole", "reports")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that tells every story there is. Not to be changed."""
    path = tmp_path_factory.mktemp("night") / "events.sqlite"
    write_night(path)
    return path


# --- the end of a log --------------------------------------------------------------------------


def test_tail_shows_the_last_records_of_the_whole_log(night: Path) -> None:
    lines = good("tail", night).splitlines()

    assert len(lines) == 20
    assert lines[-2].split(maxsplit=6) == [
        *("2026-11-24", "02:10:25.300", "195", "unlucky-ant", "launching", "RequestFailed"),
        "the spool can't be read: Input/output error",
    ]
    assert lines[-1].endswith(
        "└ EffectDeferred         to examine the evidence of the launch, again in 2.00 s: …"
    )


def test_tail_shows_as_many_as_are_asked_for(night: Path) -> None:
    everything = good("tail", "-n", 1000, night).splitlines()

    assert len(everything) == 196
    assert good("tail", "-n", 3, night).splitlines()[1:] == everything[-2:]
    assert good("tail", "-n", 0, night) == ""


def test_a_transition_whose_observation_is_not_shown_repeats_what_that_says(night: Path) -> None:
    (line,) = good("tail", "-n", 1, night).splitlines()

    assert line.endswith("again in 2.00 s: the spool can't be read: Input/output error")


def test_tail_since_begins_at_a_time(night: Path) -> None:
    told = good("tail", night, "--since", "2026-11-24T02:10:15", TZ="UTC").splitlines()

    assert (len(told), told[0].split()[2:4]) == (12, ["185", "unlucky-ant"])
    assert len(good("tail", night, "--since", "2026-11-24T02:10:15", "-n", 2).splitlines()) == 2


def test_tail_of_one_run_is_all_there_is_of_its_submissions(night: Path) -> None:
    told = good("tail", night, "--run", "ancient-otter", "-n", 100).splitlines()

    names = [line.split()[3] for line in told]
    assert set(names) == {"ancient-otter", "ancient-otter/2"}
    assert names == sorted(names)
    assert good("tail", night, "--run", "ancient-otter/2", "-n", 2).splitlines()[1] == told[-1]


def test_tail_of_what_failed_leaves_out_what_went_well(night: Path) -> None:
    told = good("tail", night, "--failed", "-n", 100)

    assert "quiet-lynx" not in told
    assert "PollingFailed" in told
    assert "└ SubmissionFailed" in told


def test_tail_can_be_narrowed_to_a_queue_and_to_decisions(night: Path) -> None:
    told = good("tail", night, "--queue", "reports", "--transitions", "-n", 100).splitlines()

    assert {line.split()[3] for line in told} == {"nightly-report", "hungry-bear", "unlucky-ant"}
    assert all("└" in line for line in told)


def test_tail_for_machines_prints_an_object_a_record(night: Path) -> None:
    objects = [json.loads(line) for line in good("tail", "--json", night).splitlines()]

    assert [o["position"] for o in objects] == [*range(177, 197)]
    last = objects[-1]
    assert (last["run_name"], last["queue"], last["type"]) == (
        *("unlucky-ant", "reports", "EffectDeferred"),
    )
    assert (last["state_before"], last["state"], last["owed"]) == (
        *("launching", "launching", ["examine"]),
    )
    assert (last["severity"], last["event"]["delay_seconds"]) == ("wait", 2.0)


def test_tail_of_an_unknown_run_ends_in_a_line(night: Path) -> None:
    said = refused(2, "tail", night, "--run", "nobody")

    assert said.startswith("pluperfect replay: no run's id begins with 'nobody'")
    assert len(said.splitlines()) == 1


def test_tail_reads_what_is_left_after_a_compaction(night: Path, tmp_path: Path) -> None:
    log = Path(shutil.copy(night, tmp_path / "events.sqlite"))
    moved = compact(log, tmp_path / "archive", datetime.now(UTC).isoformat())
    assert moved.archive is not None

    left = good("tail", "-n", 1000, log).splitlines()
    gone = good("tail", "-n", 1000, moved.archive).splitlines()

    assert sorted(left + gone) == sorted(good("tail", "-n", 1000, night).splitlines())


# --- a log that is followed --------------------------------------------------------------------


@attrs.define
class Followed:
    """A `tail -f` that goes on in the background."""

    process: subprocess.Popen[str]

    def objects(self, count: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines(count)]

    def lines(self, count: int) -> list[str]:
        assert self.process.stdout is not None
        return [self.process.stdout.readline() for _ in range(count)]

    def said(self) -> str:
        """Wait for the next line about the log itself."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().removeprefix("pluperfect replay: ").strip()

    def interrupt(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate()
        return self.process.returncode, out, err


@contextlib.contextmanager
def following(log: Path, *options: str) -> Iterator[Followed]:
    process = subprocess.Popen(
        [sys.executable, "-m", "replay", "tail", "-f", *options, str(log)],
        cwd=ROOT,
        env=os.environ | {"TZ": "UTC"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # What never comes ends the waiting for it, and so fails the test.
    patience = threading.Timer(PATIENCE_SECONDS, process.kill)
    patience.start()
    try:
        yield Followed(process)
    finally:
        patience.cancel()
        process.kill()
        process.communicate()


def write(path: Path, *stories: list[Happening], agent: bool = False) -> int:
    """Append stories as an agent that starts, writes and stops; return how many records."""
    clock = SettableClock()
    store = SqliteStore.open(path, clock)
    recorder = Recorder(store, clock, versions={AGENT_STREAM: store.version_of(AGENT_STREAM)})
    before = store.last_position()
    if agent:
        recorder.start_agent("boot 1")
    for story in stories:
        for seconds, run, observation in story:
            clock.seconds = seconds
            recorder.observe(run.stream, observation)
    count = store.last_position() - before
    store.close()
    return count


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with one run in it."""
    path = tmp_path / "state" / "events.sqlite"
    path.parent.mkdir()
    write(path, good_run(BUDGIE, 1.0), agent=True)
    return path


def test_a_followed_log_shows_what_is_appended(log: Path) -> None:
    with following(log, "--json", "-n", "1") as tail:
        (last,) = tail.objects(1)
        appended = write(log, failed_launch(VOLE, 20.0))
        objects = tail.objects(appended)

    assert last["type"] == "OutcomeSettled"
    assert [o["position"] for o in objects] == [
        *range(last["position"] + 1, last["position"] + 1 + appended)
    ]
    assert (objects[-1]["run_name"], objects[-1]["state"]) == ("vexed-vole", "failed")


def test_a_submission_that_was_under_way_is_told_with_its_name_and_state(log: Path) -> None:
    first, second = failed_launch(VOLE, 20.0)[:3], failed_launch(VOLE, 20.0)[3:]
    clock = SettableClock()
    store = SqliteStore.open(log, clock)
    recorder = Recorder(store, clock)
    for _seconds, run, observation in first:
        recorder.observe(run.stream, observation)
    with following(log, "--json", "-n", "1") as tail:
        (last,) = tail.objects(1)
        for _seconds, run, observation in second:
            recorder.observe(run.stream, observation)
        (refused_,) = tail.objects(1)
    store.close()

    assert (last["run_name"], last["type"]) == ("vexed-vole", "LaunchRequested")
    assert (refused_["type"], refused_["state"]) == ("CommandRefused", "launching")


def test_interrupting_it_is_quiet_and_has_the_status_of_an_interruption(log: Path) -> None:
    with following(log, "-n", "1") as tail:
        tail.lines(1)

        assert tail.interrupt() == (130, "", "")


def test_a_reader_that_goes_away_ends_it_although_nothing_comes(log: Path) -> None:
    with following(log, "-n", "1") as tail:
        tail.lines(1)
        assert tail.process.stdout is not None
        tail.process.stdout.close()

        assert tail.process.wait(30) == 0
        assert tail.process.stderr is not None
        assert tail.process.stderr.read() == ""
        tail.process.stdout = None


def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    state = tmp_path / "made-later"
    with following(state, "--json") as tail:
        assert tail.said() == f"there is no log at {state} yet; waiting for it"
        state.mkdir()
        (state / "events.sqlite").touch()  # As an agent leaves it that is about to make it.
        (state / "events.sqlite").unlink()
        count = write(state / "events.sqlite", good_run(BUDGIE, 1.0))

        assert tail.objects(1)[0]["position"] == 1
        assert tail.objects(count - 1)[-1]["closes"]


def test_without_following_a_log_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "there is no such file" in refused(3, "tail", tmp_path / "nothing")


def test_another_log_in_its_place_is_said_and_followed_from_its_beginning(
    log: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.sqlite"
    count = write(other, failed_launch(VOLE, 20.0))
    with following(log, "--json", "-n", "1") as tail:
        tail.objects(1)
        other.replace(log)

        assert (
            tail.said() == f"another log took the place of {log}; following it from its beginning"
        )
        assert [o["position"] for o in tail.objects(count)] == [*range(1, count + 1)]


def test_a_copy_of_a_log_in_whose_place_an_agent_makes_another_is_followed(
    log: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "alone" / "events.sqlite"
    copy.parent.mkdir()
    shutil.copy(log, copy)  # Nothing lies beside it, as nobody has written there.
    with following(copy, "--json", "-n", "1") as tail:
        tail.objects(1)
        copy.unlink()
        assert tail.said() == f"{copy} is gone; waiting for it to come back"
        count = write(copy, failed_launch(VOLE, 20.0))

        assert [o["position"] for o in tail.objects(count)] == [*range(1, count + 1)]


def test_a_log_that_goes_and_comes_back_is_followed_on(log: Path, tmp_path: Path) -> None:
    with following(log, "--json", "-n", "1") as tail:
        (last,) = tail.objects(1)
        shutil.copytree(log.parent, tmp_path / "copy")
        shutil.rmtree(log.parent)
        assert tail.said() == f"{log} is gone; waiting for it to come back"
        (tmp_path / "copy").rename(log.parent)
        write(log, failed_launch(VOLE, 20.0))

        assert tail.objects(1)[0]["position"] == last["position"] + 1


def test_an_older_copy_in_its_place_is_said_and_followed_from_its_end(
    log: Path, tmp_path: Path
) -> None:
    older = Path(shutil.copy(log, tmp_path / "older.sqlite"))
    write(log, failed_launch(VOLE, 20.0))
    with following(log, "--json", "-n", "1") as tail:
        tail.objects(1)
        for beside in ("-wal", "-shm"):
            log.with_name(log.name + beside).unlink(missing_ok=True)
        older.replace(log)
        said = tail.said()

        assert said.startswith(f"another copy of the log took the place of {log}: it ends at")
        write(log, good_run(Run("later-lemur"), 40.0))
        assert tail.objects(1)[0]["run_name"] == "later-lemur"


def test_a_compaction_and_a_new_agent_do_not_disturb_it(log: Path, tmp_path: Path) -> None:
    with following(log, "--json", "-n", "1") as tail:
        (last,) = tail.objects(1)
        compact(log, tmp_path / "archive", datetime.now(UTC).isoformat())
        write(log, failed_launch(VOLE, 20.0), agent=True)
        started, offered = tail.objects(2)

    assert (started["type"], offered["type"]) == ("AgentStarted", "RunOffered")
    assert started["position"] == last["position"] + 1


def test_what_a_compaction_took_away_unread_is_said(log: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from replay.following import FollowedLog, file_at\n"
        "from events.sqlite_reader import SqliteReader\n"
        "path = Path(sys.argv[1]); reader = SqliteReader.open(path)\n"
        "log = FollowedLog(path, reader, file_at(path), reader.tip(), print, print)\n"
        "print(reader.last_position(), flush=True); input()\n"
        "print([record.position for record in log.news()])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(log)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as slow:
        assert slow.stdout is not None
        last = int(slow.stdout.readline())
        count = write(log, failed_launch(VOLE, 20.0))
        write(log, failed_launch(Run("later-lemur"), 40.0)[:1])
        compact(log, tmp_path / "archive", datetime.now(UTC).isoformat())
        said, positions = slow.communicate("\n")[0].splitlines()

    end = last + count
    assert said == f"positions {last + 1} to {end} were moved to an archive before they were read"
    assert json.loads(positions) == [end + 1, end + 2, end + 3]


def test_a_run_that_is_still_to_come_is_waited_for(log: Path) -> None:
    with following(log, "--json", "--run", "vexed-vole") as tail:
        assert "none has that name yet; waiting for it" in tail.said()
        write(log, good_run(Run(f"other-{uuid4()}"), 20.0), failed_launch(VOLE, 21.0))

        assert {o["run_name"] for o in tail.objects(9)} == {"vexed-vole"}


def test_following_a_log_that_is_no_log_ends_in_a_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("This is no log, but a text that is longer than a header." * 20)

    done = replay("tail", "-f", text)

    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1


def test_waiting_is_said_once(tmp_path: Path) -> None:
    with following(tmp_path / "never") as tail:
        tail.said()

        assert tail.interrupt() == (130, "", "")


def test_it_needs_neither_the_daemon_nor_the_network(night: Path) -> None:
    loaded = imported_by("tail", night) | imported_by("tail", "--help")

    assert not loaded & {"agent", "trio", "httpx", "h11", "anyio", "ssl", "rich"}
