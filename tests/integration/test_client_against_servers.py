"""Every method of the client against the stand-in and against real servers of both versions.

The servers are as guarded as they can be (CSRF tokens, and a password where the version has one),
so that each changing request here also proves the client's way in.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import attrs
import httpx
import pytest

from agent.prefect.client import PrefectClient
from agent.prefect.errors import NotFound, Rejected, Unauthorised
from agent.prefect.models import StateProposal
from agent.standin.app import StandinApp
from agent.standin.state import StandinState
from agent.standin.transport import StandinTransport
from tests import servers
from tests.unit.prefect_api import settings

PASSWORD = "admin:pass-5d41402a"
GUARDS = {
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
}


@attrs.frozen
class Api:
    """A server to talk to. `standin` is None for a real one."""

    url: str
    has_password: bool
    standin: StandinApp | None = None

    def client(self, **environment: str) -> PrefectClient:
        """Make the client under test."""
        plain = {
            "PREFECT_API_URL": self.url,
            "PREFECT_API_AUTH_STRING": PASSWORD,
            "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        }
        config = settings(**(plain | environment))
        return PrefectClient(config, transport=self._transport())

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Do what an operator would do by other means."""
        authorization = "Basic " + base64.b64encode(PASSWORD.encode()).decode()
        async with httpx.AsyncClient(
            base_url=self.url,
            transport=self._transport(),
            headers={"X-PREFECT-API-VERSION": "0.8.4", "Authorization": authorization},
            trust_env=False,
        ) as http:
            token = (await http.get("/csrf-token", params={"client": "operator"})).json()["token"]
            guard = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "operator"}
            answer = await http.request(method, path, json=body, headers=guard)
            answer.raise_for_status()
            return answer.json() if answer.content else None

    def _transport(self) -> httpx.AsyncBaseTransport | None:
        return StandinTransport(self.standin) if self.standin else None


@pytest.fixture(
    scope="module",
    params=[
        "stand-in 2.20",
        "stand-in 3",
        pytest.param("2.20", marks=pytest.mark.real),
        pytest.param("3", marks=pytest.mark.real),
    ],
)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One server for all tests of this file; they use queues of their own."""
    name: str = request.param
    if name.startswith("stand-in"):
        state = StandinState(lambda: datetime.now(UTC), uuid4, name.rpartition(" ")[2])
        app = StandinApp(state, auth_string=PASSWORD, csrf=True)
        yield Api("http://standin.test/api", has_password=True, standin=app)
        return
    server = servers.start(name, tmp_path_factory.mktemp("server"), GUARDS)
    try:
        # 2.20 servers know no password, and let everybody in.
        yield Api(server.url, has_password=name == "3")
    finally:
        server.stop()


@attrs.frozen
class Scheduled:
    """A run that waits on a queue of its own."""

    queue: str
    run_id: UUID
    deployment_id: UUID
    flow_id: UUID


async def _schedule(
    api: Api, variables: Mapping[str, Any] | None = None, due_in: float = 0.0
) -> Scheduled:
    queue = f"q-{uuid4()}"
    flow = await api.ask("POST", "/flows/", {"name": f"flow-{queue}"})
    deployment = await api.ask(
        "POST",
        "/deployments/",
        {
            "name": "d",
            "flow_id": flow["id"],
            "work_queue_name": queue,
            "job_variables": dict(variables or {}),
            "enforce_parameter_schema": False,
        },
    )
    due = (datetime.now(UTC) + timedelta(seconds=due_in)).isoformat()
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
    run = await api.ask(
        "POST", f"/deployments/{deployment['id']}/create_flow_run", {"state": state}
    )
    return Scheduled(queue, UUID(run["id"]), UUID(deployment["id"]), UUID(flow["id"]))


async def test_a_missing_queue_is_not_found_then_created_then_read(api: Api) -> None:
    name = f"queue-{uuid4()}"
    async with api.client() as prefect:
        with pytest.raises(NotFound):
            await prefect.read_work_queue_by_name(name)
        created = await prefect.create_work_queue(name)
        assert (created.name, created.is_paused, created.concurrency_limit) == (name, False, None)
        assert await prefect.create_work_queue(name) == created
        assert await prefect.read_work_queue_by_name(name) == created


async def test_queues_are_matched_by_exact_prefix(api: Api) -> None:
    stem = uuid4().hex
    async with api.client() as prefect:
        for name in (f"{stem}_a", f"{stem}_b", f"{stem}-c", f"{stem.upper()}_D"):
            await prefect.create_work_queue(name)
        found = await prefect.match_work_queues([f"{stem}_", "no such"])
        assert sorted(queue.name for queue in found) == [f"{stem}_a", f"{stem}_b"]


@pytest.mark.parametrize("count", [101])
async def test_queues_are_matched_beyond_the_first_page(api: Api, count: int) -> None:
    stem = uuid4().hex
    async with api.client() as prefect:
        for number in range(count):
            await prefect.create_work_queue(f"{stem}-{number:03}")
        found = await prefect.match_work_queues([stem])
        assert len({queue.name for queue in found}) == count


async def test_a_paused_queue_says_so_and_has_no_runs(api: Api) -> None:
    scheduled = await _schedule(api)
    async with api.client() as prefect:
        queue = await prefect.read_work_queue_by_name(scheduled.queue)
        await api.ask("PATCH", f"/work_queues/{queue.id}", {"is_paused": True})
        assert (await prefect.read_work_queue_by_name(scheduled.queue)).is_paused
        assert await prefect.get_runs(queue.id, limit=10, scheduled_before=_soon()) == []


async def test_due_runs_are_handed_out_with_what_the_agent_needs(api: Api) -> None:
    scheduled = await _schedule(api)
    async with api.client() as prefect:
        queue = await prefect.read_work_queue_by_name(scheduled.queue)
        (run,) = await prefect.get_runs(queue.id, limit=10, scheduled_before=_soon())
    assert (run.id, run.flow_id) == (scheduled.run_id, scheduled.flow_id)
    assert run.deployment_id == scheduled.deployment_id
    assert run.name
    assert run.state is not None
    assert (run.state.type, run.state.name) == ("SCHEDULED", "Scheduled")
    assert run.state.state_details.scheduled_time == run.next_scheduled_start_time
    assert run.next_scheduled_start_time is not None


async def test_runs_that_are_not_due_are_not_handed_out(api: Api) -> None:
    scheduled = await _schedule(api, due_in=3600)
    async with api.client() as prefect:
        queue = await prefect.read_work_queue_by_name(scheduled.queue)
        assert await prefect.get_runs(queue.id, limit=10, scheduled_before=_soon()) == []
        later = datetime.now(UTC) + timedelta(hours=2)
        assert await prefect.get_runs(queue.id, limit=10, scheduled_before=later)


async def test_a_limit_above_the_servers_is_rejected_with_its_reason(api: Api) -> None:
    async with api.client() as prefect:
        queue = await prefect.create_work_queue(f"q-{uuid4()}")
        with pytest.raises(Rejected, match="less than or equal to 200") as caught:
            await prefect.get_runs(queue.id, limit=201, scheduled_before=_soon())
        assert caught.value.status == 422


async def test_a_claim_is_accepted_recognised_when_repeated_and_refused_to_others(
    api: Api,
) -> None:
    scheduled = await _schedule(api)
    ours, theirs = (StateProposal("PENDING", "Pending", None, uuid4()) for _ in range(2))
    async with api.client() as prefect:
        first = await prefect.set_state(scheduled.run_id, ours)
        again = await prefect.set_state(scheduled.run_id, ours, retry=False)
        other = await prefect.set_state(scheduled.run_id, theirs)
        read = (await prefect.read_flow_run(scheduled.run_id)).state
    assert (first.status, again.status, other.status) == ("ACCEPT", "REJECT", "ABORT")
    assert again.reason == "This run has already made this state transition."
    assert other.reason is not None
    states = [first.state, again.state, other.state, read]
    assert all(
        s is not None and s.state_details.transition_id == ours.transition_id for s in states
    )
    assert {s.type for s in states if s} == {"PENDING"}


async def test_running_before_its_time_is_a_wait_with_a_delay(api: Api) -> None:
    scheduled = await _schedule(api, due_in=600)
    async with api.client() as prefect:
        await prefect.set_state(
            scheduled.run_id, StateProposal("PENDING", "Pending", None, uuid4())
        )
        answer = await prefect.set_state(
            scheduled.run_id, StateProposal("RUNNING", "Running", None, uuid4())
        )
    assert answer.status == "WAIT"
    assert answer.delay_seconds is not None
    assert 500 < answer.delay_seconds <= 600


async def test_an_outcome_carries_its_message(api: Api) -> None:
    scheduled = await _schedule(api)
    crashed = StateProposal("CRASHED", "Crashed", "Exited with status 3.", uuid4())
    async with api.client() as prefect:
        assert (await prefect.set_state(scheduled.run_id, crashed)).status == "ACCEPT"
        state = (await prefect.read_flow_run(scheduled.run_id)).state
    assert state is not None
    assert (state.type, state.message) == ("CRASHED", "Exited with status 3.")


async def test_the_infrastructure_pid_is_kept(api: Api) -> None:
    scheduled = await _schedule(api)
    async with api.client() as prefect:
        await prefect.set_infrastructure_pid(scheduled.run_id, "host:4711")
        assert (await prefect.read_flow_run(scheduled.run_id)).infrastructure_pid == "host:4711"


async def test_a_deployment_and_its_flow_are_read(api: Api) -> None:
    variables = {"env.A": "1", "image": None}
    scheduled = await _schedule(api, variables)
    async with api.client() as prefect:
        deployment = await prefect.read_deployment(scheduled.deployment_id)
        flow = await prefect.read_flow(scheduled.flow_id)
    assert (deployment.flow_id, deployment.job_variables) == (scheduled.flow_id, variables)
    assert deployment.infrastructure_document_id is None
    assert deployment.updated is not None
    assert flow.name == f"flow-{scheduled.queue}"


async def test_a_block_document_is_read_with_its_secret(api: Api) -> None:
    block_id = await _secret_block(api)
    async with api.client() as prefect:
        block = await prefect.read_block_document(block_id)
    assert (block.block_type_slug, block.data) == ("secret", {"value": "hunter2"})
    assert "hunter2" not in repr(block)


@pytest.mark.parametrize("what", ["flow run", "deployment", "flow", "block document", "work queue"])
async def test_what_does_not_exist_is_not_found(api: Api, what: str) -> None:
    unknown = uuid4()
    proposal = StateProposal("PENDING", "Pending", None, uuid4())
    calls: Mapping[str, Callable[[PrefectClient], Sequence[Callable[[], Awaitable[object]]]]] = {
        "flow run": lambda prefect: [
            partial(prefect.read_flow_run, unknown),
            partial(prefect.set_infrastructure_pid, unknown, "h:1"),
            partial(prefect.set_state, unknown, proposal),
        ],
        "deployment": lambda prefect: [partial(prefect.read_deployment, unknown)],
        "flow": lambda prefect: [partial(prefect.read_flow, unknown)],
        "block document": lambda prefect: [partial(prefect.read_block_document, unknown)],
        "work queue": lambda prefect: [
            partial(prefect.get_runs, unknown, limit=1, scheduled_before=_soon())
        ],
    }
    async with api.client() as prefect:
        for call in calls[what](prefect):
            with pytest.raises(NotFound, match=f"{what} {unknown} does not exist"):
                await call()


async def test_a_wrong_password_is_unauthorised(api: Api) -> None:
    async with api.client(PREFECT_API_AUTH_STRING="admin:wrong") as prefect:
        if not api.has_password:
            await prefect.create_work_queue(f"q-{uuid4()}")
            return
        with pytest.raises(Unauthorised, match="check PREFECT_API_AUTH_STRING") as caught:
            await prefect.read_flow_run(uuid4())
        assert caught.value.status == 401


async def test_changes_are_refused_without_a_csrf_token(api: Api) -> None:
    async with api.client(PREFECT_CLIENT_CSRF_SUPPORT_ENABLED="false") as prefect:
        with pytest.raises(Unauthorised, match=r"status 403: .* CSRF token"):
            await prefect.create_work_queue(f"q-{uuid4()}")


async def _secret_block(api: Api) -> UUID:
    if api.standin is not None:
        state = api.standin.state
        fields = {"name": "s", "data": {"value": "hunter2"}, "block_type": {"slug": "secret"}}
        return UUID(state.add(state.blocks, fields)["id"])
    block_type = await api.ask("GET", "/block_types/slug/secret")
    schemas = await api.ask(
        "POST",
        "/block_schemas/filter",
        {"block_schemas": {"block_type_id": {"any_": [block_type["id"]]}}},
    )
    block = await api.ask(
        "POST",
        "/block_documents/",
        {
            "name": f"s-{uuid4()}",
            "data": {"value": "hunter2"},
            "block_type_id": block_type["id"],
            "block_schema_id": schemas[0]["id"],
        },
    )
    return UUID(block["id"])


def _soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=15)
