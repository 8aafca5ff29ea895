"""Drives one submission: does what is owed, observes, lets the decider decide, appends, repeats.

The driver holds no truth of its own. Its submission is the fold of what the log acknowledged,
and an effect is executed only when the log already says that it is owed; so it may be killed
between any two lines, and the next agent's driver goes on from the fold. Called by the daemon,
once for each open stream.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

import attrs
import trio

from agent.infrastructure.errors import ResolutionError
from agent.infrastructure.launcher import (
    Launcher,
    LaunchFailed,
    LaunchInDoubt,
    ProcessSpec,
    Running,
)
from agent.infrastructure.redact import redact
from agent.prefect.errors import ApiError, BadAnswer, NotFound
from agent.prefect.models import FlowRun, PastState, StateAnswer, StateProposal
from events.codec import decode, encode
from events.decider import decide
from events.lifecycle import Effect, Event, OnUncertain, State, Transition
from events.log import ABSENT, Draft, EventLog
from events.observations import (
    AgentRestarted,
    CommandEnded,
    CommandRefused,
    CommandStarted,
    EvidenceFound,
    LaunchUncertain,
    Observation,
    PidAcknowledged,
    ProposalAnswered,
    RequestFailed,
    ResolutionFailed,
    RunMissing,
    RunRead,
)
from events.submission import Submission, evolve, fold, what_next

logger = logging.getLogger(__name__)


_NEVER_CLAIMED: Final = frozenset({"PENDING", "RUNNING", "CANCELLING", "CANCELLED"})
"""Servers refuse Pending over these (probed on 2.20.26 and 3.8.8)."""


class Server(Protocol):
    """What a submission asks of the Prefect server (`agent.prefect.client` answers)."""

    async def set_state(
        self, flow_run_id: UUID, proposal: StateProposal, *, retry: bool = True
    ) -> StateAnswer:
        """Propose a state."""
        ...

    async def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        """Read a run."""
        ...

    async def read_flow_run_states(self, flow_run_id: UUID) -> Sequence[PastState]:
        """Read all states that a run ever had, oldest first."""
        ...

    async def set_infrastructure_pid(self, flow_run_id: UUID, infrastructure_pid: str) -> None:
        """Tell the server what the run runs as."""
        ...


class InfrastructureSource(Protocol):
    """Works out what a run is launched on (`agent.infrastructure.resolve` does)."""

    async def resolve(self, run: FlowRun, *, fresh_since: float) -> ProcessSpec:
        """Return what to launch, from reads begun at `fresh_since` (trio's clock) or later."""
        ...


Decide = Callable[[Submission, Observation], Sequence[Transition]]
"""The judgement: `events.decider.decide`, or what looks on and then asks it."""

Listener = Callable[["SubmissionDriver", Submission, Sequence[Event]], None]
"""Is told after each durable append: the driver (moved on), the state before, the events."""


@attrs.frozen
class World:
    """What every driver of a daemon shares: the log and the ways to act.

    Attributes:
        digest_key: keys the digests that stand for secret values in the log.
        random: jitter only; seeded by simulations.
        listener: for people and for the daemon's own counting.
        on_uncertain: what becomes of a launch of which nobody can tell whether it ran.
        decide: the decider; whoever debugs a re-execution looks on here.
    """

    log: EventLog
    server: Server
    launcher: Launcher
    infrastructure: InfrastructureSource
    digest_key: bytes = attrs.field(repr=False)
    random: random.Random
    listener: Listener
    on_uncertain: OnUncertain = OnUncertain.CRASH
    decide: Decide = decide


@attrs.define(eq=False)
class SubmissionDriver:
    """One submission under way.

    Attributes:
        stream: its stream in the log.
        submission: the fold of the stream so far.
        version: of the stream's last record.
        fresh_since: trio's time of the poll that discovered the run; what is read to resolve it
            must not be older.
    """

    world: World
    stream: str
    submission: Submission = attrs.field(factory=Submission)
    version: int = ABSENT
    fresh_since: float = attrs.field(factory=trio.current_time)
    _last_transition: int | None = None
    _appending: trio.Lock = attrs.field(factory=trio.Lock)
    # Only in memory, because it holds secrets: a restart resolves again before it launches again.
    _flow_run: FlowRun | None = attrs.field(default=None, repr=False)
    _spec: ProcessSpec | None = attrs.field(default=None, repr=False)

    @classmethod
    async def begin(
        cls, world: World, stream: str, offer: Observation, run: FlowRun, *, fresh_since: float
    ) -> SubmissionDriver:
        """Open a stream for a run that a poll handed out.

        Raises:
            VersionConflict: the stream exists already.
        """
        driver = cls(world, stream, fresh_since=fresh_since, flow_run=run)
        await driver.observe(offer)
        return driver

    @classmethod
    async def recover(cls, world: World, stream: str) -> SubmissionDriver:
        """Take over a stream that an earlier agent left open."""
        records = await world.log.read_stream(stream)
        events = [decode(record) for record in records]
        moved = [r.version for r, e in zip(records, events, strict=True) if _moves(e)]
        driver = cls(
            world,
            stream,
            fold(events, stream),
            version=records[-1].version,
            last_transition=moved[-1] if moved else None,
        )
        await driver.observe(AgentRestarted())
        return driver

    @property
    def is_resting(self) -> bool:
        """Whether it can be left alone: it runs, waits, or is over."""
        submission = self.submission
        return submission.deferred is not None or what_next(submission) in ((), (Effect.WATCH,))

    async def run(self) -> None:
        """Do what is owed until nothing is.

        Raises:
            LogError: the log takes nothing more; nothing that it does not hold was done.
        """
        async with trio.open_nursery() as nursery:
            self._begin_what_is_owed(nursery, set())

    def _begin_what_is_owed(self, nursery: trio.Nursery, under_way: set[Effect]) -> None:
        for effect in what_next(self.submission):
            if effect not in under_way:
                under_way.add(effect)
                nursery.start_soon(self._pursue, effect, nursery, under_way)

    async def _pursue(self, effect: Effect, nursery: trio.Nursery, under_way: set[Effect]) -> None:
        """Discharge an effect, and then whatever is owed by then and not under way.

        What is under way may take as long as an outage: an adopted command is watched at once,
        though the server does not take its pid yet.
        """
        await self._discharge(effect)
        under_way.discard(effect)
        self._begin_what_is_owed(nursery, under_way)

    async def observe(self, observation: Observation) -> None:
        """Record what was learned and what follows from it, then move on.

        Raises:
            LogError: it is not recorded, and nothing moved.
        """
        async with self._appending:
            before = self.submission
            transitions = self.world.decide(before, observation)
            after = before
            for transition in transitions:
                after = evolve(after, transition, self.stream)
            seen = self.version + 1
            drafts = [encode(observation, cause=self._last_transition)]
            drafts += [encode(transition, cause=seen) for transition in transitions]
            await self._append(drafts, closes=after.is_closed)
            self.version += len(drafts)
            if transitions:
                self._last_transition = self.version
            self.submission = after
        self.world.listener(self, before, (observation, *transitions))

    async def _append(self, drafts: Sequence[Draft], *, closes: bool) -> None:
        await self.world.log.append(self.stream, self.version, drafts, closes=closes)

    async def _discharge(self, effect: Effect) -> None:
        """Execute one effect until it is no longer owed."""
        while effect in what_next(self.submission):
            deferred = self.submission.deferred
            # A command is watched also while the server is waited for.
            if deferred and (effect is deferred.effect or effect is not Effect.WATCH):
                await trio.sleep(deferred.delay_seconds)
            await self.observe(await self._execute(effect))

    async def _execute(self, effect: Effect) -> Observation:
        try:
            return await self._attempt(effect)
        except Exception as error:
            # The type and place only: a message of unknown origin may hold a secret.
            what = f"internal error, {type(error).__name__} at {_place(error)}"
            logger.critical("%s: %s while it was to %s", self.stream, what, effect.value)
            return _UNEXPECTED.get(effect, self._retry)(effect, what)

    async def _attempt(self, effect: Effect) -> Observation:
        try:
            return await _EXECUTORS[effect](self)
        except NotFound as error:
            if effect is Effect.RESOLVE:
                return ResolutionFailed(str(error))
            return RunMissing(effect)
        except ApiError as error:
            # An answer that can't be understood says nothing about what the server did.
            retryable = error.retryable or isinstance(error, BadAnswer)
            return self._failed(effect, str(error), retryable=retryable)

    def _retry(self, effect: Effect, error: str) -> Observation:
        return self._failed(effect, error, retryable=True)

    def _failed(self, effect: Effect, error: str, *, retryable: bool) -> RequestFailed:
        jitter = round(self.world.random.random(), 4)
        return RequestFailed(effect, error, retryable, jitter)

    # --- one method for each effect ---------------------------------------------------------

    async def _propose_pending(self) -> Observation:
        claim = self.submission.claim
        if claim is None:
            raise LookupError(f"{self.stream}: Pending is owed without its intent")
        proposal = StateProposal("PENDING", "Pending", None, claim.transition_id)
        # Never repeated blindly: after a while the run may be another agent's, already over, and
        # Pending would be accepted over Completed. The decider has the run read first.
        answer = await self.world.server.set_state(self._run_id, proposal, retry=False)
        return _answered(Effect.PROPOSE_PENDING, answer)

    async def _report_outcome(self) -> Observation:
        owed = self.submission.outcome
        if owed is None:
            raise LookupError(f"{self.stream}: an outcome is owed without its intent")
        proposal = StateProposal(owed.state_type, owed.state_name, owed.message, owed.transition_id)
        if owed.restores is not None:
            # Its data may be somebody's result: it goes from server to server, not into the log.
            earlier = await self._state(owed.restores)
            if earlier is not None:
                due = earlier.state_details.scheduled_time
                proposal = attrs.evolve(proposal, data=earlier.data, scheduled_time=due)
        answer = await self.world.server.set_state(self._run_id, proposal, retry=False)
        return _answered(Effect.REPORT_OUTCOME, answer)

    async def _read_run(self) -> Observation:
        self._flow_run = run = await self.world.server.read_flow_run(self._run_id)
        self.fresh_since = trio.current_time()
        state = run.state
        due = state.state_details.scheduled_time if state else None
        before = None
        if state is not None and self.submission.misplaced is not None:
            before = await self._claimed_over(state.id)
        elif state is not None and self._may_have_been_ours(state.type):
            before = await self._newest_but(state.id)
        return RunRead(
            state_type=state.type if state else None,
            state_name=state.name if state else None,
            state_id=state.id if state else None,
            transition_id=state.state_details.transition_id if state else None,
            infrastructure_pid=run.infrastructure_pid,
            scheduled_time=due.isoformat() if due else None,
            before_id=before.id if before else None,
            before_type=before.type if before else None,
            before_name=before.name if before else None,
            before_transition_id=before.state_details.transition_id if before else None,
        )

    def _may_have_been_ours(self, state_type: str) -> bool:
        """Tell whether the run may have been cancelled after our claim was accepted."""
        return self.submission.state is State.DISCOVERED and state_type == "CANCELLING"

    async def _state(self, state_id: UUID) -> PastState | None:
        states = await self.world.server.read_flow_run_states(self._run_id)
        return next((state for state in states if state.id == state_id), None)

    async def _newest_but(self, state_id: UUID) -> PastState | None:
        states = await self.world.server.read_flow_run_states(self._run_id)
        others = [state for state in states if state.id != state_id]
        return others[-1] if others else None

    async def _claimed_over(self, state_id: UUID) -> PastState | None:
        """Return what a late claim was taken over: the newest state that it can have been.

        Not its neighbour in the history: a state's time is that at which its request came in, and
        one that waited for the database takes effect after some that came later (seen on 3.8.8:
        a claim stood before the other agent's Pending and Crashed, over which it was taken).
        """
        others = [
            state
            for state in await self.world.server.read_flow_run_states(self._run_id)
            if state.id not in (state_id, self.submission.run.scheduled_state_id)
            and state.type not in _NEVER_CLAIMED
        ]
        return others[-1] if others else None

    async def _report_pid(self) -> Observation:
        confirmed = self.submission.confirmed
        if confirmed is None:
            raise LookupError(f"{self.stream}: a pid is owed before anything was launched")
        await self.world.server.set_infrastructure_pid(self._run_id, confirmed.infrastructure_pid)
        return PidAcknowledged()

    async def _resolve(self) -> Observation:
        if self._flow_run is None:
            raise LookupError(f"{self.stream}: resolution is owed, but the run was not read")
        try:
            spec = await self.world.infrastructure.resolve(
                self._flow_run, fresh_since=self.fresh_since
            )
        except ResolutionError as error:
            return ResolutionFailed(error.reason)
        except BadAnswer as error:
            return ResolutionFailed(str(error))
        self._spec = spec
        resolved = redact(spec, self.world.digest_key)
        return attrs.evolve(resolved, evidence_id=self.world.launcher.evidence_id)

    async def _launch(self) -> Observation:
        if self._spec is None:
            return LaunchUncertain("an earlier agent was launching it")
        try:
            running = await self.world.launcher.launch(self._key, self._spec)
        except LaunchFailed as error:
            return CommandRefused(error.reason)
        except LaunchInDoubt as error:
            return LaunchUncertain(str(error))
        return CommandStarted(
            running.infrastructure_pid, running.pid, running.start_time, running.boot_id
        )

    async def _examine(self) -> Observation:
        launch = self.submission.launch
        place = "" if launch is None else launch.evidence_id
        try:
            evidence = await self.world.launcher.examine(
                self._key, evidence_id=place, known=self._known
            )
        except LaunchInDoubt as error:
            return self._retry(Effect.EXAMINE, str(error))
        running, ended = evidence.running, evidence.ended
        return EvidenceFound(
            verdict=evidence.verdict,
            detail=evidence.detail if ended is None else ended.reason,
            infrastructure_pid=running.infrastructure_pid if running else None,
            pid=running.pid if running else None,
            start_time=running.start_time if running else None,
            boot_id=running.boot_id if running else None,
            exit_code=ended.exit_code if ended else None,
            on_uncertain=self.world.on_uncertain,
        )

    async def _watch(self) -> Observation:
        ended = await self.world.launcher.wait(self._key, known=self._known)
        return CommandEnded(ended.exit_code, ended.reason)

    @property
    def _run_id(self) -> UUID:
        return self.submission.run.flow_run_id

    @property
    def _key(self) -> str:
        return self.submission.launch_key

    @property
    def _known(self) -> Running | None:
        """Who the command is, as the log has it."""
        found = self.submission.confirmed
        if found is None:
            return None
        return Running(found.infrastructure_pid, found.pid, found.start_time, found.boot_id)


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    code = trace.tb_frame.f_code
    return f"{Path(code.co_filename).name}:{trace.tb_lineno}"


# Resolving again would only meet the same surprise, so the run is told; a launch that broke off
# is settled by its evidence; all else is tried again.
_UNEXPECTED: Final[Mapping[Effect, Callable[[Effect, str], Observation]]] = {
    Effect.RESOLVE: lambda _effect, what: ResolutionFailed(what),
    Effect.LAUNCH: lambda _effect, what: LaunchUncertain(what),
}


def _moves(event: Event) -> bool:
    return isinstance(event, Transition)


def _answered(effect: Effect, answer: StateAnswer) -> ProposalAnswered:
    state = answer.state
    if state is None:
        return ProposalAnswered(
            effect, answer.status, answer.reason, delay_seconds=answer.delay_seconds
        )
    details = state.state_details
    due = details.scheduled_time
    return ProposalAnswered(
        effect=effect,
        status=answer.status,
        reason=answer.reason,
        state_type=state.type,
        state_name=state.name,
        state_id=state.id,
        transition_id=details.transition_id,
        scheduled_time=due.isoformat() if due else None,
        delay_seconds=answer.delay_seconds,
    )


_EXECUTORS: Final[Mapping[Effect, Callable[[SubmissionDriver], Awaitable[Observation]]]] = {
    Effect.PROPOSE_PENDING: SubmissionDriver._propose_pending,
    Effect.RESOLVE: SubmissionDriver._resolve,
    Effect.LAUNCH: SubmissionDriver._launch,
    Effect.EXAMINE: SubmissionDriver._examine,
    Effect.WATCH: SubmissionDriver._watch,
    Effect.REPORT_PID: SubmissionDriver._report_pid,
    Effect.READ_RUN: SubmissionDriver._read_run,
    Effect.REPORT_OUTCOME: SubmissionDriver._report_outcome,
}
