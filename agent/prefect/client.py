"""Prefect's REST API as the agent uses it: one method for each endpoint, models in and out.

Facts about endpoints are Prefect's own as probed on 2.20.26 and 3.8.8 servers. Used by polling,
by the submission driver and by resolution; all of them share one client, and its few connections.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
import orjson
import pendulum

from agent.prefect.answers import read
from agent.prefect.errors import Endpoint, Rejected
from agent.prefect.models import (
    BlockDocument,
    Deployment,
    Flow,
    FlowRun,
    PastState,
    StateAnswer,
    StateProposal,
    WorkQueue,
)
from agent.prefect.wire import Call, Wire
from agent.settings import Settings

T = TypeVar("T")

READ_QUEUE: Final = Endpoint("GET", "/work_queues/name/{name}")
CREATE_QUEUE: Final = Endpoint("POST", "/work_queues/")
FILTER_QUEUES: Final = Endpoint("POST", "/work_queues/filter")
GET_RUNS: Final = Endpoint("POST", "/work_queues/{id}/get_runs")
SET_STATE: Final = Endpoint("POST", "/flow_runs/{id}/set_state")
READ_RUN_STATES: Final = Endpoint("GET", "/flow_run_states/")
READ_RUN: Final = Endpoint("GET", "/flow_runs/{id}")
UPDATE_RUN: Final = Endpoint("PATCH", "/flow_runs/{id}")
READ_DEPLOYMENT: Final = Endpoint("GET", "/deployments/{id}")
READ_FLOW: Final = Endpoint("GET", "/flows/{id}")
READ_BLOCK: Final = Endpoint("GET", "/block_documents/{id}")

PAGE: Final = 100
"""Queues asked for at once; servers allow 200."""

AGENT_POOL: Final = "default-agent-pool"
"""Where servers with work pools (2.8 and newer) keep the queues that are not made for a pool."""


class PrefectClient:
    """A client of one Prefect server; an asynchronous context manager.

    Every method may raise an `agent.prefect.errors.ApiError`; only what it means beyond that is
    said at the method. Requests are repeated as PREFECT_CLIENT_MAX_RETRIES says.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        rng: random.Random | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        """Make a client; nothing is sent before it is used.

        Args:
            settings: which server, and how.
            transport: instead of the network, for simulations.
            rng: jitter and the CSRF client's id come from it; seeded by simulations.
            now: the wall clock, for answers without a `Date`; virtual in simulations.

        Raises:
            NoApiUrl: the settings do not say which server.
            ClientMisconfigured: certificates or proxies that can't be used.
        """
        self._wire = Wire(
            settings,
            transport=transport,
            rng=rng or random.SystemRandom(),
            now=now or _wall_clock,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self._wire.aclose()

    @property
    def requests(self) -> int:
        """How many requests were sent, repeated ones included."""
        return self._wire.requests

    # --- work queues ------------------------------------------------------------------------

    async def read_work_queue_by_name(self, name: str) -> WorkQueue:
        """`GET /work_queues/name/{name}`: of the default agent pool, where there are pools.

        Raises:
            NotFound: there is none of this name.
        """
        return await self._get(READ_QUEUE, WorkQueue, f"work queue {name!r}", name)

    async def create_work_queue(self, name: str) -> WorkQueue:
        """`POST /work_queues/`; read instead when another agent was quicker (409).

        Raises:
            Rejected: the name is not one for a queue (422).
        """
        what = f"work queue {name!r}"
        try:
            return await self._post(CREATE_QUEUE, WorkQueue, what, {"name": name})
        except Rejected as error:
            if error.status != 409:
                raise
            return await self.read_work_queue_by_name(name)

    async def match_work_queues(self, prefixes: Sequence[str]) -> Sequence[WorkQueue]:
        """`POST /work_queues/filter`, page by page: queues whose name begins with a prefix.

        The server's `startswith_` is an SQL LIKE: on SQLite it ignores case, and everywhere `_`
        stands for any character. It also finds queues of other work pools, which belong to those
        pools' workers. Both are sorted out here.
        """
        found: dict[UUID, WorkQueue] = {}
        for offset in range(0, 1_000_000, PAGE):
            body = {
                "work_queues": {"name": {"startswith_": list(prefixes)}},
                "limit": PAGE,
                "offset": offset,
            }
            page = await self._post(FILTER_QUEUES, list[WorkQueue], "work queues", body)
            found |= {queue.id: queue for queue in page}
            if len(page) < PAGE:
                break
        return [
            queue
            for queue in found.values()
            if queue.name.startswith(tuple(prefixes)) and queue.work_pool_name in (None, AGENT_POOL)
        ]

    async def get_runs(
        self, queue_id: UUID, *, limit: int, scheduled_before: datetime
    ) -> Sequence[FlowRun]:
        """`POST /work_queues/{id}/get_runs`: scheduled runs, oldest first.

        Nothing is reserved by it: until a run is Pending, everybody who asks gets it. A paused
        queue and one at its concurrency limit have none.

        Args:
            queue_id: which queue.
            limit: at most this many; a server's own limit is 200, above it answers 422.
            scheduled_before: aware.

        Raises:
            NotFound: there is no such queue.
        """
        body = {"limit": limit, "scheduled_before": scheduled_before.isoformat()}
        what = f"work queue {queue_id}"
        return await self._post(GET_RUNS, list[FlowRun], what, body, queue_id)

    # --- flow runs --------------------------------------------------------------------------

    async def set_state(
        self, flow_run_id: UUID, proposal: StateProposal, *, retry: bool = True
    ) -> StateAnswer:
        """`POST /flow_runs/{id}/set_state`, never forced.

        Args:
            flow_run_id: which run.
            proposal: the state; its transition id makes a repeated request recognisable.
            retry: False to send it once only. An error then leaves open whether it took effect.

        Raises:
            NotFound: there is no such run.
        """
        details = {
            "flow_run_id": str(flow_run_id),
            "transition_id": str(proposal.transition_id),
        }
        if proposal.scheduled_time is not None:
            details["scheduled_time"] = proposal.scheduled_time.isoformat()
        state = {
            "type": proposal.type,
            "name": proposal.name,
            "message": proposal.message,
            # Prefect's agents once put a pickle here; the reason is in the message.
            "data": proposal.data,
            "state_details": details,
        }
        body = {"state": state, "force": False}
        what = f"flow run {flow_run_id}"
        return await self._post(SET_STATE, StateAnswer, what, body, flow_run_id, repeat=retry)

    async def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        """`GET /flow_runs/{id}`.

        Raises:
            NotFound: there is no such run.
        """
        return await self._get(READ_RUN, FlowRun, f"flow run {flow_run_id}", flow_run_id)

    async def read_flow_run_states(self, flow_run_id: UUID) -> Sequence[PastState]:
        """`GET /flow_run_states/?flow_run_id=`: all states that a run ever had, oldest first."""
        what = f"the states of flow run {flow_run_id}"
        params = {"flow_run_id": str(flow_run_id)}
        states = await self._get(READ_RUN_STATES, list[PastState], what, "", params)
        # Servers don't promise an order.
        return sorted(states, key=lambda state: state.timestamp or pendulum.DateTime.min)

    async def set_infrastructure_pid(self, flow_run_id: UUID, infrastructure_pid: str) -> None:
        """`PATCH /flow_runs/{id}` (2.7 and newer): tell the server what the run runs as.

        Raises:
            NotFound: there is no such run.
        """
        body = {"infrastructure_pid": infrastructure_pid}
        call = _call(UPDATE_RUN, f"flow run {flow_run_id}", flow_run_id, body=body)
        await self._wire.send(call)

    # --- what a run is launched on ----------------------------------------------------------

    async def read_deployment(self, deployment_id: UUID) -> Deployment:
        """`GET /deployments/{id}`.

        Raises:
            NotFound: there is no such deployment.
        """
        what = f"deployment {deployment_id}"
        return await self._get(READ_DEPLOYMENT, Deployment, what, deployment_id)

    async def read_flow(self, flow_id: UUID) -> Flow:
        """`GET /flows/{id}`.

        Raises:
            NotFound: there is no such flow.
        """
        return await self._get(READ_FLOW, Flow, f"flow {flow_id}", flow_id)

    async def read_block_document(self, document_id: UUID) -> BlockDocument:
        """`GET /block_documents/{id}?include_secrets=true`.

        Secrets are included, else they come as `********` and the launch breaks silently; nested
        documents come put in by the server.

        Raises:
            NotFound: there is no such document.
        """
        what = f"block document {document_id}"
        secrets = {"include_secrets": "true"}
        return await self._get(READ_BLOCK, BlockDocument, what, document_id, params=secrets)

    # --- how --------------------------------------------------------------------------------

    async def _get(
        self,
        endpoint: Endpoint,
        kind: type[T],
        what: str,
        key: object,
        params: Mapping[str, str] | None = None,
    ) -> T:
        response = await self._wire.send(_call(endpoint, what, key, params=params))
        return read(endpoint, response, kind)

    async def _post(
        self,
        endpoint: Endpoint,
        kind: type[T],
        what: str,
        body: Mapping[str, Any],
        key: object = "",
        *,
        repeat: bool = True,
    ) -> T:
        response = await self._wire.send(_call(endpoint, what, key, body=body), repeat=repeat)
        return read(endpoint, response, kind)


def _call(
    endpoint: Endpoint,
    what: str,
    key: object,
    *,
    body: Mapping[str, Any] | None = None,
    params: Mapping[str, str] | None = None,
) -> Call:
    """Fill an endpoint's one placeholder; the body becomes bytes here, once for all tries."""
    path = endpoint.path.replace("{id}", str(key)).replace("{name}", quote(str(key), safe=""))
    content = None if body is None else orjson.dumps(body)
    return Call(endpoint, path, what, params or {}, content)


def _wall_clock() -> datetime:
    return datetime.now(UTC)
