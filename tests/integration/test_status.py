"""`pluperfect agent status` as its user meets it, beside real agents and real commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import pytest

from tests.bench.kill_loop import AgentProcess
from tests.integration.test_cli import environment
from tests.rest import Rest

PATIENCE_SECONDS = 30.0


@attrs.frozen
class Scene:
    """An agent, a queue of its own on the stand-in, and commands that end when they are told."""

    rest: Rest
    agent: AgentProcess
    queue: str
    folder: Path

    @property
    def state(self) -> Path:
        return self.agent.state

    def schedule(self, *, name: str, exit_code: int) -> str:
        """Schedule a run whose command lives until `let_go`."""
        script = (
            f"echo $PREFECT__FLOW_RUN_ID >> {self.folder}/ledger;"
            f" while [ ! -e {self.folder}/go ]; do sleep 0.02; done; exit {exit_code}"
        )
        command = {"command": ["sh", "-c", script]}
        deployment = self.rest.deployment(self.queue, overrides=command)
        return self.rest.schedule(deployment, name=name)

    def launches(self) -> list[str]:
        """What the commands themselves wrote down: a run's id for each launch."""
        ledger = self.folder / "ledger"
        return ledger.read_text().split() if ledger.exists() else []

    def let_go(self) -> None:
        (self.folder / "go").touch()

    def ask(self, *options: str) -> subprocess.CompletedProcess[str]:
        return ask(self.state, *options)

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("--json").stdout or "{}")
        return found

    def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition(found := self.look()):
            assert time.monotonic() < deadline, (found, self.output())
            time.sleep(0.05)
        return found

    def output(self) -> str:
        return (self.agent.folder / "agent.log").read_text()


def ask(state: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from agent.cli import main; main()", "agent", "status", *options],
        env=environment(state),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def commands(found: dict[str, Any]) -> list[str | None]:
    return [submission["command"] for submission in found.get("submissions", [])]


@pytest.fixture
def scene(standin2: str, tmp_path: Path) -> Iterator[Scene]:
    queue = f"status-{uuid4()}"
    command = [sys.executable, "-m", "agent", "start", "-q", queue]
    mine = environment(tmp_path, PREFECT_API_URL=standin2, PREFECT_AGENT_QUERY_INTERVAL="1")
    made = Scene(Rest(standin2, "2.20"), AgentProcess(tmp_path / "agent", command, mine), queue,
                 tmp_path)  # fmt: skip
    yield made
    made.let_go()
    if made.agent.is_alive():
        made.agent.end(signal.SIGKILL)
    made.rest.close()


def test_what_runs_is_told_while_the_agent_is_alive(scene: Scene) -> None:
    run = scene.schedule(name="brave-otter", exit_code=0)
    scene.agent.start()
    found = scene.until(lambda found: commands(found) == ["alive"])
    (submission,) = found["submissions"]
    assert found["agent"]["alive"]
    assert found["agent"]["queues"] == [scene.queue]
    assert found["agent"]["server"] == scene.rest.url
    assert submission["flow_run_id"] == run
    assert submission["state"] == "started"
    os.kill(submission["pid"], 0)
    os.kill(found["agent"]["pid"], 0)

    told = scene.ask()
    assert told.returncode == 0
    assert f"agent alive: process {found['agent']['pid']} since" in told.stdout
    (line,) = [line for line in told.stdout.splitlines() if "brave-otter" in line]
    for word in (run, "started", str(submission["pid"]), "alive", "see it through"):
        assert word in line


def test_what_ended_without_an_agent_is_told_with_its_exit_status(scene: Scene) -> None:
    scene.schedule(name="brave-otter", exit_code=7)
    scene.agent.start()
    scene.until(lambda found: commands(found) == ["alive"])
    scene.agent.end(signal.SIGKILL)
    scene.let_go()
    found = scene.until(lambda found: commands(found) == ["finished"])
    assert not found["agent"]["alive"]
    assert found["submissions"][0]["exit_code"] == 7
    told = scene.ask()
    assert told.returncode == 1
    assert "ended without a word" in told.stdout
    assert "ended, status 7" in told.stdout


def test_a_stopped_agent_is_told_with_the_reason(scene: Scene) -> None:
    scene.agent.start()
    scene.until(lambda found: found.get("agent", {}).get("queues"))
    assert scene.agent.end(signal.SIGTERM) == 0
    told = scene.ask()
    assert told.returncode == 1
    assert "the last one stopped at" in told.stdout
    assert "(SIGTERM)" in told.stdout
    assert "nothing runs, and nothing is owed" in told.stdout


def test_a_server_that_can_not_be_polled_is_told(scene: Scene) -> None:
    dead = attrs.evolve(
        scene.agent,
        environment={**scene.agent.environment, "PREFECT_API_URL": "http://127.0.0.1:9/api"},
    )
    dead.start()
    try:
        found = scene.until(lambda found: found.get("agent", {}).get("polling_fails_since"))
        assert "no answer" in found["agent"]["polling_error"]
        assert "POLLING FAILS since" in scene.ask().stdout
    finally:
        dead.end(signal.SIGTERM)


def test_asking_changes_nothing(scene: Scene) -> None:
    scene.schedule(name="brave-otter", exit_code=0)
    scene.agent.start()
    scene.until(lambda found: commands(found) == ["alive"])
    scene.agent.end(signal.SIGKILL)

    def everything() -> dict[str, tuple[int, bytes]]:
        files = [path for path in scene.state.rglob("*") if path.is_file()]
        return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}

    before = everything()
    assert scene.ask().returncode == 1
    assert scene.ask("--json").returncode == 1
    assert everything() == before


def test_where_there_is_no_log_one_line_says_so(tmp_path: Path) -> None:
    told = ask(tmp_path / "nowhere")
    assert told.returncode == 3
    assert told.stdout == ""
    (line,) = told.stderr.splitlines()
    assert "nowhere/events.sqlite" in line
    assert "no such file" in line
    assert not (tmp_path / "nowhere").exists()


def test_neither_trio_nor_httpx_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom agent.cli import main\n"
        f"try: main(['agent', 'status', '--state', {str(tmp_path)!r}])\n"
        "except SystemExit: pass\n"
        "assert 'agent.status' in sys.modules\n"
        "sys.exit(bool({'trio', 'httpx', 'pendulum', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, env=environment(tmp_path))
    assert done.returncode == 0
