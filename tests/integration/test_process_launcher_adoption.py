"""The process launcher with real processes: finding commands again, waiting, killing, removing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from agent.infrastructure import process
from agent.infrastructure.keeper import EXIT, stat_fields
from agent.infrastructure.launcher import Ended, LaunchInDoubt, ProcessSpec
from agent.infrastructure.process import ProcessLauncher
from agent.infrastructure.spool import LaunchFolder, NotConcluded, Sight
from events.lifecycle import Verdict
from tests.integration.process_launcher_world import (
    DEADLINE_SECONDS,
    clean_launcher,
    exists,
    output_of,
    shell,
    until,
)


@pytest.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[ProcessLauncher]:
    async with clean_launcher(tmp_path / "spool") as launcher:
        yield launcher


# --- adoption ----------------------------------------------------------------------------------


async def test_the_end_of_the_agent_leaves_the_command_running_and_the_next_one_adopts_it(
    tmp_path: Path,
) -> None:
    async with ProcessLauncher.open(tmp_path) as first:
        running = await first.launch(
            "key", shell(f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done")
        )
    async with ProcessLauncher.open(tmp_path) as second:
        evidence = await second.examine("key")
        assert (evidence.verdict, evidence.running) == (Verdict.RUNNING, running)
        (tmp_path / "go").touch()
        assert await second.wait("key") == Ended(0)


async def test_the_status_of_a_command_that_ended_while_no_agent_lived_is_not_lost(
    tmp_path: Path,
) -> None:
    async with ProcessLauncher.open(tmp_path) as first:
        await first.launch("key", shell("exit 42"))
    await until(lambda: exists(tmp_path / "key" / EXIT))
    async with ProcessLauncher.open(tmp_path) as second:
        evidence = await second.examine("key")
        assert (evidence.verdict, evidence.ended) == (Verdict.FINISHED, Ended(42))
        assert await second.wait("key") == Ended(42)


async def test_evidence_waits_for_a_keeper_on_its_way(
    launcher: ProcessLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = LaunchFolder.of(launcher.spool, "key").lock()
    verdicts, looks, look = [], [], LaunchFolder.look

    def counted_look(folder: LaunchFolder) -> Sight:
        looks.append(folder)
        return look(folder)

    monkeypatch.setattr(LaunchFolder, "look", counted_look)

    async def ask() -> None:
        verdicts.append((await launcher.examine("key")).verdict)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await until(lambda: len(looks) > 2)
        assert verdicts == []
        os.close(lock)
    assert verdicts == [Verdict.NEVER_RAN]


async def test_evidence_that_does_not_settle_is_an_open_question_and_no_verdict(
    launcher: ProcessLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PATIENCE_SECONDS", 0.0)
    lock = LaunchFolder.of(launcher.spool, "key").lock()
    with pytest.raises(LaunchInDoubt, match="on its way to the commit point"):
        await launcher.examine("key")
    os.close(lock)


async def test_a_folder_that_somebody_deleted_is_said(launcher: ProcessLauncher) -> None:
    evidence = await launcher.examine("key")
    assert evidence.verdict is Verdict.NEVER_RAN
    assert "no launch folder" in evidence.detail
    assert (await launcher.wait("key")).exit_code is None


# --- descendants -------------------------------------------------------------------------------

LATE = "while [ ! -e $GO ]; do sleep 0.02; done; echo late >> $LEDGER"
PYTHON_LEAVES_A_CHILD = (
    "import os, subprocess; "
    "subprocess.Popen(['sh', '-c', os.environ['LATE']], start_new_session=True)"
)


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "-c", f"({LATE}) >/dev/null 2>&1 & exit 4"],
        # Python closes every descriptor but the output in what it starts.
        [sys.executable, "-c", f"{PYTHON_LEAVES_A_CHILD}; os._exit(4)"],
    ],
    ids=["output closed", "descriptors closed"],
)
async def test_what_a_command_leaves_running_is_waited_for(
    launcher: ProcessLauncher, tmp_path: Path, command: list[str]
) -> None:
    ledger, go = tmp_path / "ledger", tmp_path / "go"
    env = {"LEDGER": str(ledger), "GO": str(go), "LATE": LATE}
    await launcher.launch("key", ProcessSpec(command, env))
    ended = []

    async def wait() -> None:
        ended.append((await launcher.wait("key"), ledger.exists()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await until(lambda: exists(launcher.spool / "key" / EXIT))
        with pytest.raises(NotConcluded):
            await launcher.remove("key")
        go.touch()
    assert ended == [(Ended(4), True)]


# --- killing and removing ----------------------------------------------------------------------


async def test_a_command_gets_the_chance_to_end_by_itself(launcher: ProcessLauncher) -> None:
    script = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.02; done"
    await launcher.launch("key", shell(script))
    await until(lambda: output_of(launcher, "key"))
    assert await launcher.kill("key", DEADLINE_SECONDS) == Ended(9)
    assert output_of(launcher, "key").endswith("bye\n")


async def test_a_command_that_does_not_listen_is_killed(launcher: ProcessLauncher) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.02; done"
    await launcher.launch("key", shell(script))
    await until(lambda: output_of(launcher, "key"))
    assert await launcher.kill("key", 0.05) == Ended(-signal.SIGKILL)


async def test_killing_reaches_children_and_those_in_a_session_of_their_own(
    launcher: ProcessLauncher,
) -> None:
    code = (
        "import subprocess, time\n"
        "sleep = ['sleep', '100']\n"
        "quiet = subprocess.Popen(sleep, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "apart = subprocess.Popen(sleep, start_new_session=True)\n"
        "print(quiet.pid, apart.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    await launcher.launch("key", ProcessSpec([sys.executable, "-c", code], {}))
    await until(lambda: output_of(launcher, "key"))
    pids = [int(word) for word in output_of(launcher, "key").split()]
    assert await launcher.kill("key", DEADLINE_SECONDS) == Ended(-signal.SIGTERM)
    await until(lambda: not any(_lives(pid) for pid in pids))


def _lives(pid: int) -> bool:
    try:
        return stat_fields(pid)[0] != b"Z"
    except FileNotFoundError:
        return False


async def test_killing_spares_the_keeper_and_whoever_reads_the_output(
    launcher: ProcessLauncher,
) -> None:
    await launcher.launch("key", shell("echo ready; exec sleep 100"))
    path = LaunchFolder.of(launcher.spool, "key").output
    with _reader(path) as reader:
        await until(lambda: str(path) in _open_files(reader.pid))
        assert await launcher.kill("key", DEADLINE_SECONDS) == Ended(-signal.SIGTERM)
        assert reader.poll() is None
        reader.terminate()


def _reader(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["tail", "-f", str(path)], stdout=subprocess.DEVNULL)


def _open_files(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    return [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]


async def test_killing_what_has_ended_signals_nobody(
    launcher: ProcessLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await launcher.launch("key", shell("exit 2"))
    await launcher.wait("key")
    signalled: list[object] = []
    monkeypatch.setattr(
        "agent.infrastructure.procfs.send_signal", lambda *args: signalled.append(args)
    )
    assert await launcher.kill("key", 0) == Ended(2)
    assert signalled == []


async def test_only_a_launch_that_is_over_is_removed(launcher: ProcessLauncher) -> None:
    await launcher.launch("key", shell("exec sleep 100"))
    with pytest.raises(NotConcluded):
        await launcher.remove("key")
    assert await launcher.keys() == ["key"]
    await launcher.kill("key", DEADLINE_SECONDS)
    await launcher.remove("key")
    assert await launcher.keys() == []
    await launcher.remove("key")
