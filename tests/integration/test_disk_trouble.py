"""A whole agent on file systems that really are full, or really turn read-only.

Mounts small file systems of its own (a tmpfs, an ext4 in a file), for which it has to be root: on
a machine where it is not, these tests fail and say so, and the one with a limit on file sizes,
which needs no right, still tells.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import attrs

from tests.bench.kill_loop import AgentProcess
from tests.integration.test_cli import environment
from tests.integration.test_status import Scene, commands
from tests.rest import Rest

PATIENCE_SECONDS = 60.0


def command(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr} (these tests need root)"
    return done.stdout.strip()


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """Mount a tmpfs of this size."""
    place.mkdir(parents=True)
    command("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    try:
        yield
    finally:
        # Lazily, because a keeper may be about to end there.
        command("umount", "--lazy", str(place))


@attrs.frozen
class FailingDisk:
    """An ext4 of its own, mounted, in a file."""

    device: str
    place: Path

    def mount(self) -> None:
        command("mount", "-o", "errors=remount-ro", self.device, str(self.place))

    def fail(self) -> None:
        """Let the kernel find an error, after which it is read-only."""
        name = Path(self.device).name
        assert name.startswith("loop"), "only ever a disk of our own"
        (Path("/sys/fs/ext4") / name / "trigger_fs_error").write_text("1")

    def mend(self) -> None:
        """Do what an operator does: nobody may use it, check it, mount it again."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while subprocess.run(["umount", str(self.place)], check=False).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # 1: errors were corrected.
        check = ["e2fsck", "-f", "-y", self.device]
        assert subprocess.run(check, capture_output=True, check=False).returncode in (0, 1)
        self.mount()


@contextlib.contextmanager
def failing_disk(place: Path) -> Iterator[FailingDisk]:
    place.mkdir(parents=True)
    image = place.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(16 << 20)
    command("mkfs.ext4", "-q", str(image))
    disk = FailingDisk(command("losetup", "--find", "--show", str(image)), place)
    try:
        disk.mount()
        try:
            yield disk
        finally:
            command("umount", "--lazy", str(place))
    finally:
        command("losetup", "--detach", disk.device)


def fill(place: Path) -> Path:
    """Take all the room that is left."""
    ballast = place / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    return ballast


@contextlib.contextmanager
def scene_on(folder: Path, state: Path, url: str) -> Iterator[Scene]:
    queue = f"disk-{uuid4()}"
    start = [sys.executable, "-m", "agent", "start", "-q", queue]
    mine = environment(folder, PREFECT_API_URL=url, PREFECT_AGENT_QUERY_INTERVAL="1")
    made = Scene(Rest(url, "2.20"), AgentProcess(folder / "out", start, mine, state), queue, folder)
    try:
        yield made
    finally:
        made.let_go()
        if made.agent.is_alive():
            made.agent.end(signal.SIGKILL)
        made.rest.close()


def until(condition: Callable[[], object], scene: Scene) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, scene.output()[-3000:]
        time.sleep(0.05)


def ended_with(scene: Scene, status: int, *words: str) -> None:
    """Check how the agent ended by itself, and that it said why in one line."""
    assert scene.agent.wait() == status, scene.output()[-3000:]
    last = scene.output().splitlines()[-1]
    assert "Traceback" not in scene.output(), scene.output()[-3000:]
    for word in words:
        assert word in last


def work_until_it_ends(scene: Scene) -> list[str]:
    """Schedule runs until the agent can't go on; return them."""
    runs: list[str] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while scene.agent.is_alive():
        assert time.monotonic() < deadline, scene.output()[-3000:]
        if len(runs) < 60:
            runs.append(scene.schedule(name=f"run-{len(runs)}", exit_code=7))
        time.sleep(0.1)
    return runs


def all_are_told(scene: Scene, runs: list[str], *, lost: Sequence[str] = ()) -> None:
    """Check that each run was launched once, and that its end reached the server."""
    scene.let_go()

    def told() -> bool:
        return all(scene.rest.run(run)["state"]["type"] == "CRASHED" for run in runs)

    until(told, scene)
    for run in runs:
        expected = "was lost" if run in lost else "status code 7"
        assert expected in scene.rest.run(run)["state"]["message"]
        assert scene.launches().count(run) == 1
    until(lambda: not scene.agent.open_submissions(), scene)
    assert scene.agent.end(signal.SIGTERM) == 0
    done = scene.agent.verify()
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_agent_on_a_full_disk_stops_and_goes_on_when_there_is_room(
    standin2: str, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "3m"), scene_on(tmp_path, disk / "state", standin2) as scene:
        first = scene.schedule(name="brave-otter", exit_code=7)
        scene.agent.start()
        pid = scene.until(lambda found: commands(found) == ["alive"])["submissions"][0]["pid"]

        ballast = fill(disk)
        runs = [first, *work_until_it_ends(scene)]
        ended_with(scene, 4, "the disk is full", "goes on running")
        os.kill(pid, 0)

        scene.agent.start()
        ended_with(scene, 4)
        ballast.unlink()
        scene.agent.start()
        all_are_told(scene, runs)


def test_an_agent_on_a_disk_that_turns_read_only_stops_and_goes_on_when_it_is_mended(
    standin2: str, tmp_path: Path
) -> None:
    place = tmp_path / "disk"
    with failing_disk(place) as disk, scene_on(tmp_path, place / "state", standin2) as scene:
        first = scene.schedule(name="brave-otter", exit_code=7)
        scene.agent.start()
        pid = scene.until(lambda found: commands(found) == ["alive"])["submissions"][0]["pid"]
        keeper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

        disk.fail()
        runs = [first, *work_until_it_ends(scene)]
        ended_with(scene, 4, "I/O error", "goes on running")
        os.kill(pid, 0)
        scene.agent.start()
        ended_with(scene, 4)

        # A disk is checked only when nobody uses it: what runs on it has to go, with its keeper.
        for number in (keeper, pid):
            os.kill(number, signal.SIGKILL)
        disk.mend()
        scene.agent.start()
        all_are_told(scene, runs, lost=[first])


def test_a_launch_without_room_in_the_spool_is_made_when_there_is_room(
    standin2: str, tmp_path: Path
) -> None:
    spool = tmp_path / "state" / "spool"
    with small_disk(spool, "1m"), scene_on(tmp_path, tmp_path / "state", standin2) as scene:
        scene.agent.start()
        until((spool / ".spool-id").exists, scene)
        ballast = fill(spool)
        run = scene.schedule(name="brave-otter", exit_code=7)
        scene.until(lambda found: any(s["waits_for"] for s in found.get("submissions", [])))
        assert scene.agent.is_alive()
        assert scene.launches() == []
        assert scene.rest.run(run)["state"]["type"] == "PENDING"

        ballast.unlink()
        all_are_told(scene, [run])


def test_an_agent_that_finds_no_room_for_its_spool_ends_as_on_a_full_disk(
    standin2: str, tmp_path: Path
) -> None:
    spool = tmp_path / "state" / "spool"
    with small_disk(spool, "1m"), scene_on(tmp_path, tmp_path / "state", standin2) as scene:
        ballast = fill(spool)
        scene.agent.start()
        ended_with(scene, 4, "No space left on device", "spool")
        ballast.unlink()
        scene.agent.start()
        all_are_told(scene, [scene.schedule(name="brave-otter", exit_code=7)])


def test_a_log_that_may_grow_no_more_stops_the_agent_and_not_its_commands(
    standin2: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with scene_on(tmp_path, state, standin2) as scene:
        first = scene.schedule(name="brave-otter", exit_code=7)
        unlimited = scene.agent.command
        # In blocks of 1024 bytes.
        scene.agent.command = ["bash", "-c", f"ulimit -f 300; exec {shlex.join(unlimited)}"]
        scene.agent.start()
        pid = scene.until(lambda found: "alive" in commands(found))["submissions"][0]["pid"]

        runs = [first, *work_until_it_ends(scene)]
        ended_with(scene, 4, "goes on running")
        os.kill(pid, 0)

        scene.agent.command = unlimited
        scene.agent.start()
        all_are_told(scene, runs)
