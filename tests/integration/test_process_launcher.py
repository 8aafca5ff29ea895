"""The process launcher with real processes: what it promises while nobody is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from agent.infrastructure.keeper import EXEC, EXIT, OUTPUT, boot_id, start_time, stat_fields
from agent.infrastructure.launcher import Ended, LaunchFailed, LaunchInDoubt, ProcessSpec
from agent.infrastructure.process import ProcessLauncher
from events.lifecycle import Verdict
from tests.integration.process_launcher_world import (
    DEADLINE_SECONDS,
    clean_launcher,
    exists,
    output_of,
    shell,
    until,
)

CANARY = "c4n4ry-5ecret"


@pytest.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[ProcessLauncher]:
    async with clean_launcher(tmp_path / "spool") as launcher:
        yield launcher


def children() -> dict[int, bytes]:
    """Our child processes and their states; keepers that outlived their test's agent among them."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = stat_fields(int(name))
            if int(fields[1]) == os.getpid():
                found[int(name)] = fields[0]
    return found


def command_lines() -> list[str]:
    """What everybody can see in a process list."""
    return [
        os.fsdecode(path.read_bytes()).replace("\0", " ")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists()
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


# --- starting and ending -----------------------------------------------------------------------


async def test_a_command_runs_to_its_end(launcher: ProcessLauncher) -> None:
    await launcher.launch("key", shell("echo done"))
    assert await launcher.wait("key") == Ended(0)
    assert output_of(launcher, "key") == "done\n"


async def test_a_running_command_is_known_by_its_own_pid(launcher: ProcessLauncher) -> None:
    running = await launcher.launch("key", shell("echo $$; exec sleep 100"))
    await until(lambda: output_of(launcher, "key"))
    assert running.pid == int(output_of(launcher, "key"))
    assert running.infrastructure_pid == f"{socket.gethostname()}:{running.pid}"
    assert running.start_time == start_time(running.pid)
    assert running.boot_id == boot_id()
    evidence = await launcher.examine("key")
    assert (evidence.verdict, evidence.running) == (Verdict.RUNNING, running)
    await launcher.kill("key", DEADLINE_SECONDS)


async def test_the_exit_status_is_told_to_whoever_waits_and_whoever_asks_later(
    launcher: ProcessLauncher,
) -> None:
    running = await launcher.launch("key", shell("exit 3"))
    assert await launcher.wait("key") == Ended(3)
    evidence = await launcher.examine("key")
    assert evidence.verdict is Verdict.FINISHED
    assert (evidence.ended, evidence.running) == (Ended(3), running)


async def test_a_signal_that_ends_a_command_is_a_negative_status(launcher: ProcessLauncher) -> None:
    running = await launcher.launch("key", shell("exec sleep 100"))
    os.kill(running.pid, signal.SIGUSR1)
    assert await launcher.wait("key") == Ended(-signal.SIGUSR1)


async def test_exit_status_127_is_the_commands_own(launcher: ProcessLauncher) -> None:
    await launcher.launch("key", shell("exit 127"))
    assert await launcher.wait("key") == Ended(127)


# --- what can't be launched --------------------------------------------------------------------


def _text_file(folder: Path, text: str, mode: int) -> str:
    path = folder / "program"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


async def _refusal(launcher: ProcessLauncher, spec: ProcessSpec) -> str:
    with pytest.raises(LaunchFailed) as caught:
        await launcher.launch("key", spec)
    return caught.value.reason


async def test_a_command_that_does_not_exist_is_refused(launcher: ProcessLauncher) -> None:
    reason = await _refusal(launcher, ProcessSpec(["pyhton", "-V"], {}))
    assert reason == "command not found: 'pyhton'"


async def test_a_file_that_is_not_executable_is_refused(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    program = _text_file(tmp_path, "#!/bin/sh\n", 0o644)
    assert await _refusal(launcher, ProcessSpec([program], {})) == f"not executable: {program!r}"


async def test_a_working_directory_that_does_not_exist_is_refused(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "nowhere")
    reason = await _refusal(launcher, shell("true", working_dir=nowhere))
    assert reason == f"working directory {nowhere!r} does not exist"


async def test_a_script_whose_interpreter_does_not_exist_is_refused_by_that_name(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    program = _text_file(tmp_path, "#!/no/such/interpreter\n", 0o755)
    reason = await _refusal(launcher, ProcessSpec([program], {}))
    assert reason == f"the interpreter that {program!r} names was not found"


async def test_an_empty_command_is_refused(launcher: ProcessLauncher) -> None:
    assert await _refusal(launcher, ProcessSpec([], {})) == "the command is empty"


@pytest.mark.parametrize("interpreter", [None, "#!/no/such/interpreter\n"])
async def test_a_refusal_is_on_record_before_and_after_the_commit_point(
    launcher: ProcessLauncher, tmp_path: Path, interpreter: str | None
) -> None:
    program = _text_file(tmp_path, interpreter, 0o755) if interpreter else "pyhton"
    reason = await _refusal(launcher, ProcessSpec([program], {}))
    evidence = await launcher.examine("key")
    assert (evidence.verdict, evidence.running) == (Verdict.FINISHED, None)
    assert evidence.ended == Ended(None, reason)
    assert (launcher.spool / "key" / EXEC).exists() == (interpreter is not None)
    assert await launcher.wait("key") == Ended(None, reason)


async def test_a_host_without_room_for_a_keeper_leaves_a_launch_that_may_be_repeated(
    launcher: ProcessLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_args: object, **_named: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr("subprocess.Popen", no_room)
        with pytest.raises(LaunchInDoubt, match="Resource temporarily unavailable"):
            await launcher.launch("key", shell("true"))
    assert (await launcher.examine("key")).verdict is Verdict.NEVER_RAN
    await launcher.launch("key", shell("true"))
    assert await launcher.wait("key") == Ended(0)


# --- once --------------------------------------------------------------------------------------


async def test_a_key_is_launched_once_for_all_time(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    spec = shell(f"echo once >> {ledger}")
    await launcher.launch("key", spec)
    with pytest.raises(LaunchInDoubt):
        await launcher.launch("key", spec)
    assert await launcher.wait("key") == Ended(0)
    with pytest.raises(LaunchInDoubt, match="was launched before"):
        await launcher.launch("key", spec)
    assert ledger.read_text() == "once\n"


async def test_two_agents_that_launch_the_same_key_at_once_start_it_once(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    outcomes: list[str] = []

    async def attempt(agent: ProcessLauncher, key: str) -> None:
        try:
            await agent.launch(key, shell(f"echo {key} >> {ledger}"))
            outcomes.append("launched")
        except LaunchInDoubt:
            evidence = await agent.examine(key)
            assert evidence.verdict in (Verdict.RUNNING, Verdict.FINISHED)
            outcomes.append("in doubt")
        await agent.wait(key)

    keys = [f"key{number}" for number in range(5)]
    async with ProcessLauncher.open(launcher.spool) as other, trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(attempt, launcher, key)
            nursery.start_soon(attempt, other, key)
    assert sorted(ledger.read_text().split()) == keys
    assert sorted(outcomes) == ["in doubt"] * 5 + ["launched"] * 5


# --- environment, directory, descriptors, secrets ----------------------------------------------


async def test_the_environment_is_the_agents_with_the_jobs_on_top_and_null_unsets(
    launcher: ProcessLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_AGENT", "a")
    monkeypatch.setenv("CHANGED", "old")
    monkeypatch.setenv("UNSET", "x")
    env = {"CHANGED": "new", "UNSET": None, "NEVER_SET": None, "ADDED": "ä\nb=c", "EMPTY": ""}
    names = ("FROM_AGENT", "CHANGED", "UNSET", "NEVER_SET", "ADDED", "EMPTY")
    code = f"import os; print([os.environ.get(n) for n in {names!r}])"
    await launcher.launch("key", ProcessSpec([sys.executable, "-c", code], env))
    assert await launcher.wait("key") == Ended(0)
    assert output_of(launcher, "key") == "['a', 'new', None, None, 'ä\\nb=c', '']\n"


async def test_the_program_is_looked_up_in_the_jobs_own_path(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    _text_file(tmp_path, "#!/bin/sh\necho found me\n", 0o755)
    await launcher.launch("key", ProcessSpec(["program"], {"PATH": str(tmp_path)}))
    assert await launcher.wait("key") == Ended(0)
    assert output_of(launcher, "key") == "found me\n"


async def test_an_environment_larger_than_a_pipe_arrives(launcher: ProcessLauncher) -> None:
    env = {f"V{n}": "x" * 1000 for n in range(300)}
    await launcher.launch("key", shell('echo "${#V299}"', env))
    assert await launcher.wait("key") == Ended(0)
    assert output_of(launcher, "key") == "1000\n"


async def test_secrets_are_in_no_file_and_on_no_command_line(launcher: ProcessLauncher) -> None:
    await launcher.launch("key", shell("exec sleep 100", {"API_KEY": CANARY}))
    lines = command_lines()
    assert any("keeper.py" in line for line in lines)
    assert not any(CANARY in line for line in lines)
    await launcher.kill("key", DEADLINE_SECONDS)
    files = contents(launcher.spool)
    assert set(files) >= {EXEC, EXIT, OUTPUT}
    assert not any(CANARY.encode() in content for content in files.values())


async def test_what_the_agent_knows_is_not_in_the_keepers_environment(
    launcher: ProcessLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", CANARY)
    before = children()
    running = await launcher.launch("key", shell("exec sleep 100"))
    (keeper,) = children().keys() - before
    assert CANARY.encode() in environment_of(running.pid)
    assert CANARY.encode() not in environment_of(keeper)


async def test_everything_in_the_spool_is_private(launcher: ProcessLauncher) -> None:
    await launcher.launch("key", shell("true"))
    await launcher.wait("key")
    paths = [launcher.spool, *launcher.spool.rglob("*")]
    assert [oct(path.stat().st_mode & 0o077) for path in paths] == ["0o0"] * len(paths)


async def test_the_temporary_directory_of_a_success_is_removed(launcher: ProcessLauncher) -> None:
    await launcher.launch("key", shell("mkdir -p a/b; touch a/c; ln -s / a/root; pwd"))
    assert await launcher.wait("key") == Ended(0)
    directory = output_of(launcher, "key").strip()
    assert os.path.dirname(directory) == str(launcher.spool / "key")
    assert not exists(directory)
    assert exists("/bin/sh")


async def test_the_temporary_directory_of_a_failure_is_kept_with_its_launch(
    launcher: ProcessLauncher,
) -> None:
    await launcher.launch("key", shell("echo why > report; pwd; exit 1"))
    assert await launcher.wait("key") == Ended(1)
    directory = output_of(launcher, "key").strip()
    assert os.listdir(directory) == ["report"]
    await launcher.remove("key")
    assert not exists(directory)


async def test_a_relative_working_directory_is_relative_to_the_agents(
    launcher: ProcessLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    await launcher.launch("key", shell("pwd", working_dir="here"))
    assert await launcher.wait("key") == Ended(0)
    assert output_of(launcher, "key").strip() == str(tmp_path / "here")
    assert (tmp_path / "here").exists()


async def test_a_command_starts_with_ordinary_signals_and_descriptors(
    launcher: ProcessLauncher,
) -> None:
    code = (
        "import os\n"
        "status = open('/proc/self/status').read()\n"
        "print([l.split()[1] for l in status.splitlines() if l.startswith(('SigIgn', 'SigBlk'))])\n"
        "links = {f: os.readlink(f'/proc/self/fd/{f}') for f in os.listdir('/proc/self/fd') \n"
        "         if os.path.lexists(f'/proc/self/fd/{f}')}\n"
        "print(sorted(os.path.basename(l) for l in links.values()))\n"
        "print(os.getsid(0) == os.getpid() == os.getpgid(0))\n"
    )
    # Without Python in between, which changes signals itself: what the shell passes on.
    script = f"grep -E 'SigIgn|SigBlk' /proc/self/status; {sys.executable} -c \"$CODE\""
    await launcher.launch("key", shell(f"exec 3>&1; {script}", {"CODE": code}))
    assert await launcher.wait("key") == Ended(0)
    lines = output_of(launcher, "key").splitlines()
    assert lines[0].split()[1] == lines[1].split()[1] == "0" * 16
    # Descriptor 3 is the script's own; a directory listing has one more for itself.
    assert lines[3] == str(["null", *[OUTPUT] * 3, "worker.lock"])


async def test_twenty_launches_leave_no_descriptor_and_no_zombie(launcher: ProcessLauncher) -> None:
    await launcher.launch("first", shell("true"))
    await launcher.wait("first")
    descriptors, before = len(os.listdir("/proc/self/fd")), children()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            await launcher.launch(f"key{number}", shell("exit 5", stream=True))
            nursery.start_soon(launcher.wait, f"key{number}")
    assert children().keys() <= before.keys()
    # The copying of the output may still be at its last lines.
    await until(lambda: len(os.listdir("/proc/self/fd")) == descriptors)


# --- a spool that is gone ----------------------------------------------------------------------


async def test_a_command_whose_folder_was_deleted_is_known_by_what_the_log_has(
    launcher: ProcessLauncher,
) -> None:
    running = await launcher.launch("key", shell("sleep 30"))
    shutil.rmtree(launcher.spool / "key")

    evidence = await launcher.examine("key", evidence_id=launcher.evidence_id, known=running)
    assert (evidence.verdict, evidence.running) == (Verdict.RUNNING, running)

    os.kill(running.pid, signal.SIGKILL)
    with trio.fail_after(DEADLINE_SECONDS):
        ended = await launcher.wait("key", known=running)
    assert ended.exit_code is None
    assert "nobody saw" in ended.reason


async def test_a_spool_that_was_made_anew_proves_nothing(tmp_path: Path) -> None:
    async with ProcessLauncher.open(tmp_path / "spool") as before:
        launched_from = before.evidence_id
    async with ProcessLauncher.open(tmp_path / "spool") as again:
        assert again.evidence_id == launched_from
        same = await again.examine("key", evidence_id=launched_from)
    shutil.rmtree(tmp_path / "spool")
    async with ProcessLauncher.open(tmp_path / "spool") as anew:
        other = await anew.examine("key", evidence_id=launched_from)

    assert same.verdict is Verdict.NEVER_RAN
    assert other.verdict is Verdict.NO_EVIDENCE
