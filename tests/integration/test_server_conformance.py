"""The stand-in server behaves as the real ones: the same tests run against all of them.

Each case of the table is a run that is brought into a state and then shown a proposal; what the
servers make of it was probed on 2.20.26 and 3.8.8, and where the two differ the case says so.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import attrs
import httpx
import pytest

pytestmark = pytest.mark.real

KINDS = ("stand-in 2.20", "stand-in 3", "real 2.20", "real 3")
OURS, OTHER = str(UUID(int=1)), str(UUID(int=2))


@attrs.frozen
class Server:
    """A server, and whether it plays Prefect 3."""

    api: httpx.Client
    is_3: bool

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        answer = self.api.post(path, json=body)
        for _again in range(20):  # a real server on SQLite is busy at times
            if answer.status_code != 503:
                break
            time.sleep(0.2)
            answer = self.api.post(path, json=body)
        return answer

    def queue(self) -> dict[str, Any]:
        made: dict[str, Any] = self.post("/work_queues/", {"name": f"queue-{uuid4()}"}).json()
        return made

    def deployment(self, queue: dict[str, Any]) -> str:
        flow = self.post("/flows/", {"name": "conformance"}).json()["id"]
        body = {"name": f"d-{uuid4()}", "flow_id": flow, "work_queue_name": queue["name"]}
        return str(self.post("/deployments/", body).json()["id"])

    def run(self, deployment: str, due: datetime | None = None) -> str:
        details = {"scheduled_time": due.isoformat()} if due else {}
        state = {"type": "SCHEDULED", "state_details": details}
        body = {"state": state}
        return str(self.post(f"/deployments/{deployment}/create_flow_run", body).json()["id"])

    def propose(
        self,
        run: str,
        type_: str,
        *,
        name: str | None = None,
        transition: str | None = None,
        force: bool = False,
    ) -> httpx.Response:
        state: dict[str, Any] = {"type": type_, "name": name}
        state["state_details"] = {"transition_id": transition}
        return self.post(f"/flow_runs/{run}/set_state", {"state": state, "force": force})

    def runs_of(self, queue: dict[str, Any], **body: Any) -> Any:
        return self.post(f"/work_queues/{queue['id']}/get_runs", body).json()


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    kind, flavour = request.param.split()
    if kind == "real":
        real = request.getfixturevalue("prefect2" if flavour == "2.20" else "prefect3")
        with httpx.Client(base_url=real.url, timeout=60) as api:
            yield Server(api, flavour == "3")
        return
    command = [sys.executable, "-m", "agent.standin", "--flavour", flavour]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with httpx.Client(base_url=process.stdout.readline().strip(), timeout=10) as api:
        yield Server(api, flavour == "3")
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def queue(server: Server) -> dict[str, Any]:
    return server.queue()


@pytest.fixture(scope="module")
def deployment(server: Server, queue: dict[str, Any]) -> str:
    return server.deployment(queue)


# states on the way, proposal (type, name, transition), status code, answer, type afterwards
CASES: dict[str, tuple[tuple[str, ...], tuple[str, str | None, str], int, str, str]] = {
    "a claim": ((), ("PENDING", None, OURS), 201, "ACCEPT", "PENDING"),
    "a repeated claim": (("PENDING",), ("PENDING", None, OURS), 200, "REJECT", "PENDING"),
    "another's claim": (("PENDING",), ("PENDING", None, OTHER), 200, "ABORT", "PENDING"),
    "a claim of a running run": (
        ("PENDING", "RUNNING"), ("PENDING", None, OTHER), 200, "ABORT", "RUNNING"),
    "a claim over Crashed": (
        ("PENDING", "CRASHED"), ("PENDING", None, OTHER), 201, "ACCEPT", "PENDING"),
    "a late duplicate over Crashed": (
        ("PENDING", "CRASHED"), ("PENDING", None, OURS), 201, "ACCEPT", "PENDING"),
    "a claim over Failed": (
        ("PENDING", "FAILED"), ("PENDING", None, OTHER), 201, "ACCEPT", "PENDING"),
    "a claim over Completed": (
        ("PENDING", "RUNNING", "COMPLETED"), ("PENDING", None, OTHER), 201, "ACCEPT", "PENDING"),
    "handing a run back": (
        ("PENDING",), ("SCHEDULED", None, OTHER), 201, "ACCEPT", "SCHEDULED"),
    "Crashed from Pending": (("PENDING",), ("CRASHED", None, OTHER), 201, "ACCEPT", "CRASHED"),
    "Failed from Pending": (("PENDING",), ("FAILED", None, OTHER), 201, "ACCEPT", "FAILED"),
    "Crashed from Running": (
        ("PENDING", "RUNNING"), ("CRASHED", None, OTHER), 201, "ACCEPT", "CRASHED"),
    "Crashed over Completed": (
        ("PENDING", "RUNNING", "COMPLETED"), ("CRASHED", None, OTHER), 200, "ABORT", "COMPLETED"),
    "Crashed over Failed": (
        ("PENDING", "FAILED"), ("CRASHED", None, OTHER), 200, "ABORT", "FAILED"),
    "Failed over Crashed": (
        ("PENDING", "CRASHED"), ("FAILED", None, OTHER), 201, "ACCEPT", "FAILED"),
    "a second Running": (
        ("PENDING", "RUNNING"), ("RUNNING", None, OTHER), 201, "ACCEPT", "RUNNING"),
    "Crashed over Cancelling": (
        ("PENDING", "RUNNING", "CANCELLING"), ("CRASHED", None, OTHER), 200, "REJECT",
        "CANCELLING"),
    "Cancelled over Cancelling": (
        ("PENDING", "RUNNING", "CANCELLING"), ("CANCELLED", None, OTHER), 201, "ACCEPT",
        "CANCELLED"),
    "a claim of a cancelling run": (
        ("PENDING", "RUNNING", "CANCELLING"), ("PENDING", None, OTHER), 200, "REJECT",
        "CANCELLING"),
    "cancelling what has no infrastructure": (
        (), ("CANCELLING", None, OTHER), 201, "REJECT", "CANCELLED"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_proposal_is_answered_as_by_prefect(server: Server, deployment: str, case: str) -> None:
    way, (type_, name, transition), status_code, status, afterwards = CASES[case]
    run = server.run(deployment)
    for step in way:
        # The claim on the way is ours; whoever proposes OURS again repeats it.
        mark = OURS if step == "PENDING" else str(uuid4())
        assert server.propose(run, step, transition=mark).json()["status"] == "ACCEPT", step
    answer = server.propose(run, type_, name=name, transition=transition)
    body = answer.json()
    assert (answer.status_code, body["status"]) == (status_code, status)
    assert body["state"]["type"] == afterwards
    assert server.api.get(f"/flow_runs/{run}").json()["state"]["type"] == afterwards


def test_a_repeated_claim_shows_our_transition_id(server: Server, deployment: str) -> None:
    run = server.run(deployment)
    server.propose(run, "PENDING", transition=OURS)
    answer = server.propose(run, "PENDING", transition=OURS).json()
    assert answer["state"]["state_details"]["transition_id"] == OURS
    assert answer["details"]["reason"] == "This run has already made this state transition."


def test_a_named_sub_state_of_pending_is_for_prefect_3(server: Server, deployment: str) -> None:
    run = server.run(deployment)
    server.propose(run, "PENDING", transition=OURS)
    answer = server.propose(run, "PENDING", name="Submitting", transition=OTHER).json()
    assert answer["status"] == ("ACCEPT" if server.is_3 else "ABORT")


def test_a_claim_carries_the_scheduled_time_on(server: Server, deployment: str) -> None:
    due = datetime.now(UTC) - timedelta(minutes=5)
    run = server.run(deployment, due)
    claimed = server.propose(run, "PENDING", transition=OURS).json()["state"]
    assert datetime.fromisoformat(claimed["state_details"]["scheduled_time"]) == due


def test_running_before_its_time_has_to_wait(server: Server, deployment: str) -> None:
    run = server.run(deployment, datetime.now(UTC) + timedelta(minutes=5))
    server.propose(run, "PENDING", transition=OURS)
    body = server.propose(run, "RUNNING").json()
    assert body["status"] == "WAIT"
    assert 200 < body["details"]["delay_seconds"] <= 301


def test_a_forced_state_is_always_taken(server: Server, deployment: str) -> None:
    run = server.run(deployment)
    for type_ in ("COMPLETED", "CRASHED", "SCHEDULED"):
        body = server.propose(run, type_, force=True).json()
        assert (body["status"], body["state"]["type"]) == ("ACCEPT", type_)


def test_an_unknown_run_is_404(server: Server) -> None:
    answer = server.propose(str(uuid4()), "PENDING")
    assert answer.status_code == 404
    assert "not found" in answer.json()["exception_message"]
    assert server.api.get(f"/flow_runs/{uuid4()}").status_code == 404
    patch = server.api.patch(f"/flow_runs/{uuid4()}", json={"infrastructure_pid": "x"})
    assert patch.status_code == 404


def test_runs_come_oldest_first_within_limit_and_horizon(server: Server) -> None:
    queue = server.queue()
    deployment = server.deployment(queue)
    now = datetime.now(UTC)
    late, soon, far = (
        server.run(deployment, now + timedelta(seconds=offset)) for offset in (-10, 5, 3600)
    )
    older = server.run(deployment, now - timedelta(seconds=60))
    before = (now + timedelta(seconds=15)).isoformat()
    handed = [run["id"] for run in server.runs_of(queue, limit=10, scheduled_before=before)]
    assert handed == [older, late, soon]
    assert far not in handed
    first = server.runs_of(queue, limit=1, scheduled_before=before)
    assert [run["id"] for run in first] == [older]
    server.propose(older, "PENDING", transition=OURS)
    rest = [run["id"] for run in server.runs_of(queue, limit=10, scheduled_before=before)]
    assert rest == [late, soon]


def test_a_paused_queue_hands_out_nothing(server: Server) -> None:
    queue = server.queue()
    server.run(server.deployment(queue))
    server.api.patch(f"/work_queues/{queue['id']}", json={"is_paused": True})
    assert server.runs_of(queue, limit=10) == []
    assert server.api.get(f"/work_queues/name/{queue['name']}").json()["is_paused"] is True


def test_a_queue_keeps_its_concurrency_limit(server: Server) -> None:
    queue = server.queue()
    deployment = server.deployment(queue)
    runs = [server.run(deployment) for _ in range(3)]
    server.api.patch(f"/work_queues/{queue['id']}", json={"concurrency_limit": 2})
    assert len(server.runs_of(queue, limit=10)) == 2
    server.propose(runs[0], "PENDING", transition=OURS)
    assert len(server.runs_of(queue, limit=10)) == 1


def test_too_large_a_limit_is_422(server: Server, queue: dict[str, Any]) -> None:
    answer = server.post(f"/work_queues/{queue['id']}/get_runs", {"limit": 201})
    assert answer.status_code == 422


def test_queues_are_found_created_once_and_matched(server: Server) -> None:
    missing = server.api.get(f"/work_queues/name/none-{uuid4()}")
    assert missing.status_code == 404
    queue = server.queue()
    assert server.post("/work_queues/", {"name": queue["name"]}).status_code == 409
    body = {"work_queues": {"name": {"startswith_": [queue["name"][:20]]}}, "limit": 100}
    found = server.post("/work_queues/filter", body).json()
    assert [match["name"] for match in found] == [queue["name"]]


def test_the_infrastructure_pid_is_kept(server: Server, deployment: str) -> None:
    run = server.run(deployment)
    patch = server.api.patch(f"/flow_runs/{run}", json={"infrastructure_pid": "host:1"})
    assert patch.status_code == 204
    assert server.api.get(f"/flow_runs/{run}").json()["infrastructure_pid"] == "host:1"


def test_an_old_api_version_is_refused(server: Server, queue: dict[str, Any]) -> None:
    headers = {"X-PREFECT-API-VERSION": "0.7.0"}
    answer = server.api.get(f"/work_queues/name/{queue['name']}", headers=headers)
    assert answer.status_code == 400
    assert "requires version 0.8.0 or higher" in answer.json()["detail"]


def test_csrf_protection_is_off_by_default(server: Server) -> None:
    answer = server.api.get("/csrf-token", params={"client": str(uuid4())})
    assert answer.status_code == 422
    assert "CSRF protection is disabled." in answer.json()["detail"]
