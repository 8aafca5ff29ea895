"""What a Prefect server would answer, for the tests of resolution: bodies, and a server of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

import attrs
import trio

from agent.infrastructure.launcher import ProcessSpec
from agent.infrastructure.resolve import Resolver
from agent.prefect.errors import Endpoint, NotFound
from agent.prefect.models import BlockDocument, Deployment, Flow, FlowRun, structure

T = TypeVar("T")

RUN = UUID("11111111-1111-4111-8111-111111111111")
DEPLOYMENT = UUID("22222222-2222-4222-8222-222222222222")
FLOW = UUID("33333333-3333-4333-8333-333333333333")
BLOCK = UUID("44444444-4444-4444-8444-444444444444")
SCHEMA = "55555555-5555-4555-8555-555555555555"

BASE = {"PREFECT_API_URL": "http://prefect.test/api", "PREFECT_API_KEY": "key-of-the-agent"}
PYTHON = "/opt/venv/bin/python"


def run_body(**fields: Any) -> dict[str, Any]:
    """Return a flow run as a server sends it."""
    return {
        "id": str(RUN),
        "name": "brave-otter",
        "flow_id": str(FLOW),
        "deployment_id": str(DEPLOYMENT),
        "job_variables": {},
    } | fields


def deployment_body(overrides: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a deployment with a block, as a 2.20 server sends it."""
    return {
        "id": str(DEPLOYMENT),
        "updated": "2026-03-04T05:06:07.089+00:00",
        "name": "nightly",
        "flow_id": str(FLOW),
        "infrastructure_document_id": str(BLOCK),
        "job_variables": dict(overrides or {}),
    } | fields


def flow_body() -> dict[str, Any]:
    """Return a flow."""
    return {"id": str(FLOW), "name": "load-orders"}


def block_body(data: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a `process` block document as a 2.20 server sends it."""
    block_type = {"id": SCHEMA, "name": "Process", "slug": "process"}
    return {
        "id": str(BLOCK),
        "name": "small",
        "data": dict(data if data is not None else {"type": "process", "env": {}}),
        "block_schema_id": SCHEMA,
        "block_schema": {
            "id": SCHEMA,
            "checksum": "sha256:0",
            "fields": {},
            "block_type_id": SCHEMA,
        }
        | {"block_type": block_type},
        "block_type_id": SCHEMA,
        "block_type": block_type,
        "block_document_references": {},
        "is_anonymous": False,
    } | fields


@attrs.define(eq=False)
class Documents:
    """A server that has one of each; counts what is asked of it.

    Attributes:
        deployment, flow, block: bodies; None: deleted.
        meanwhile: awaited within each request, to delay it or make it fail.
        asked: the requests, e.g. `deployment`.
    """

    deployment: dict[str, Any] | None = attrs.field(factory=deployment_body)
    flow: dict[str, Any] | None = attrs.field(factory=flow_body)
    block: dict[str, Any] | None = attrs.field(factory=block_body)
    meanwhile: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    asked: list[str] = attrs.field(factory=list)

    async def read_deployment(self, deployment_id: UUID) -> Deployment:
        """Answer with the deployment, whatever the id."""
        return await self._answer("deployment", Deployment, deployment_id)

    async def read_flow(self, flow_id: UUID) -> Flow:
        """Answer with the flow."""
        return await self._answer("flow", Flow, flow_id)

    async def read_block_document(self, document_id: UUID) -> BlockDocument:
        """Answer with the block document."""
        return await self._answer("block", BlockDocument, document_id)

    async def _answer(self, what: str, kind: type[T], id_: UUID) -> T:
        self.asked.append(what)
        await self.meanwhile()
        body = getattr(self, what)
        if body is None:
            raise NotFound(Endpoint("GET", f"/{what}s/{{id}}"), f"{what} {id_}")
        return structure(body, kind)


def resolver(server: Documents, default_document: UUID | None = None) -> Resolver:
    """Make a resolver that reads from a server."""
    return Resolver(server, BASE, PYTHON, default_document)


async def resolve(server: Documents, run: Mapping[str, Any] | None = None) -> ProcessSpec:
    """Resolve one run, read just now."""
    found = structure(dict(run or run_body()), FlowRun)
    return await resolver(server).resolve(found, fresh_since=trio.current_time())
