"""Stands in for all that a submission's driver acts on: server, launcher, log, chance.

The client and the resolver are the daemon's own; what they are given comes out of the record.
Each double first waits for its turn at the `stage`, so that the answers come in the recorded
order. `execution` builds one world for each life.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

import attrs
import httpx
import orjson
import trio

from agent.infrastructure.launcher import (
    Ended,
    Evidence,
    LaunchFailed,
    LaunchInDoubt,
    ProcessSpec,
    Running,
)
from agent.infrastructure.resolve import Resolver
from agent.prefect import client
from agent.prefect.client import PrefectClient
from agent.prefect.models import FlowRun, PastState, StateAnswer, StateProposal
from agent.profiles import Profile, SettingsError
from agent.settings import Settings, build
from agent.submission import World
from events import decider
from events.lifecycle import Effect, OnUncertain, Transition, Verdict
from events.log import Draft, Record
from events.observations import (
    CommandEnded,
    CommandRefused,
    CommandStarted,
    EvidenceFound,
    InfrastructureResolved,
    LaunchUncertain,
    Observation,
    RequestFailed,
)
from events.submission import Submission
from replay.reexecution.answers import AsRecorded, RecordedServer, endpoint_of
from replay.reexecution.recording import Entry, Recording
from replay.reexecution.stage import Stage

DIGEST_KEY: Final = b"no digest of a re-execution is compared"

OWN_MISTAKE: Final = "internal error, "
"""How the driver begins what it says of an exception that nobody had foreseen."""

_NO_URL: Final = "http://not-in-the-log.invalid/api"


def world_of(stage: Stage, recording: Recording) -> World:
    """Build the world of one life."""
    server = RecordedServer.of(recording.discovered, stage.life)
    settings = _settings(stage, server)
    transport = RecordedTransport(stage, server, httpx.URL(settings.require_api_url()).path)
    real = PrefectClient(
        settings,
        transport=transport,
        rng=random.Random(0),  # noqa: S311 - jitter, which nobody waits for
        now=lambda: _wall_clock(stage),
    )
    python, default = server.resolver_facts.python, server.resolver_facts.default_document
    evidence = next(stage.life.of_type(EvidenceFound), None)
    return World(
        log=RecordedLog(stage, recording),
        server=ServerInTurn(stage, real),
        launcher=RecordedLauncher(stage),
        infrastructure=ResolverInTurn(stage, real, python, default),
        digest_key=DIGEST_KEY,
        random=RecordedJitter.of(stage),
        listener=lambda *_told: None,
        on_uncertain=OnUncertain.CRASH if evidence is None else evidence.on_uncertain,
        decide=partial(_decide, stage),
    )


def _decide(stage: Stage, submission: Submission, seen: Observation) -> Sequence[Transition]:
    stage.look_on(seen)
    return decider.decide(submission, seen)


def _settings(stage: Stage, server: RecordedServer) -> Settings:
    """Return the settings under which the client says what is recorded.

    Nothing is sent twice: of a series of tries the log has the last outcome only, and when.
    """
    facts, agent = server.facts, stage.life.agent
    environment = {"PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": str(facts.asks_for_tokens).lower()}
    if facts.timeout is not None:
        environment["PREFECT_API_REQUEST_TIMEOUT"] = facts.timeout
    # The client masks its credentials in what a server says, so these must not occur there.
    if facts.credentials == "PREFECT_API_KEY":
        environment["PREFECT_API_KEY"] = secrets.token_hex()
    if facts.credentials == "PREFECT_API_AUTH_STRING":
        environment["PREFECT_API_AUTH_STRING"] = f"{secrets.token_hex()}:{secrets.token_hex()}"
    url = facts.url or (agent.notice.server if agent else "")
    try:
        return _built(environment, url)
    except SettingsError:
        # No agent has run with such settings: the log was written by something else.
        return _built({}, _NO_URL)


def _built(environment: Mapping[str, str], url: str) -> Settings:
    fixed = {
        "PREFECT_API_URL": url or _NO_URL,
        "PREFECT_CLIENT_MAX_RETRIES": "0",
        "HOME": "/nowhere",
    }
    return build({**environment, **fixed}, Profile(None, Path("/nowhere/profiles.toml")), {})


def _wall_clock(stage: Stage) -> datetime:
    entry = stage.next or stage.life.entries[-1]
    return datetime.fromisoformat(entry.record.recorded_at).astimezone(UTC)


# --- the server --------------------------------------------------------------------------------


@attrs.define(eq=False)
class ServerInTurn:
    """The daemon's own client, which is let through when the record has its answer next."""

    stage: Stage
    client: PrefectClient

    async def set_state(
        self, flow_run_id: UUID, proposal: StateProposal, *, retry: bool = True
    ) -> StateAnswer:
        """See `agent.submission.Server`."""
        claims = proposal.type == "PENDING"
        await self.stage.turn(
            Effect.PROPOSE_PENDING if claims else Effect.REPORT_OUTCOME, "set_state"
        )
        return await self.client.set_state(flow_run_id, proposal, retry=retry)

    async def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        """See `agent.submission.Server`."""
        await self.stage.turn(Effect.READ_RUN, "read_flow_run")
        return await self.client.read_flow_run(flow_run_id)

    async def read_flow_run_states(self, flow_run_id: UUID) -> Sequence[PastState]:
        """See `agent.submission.Server`."""
        # The run's history is read after the run, or before a state of it is given back.
        outcome = self.stage.submission.outcome
        gives_back = outcome is not None and not self.stage.submission.in_doubt
        await self.stage.turn(
            Effect.REPORT_OUTCOME if gives_back else Effect.READ_RUN, "read_flow_run_states"
        )
        return await self.client.read_flow_run_states(flow_run_id)

    async def set_infrastructure_pid(self, flow_run_id: UUID, infrastructure_pid: str) -> None:
        """See `agent.submission.Server`."""
        await self.stage.turn(Effect.REPORT_PID, "set_infrastructure_pid")
        await self.client.set_infrastructure_pid(flow_run_id, infrastructure_pid)


@attrs.define(eq=False)
class ResolverInTurn:
    """The daemon's own resolver; it reads anew each time, for the log has no reads of others."""

    stage: Stage
    client: PrefectClient
    python: str
    default_document: UUID | None

    async def resolve(self, run: FlowRun, *, fresh_since: float) -> ProcessSpec:
        """See `agent.submission.InfrastructureSource`."""
        await self.stage.turn(Effect.RESOLVE, "resolve")
        resolver = Resolver(self.client, {}, self.python, self.default_document)
        return await resolver.resolve(run, fresh_since=fresh_since)


@attrs.define(eq=False)
class RecordedTransport(httpx.AsyncBaseTransport):
    """Answers the client's requests from the record, and looks at what they ask for."""

    stage: Stage
    server: RecordedServer
    base: str

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx's custom transports."""
        entry, path = self.stage.handed_out, request.url.path.removeprefix(self.base)
        endpoint = endpoint_of(request.method, path)
        if entry is None or endpoint is None:
            await self.stage.diverge(f"the daemon sends {request.method} {path} here")
        await self._check(endpoint == client.SET_STATE, path, await request.aread())
        reply = self.server.reply(endpoint, entry, self.stage.submission)
        self.stage.stood_in |= reply.stands_in
        if reply.response is None:
            raise reply.error or LookupError(f"nothing answers {endpoint}")
        return reply.response

    async def _check(self, is_proposal: bool, path: str, body: bytes) -> None:
        """Hold what is asked for against the intents that the log had by then."""
        submission = self.stage.submission
        if path.startswith("/flow_runs/"):
            run = {"flow_run_id": path.split("/")[2]}
            await self.stage.expect(
                "the run", {"flow_run_id": str(submission.run.flow_run_id)}, run
            )
        if is_proposal:
            state = orjson.loads(body)["state"]
            asked = {name: state[name] for name in ("type", "name", "message")}
            asked |= {"transition_id": state["state_details"]["transition_id"]}
            await self.stage.expect("the proposed state", _intent(submission, state["type"]), asked)
        elif body:
            confirmed = submission.confirmed
            known = {"infrastructure_pid": confirmed and confirmed.infrastructure_pid}
            await self.stage.expect("the reported pid", known, orjson.loads(body))


def _intent(submission: Submission, type_: str) -> dict[str, str | None]:
    claim, outcome = submission.claim, submission.outcome
    if type_ == "PENDING" and claim is not None:
        return {
            "type": "PENDING",
            "name": "Pending",
            "message": None,
            "transition_id": str(claim.transition_id),
        }
    if outcome is None:
        return {}
    return {
        "type": outcome.state_type,
        "name": outcome.state_name,
        "message": outcome.message,
        "transition_id": str(outcome.transition_id),
    }


# --- the launcher ------------------------------------------------------------------------------


@attrs.define(eq=False)
class RecordedLauncher:
    """A launcher that starts nothing and finds what was found."""

    stage: Stage

    @property
    def evidence_id(self) -> str:
        """See `Launcher`."""
        entry = self.stage.next
        if entry is not None and isinstance(entry.event, InfrastructureResolved):
            return entry.event.evidence_id
        return ""

    async def launch(self, key: str, spec: ProcessSpec) -> Running:
        """See `Launcher`."""
        entry = await self.stage.turn(Effect.LAUNCH, "launch")
        submission, launch = self.stage.submission, self.stage.submission.launch
        announced = {
            "key": submission.launch_key,
            "command": launch and launch.command,
            "working_dir": launch and launch.working_dir,
        }
        asked = {"key": key, "command": spec.command, "working_dir": spec.working_dir}
        await self.stage.expect("the launch", announced, asked)
        match entry.event:
            case CommandStarted() as who:
                return Running(who.infrastructure_pid, who.pid, who.start_time, who.boot_id)
            case CommandRefused(error=error):
                raise LaunchFailed(error)
            case LaunchUncertain(error=error):
                self._note_own_mistake(error)
                raise LaunchInDoubt(error)
            case _:
                raise _no_answer(entry)

    async def examine(self, key: str, *, evidence_id: str, known: Running | None) -> Evidence:
        """See `Launcher`."""
        entry = await self.stage.turn(Effect.EXAMINE, "examine")
        launch = self.stage.submission.launch
        place = "" if launch is None else launch.evidence_id
        announced = {"key": self.stage.submission.launch_key, "evidence_id": place}
        await self.stage.expect("the key", announced, {"key": key, "evidence_id": evidence_id})
        match entry.event:
            case EvidenceFound() as found:
                return _evidence(found)
            case RequestFailed(error=error):
                self._note_own_mistake(error)
                raise LaunchInDoubt(error)
            case _:
                raise _no_answer(entry)

    async def wait(self, key: str, *, known: Running | None) -> Ended:
        """See `Launcher`."""
        entry = await self.stage.turn(Effect.WATCH, "wait")
        await self.stage.expect("the key", {"key": self.stage.submission.launch_key}, {"key": key})
        match entry.event:
            case CommandEnded(exit_code=exit_code, reason=reason):
                return Ended(exit_code, reason)
            case RequestFailed() as failed:
                self._note_own_mistake(failed.error)
                raise AsRecorded(client.READ_RUN, failed)
            case _:
                raise _no_answer(entry)

    def _note_own_mistake(self, error: str) -> None:
        self.stage.stood_in |= error.startswith(OWN_MISTAKE)


def _no_answer(entry: Entry) -> LookupError:
    return LookupError(f"no launcher answers with {entry.record.type}")


def _evidence(found: EvidenceFound) -> Evidence:
    running = None
    match (found.infrastructure_pid, found.pid, found.start_time, found.boot_id):
        case (str() as name, int() as pid, int() as start, str() as boot):
            running = Running(name, pid, start, boot)
    over = found.exit_code is not None or found.verdict in (Verdict.FINISHED, Verdict.LOST)
    ended = Ended(found.exit_code, found.detail) if over else None
    return Evidence(found.verdict, running, ended, found.detail)


# --- the log, and chance -----------------------------------------------------------------------


@attrs.define(eq=False)
class RecordedLog:
    """A log that takes what it has already."""

    stage: Stage
    recording: Recording

    async def append(
        self,
        stream: str,
        expected_version: int,
        drafts: Sequence[Draft],
        *,
        closes: bool = False,
    ) -> Sequence[Record]:
        """See `EventLog`."""
        first = self.stage.at
        await self.stage.append(stream, expected_version, drafts, closes=closes)
        return [entry.record for entry in self.recording.entries[first : self.stage.at]]

    async def read_stream(self, stream: str, after_version: int = 0) -> Sequence[Record]:
        """See `EventLog`: what this life found when it began."""
        await trio.lowlevel.checkpoint()
        return [entry.record for entry in self.recording.entries[after_version : self.stage.at]]

    async def open_streams(self) -> Sequence[str]:
        """See `EventLog`."""
        return [self.recording.stream]

    async def streams(self, prefix: str = "") -> Sequence[str]:
        """See `EventLog`."""
        return [name for name in [self.recording.stream] if name.startswith(prefix)]

    async def version_of(self, stream: str) -> int:
        """See `EventLog`."""
        return self.stage.at


class RecordedJitter(random.Random):
    """The jitter that was drawn then."""

    stage: Stage

    @classmethod
    def of(cls, stage: Stage) -> RecordedJitter:
        """Make one for a life."""
        jitter = cls(0)
        jitter.stage = stage
        return jitter

    def random(self) -> float:
        """Return what the next entry says was drawn."""
        entry = self.stage.next
        if entry is not None and isinstance(entry.event, RequestFailed):
            return entry.event.jitter
        return 0.0
