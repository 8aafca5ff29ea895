"""Real flows: deployed to a real server, run by our agent as a process with the real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from agent.standin import engine
from events.chain import first_damage
from events.codec import decode
from events.lifecycle import State
from events.sqlite import SqliteReader
from events.submission import Submission, fold
from tests.servers import RealServer

pytestmark = pytest.mark.real

FLOWS = """
from prefect import flow


@flow
def greet(name: str = "world"):
    print(f"hello {name}")


@flow
def stumble():
    raise ValueError("on purpose")
"""

DEPLOY_TO_2 = """
import json, sys
from prefect.deployments import Deployment
from prefect.infrastructure import Process
import flows

here, queue = sys.argv[1:]
made = {}
for name, flow, process, overrides in (
    ("greet", flows.greet, Process(env={"GREETING": "hi"}), {"env.COLOUR": "blue"}),
    ("stumble", flows.stumble, Process(), {}),
    ("no-command", flows.greet, Process(command=["no-such-command"]), {}),
    ("no-directory", flows.greet, Process(working_dir="/no/such/directory"), {}),
):
    deployment = Deployment.build_from_flow(
        flow=flow, name=name, work_queue_name=queue, infrastructure=process,
        infra_overrides=overrides, path=here, entrypoint=f"flows.py:{flow.fn.__name__}",
    )
    made[name] = str(deployment.apply())
print(json.dumps(made))
"""


@attrs.frozen
class Ground:
    """A real server, a folder for the agent's state, and what was deployed."""

    server: RealServer
    folder: Path
    queue: str

    def api(self) -> httpx.Client:
        return httpx.Client(base_url=self.server.url, timeout=60)

    def schedule(self, deployment: str) -> str:
        with self.api() as api:
            body = {"state": {"type": "SCHEDULED"}}
            answer = api.post(f"/deployments/{deployment}/create_flow_run", json=body)
            answer.raise_for_status()
            return str(answer.json()["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        with self.api() as api:
            found: dict[str, Any] = api.get(f"/flow_runs/{run_id}").raise_for_status().json()
            return found

    def start_agent(
        self, *options: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `agent start --run-once` as a user would, to its end."""
        mine = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
        command = [sys.executable, "-m", "agent", "start", "-q", self.queue, "--run-once"]
        command += ["--python", str(self.server.python), *options]
        return subprocess.run(
            command,
            env={
                **mine,
                **self.server.client_environment,
                "PLUPERFECT_STATE": str(self.folder / "state"),
                **(environment or {}),
            },
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def submission(self, run_id: str) -> Submission:
        reader = SqliteReader.open(self.folder / "state" / "events.sqlite")
        try:
            assert first_damage(reader.read_all(), reader.log_id) is None
            return fold(decode(record) for record in reader.read_stream(f"{run_id}/1"))
        finally:
            reader.close()


def assert_the_log_verifies(ground: Ground) -> None:
    command = [sys.executable, "-m", "replay", "verify", str(ground.folder / "state")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def deploy_to_2(ground: Ground) -> dict[str, str]:
    """Deploy the flow file with Prefect 2.20's own code."""
    # A folder of their own: Prefect copies all of it to where the run is executed.
    code = ground.folder / "code"
    code.mkdir()
    (code / "flows.py").write_text(FLOWS)
    done = subprocess.run(
        [str(ground.server.python), "-W", "ignore", "-c", DEPLOY_TO_2, str(code), "real"],
        cwd=code,
        env={**os.environ, **ground.server.client_environment, "PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return made


def test_real_deployments_on_a_2_20_server_end_as_they_should(
    prefect2: RealServer, tmp_path: Path
) -> None:
    ground = Ground(prefect2, tmp_path, "real")
    runs = {name: ground.schedule(made) for name, made in deploy_to_2(ground).items()}

    agent = ground.start_agent()

    assert agent.returncode == 0, agent.stderr
    states = {name: ground.run(run)["state"]["type"] for name, run in runs.items()}
    assert states == {
        "greet": "COMPLETED",
        "stumble": "FAILED",  # by its own engine
        "no-command": "CRASHED",  # by us
        "no-directory": "CRASHED",
    }, agent.stderr
    told = ground.run(runs["no-command"])["state"]["message"]
    assert "command not found: 'no-such-command'" in told
    assert "/no/such/directory" in ground.run(runs["no-directory"])["state"]["message"]
    assert "hello world" in agent.stdout
    greeted = ground.submission(runs["greet"])
    assert greeted.state is State.EXITED
    assert greeted.confirmed is not None
    pid = ground.run(runs["greet"])["infrastructure_pid"]
    assert pid == greeted.confirmed.infrastructure_pid
    assert all(ground.submission(run).is_closed for run in runs.values())
    assert_the_log_verifies(ground)


def test_a_work_queue_of_a_3_x_server_is_served(prefect3: RealServer, tmp_path: Path) -> None:
    ground = Ground(prefect3, tmp_path, "three")
    engine_file = str(Path(engine.__file__))
    commands = {
        "fine": [sys.executable, "-I", engine_file],
        "failing": [sys.executable, "-I", engine_file, "--fail"],
        "silent": ["true"],
    }
    runs = {}
    with ground.api() as api:
        flow = api.post("/flows/", json={"name": "three"}).json()["id"]
        if api.get("/work_queues/name/three").status_code == 404:
            api.post("/work_queues/", json={"name": "three"}).raise_for_status()
        for name, command in commands.items():
            body = {
                "name": name,
                "flow_id": flow,
                "work_queue_name": "three",
                "job_variables": {"command": command},
            }
            made = api.post("/deployments/", json=body).raise_for_status().json()["id"]
            runs[name] = ground.schedule(made)

    agent = ground.start_agent()

    assert agent.returncode == 0, agent.stderr
    states = {name: ground.run(run)["state"]["type"] for name, run in runs.items()}
    assert states == {"fine": "COMPLETED", "failing": "FAILED", "silent": "CRASHED"}, agent.stderr
    assert all(ground.submission(run).is_closed for run in runs.values())
    assert_the_log_verifies(ground)


def test_the_real_engine_of_3_x_runs_a_flow_to_its_end(
    prefect3: RealServer, tmp_path: Path
) -> None:
    ground = Ground(prefect3, tmp_path, "three-real")
    (tmp_path / "flows.py").write_text(FLOWS)
    with ground.api() as api:
        flow = api.post("/flows/", json={"name": "greet"}).json()["id"]
        body = {
            "name": "greet",
            "flow_id": flow,
            "work_queue_name": "three-real",
            "entrypoint": "flows.py:greet",
            "pull_steps": [
                {"prefect.deployments.steps.set_working_directory": {"directory": str(tmp_path)}}
            ],
        }
        if api.get("/work_queues/name/three-real").status_code == 404:
            api.post("/work_queues/", json={"name": "three-real"}).raise_for_status()
        made = api.post("/deployments/", json=body).raise_for_status().json()["id"]
    run = ground.schedule(made)

    agent = ground.start_agent()

    assert ground.run(run)["state"]["type"] == "COMPLETED", agent.stderr + agent.stdout
    assert ground.submission(run).is_closed
