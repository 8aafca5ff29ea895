"""A world for the daemon on a virtual clock: the stand-in server, imagined processes, a log.

Everything runs in one trio loop with `MockClock`; agents are real daemons that can be killed (by
cancelling them, without letting them append) while commands, server and log live on.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import httpx
import trio

from agent.daemon import Daemon, OnStop, Plan
from agent.infrastructure.launcher import (
    Ended,
    Evidence,
    LaunchFailed,
    LaunchInDoubt,
    ProcessSpec,
    Running,
)
from agent.infrastructure.resolve import Resolver
from agent.noticeboard import NoticeBoard
from agent.polling import QueuePoller
from agent.prefect.client import PrefectClient
from agent.profiles import Profile
from agent.settings import build
from agent.standin.app import StandinApp
from agent.standin.state import JSON, StandinState
from agent.standin.transport import StandinTransport
from agent.submission import World
from events.codec import decode
from events.group_commit import group_commit
from events.lifecycle import Event, OnUncertain, Verdict
from events.log import Stamp
from events.memory import MemoryStore
from events.notices import AGENT_STREAM, AgentStarted
from events.submission import Submission, fold

EPOCH = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
AGENT_ID = UUID("a6e27000-0000-4000-8000-000000000000")
BOOT = "boot-1"
QUEUE = "default"


def now() -> datetime:
    """The virtual wall clock."""
    return EPOCH + timedelta(seconds=trio.current_time())


def stamp() -> Stamp:
    """The virtual clock as the log wants it."""
    return Stamp(now().isoformat(timespec="microseconds"), int(trio.current_time() * 1e9))


@attrs.define(eq=False)
class Command:
    """An imagined process. `states` are proposed one after the other, `seconds` apart."""

    states: Sequence[str] = ("RUNNING", "COMPLETED")
    seconds: float = 1.0
    exit_code: int = 0
    refuses: str | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class ImaginedProcesses:
    """A launcher whose commands outlive agents, and which counts launches.

    Attributes:
        hangs: whoever launches waits for ever, and nothing is started.
    """

    nursery: trio.Nursery
    state: StandinState
    script: Callable[[str], Command]
    commands: dict[str, Command] = attrs.field(factory=dict)
    launches: list[str] = attrs.field(factory=list)
    specs: list[ProcessSpec] = attrs.field(factory=list)
    hangs: bool = False
    evidence_id: str = "the imagined spool"

    async def launch(self, key: str, spec: ProcessSpec) -> Running:
        """Start a command that plays its script against the server."""
        await trio.sleep_forever() if self.hangs else await trio.sleep(0.01)
        if key in self.commands:
            raise LaunchInDoubt("it was started before")
        run_id = spec.env["PREFECT__FLOW_RUN_ID"]
        assert run_id is not None
        command = self.script(run_id)
        if command.refuses is not None:
            raise LaunchFailed(command.refuses)
        self.commands[key] = command
        self.launches.append(run_id)
        self.specs.append(spec)
        self.nursery.start_soon(self._play, run_id, command)
        # The agent may die between the command's start and hearing of it.
        await trio.sleep(0.01)
        return self._running(key)

    async def _play(self, run_id: str, command: Command) -> None:
        for state in command.states:
            await trio.sleep(command.seconds)
            if run_id in self.state.runs:
                self.state.set_state(run_id, {"type": state}, force=False)
        await trio.sleep(command.seconds)
        command.ended.set()

    def _running(self, key: str) -> Running:
        pid = 1000 + list(self.commands).index(key)
        return Running(f"host:{pid}", pid, pid, BOOT)

    async def examine(
        self, key: str, *, evidence_id: str = "", known: Running | None = None
    ) -> Evidence:
        """Say what the imagined folder proves."""
        await trio.lowlevel.checkpoint()
        if evidence_id not in ("", self.evidence_id) and key not in self.commands:
            return Evidence(Verdict.NO_EVIDENCE, detail="another spool")
        command = self.commands.get(key)
        if command is None:
            return Evidence(Verdict.NEVER_RAN, detail="no exec record")
        if command.ended.is_set():
            ended = Ended(command.exit_code)
            return Evidence(Verdict.FINISHED, self._running(key), ended)
        return Evidence(Verdict.RUNNING, self._running(key), detail="its keeper is alive")

    async def wait(self, key: str, *, known: Running | None = None) -> Ended:
        """Wait for the end of a command."""
        await self.commands[key].ended.wait()
        return Ended(self.commands[key].exit_code)


@attrs.define(eq=False)
class SimulatedWorld:
    """The server, the processes, the log, and agents to come and go.

    Attributes:
        fault: called with each request before the server has it; may raise, wait, or answer.
        spoil: called with each answer; may raise, or answer otherwise.
    """

    nursery: trio.Nursery
    state: StandinState
    app: StandinApp
    processes: ImaginedProcesses
    store: MemoryStore
    requests: list[tuple[str, str]] = attrs.field(factory=list)
    fault: Callable[[httpx.Request], Any] | None = None
    spoil: Callable[[httpx.Request, httpx.Response], Any] | None = None
    prefixes: Sequence[str] = ()
    queues: Sequence[str] = (QUEUE,)

    def deployment(self, **fields: Any) -> JSON:
        """Create a deployment on the default queue."""
        flow = self.state.add(self.state.flows, {"name": "flow"})
        names = [queue["name"] for queue in self.state.queues.values()]
        if QUEUE not in names:
            self.state.create_queue(QUEUE)
        queue = self.state.queue_named(QUEUE)
        defaults = {
            "name": "deployment",
            "flow_id": flow["id"],
            "work_queue_id": queue["id"],
            "work_queue_name": QUEUE,
            "infrastructure_document_id": None,
            "job_variables": {},
        }
        return self.state.add(self.state.deployments, defaults | fields)

    def schedule(self, deployment: JSON, *, in_seconds: float = 0.0, **fields: Any) -> str:
        """Schedule a run and return its id."""
        due = (now() + timedelta(seconds=in_seconds)).isoformat()
        details = {"scheduled_time": due}
        state = {"type": "SCHEDULED", "state_details": details}
        run_id: str = self.state.create_run(deployment, state, fields)["id"]
        return run_id

    def state_of(self, run_id: str) -> str:
        """The type of a run's state at the server."""
        found: str = self.state.runs[run_id]["state"]["type"]
        return found

    def events(self, run_id: str, ordinal: int = 1) -> list[Event]:
        """What the log has of one submission."""
        return [decode(record) for record in self.store.read_stream(f"{run_id}/{ordinal}")]

    def submission(self, run_id: str, ordinal: int = 1) -> Submission:
        """The fold of one submission."""
        return fold(self.events(run_id, ordinal))

    def notices(self) -> list[Event]:
        """What happened to the agents."""
        return [decode(record) for record in self.store.read_stream(AGENT_STREAM)]

    def count(self, method: str, path_part: str) -> int:
        """How many requests were made of one kind."""
        return sum(m == method and path_part in path for m, path in self.requests)

    async def until(self, condition: Callable[[], bool], *, within_seconds: float = 3600) -> None:
        """Let virtual time pass until something holds."""
        with trio.fail_after(within_seconds):
            while not condition():  # noqa: ASYNC110 - any condition at all, of anything
                await trio.sleep(0.05)

    @asynccontextmanager
    async def agent(
        self, *, on_uncertain: OnUncertain = OnUncertain.CRASH, **plan: Any
    ) -> AsyncIterator[Daemon]:
        """Run an agent; leaving the block kills it, as far as a task can be killed."""
        settings = build(
            {"PREFECT_API_URL": "http://standin/api", "HOME": "/nowhere"},
            Profile(None, Path("/nowhere/profiles.toml")),
            {},
        )
        rng = random.Random(0)
        transport = WatchedTransport(StandinTransport(self.app), self)
        daemons: list[Daemon] = []
        async with (
            group_commit(self.store, in_thread=False) as log,
            PrefectClient(settings, transport=transport, rng=rng, now=now) as client,
            trio.open_nursery() as nursery,
        ):
            resolver = Resolver(client, {"PREFECT_API_URL": "http://standin/api"}, "python")

            def listen(*_told: object) -> None:
                for daemon in daemons:
                    daemon.note_change()

            world = World(log, client, self.processes, resolver, b"key", rng, listen, on_uncertain)
            board = await NoticeBoard.open(log)
            poller = QueuePoller(client, self.queues, self.prefixes, board.post)
            daemon = Daemon(world, poller, board, plan_for(**plan), now, rng)
            daemons.append(daemon)
            nursery.start_soon(_run, daemon)
            yield daemon
            nursery.cancel_scope.cancel()


async def _run(daemon: Daemon) -> None:
    await daemon.run(obey_signals=False)


def plan_for(
    *,
    limit: int | None = None,
    run_once: bool = False,
    on_stop: OnStop = OnStop.LEAVE,
    prefetch_seconds: float = 0.0,
    max_late_seconds: float | None = None,
) -> Plan:
    started = AgentStarted(
        version="0",
        agent_id=AGENT_ID,
        hostname="host",
        pid=1,
        boot_id=BOOT,
        server="http://standin/api",
        queues=(QUEUE,),
        limit=limit,
        prefetch_seconds=prefetch_seconds,
        open_submissions=0,
    )
    plan = Plan(limit, 5.0, prefetch_seconds, run_once, on_stop, started)
    return attrs.evolve(plan, max_late_seconds=max_late_seconds)


@attrs.define(eq=False)
class WatchedTransport(httpx.AsyncBaseTransport):
    """Counts requests, and lets the test come between."""

    inner: StandinTransport
    world: SimulatedWorld

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on, unless a fault says otherwise."""
        self.world.requests.append((request.method, request.url.path))
        if self.world.fault is not None:
            answer = self.world.fault(request)
            if isinstance(answer, httpx.Response):
                return answer
        response = await self.inner.handle_async_request(request)
        if self.world.spoil is not None:
            spoilt = self.world.spoil(request, response)
            if isinstance(spoilt, httpx.Response):
                return spoilt
        return response


def _ids(seed: int) -> Callable[[], UUID]:
    rng = random.Random(seed)
    return lambda: UUID(int=rng.getrandbits(128), version=4)


@asynccontextmanager
async def simulated_world(
    script: Callable[[str], Command] | None = None, *, flavour: str = "2.20", seed: int = 1
) -> AsyncIterator[SimulatedWorld]:
    """Make a world; its commands end with the block."""
    state = StandinState(now, _ids(seed), flavour)
    async with trio.open_nursery() as nursery:
        processes = ImaginedProcesses(nursery, state, script or (lambda _run: Command()))
        store = MemoryStore(AGENT_ID, stamp)
        yield SimulatedWorld(nursery, state, StandinApp(state), processes, store)
        nursery.cancel_scope.cancel()
