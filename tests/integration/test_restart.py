"""Restarts and upgrades: the agent goes and comes, what runs is not touched and its end is told."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import test_status
from tests.integration.test_status import Scene, commands

scene = test_status.scene


@pytest.fixture(autouse=True)
def commands_end(scene: Scene) -> Iterator[None]:
    yield
    scene.let_go()


def runs_until_told(scene: Scene, run: str) -> None:
    scene.until(lambda found: not found["submissions"])
    state = scene.rest.run(run)["state"]
    assert state["type"] == "CRASHED"
    assert "status code 7 before the run was Running" in state["message"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_is_adopted_after_a_restart_and_its_exit_status_told(
    scene: Scene, how: signal.Signals
) -> None:
    run = scene.schedule(name="brave-otter", exit_code=7)
    scene.agent.start()
    found = scene.until(lambda found: commands(found) == ["alive"])
    pid = found["submissions"][0]["pid"]

    assert scene.agent.end(how) == (0 if how is signal.SIGTERM else -how)
    os.kill(pid, 0)
    scene.agent.start()
    found = scene.until(lambda found: found["agent"]["alive"] and commands(found) == ["alive"])
    assert found["submissions"][0]["pid"] == pid
    scene.let_go()

    runs_until_told(scene, run)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_exit_status_of_a_command_that_ended_between_two_agents_is_told(
    scene: Scene, how: signal.Signals
) -> None:
    run = scene.schedule(name="brave-otter", exit_code=7)
    scene.agent.start()
    scene.until(lambda found: commands(found) == ["alive"])

    scene.agent.end(how)
    scene.let_go()
    scene.until(lambda found: commands(found) == ["finished"])
    assert scene.rest.run(run)["state"]["type"] == "PENDING", "nobody was there to tell"
    scene.agent.start()

    runs_until_told(scene, run)


def test_a_keeper_needs_nothing_of_the_package_that_an_upgrade_replaces(
    scene: Scene, tmp_path: Path
) -> None:
    """The keeper of a running command has no file of ours open, so they may all be replaced."""
    scene.schedule(name="brave-otter", exit_code=7)
    scene.agent.start()
    found = scene.until(lambda found: commands(found) == ["alive"])
    key = found["submissions"][0]["launch_key"]
    record = (scene.state / "spool" / key / "exec").read_text()
    (keeper,) = [line.split()[1] for line in record.splitlines() if line.startswith("keeper_pid")]
    package = str(Path(test_status.__file__).parents[2] / "agent")
    held = [os.readlink(link) for link in Path(f"/proc/{keeper}/fd").iterdir()]
    assert not [path for path in held if path.startswith(package)]
    assert package not in Path(f"/proc/{keeper}/maps").read_text()
