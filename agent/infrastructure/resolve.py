"""Works out what a flow run is launched on: its deployment, its document, overrides, preparation.

The server is read by `Resolver`; everything after the reading is pure. The result holds secrets
and stays in memory; `redact` makes what the log keeps of it. Called by the submission driver.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

import attrs
import cattrs
import trio

from agent.infrastructure.errors import ResolutionError
from agent.infrastructure.launcher import ProcessSpec
from agent.infrastructure.overrides import apply_overrides, merge_overrides
from agent.prefect.errors import NotFound
from agent.prefect.models import BlockDocument, Deployment, Flow, FlowRun

T = TypeVar("T")

PROCESS: Final = "process"
MOST_SHARED_READS: Final = 256


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


@attrs.frozen
class ProcessDocument:
    """The fields of a `process` block (Prefect 2.5 to 2.20)."""

    command: list[str] | None = None
    env: dict[str, str | None] | None = attrs.field(default=None, repr=False)
    labels: dict[str, str] | None = None
    name: str | None = None
    working_dir: str | None = None
    stream_output: bool | None = None


def default_python() -> str:
    """Return the interpreter of the default command, `python -m prefect.engine`.

    Our own when prefect is installed beside us (it is looked for, not imported), else the
    `python` of PATH: that of the activated virtual environment.
    """
    if importlib.util.find_spec("prefect") is not None:
        return sys.executable
    return shutil.which("python") or shutil.which("python3") or "python"


def read_process(data: Mapping[str, Any], where: str) -> ProcessDocument:
    """Make a process document of a block's data.

    Raises:
        ResolutionError: a field is not of its type; names the field, not the value.
    """
    try:
        return _CONVERTER.structure(data, ProcessDocument)
    except cattrs.BaseValidationError as error:
        fields = sorted({_field(problem) for problem in cattrs.transform_error(error, path="")})
        raise ResolutionError(f"{where} has a bad value in {', '.join(fields)}") from None


def _field(problem: str) -> str:
    return problem.rpartition("@ ")[2].strip(".") or "it"


def _strictly(kind: type[T]) -> Callable[[Any, Any], T]:
    def read(raw: Any, _type: Any) -> T:
        if not isinstance(raw, kind):
            raise TypeError(f"expected {kind.__name__}")
        return raw

    return read


def _as_text(raw: Any, _type: Any) -> str:
    # Prefect's own models turn numbers in `env` and `command` into text.
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        raise TypeError("expected text")
    return str(raw)


_CONVERTER: Final = cattrs.Converter()
_CONVERTER.register_structure_hook(str, _as_text)
_CONVERTER.register_structure_hook(bool, _strictly(bool))
attrs.resolve_types(ProcessDocument)


def prepare(
    document: ProcessDocument,
    run: FlowRun,
    deployment: Deployment,
    flow: Flow | None,
    *,
    base_environment: Mapping[str, str],
    python: str,
) -> ProcessSpec:
    """Make a document ready for one run, as Prefect 2.20's agent does.

    The document's own values win over the prepared ones, but for the run's id: without it the
    engine would not know what to run.
    """
    labels = {
        "prefect.io/flow-run-id": str(run.id),
        "prefect.io/flow-run-name": run.name,
        "prefect.io/deployment-name": deployment.name,
    }
    if deployment.updated is not None:
        labels["prefect.io/deployment-updated"] = deployment.updated.to_iso8601_string()
    if flow is not None:
        labels["prefect.io/flow-name"] = flow.name
    run_id = {"PREFECT__FLOW_RUN_ID": str(run.id)}
    return ProcessSpec(
        command=tuple(document.command or (python, "-m", "prefect.engine")),
        env={**base_environment, **(document.env or {}), **run_id},
        working_dir=document.working_dir,
        stream_output=document.stream_output is not False,
        labels={**labels, **(document.labels or {})},
        name=document.name or run.name,
    )


@attrs.define(eq=False)
class _Read:
    """One request that several submissions wait for."""

    began: float
    done: trio.Event = attrs.field(factory=trio.Event)
    result: Any = None


@attrs.define(eq=False)
class Resolver:
    """Reads what a run is launched on.

    Runs that one poll discovered share their reads: a deployment read after the poll began is
    no older than the poll's own answer, and forty runs of one deployment cost three requests
    instead of a hundred and twenty. A read that fails is nobody's but its own.

    Attributes:
        base_environment: what every job is given (the agent's own Prefect settings).
        python: the interpreter of the default command.
        default_document: the block document for deployments without one; None for a process.
    """

    server: DocumentServer
    base_environment: Mapping[str, str] = attrs.field(repr=False)
    python: str
    default_document: UUID | None = None
    _reads: dict[tuple[str, UUID], _Read] = attrs.field(factory=dict, repr=False)

    async def resolve(self, run: FlowRun, *, fresh_since: float) -> ProcessSpec:
        """Return what to launch for a run.

        Args:
            run: as the server handed it out.
            fresh_since: trio's time; nothing that was read earlier is used.

        Raises:
            ResolutionError: it can't be worked out, whenever it is tried.
            ApiError: the server gave no usable answer now.
        """
        if run.deployment_id is None:
            raise ResolutionError("the flow run has no deployment, so nothing says how to run it")
        read = self._reading_since(fresh_since)
        deployment = await _existing(
            read("deployment", run.deployment_id, self.server.read_deployment),
            f"deployment {run.deployment_id} no longer exists",
        )
        flow_id = deployment.flow_id or run.flow_id
        flow = None
        if flow_id is not None:
            flow = await _existing(
                read("flow", flow_id, self.server.read_flow), f"flow {flow_id} no longer exists"
            )
        document = await self._document(deployment, run, read)
        return prepare(
            document,
            run,
            deployment,
            flow,
            base_environment=self.base_environment,
            python=self.python,
        )

    async def _document(self, deployment: Deployment, run: FlowRun, read: Any) -> ProcessDocument:
        overrides = merge_overrides(deployment.job_variables, run.job_variables)
        document_id = deployment.infrastructure_document_id or self.default_document
        where = f"the infrastructure of deployment {deployment.name!r}"
        if document_id is None:
            # Prefect 3 has no infrastructure blocks: there a deployment's job variables are all
            # that can be said about a process, so the default one takes them too.
            return read_process(apply_overrides({}, overrides), where)
        block = await _existing(
            read("block", document_id, self.server.read_block_document),
            f"infrastructure block {document_id} of {deployment.name!r} no longer exists",
        )
        kind = block.block_type_slug or block.data.get("type")
        if kind != PROCESS:
            raise ResolutionError(
                f"{where} is block {block.name or block.id!s} of type {kind!r}; this agent"
                f" launches {PROCESS!r} blocks"
            )
        return read_process(apply_overrides(block.data, overrides), where)

    def _reading_since(self, fresh_since: float) -> Any:
        async def read(kind: str, id_: UUID, request: Callable[[UUID], Awaitable[T]]) -> T:
            while (found := self._reads.get((kind, id_))) and found.began >= fresh_since:
                await found.done.wait()
                if found.result is not None:
                    result: T = found.result
                    return result
                # It failed, or whoever asked was cancelled: one of those that waited asks again.
                if self._reads.get((kind, id_)) is found:
                    del self._reads[kind, id_]
            return await self._request(kind, id_, request)

        return read

    async def _request(self, kind: str, id_: UUID, request: Callable[[UUID], Awaitable[T]]) -> T:
        while len(self._reads) >= MOST_SHARED_READS:
            del self._reads[next(iter(self._reads))]
        mine = self._reads[kind, id_] = _Read(trio.current_time())
        try:
            mine.result = await request(id_)
            result: T = mine.result
            return result
        finally:
            mine.done.set()


async def _existing(reading: Awaitable[T], otherwise: str) -> T:
    try:
        return await reading
    except NotFound:
        raise ResolutionError(otherwise) from None
