"""The whole daemon in one loop on a virtual clock, with all that can go wrong, from one seed.

`simulate(seed)` draws runs, commands and faults, lets agents work, die and come back, and then lets
everything come to rest; `invariants` says what must hold all the time and at the end. The same
seed gives the same logs, byte for byte. `soak` runs many, `shrink` finds out which faults it takes.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock
from uuid import UUID

import attrs
import httpx
import trio
import trio._core._run as trio_internals
from trio.abc import Instrument
from trio.testing import MockClock

from agent.daemon import Daemon, Plan
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
from agent.standin.transport import StandinTransport
from agent.submission import SubmissionDriver, World
from events.codec import decode
from events.group_commit import group_commit
from events.lifecycle import Verdict
from events.log import Append, LogError, LogWriteFailed, Record, Stamp, VersionConflict
from events.memory import MemoryStore
from events.submission import fold
from tests.simulation import faults
from tests.simulation.faults import BY_TIME, Fault, Kind
from tests.simulation.world import (
    AGENT_ID,
    QUEUE,
    Command,
    ImaginedProcesses,
    SimulatedWorld,
    now,
    plan_for,
    simulated_world,
)

CANARY: Final = "c4n4ry-in-the-environment"
FAULTS_END_SECONDS: Final = 60.0
REST_WITHIN_SECONDS: Final = 3600.0

_agent: contextvars.ContextVar[Life | None] = contextvars.ContextVar("agent", default=None)


class Killed(BaseException):
    """The agent's process died here. Nothing in it may catch this."""


@attrs.define(eq=False)
class Life:
    """One agent from its start to its death."""

    agent: SimulatedAgent
    dead: bool = False
    died: trio.Event = attrs.field(factory=trio.Event)

    def die(self) -> None:
        """Let nothing that this agent does take effect any more."""
        if not self.dead:
            self.dead = True
            self.died.set()


_COUNTED: Final[tuple[str, ...]] = ("step", "append", "request", "launch")


@attrs.define(eq=False)
class SimulatedAgent:
    """One agent over all its lives: its log, and how far it has come.

    Attributes:
        counts: its steps, appends, requests and launches so far, over all lives.
        due: the faults that are still to strike it, by what they count.
    """

    number: int
    store: MemoryStore
    counts: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(_COUNTED, 0))
    due: dict[tuple[str, int], list[Fault]] = attrs.field(factory=dict)
    survives_in_doubt: bool = False
    life: Life | None = None

    def count(self, what: str) -> Sequence[Fault]:
        """Go on by one; return what strikes now."""
        self.counts[what] += 1
        return self.due.get((what, self.counts[what]), ())


def _counted(kind: Kind) -> str:
    return next((word for word in ("step", "append", "launch") if word in kind), "request")


@attrs.define(eq=False)
class Simulation:
    """One seed under way.

    Attributes:
        kills: how often an agent was killed, by where.
        broken: the invariants that did not hold.
        scheduled: how often each run was scheduled.
        touched: the runs that a person changed.
    """

    seed: int
    world: SimulatedWorld
    agents: list[SimulatedAgent]
    schedule: Sequence[Fault]
    rng: random.Random
    processes: FaultyProcesses
    kills: dict[str, int] = attrs.field(factory=dict)
    broken: list[str] = attrs.field(factory=list)
    scheduled: dict[str, int] = attrs.field(factory=dict)
    touched: set[str] = attrs.field(factory=set)
    server_down_until: float = 0.0
    clock_offset: float = 0.0

    def complain(self, what: str) -> None:
        """Note that an invariant does not hold."""
        self.broken.append(what)

    def kill(self, life: Life, where: str) -> None:
        """Kill an agent."""
        if not life.dead:
            self.kills[where] = self.kills.get(where, 0) + 1
            life.die()

    def now(self) -> datetime:
        """The host's wall clock, which may have jumped."""
        return now() + timedelta(seconds=self.clock_offset)

    def stamp(self) -> Stamp:
        """The host's clocks, for the log."""
        wall = self.now().isoformat(timespec="microseconds")
        return Stamp(wall, int(trio.current_time() * 1e9))


# --- an agent's surroundings, each of which ends with it ---------------------------------------


@attrs.define(eq=False)
class FaultyStore:
    """The disk of one life. Reading is what the memory store does."""

    simulation: Simulation
    life: Life
    path: str = "(simulated)"

    def __getattr__(self, name: str) -> Any:
        if self.life.dead:
            raise Killed
        return getattr(self.life.agent.store, name)

    def commit(self, appends: Sequence[Append]) -> Sequence[Sequence[Record] | VersionConflict]:
        """Commit, or die, or fail."""
        agent, life = self.life.agent, self.life
        if life.dead:
            raise Killed
        strikes = {fault.kind: fault for fault in agent.count("append")}
        if Kind.KILL_BEFORE_APPEND in strikes:
            self.simulation.kill(life, "before an append")
            raise Killed
        error: BaseException | None = None
        if fault := strikes.get(Kind.KILL_IN_APPEND):
            error = Killed()
        elif fault := strikes.get(Kind.DISK_FULL_AT_APPEND):
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif fault := strikes.get(Kind.DISK_ERROR_AT_APPEND):
            error = OSError(errno.EIO, os.strerror(errno.EIO))
        if error is not None and fault is not None:
            # A full disk is told before anything is written; a failed sync may have worked.
            full = fault.kind is Kind.DISK_FULL_AT_APPEND
            agent.survives_in_doubt = fault.value % 2 == 1 and not full
            if isinstance(error, Killed):
                self.simulation.kill(life, "in an append")
            with mock.patch.object(agent.store, "_sync", mock.Mock(side_effect=error)):
                return agent.store.commit(appends)
        outcomes = agent.store.commit(appends)
        if Kind.KILL_AFTER_APPEND in strikes:
            self.simulation.kill(life, "after an append")
            raise Killed
        return outcomes


@attrs.define(eq=False)
class FaultyTransport(httpx.AsyncBaseTransport):
    """The network of one life."""

    simulation: Simulation
    life: Life
    inner: StandinTransport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on, unless something strikes."""
        await self._if_alive()
        self._check_intent(request)
        faults_ = self.life.agent.count("request")
        if trio.current_time() < self.simulation.server_down_until:
            raise httpx.ConnectError("connection refused")
        fault = faults_[0] if faults_ else None
        match fault.kind if fault else None:
            case Kind.REQUEST_LOST:
                raise httpx.ConnectError("connection reset")
            case Kind.REQUEST_REFUSED:
                assert fault is not None
                status = faults.STATUSES[fault.value % len(faults.STATUSES)]
                return httpx.Response(status, json={"detail": "strained"})
            case Kind.REQUEST_DELAYED:
                assert fault is not None
                # What is in the network arrives, whatever becomes of the sender.
                with trio.CancelScope(shield=True):
                    await trio.sleep(fault.value / 10)
                    return await self._answer(request, dead_too=True)
            case Kind.REQUEST_TIMES_OUT:
                assert fault is not None
                if fault.value % 2:
                    await self._answer(request)
                await trio.sleep(30)
                raise httpx.ReadTimeout("no answer")
            case Kind.ANSWER_LOST:
                await self._answer(request)
                raise httpx.RemoteProtocolError("the server went away")
            case Kind.REQUEST_TWICE:
                await self._answer(request)
                return await self._answer(request)
            case Kind.ANSWER_MALFORMED:
                await self._answer(request)
                return httpx.Response(200, content=b'{"half": ')
        return await self._answer(request)

    def _check_intent(self, request: httpx.Request) -> None:
        """Complain of a proposal that the log does not know, or that the facts contradict."""
        if not request.url.path.endswith("/set_state"):
            return
        run = request.url.path.split("/")[-2]
        state = json.loads(request.content)["state"]
        agent = self.life.agent
        records = [
            record
            for stream in agent.store.streams(f"{run}/")
            for record in agent.store.read_stream(stream)
        ]
        id_ = state["state_details"]["transition_id"]
        intents = [r for r in records if r.type in ("PendingProposed", "OutcomeProposed")]
        if not any(id_ in record.data for record in intents):
            self.simulation.complain(f"{run}: {state['type']} was proposed before the log had it")
        # A run that a person rescheduled may live on as an earlier submission.
        of_one = run not in self.simulation.touched
        if of_one and state["type"] == "CRASHED" and self.simulation.processes.lives(run):
            self.simulation.complain(f"{run}: reported as Crashed while it runs")

    async def _answer(self, request: httpx.Request, *, dead_too: bool = False) -> httpx.Response:
        if not dead_too:
            await self._if_alive()
        if trio.current_time() < self.simulation.server_down_until:
            raise httpx.ConnectError("connection refused")
        return await self.inner.handle_async_request(request)

    async def _if_alive(self) -> None:
        if self.life.dead:
            raise Killed


class FaultyProcesses(ImaginedProcesses):
    """The host's processes, which outlive agents but not the host."""

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self.lost: set[str] = set()
        self.runs: dict[str, str] = {}

    def lives(self, run_id: str) -> bool:
        """Tell whether any command of a run lives."""
        keys = (key for key, run in self.runs.items() if run == run_id and key in self.commands)
        return any(not self.commands[key].ended.is_set() for key in keys)

    async def launch(self, key: str, spec: ProcessSpec) -> Running:
        """Start a command that plays its script against the server."""
        self.runs.setdefault(key, spec.env["PREFECT__FLOW_RUN_ID"] or "")
        return await super().launch(key, spec)

    def reboot(self) -> None:
        """End every command that runs, without a word from it."""
        for key, command in self.commands.items():
            if not command.ended.is_set():
                self.lost.add(key)
                command.states = ()
                command.ended.set()

    async def _play(self, run_id: str, command: Command) -> None:
        for state in command.states:
            await trio.sleep(command.seconds)
            if command.ended.is_set():
                return
            if run_id in self.state.runs:
                self.state.set_state(run_id, {"type": state}, force=False)
        await trio.sleep(command.seconds)
        command.ended.set()

    async def examine(
        self, key: str, *, evidence_id: str = "", known: Running | None = None
    ) -> Evidence:
        """Say what the imagined folder proves."""
        if key in self.lost:
            await trio.lowlevel.checkpoint()
            return Evidence(Verdict.LOST, self._running(key), detail="the host was rebooted")
        return await super().examine(key, evidence_id=evidence_id, known=known)

    async def wait(self, key: str, *, known: Running | None = None) -> Ended:
        """Wait for the end of a command."""
        ended = await super().wait(key, known=known)
        return Ended(None, "the host was rebooted") if key in self.lost else ended


@attrs.define(eq=False)
class FaultyLauncher:
    """The launcher of one life: the processes live on, the way to them does not."""

    simulation: Simulation
    life: Life

    @property
    def evidence_id(self) -> str:
        """See `Launcher`."""
        return self.simulation.processes.evidence_id

    async def launch(self, key: str, spec: ProcessSpec) -> Running:
        """See `Launcher`."""
        self._if_alive()
        kinds = {fault.kind for fault in self.life.agent.count("launch")}
        if Kind.LAUNCH_FAILS in kinds:
            raise LaunchFailed("no such command")
        if Kind.LAUNCH_IN_DOUBT_BEFORE in kinds:
            raise LaunchInDoubt("the keeper went away")
        self._check_intent(key, spec)
        running = await self.simulation.processes.launch(self._own(key), spec)
        if Kind.LAUNCH_IN_DOUBT_AFTER in kinds:
            raise LaunchInDoubt("the keeper went away")
        return running

    async def examine(self, key: str, *, evidence_id: str, known: Running | None) -> Evidence:
        """See `Launcher`."""
        self._if_alive()
        processes = self.simulation.processes
        return await processes.examine(self._own(key), evidence_id=evidence_id, known=known)

    async def wait(self, key: str, *, known: Running | None) -> Ended:
        """See `Launcher`."""
        self._if_alive()
        return await self.simulation.processes.wait(self._own(key), known=known)

    def _own(self, key: str) -> str:
        """Each agent has a spool of its own."""
        return f"{self.life.agent.number}/{key}"

    def _check_intent(self, key: str, spec: ProcessSpec) -> None:
        store, run = self.life.agent.store, spec.env["PREFECT__FLOW_RUN_ID"]
        stream = store.streams(f"{run}/")[-1]
        submission = fold((decode(r) for r in store.read_stream(stream)), stream)
        if submission.launch is None or submission.launch_key != key:
            self.simulation.complain(f"{stream}: launched before the log had it")

    def _if_alive(self) -> None:
        if self.life.dead:
            raise Killed


class StepCounter(Instrument):
    """Counts the steps of each agent's tasks, and kills at the one that a fault names."""

    simulation: Simulation | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See trio's instruments."""
        life = task.context.get(_agent)
        if life is None or life.dead or self.simulation is None:
            return
        for _fault in life.agent.count("step"):
            self.simulation.kill(life, "at an await point")


# --- a life, and the time between two ----------------------------------------------------------


async def _live(simulation: Simulation, agent: SimulatedAgent) -> None:
    """Run an agent until it dies; return in any case with a log that the next one can open."""
    agent.life = life = Life(agent)
    async with trio.open_nursery() as nursery:
        _agent.set(life)
        nursery.start_soon(_work, simulation, life)
        _agent.set(None)
        await life.died.wait()
        nursery.cancel_scope.cancel()
    in_doubt, agent.survives_in_doubt = agent.survives_in_doubt, False
    agent.store = agent.store.crash_copy(in_doubt=in_doubt)


async def _work(simulation: Simulation, life: Life) -> None:
    try:
        with contextlib.suppress(Killed):
            await _be_an_agent(simulation, life)
    except BaseExceptionGroup as group:
        rest = group.split((Killed, LogWriteFailed, trio.Cancelled))[1]
        if rest is not None and not life.dead:
            simulation.complain(f"agent {life.agent.number} broke: {_flat(rest)!r}")
        if (cancelled := group.subgroup(trio.Cancelled)) is not None:
            raise cancelled from None
    except LogError as error:
        if not isinstance(error, LogWriteFailed):
            simulation.complain(f"agent {life.agent.number} broke: {error!r}")
    finally:
        life.die()


def _flat(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _flat(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def _be_an_agent(simulation: Simulation, life: Life) -> None:
    world = simulation.world
    settings = build(
        {"PREFECT_API_URL": "http://standin/api", "HOME": "/nowhere"},
        Profile(None, Path("/nowhere/profiles.toml")),
        {},
    )
    rng = random.Random(simulation.rng.random())
    transport = FaultyTransport(simulation, life, StandinTransport(world.app))
    daemons: list[Daemon] = []

    def listen(driver: SubmissionDriver, *_told: object) -> None:
        stream = life.agent.store.read_stream(driver.stream)
        if fold((decode(r) for r in stream), driver.stream) != driver.submission:
            simulation.complain(f"{driver.stream}: the daemon's state is not the log's fold")
        for daemon in daemons:
            daemon.note_change()

    store: Any = FaultyStore(simulation, life)
    async with (
        group_commit(store, in_thread=False) as log,
        PrefectClient(settings, transport=transport, rng=rng, now=simulation.now) as client,
    ):
        environment = {"PREFECT_API_URL": "http://standin/api", "MY_API_KEY": CANARY}
        resolver = Resolver(client, environment, "python")
        launcher = FaultyLauncher(simulation, life)
        world_ = World(log, client, launcher, resolver, b"key", rng, listen)
        board = await NoticeBoard.open(log)
        poller = QueuePoller(client, (QUEUE,), (), board.post)
        plan: Plan = plan_for(limit=simulation.rng.choice((None, None, 1, 2)))
        started = attrs.evolve(plan.started, agent_id=life.agent.store.log_id)
        plan = attrs.evolve(plan, started=started)
        daemon = Daemon(world_, poller, board, plan, simulation.now, rng)
        daemons.append(daemon)
        await daemon.run(obey_signals=False)


async def _keep_alive(simulation: Simulation, agent: SimulatedAgent, pause: random.Random) -> None:
    while True:
        await _live(simulation, agent)
        await trio.sleep(pause.choice((0.1, 1.0, 10.0)))


# --- what happens by itself --------------------------------------------------------------------


async def _strike_at_its_time(simulation: Simulation, fault: Fault) -> None:
    await trio.sleep(fault.at / 10)
    world = simulation.world
    runs = list(simulation.scheduled)
    run = runs[fault.value % len(runs)] if runs else ""
    match fault.kind:
        case Kind.SERVER_DOWN:
            simulation.server_down_until = trio.current_time() + fault.value / 10
        case Kind.HOST_REBOOTS:
            simulation.processes.reboot()
            for agent in simulation.agents:
                if agent.life is not None:
                    simulation.kill(agent.life, "by a reboot")
        case Kind.CLOCK_JUMPS:
            simulation.clock_offset += fault.value
            await trio.sleep(FAULTS_END_SECONDS - fault.at / 10)
            simulation.clock_offset = 0.0
        case Kind.QUEUE_PAUSED:
            queue = world.state.queue_named(QUEUE)["id"]
            world.state.update_queue(queue, {"is_paused": True})
            await trio.sleep(fault.value / 10)
            world.state.update_queue(queue, {"is_paused": False})
        case _ if run not in world.state.runs:
            return
        case Kind.RUN_DELETED:
            simulation.touched.add(run)
            world.state.delete_run(run)
        case Kind.RUN_CANCELLED:
            simulation.touched.add(run)
            target = "CANCELLED" if world.state_of(run) == "SCHEDULED" else "CANCELLING"
            world.state.set_state(run, {"type": target}, force=False)
        case Kind.RUN_RESCHEDULED:
            simulation.touched.add(run)
            due = (now() + timedelta(seconds=3)).isoformat()
            state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
            world.state.set_state(run, state, force=True)
            simulation.scheduled[run] += 1


def _command_for(rng: random.Random, _run: str) -> Command:
    seconds = rng.choice((0.05, 0.5, 3.0, 20.0))
    states, exit_code = rng.choice(
        (
            (("RUNNING", "COMPLETED"), 0),
            (("RUNNING", "COMPLETED"), 0),
            (("RUNNING", "FAILED"), 0),
            (("RUNNING",), 1),
            ((), 0),
            ((), 1),
        )
    )
    refuses = "no such command" if rng.random() < 0.1 else None
    return Command(states, seconds, exit_code, refuses)


def _schedule_runs(simulation: Simulation, rng: random.Random) -> None:
    world = simulation.world
    good = world.deployment(job_variables={"env": {"TOKEN": CANARY}})
    bad = world.deployment(name="bad", infrastructure_document_id=str(UUID(int=7)))
    for _ in range(rng.choice((1, 1, 2, 3))):
        deployment = bad if rng.random() < 0.15 else good
        run = world.schedule(deployment, in_seconds=rng.choice((-5.0, -5.0, 2.0, 12.0)))
        simulation.scheduled[run] = 1


# --- a whole seed ------------------------------------------------------------------------------


@attrs.frozen
class Outcome:
    """What came of a seed.

    Attributes:
        broken: the invariants that did not hold; none is what we want.
        records: of each agent's log.
        kills: by where they struck.
        steps, appends: of all agents.
    """

    seed: int
    schedule: Sequence[Fault]
    broken: Sequence[str]
    records: Sequence[Sequence[Record]]
    kills: dict[str, int]
    steps: int
    appends: int

    @property
    def logs(self) -> Sequence[Sequence[bytes]]:
        """The records' hashes of each agent's log."""
        return [[record.hash for record in records] for records in self.records]

    @property
    def replay_command(self) -> str:
        """What shows it again."""
        faults_ = faults.written(self.schedule)
        return f"python -m tests.simulation.soak --seed {self.seed} --faults '{faults_}'"


Check = Callable[[Simulation], None]


def simulate(seed: int, schedule: Sequence[Fault] | None = None) -> Outcome:
    """Play a seed.

    Args:
        seed: everything is drawn from it.
        schedule: the faults; those that the seed draws if None.
    """
    counter = StepCounter()
    with _deterministic(seed):
        return trio.run(
            partial(_simulate, seed, schedule, counter),
            clock=MockClock(autojump_threshold=0),
            instruments=[counter],
            strict_exception_groups=True,
        )


@contextlib.contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """Let trio order tasks by the seed, as it does for Hypothesis."""
    state = trio_internals._r.getstate()
    trio_internals._r.seed(seed)
    with mock.patch.object(trio_internals, "_ALLOW_DETERMINISTIC_SCHEDULING", True):
        try:
            yield
        finally:
            trio_internals._r.setstate(state)


async def _simulate(seed: int, schedule: Sequence[Fault] | None, counter: StepCounter) -> Outcome:
    from tests.simulation.invariants import check_at_the_end

    rng = random.Random(seed)
    agents = rng.choice((1, 1, 2))
    drawn = faults.draw(rng, agents)
    schedule = drawn if schedule is None else schedule
    flavour = rng.choice(("2.20", "3"))
    commands = random.Random(rng.random())
    async with simulated_world(
        lambda _run: _command_for(commands, _run), flavour=flavour, seed=seed
    ) as world:
        processes = FaultyProcesses(world.nursery, world.state, world.processes.script)
        world.processes = processes
        simulation = Simulation(seed, world, [], schedule, rng, processes)
        counter.simulation = simulation
        for number in range(agents):
            store = MemoryStore(UUID(int=AGENT_ID.int + number), simulation.stamp)
            simulation.agents.append(SimulatedAgent(number, store))
        for fault in schedule:
            if fault.kind not in BY_TIME and fault.agent < agents:
                due = simulation.agents[fault.agent].due
                due.setdefault((_counted(fault.kind), fault.at), []).append(fault)
        _schedule_runs(simulation, rng)
        await _play(simulation, schedule, rng)
        check_at_the_end(simulation)
        world.nursery.cancel_scope.cancel()
    records = [list(agent.store.read_all()) for agent in simulation.agents]
    steps = sum(agent.counts["step"] for agent in simulation.agents)
    appends = sum(agent.counts["append"] for agent in simulation.agents)
    return Outcome(seed, schedule, simulation.broken, records, simulation.kills, steps, appends)


async def _play(simulation: Simulation, schedule: Sequence[Fault], rng: random.Random) -> None:
    from tests.simulation.invariants import at_rest

    async with trio.open_nursery() as nursery:
        for fault in schedule:
            if fault.kind in BY_TIME:
                nursery.start_soon(_strike_at_its_time, simulation, fault)
        for agent in simulation.agents:
            nursery.start_soon(_keep_alive, simulation, agent, random.Random(rng.random()))
        last = max((f.at / 10 for f in schedule if f.kind in BY_TIME), default=0.0)
        with trio.move_on_after(REST_WITHIN_SECONDS):
            while trio.current_time() < last + 12 or not at_rest(simulation):  # noqa: ASYNC110
                await trio.sleep(2.0)
        nursery.cancel_scope.cancel()


def shrink(outcome: Outcome, again: Callable[[list[Fault]], Outcome] | None = None) -> Outcome:
    """Leave out one fault after the other, as long as it still fails; return the last failure.

    Args:
        outcome: a failure.
        again: plays the same seed with other faults; tests pass their own.
    """
    play = again or partial(simulate, outcome.seed)
    smaller = True
    while smaller:
        smaller = False
        for index in range(len(outcome.schedule)):
            fewer = [*outcome.schedule[:index], *outcome.schedule[index + 1 :]]
            other = play(fewer)
            if other.broken:
                outcome, smaller = other, True
                break
    return outcome
