"""The table of verdicts, over its whole input space, and the folders whose facts it judges."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from agent.infrastructure.keeper import EXEC, EXIT, OUTPUT, REFUSED, WORKER_LOCK, boot_id, try_lock
from agent.infrastructure.launcher import Ended
from agent.infrastructure.spool import ROWS, Committed, Facts, LaunchFolder, judge
from events.lifecycle import Verdict

BOTH = (False, True)
ALL_FACTS = [
    Facts(*combination)
    for combination in itertools.product(BOTH, BOTH, Committed, BOTH, BOTH, BOTH)
]


@pytest.mark.parametrize("facts", ALL_FACTS, ids=str)
def test_every_combination_of_facts_is_spoken_of_by_exactly_one_row(facts: Facts) -> None:
    assert len([row for row in ROWS if row.matches(facts)]) == 1


def test_every_row_speaks_of_something() -> None:
    assert {judge(facts) for facts in ALL_FACTS} == set(ROWS)


def test_nothing_may_be_launched_again_unless_nothing_is_alive_and_there_is_no_record() -> None:
    never_ran = [facts for facts in ALL_FACTS if judge(facts).verdict is Verdict.NEVER_RAN]
    assert never_ran == [Facts(False, False, Committed.NO, False, False, False)]


def test_a_recorded_exit_is_believed_whatever_has_happened_to_the_host_since() -> None:
    ended = [f for f in ALL_FACTS if f.exited and f.committed is not Committed.NO]
    sound = [f for f in ended if not f.refused and not f.damaged]
    assert len(sound) == 8
    assert {judge(facts).verdict for facts in sound} == {Verdict.FINISHED}


def test_what_ran_before_a_reboot_never_counts_as_running_now() -> None:
    rebooted = [f for f in ALL_FACTS if f.committed is Committed.EARLIER_BOOT]
    verdicts = {judge(facts).verdict for facts in rebooted}
    assert verdicts == {Verdict.LOST, Verdict.FINISHED, Verdict.IMPOSSIBLE}


def test_only_what_settles_by_itself_is_to_be_looked_at_again() -> None:
    unsettled = [facts for facts in ALL_FACTS if judge(facts).verdict is None]
    assert all(f.keeper or f.worker for f in unsettled)
    assert not any(f.exited or f.refused or f.damaged for f in unsettled)


# --- the same on real folders ----------------------------------------------------------------

RECORD = """format 1
pid {pid}
start_time 5
boot_id {boot}
keeper_pid 999999998
keeper_start_time 4
hostname host
stream_output 1
started_at 1.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> LaunchFolder:
    folder = LaunchFolder.of(tmp_path, "key")
    folder.path.mkdir()
    return folder


def _commit(folder: LaunchFolder, boot: str | None = None) -> None:
    (folder.path / EXEC).write_text(RECORD.format(pid=999999999, boot=boot or boot_id()))


def test_a_launch_from_before_a_reboot_is_lost_with_that_reason(folder: LaunchFolder) -> None:
    _commit(folder, boot="another")
    evidence = folder.look().evidence
    assert evidence is not None
    assert evidence.verdict is Verdict.LOST
    assert evidence.ended == Ended(None, "the host was rebooted")
    assert evidence.running is not None
    assert evidence.running.infrastructure_pid == "host:999999999"


def test_a_launch_that_ended_before_a_reboot_has_its_exit_status(folder: LaunchFolder) -> None:
    _commit(folder, boot="another")
    (folder.path / EXIT).write_text("format 1\nexit_code -9\n")
    evidence = folder.look().evidence
    assert evidence is not None
    assert (evidence.verdict, evidence.ended) == (Verdict.FINISHED, Ended(-9))


def test_a_launch_without_keeper_command_and_exit_status_is_lost(folder: LaunchFolder) -> None:
    _commit(folder)
    evidence = folder.look().evidence
    assert evidence is not None
    assert evidence.verdict is Verdict.LOST
    assert evidence.ended is not None
    assert "nobody saw how it ended" in evidence.ended.reason


def test_a_refused_launch_is_finished_without_ever_having_been_somebody(
    folder: LaunchFolder,
) -> None:
    _commit(folder)
    (folder.path / REFUSED).write_text("format 1\nreason command not found: 'x y'\n")
    evidence = folder.look().evidence
    assert evidence is not None
    assert evidence.verdict is Verdict.FINISHED
    assert evidence.running is None
    assert evidence.ended == Ended(None, "command not found: 'x y'")


@pytest.mark.parametrize("name", [WORKER_LOCK, OUTPUT])
def test_either_of_the_commands_locks_shows_that_something_of_it_is_alive(
    folder: LaunchFolder, name: str
) -> None:
    _commit(folder)
    with open(folder.path / name, "w") as held:
        assert try_lock(held.fileno())
        sight = folder.look()
    assert sight.row.verdict is Verdict.RUNNING
    assert not sight.is_over
    assert folder.look().row.verdict is Verdict.LOST


@pytest.mark.parametrize("name", [EXEC, EXIT, REFUSED])
@pytest.mark.parametrize("content", ["", "exit_code seven\n", "pid 1\n"])
def test_a_damaged_record_is_said_and_nothing_is_concluded_from_it(
    folder: LaunchFolder, name: str, content: str
) -> None:
    (folder.path / name).write_text(content)
    evidence = folder.look().evidence
    assert evidence is not None
    assert evidence.verdict is Verdict.IMPOSSIBLE
    assert name in evidence.detail


def test_names_that_a_later_release_adds_to_a_record_do_no_harm(folder: LaunchFolder) -> None:
    _commit(folder)
    (folder.path / EXIT).write_text("format 2\nshiny new thing\nexit_code 3\n")
    assert folder.look().exit_code == 3


def test_a_key_without_a_folder_never_ran_and_the_detail_says_why(tmp_path: Path) -> None:
    evidence = LaunchFolder.of(tmp_path, "gone").look().evidence
    assert evidence is not None
    assert evidence.verdict is Verdict.NEVER_RAN
    assert "no launch folder" in evidence.detail
