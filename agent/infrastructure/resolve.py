"""Works out what a flow run is launched on: its deployment, its document, overrides, preparation.

`Resolver` reads the server; everything after the reading is pure. The result holds secrets and
stays in memory; `redact` makes what the log keeps of it. Called by the submission driver.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Iterator, Mapping
from typing import Any, Protocol, TypeVar
from uuid import UUID

import attrs

from agent.infrastructure.document import PROCESS, read_process_document
from agent.infrastructure.errors import ResolutionError
from agent.infrastructure.launcher import ProcessSpec
from agent.infrastructure.overrides import apply_job_variables
from agent.infrastructure.prepare import default_python, prepare
from agent.infrastructure.shared_reads import SharedReads
from agent.prefect.errors import NotFound
from agent.prefect.models import BlockDocument, Deployment, Flow, FlowRun

__all__ = ["DocumentServer", "ResolutionError", "Resolver", "default_python"]

T = TypeVar("T")


class DocumentServer(Protocol):
    """What resolution reads from the Prefect server (`agent.prefect.client` answers)."""

    async def read_deployment(self, deployment_id: UUID) -> Deployment:
        """Read a deployment."""
        ...

    async def read_flow(self, flow_id: UUID) -> Flow:
        """Read a flow."""
        ...

    async def read_block_document(self, document_id: UUID) -> BlockDocument:
        """Read a block document with its secrets; the server has put nested documents in."""
        ...


@attrs.define(eq=False)
class Resolver:
    """Reads what runs are launched on.

    Runs that one poll discovered share their reads: forty runs of one deployment cost three
    requests instead of a hundred and twenty. A run is never launched on anything older than the
    poll that found it. The poll's answer may be as old as the moment at which it was asked for;
    a read counts only if it began then or later, so all that the server had taken before the
    poll was sent is in it. With the moment at which the poll's answer was in hand for
    `fresh_since`, it even holds that whatever the poll can have seen (say, a run that was
    scheduled after its deployment had been changed) came before the read.

    Attributes:
        base_environment: what every job is given (the agent's own Prefect settings).
        python: the interpreter of the default command.
        default_document: the block document for deployments without one; None for a process.
    """

    server: DocumentServer
    base_environment: Mapping[str, str] = attrs.field(repr=False)
    python: str
    default_document: UUID | None = None
    _reads: SharedReads = attrs.field(factory=SharedReads, repr=False, init=False)

    async def resolve(self, run: FlowRun, *, fresh_since: float) -> ProcessSpec:
        """Return what to launch for a run.

        Args:
            run: as the server handed it out.
            fresh_since: trio's time; nothing that was asked for earlier is used.

        Raises:
            ResolutionError: it can't be worked out, whenever it is tried.
            ApiError: the server gave no usable answer now.
        """
        if run.deployment_id is None:
            raise ResolutionError("the flow run has no deployment, so nothing says how to run it")
        deployment = await _existing(
            self._reads.read(
                self.server.read_deployment, run.deployment_id, fresh_since=fresh_since
            ),
            f"deployment {run.deployment_id} no longer exists",
        )
        flow = await self._flow(deployment, run, fresh_since)
        data = await self._infrastructure(deployment, fresh_since)
        with _about(f"the infrastructure of deployment {deployment.name!r}"):
            # Prefect's agent applies overrides to a deployment's own block only. Here they count
            # for the default infrastructure as well: on Prefect 3, which has no infrastructure
            # blocks, they are all that a deployment can say.
            document = read_process_document(
                apply_job_variables(data, deployment.job_variables, run.job_variables)
            )
        return prepare(
            document,
            run,
            deployment,
            flow,
            base_environment=self.base_environment,
            python=self.python,
        )

    async def _flow(self, deployment: Deployment, run: FlowRun, fresh_since: float) -> Flow | None:
        flow_id = deployment.flow_id or run.flow_id
        if flow_id is None:
            return None
        return await _existing(
            self._reads.read(self.server.read_flow, flow_id, fresh_since=fresh_since),
            f"flow {flow_id} of deployment {deployment.name!r} no longer exists",
        )

    async def _infrastructure(
        self, deployment: Deployment, fresh_since: float
    ) -> Mapping[str, Any]:
        """Return the data of the block document that a deployment's runs are launched on."""
        own = deployment.infrastructure_document_id
        document_id = own or self.default_document
        if document_id is None:
            return {}
        user = f"deployment {deployment.name!r}" if own else "the agent's default infrastructure"
        block = await _existing(
            self._reads.read(self.server.read_block_document, document_id, fresh_since=fresh_since),
            f"infrastructure block {document_id} of {user} no longer exists",
        )
        _require_process(block, user)
        return block.data


def _require_process(block: BlockDocument, user: str) -> None:
    kind = block.block_type_slug or block.data.get("type")
    if kind != PROCESS:
        which = f"{kind!r} block" if isinstance(kind, str) else "the untyped block"
        raise ResolutionError(
            f"this release launches {PROCESS!r} blocks; {user} uses {which}"
            f" {block.name or str(block.id)!r}"
        )


@contextlib.contextmanager
def _about(what: str) -> Iterator[None]:
    try:
        yield
    except ResolutionError as error:
        raise ResolutionError(f"{what}: {error.reason}") from None


async def _existing(reading: Awaitable[T], otherwise: str) -> T:
    try:
        return await reading
    except NotFound:
        raise ResolutionError(otherwise) from None
