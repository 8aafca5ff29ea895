"""Agents and keepers killed at random and at every system call: each command starts at most once.

A ledger counts: every command appends its key to it, whatever the launcher believes.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from agent.infrastructure import process
from agent.infrastructure.keeper import EXEC, EXIT, FORMAT
from agent.infrastructure.launcher import Ended, LaunchFailed, LaunchInDoubt, ProcessSpec
from agent.infrastructure.process import KEEPER, ProcessLauncher, Spawned, compose, spawn
from agent.infrastructure.spool import LaunchFolder
from events.lifecycle import Verdict
from tests.integration.process_launcher_agent import STATUS, ledger_command, see_through
from tests.integration.process_launcher_once import BEGIN, END
from tests.integration.process_launcher_world import (
    DEADLINE_SECONDS,
    clean_launcher,
    output_of,
    shell,
    until,
)

ROOT = Path(__file__).parents[2]
AGENT = [sys.executable, "-m", "tests.integration.process_launcher_agent"]
ONE_LAUNCH = [sys.executable, "-m", "tests.integration.process_launcher_once"]


@pytest.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[ProcessLauncher]:
    async with clean_launcher(tmp_path / "spool") as launcher:
        yield launcher


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger"
    path.touch()
    return path


def executions(ledger: Path) -> Counter[str]:
    return Counter(ledger.read_text().split())


@contextlib.contextmanager
def agent(spool: Path, ledger: Path, keys: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Run an agent as a process of its own, from where it begins."""
    arguments = [*AGENT, str(spool), str(ledger), *keys]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "go\n"
        try:
            yield running
        finally:
            running.kill()


# --- agents killed -----------------------------------------------------------------------------


def test_agents_killed_at_random_times_start_every_command_exactly_once(
    tmp_path: Path, ledger: Path
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    keys = [f"key{number:02}" for number in range(40)]
    kills = 0
    while len(executions(ledger)) < len(keys):
        with agent(tmp_path / "spool", ledger, keys) as running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(chance.uniform(0.0, 0.12))
            running.kill()
            kills += 1
    with agent(tmp_path / "spool", ledger, keys) as last:
        ended = last.communicate(timeout=DEADLINE_SECONDS)[0].splitlines()
    assert executions(ledger) == Counter(keys)
    assert sorted(ended) == [f"ended {key} {STATUS}" for key in keys]
    assert kills > 2


def test_two_agents_at_work_on_the_same_keys_start_every_command_exactly_once(
    tmp_path: Path, ledger: Path
) -> None:
    keys = [f"key{number}" for number in range(12)]
    spool = tmp_path / "spool"
    with agent(spool, ledger, keys) as one, agent(spool, ledger, list(reversed(keys))) as other:
        reports = [a.communicate(timeout=DEADLINE_SECONDS)[0].splitlines() for a in (one, other)]
    assert executions(ledger) == Counter(keys)
    expected = sorted(f"ended {key} {STATUS}" for key in keys)
    assert [sorted(report) for report in reports] == [expected, expected]


# --- keepers killed ----------------------------------------------------------------------------


def keeper_pid(launcher: ProcessLauncher, key: str) -> int:
    started = LaunchFolder.of(launcher.spool, key).look().started
    assert started is not None
    return started.keeper_pid


async def test_keepers_killed_at_random_times_start_no_command_twice(
    launcher: ProcessLauncher, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    doomed: list[subprocess.Popen[bytes]] = []

    def noted_spawn(folder: LaunchFolder, command: Sequence[str]) -> Spawned:
        spawned = spawn(folder, command)
        doomed.append(spawned.keeper)
        return spawned

    monkeypatch.setattr(process, "spawn", noted_spawn)

    async def launch(key: str) -> None:
        with contextlib.suppress(LaunchInDoubt):
            await launcher.launch(key, ledger_command(ledger, key))

    lost = 0
    for number in range(30):
        key, before = f"key{number:02}", len(doomed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(launch, key)
            await until(partial(lambda before: len(doomed) > before, before))
            await trio.sleep(chance.uniform(0.005, 0.025))
            doomed[-1].kill()
        evidence = await launcher.examine(key)
        if evidence.verdict is Verdict.NEVER_RAN:
            assert executions(ledger)[key] == 0
            continue
        ended = await launcher.wait(key)
        lost += ended.exit_code is None
        # A keeper killed between its record and the gate leaves a command that never ran.
        assert executions(ledger)[key] == 1 or ended.exit_code is None
    assert lost
    assert set(executions(ledger).values()) == {1}


async def test_a_command_whose_keeper_was_killed_is_waited_for_and_its_status_is_unknown(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    script = "while [ ! -e $GO ]; do sleep 0.01; done"
    await launcher.launch("key", shell(script, {"GO": str(tmp_path / "go")}))
    os.kill(keeper_pid(launcher, "key"), signal.SIGKILL)
    await until(lambda: "keeper was killed" in LaunchFolder.of(launcher.spool, "key").look().detail)
    assert (await launcher.examine("key")).verdict is Verdict.RUNNING
    (tmp_path / "go").touch()
    ended = await launcher.wait("key")
    assert ended.exit_code is None
    assert ended.reason == "its keeper was killed, so nobody saw how it ended"


async def test_a_command_that_was_killed_with_its_keeper_is_lost(launcher: ProcessLauncher) -> None:
    running = await launcher.launch("key", shell("exec sleep 100"))
    os.kill(keeper_pid(launcher, "key"), signal.SIGKILL)
    os.kill(running.pid, signal.SIGKILL)
    assert (await launcher.wait("key")).exit_code is None
    evidence = await launcher.examine("key")
    assert (evidence.verdict, evidence.running) == (Verdict.LOST, running)


async def test_a_keeper_is_deaf_to_what_ends_other_processes(launcher: ProcessLauncher) -> None:
    running = await launcher.launch("key", shell("exec sleep 100"))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(keeper_pid(launcher, "key"), number)
    os.kill(running.pid, signal.SIGTERM)
    assert await launcher.wait("key") == Ended(-signal.SIGTERM)


async def test_a_keeper_is_in_no_group_that_could_be_signalled_with_its_agent_or_its_command(
    launcher: ProcessLauncher,
) -> None:
    running = await launcher.launch("key", shell("exec sleep 100"))
    keeper = keeper_pid(launcher, "key")
    groups = [os.getpgid(pid) for pid in (0, keeper, running.pid)]
    sessions = [os.getsid(pid) for pid in (0, keeper, running.pid)]
    assert len(set(groups)) == len(set(sessions)) == 3


async def test_a_commit_that_the_disk_refuses_leaves_a_launch_that_may_be_repeated(
    launcher: ProcessLauncher, ledger: Path
) -> None:
    obstacle = launcher.spool / "key" / f"{EXEC}.tmp"
    obstacle.mkdir(parents=True)
    with pytest.raises(LaunchInDoubt, match="Is a directory"):
        await launcher.launch("key", ledger_command(ledger, "key"))
    assert (await launcher.examine("key")).verdict is Verdict.NEVER_RAN
    obstacle.rmdir()
    assert await see_through(launcher, "key", ledger_command(ledger, "key")) == STATUS
    assert executions(ledger) == Counter(["key"])


async def test_an_exit_status_that_can_not_be_written_yet_is_written_later(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    script = "while [ ! -e $GO ]; do sleep 0.01; done; exit 8"
    await launcher.launch("key", shell(script, {"GO": str(tmp_path / "go")}))
    obstacle = launcher.spool / "key" / f"{EXIT}.tmp"
    obstacle.mkdir()
    (tmp_path / "go").touch()
    await until(lambda: "exit record must wait" in output_of(launcher, "key"))
    obstacle.rmdir()
    assert await launcher.wait("key") == Ended(8)


# --- an agent that dies while it speaks with the keeper ----------------------------------------


async def test_an_order_that_was_cut_short_launches_nothing(
    launcher: ProcessLauncher, ledger: Path
) -> None:
    folder = LaunchFolder.of(launcher.spool, "key")
    order = compose(ledger_command(ledger, "key"), "host")
    spawned = spawn(folder)
    os.write(spawned.order, order[:-1])
    os.close(spawned.order)
    report = _read_all(spawned.report)
    spawned.keeper.wait()
    assert report == b"doubt\nreason the order was cut short\n"
    assert (await launcher.examine("key")).verdict is Verdict.NEVER_RAN
    await launcher.launch("key", ledger_command(ledger, "key"))
    assert await launcher.wait("key") == Ended(STATUS)
    assert executions(ledger) == Counter(["key"])


async def test_a_keeper_whose_agent_is_gone_carries_on(
    launcher: ProcessLauncher, ledger: Path
) -> None:
    spawned = spawn(LaunchFolder.of(launcher.spool, "key"))
    os.close(spawned.report)
    os.write(spawned.order, compose(ledger_command(ledger, "key"), "host"))
    os.close(spawned.order)
    spawned.keeper.wait()
    evidence = await launcher.examine("key")
    assert (evidence.verdict, evidence.ended) == (Verdict.FINISHED, Ended(STATUS))


async def test_a_keeper_goes_no_further_where_there_is_a_record(
    launcher: ProcessLauncher, ledger: Path
) -> None:
    folder = LaunchFolder.of(launcher.spool, "key")
    folder.path.mkdir()
    (folder.path / EXEC).write_text(f"format {FORMAT}\n")
    with pytest.raises(LaunchInDoubt, match="was launched before"):
        await launcher.launch("key", ledger_command(ledger, "key"))
    assert executions(ledger) == Counter()


def _read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


async def test_a_launch_that_is_cancelled_is_settled_by_its_evidence(
    launcher: ProcessLauncher, ledger: Path
) -> None:
    chance = random.Random(0)
    keys = [f"key{number}" for number in range(10)]
    for key in keys:
        with trio.move_on_after(chance.uniform(0.0, 0.02)):
            await launcher.launch(key, ledger_command(ledger, key))
        assert await see_through(launcher, key, ledger_command(ledger, key)) == STATUS
    assert executions(ledger) == Counter(keys)


# --- a kill at every system call ---------------------------------------------------------------

CALL = re.compile(r"(\w+)\(")
MOST_AGENT_POINTS = 60
SWEEPS_AT_ONCE = 3

Point = tuple[str, int]
"""A system call, and the how manieth of its name."""


@pytest.fixture
def strace() -> str:
    path = shutil.which("strace")
    assert path is not None, "strace is needed for these tests: install it (apt-get install strace)"
    return path


def points(trace: Path, begin: str, end: str | None = None) -> list[Point]:
    """Return the system calls of a trace between two marks."""
    counts: Counter[str] = Counter()
    found: list[Point] = []
    begun = False
    for line in trace.read_text(errors="replace").splitlines():
        if (call := CALL.match(line)) is None:
            continue
        counts[call[1]] += 1
        if begun and end is not None and end in line:
            break
        begun = begun or begin in line
        if begun and call[1] != "exit_group":
            found.append((call[1], counts[call[1]]))
    return found


def killing(strace: str, point: Point) -> list[str]:
    name, number = point
    inject = f"inject={name}:signal=KILL:when={number}"
    return [strace, "-qq", "-o", os.devnull, "-e", f"trace={name}", "-e", inject]


async def settle(spool: Path, ledger: Path, key: str) -> tuple[Verdict, Verdict]:
    """See a key through after a crash; return what its evidence was first and last."""
    async with ProcessLauncher.open(spool) as launcher:
        first = (await launcher.examine(key)).verdict
        if first is Verdict.NEVER_RAN:
            assert executions(ledger)[key] == 0
        ended = await see_through(launcher, key, ledger_command(ledger, key))
        last = (await launcher.examine(key)).verdict
    if last is Verdict.LOST:
        # Nobody saw it end. It may have been killed before it began, but was not started twice.
        assert executions(ledger)[key] <= 1
    else:
        assert (last, ended, executions(ledger)[key]) == (Verdict.FINISHED, STATUS, 1)
    return first, last


async def test_a_keeper_killed_at_any_system_call_starts_its_command_at_most_once(
    tmp_path: Path, ledger: Path, strace: str
) -> None:
    spool, trace = tmp_path / "spool", tmp_path / "trace"

    async def launch(key: str, tracer: Sequence[str]) -> None:
        async with ProcessLauncher.open(spool, keeper_command=[*tracer, *KEEPER]) as launcher:
            with contextlib.suppress(LaunchInDoubt):
                await launcher.launch(key, ledger_command(ledger, key))

    await launch("whole", [strace, "-qq", "-o", str(trace)])
    assert (await settle(spool, ledger, "whole"))[1] is Verdict.FINISHED
    outcomes: Counter[tuple[Verdict, Verdict]] = Counter()
    limit = trio.CapacityLimiter(SWEEPS_AT_ONCE)

    async def kill_at(point: Point) -> None:
        key = re.sub("[^a-z0-9]", "", f"{point[0]}{point[1]}")
        async with limit:
            await launch(key, killing(strace, point))
            outcomes[await settle(spool, ledger, key)] += 1

    async with trio.open_nursery() as nursery:
        for point in points(trace, begin="read(0,"):
            nursery.start_soon(kill_at, point)
    print(outcomes)
    assert sum(outcomes.values()) > 50
    assert {first for first, _ in outcomes} >= {Verdict.NEVER_RAN, Verdict.RUNNING}
    assert {last for _, last in outcomes} == {Verdict.FINISHED, Verdict.LOST}


async def test_an_agent_killed_at_any_system_call_of_a_launch_starts_its_command_exactly_once(
    tmp_path: Path, ledger: Path, strace: str
) -> None:
    spool, trace = tmp_path / "spool", tmp_path / "trace"
    spool.mkdir()
    outcomes: Counter[tuple[Verdict, Verdict]] = Counter()
    statuses: Counter[int] = Counter()
    limit = trio.CapacityLimiter(SWEEPS_AT_ONCE)

    async def launch(key: str, tracer: Sequence[str]) -> int:
        command = [*tracer, *ONE_LAUNCH, str(spool), str(ledger), key]
        return (await trio.run_process(command, cwd=ROOT, check=False)).returncode

    async def kill_at(point: Point) -> None:
        key = re.sub("[^a-z0-9]", "", f"{point[0]}{point[1]}")
        async with limit:
            statuses[await launch(key, killing(strace, point))] += 1
            outcomes[await settle(spool, ledger, key)] += 1

    assert await launch("whole", [strace, "-qq", "-o", str(trace)]) == 0
    found = points(trace, begin=BEGIN, end=END)
    step = len(found) / min(len(found), MOST_AGENT_POINTS)
    async with trio.open_nursery() as nursery:
        for index in range(min(len(found), MOST_AGENT_POINTS)):
            nursery.start_soon(kill_at, found[int(index * step)])
    print(len(found), outcomes, statuses)
    assert {first for first, _ in outcomes} >= {Verdict.NEVER_RAN, Verdict.RUNNING}
    assert {last for _, last in outcomes} == {Verdict.FINISHED}
    assert statuses[-signal.SIGKILL] > len(found) // 2 or statuses[-signal.SIGKILL] > 20


async def test_a_refusal_is_not_on_record_before_the_child_at_the_gate_is_dead(
    tmp_path: Path, strace: str
) -> None:
    slow_death = ["-e", "trace=exit_group", "-e", "inject=exit_group:delay_enter=300000"]
    tracer = [strace, "-f", "-qq", "-o", os.devnull, *slow_death]
    folder = LaunchFolder.of(tmp_path, "key")

    async def launch() -> None:
        async with ProcessLauncher.open(tmp_path, keeper_command=[*tracer, *KEEPER]) as launcher:
            with pytest.raises(LaunchFailed):
                await launcher.launch("key", ProcessSpec(["pyhton"], {}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(launch)
        await until(lambda: folder.look().refusal)
        # A child that still held its lock would make this IMPOSSIBLE.
        assert folder.look().row.verdict is Verdict.FINISHED
