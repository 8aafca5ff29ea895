"""The life of a submission: its states, its events, and the one table that ties them together.

One *submission* is one attempt to hand one flow run to infrastructure; it is one stream of the
log. Read the table at the end of this file first: everything else (the decider, the diagram in
docs/lifecycle.md, the exhaustive tests) is derived from it or checked against it.

Two families of events are kept in a stream, both in the past tense:

- *transitions*, here: what we decided. The state is the fold of these and of nothing else.
- *observations* (`events.observations`): what we learned. They move nothing by themselves; each
  transition follows from one, and replay asks the decider again whether it still does.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from uuid import UUID

import attrs


class Member(enum.Enum):
    """An enum whose members are found in a table at once: `Enum` hashes in Python code."""

    __hash__ = object.__hash__


class State(Member):
    """Where a submission is."""

    ABSENT = "absent"
    """Nothing is known yet: the fold of an empty stream."""
    DISCOVERED = "discovered"
    """The server handed the run out; we propose Pending to claim it."""
    PENDING = "pending"
    """The server accepted our claim: the run is ours."""
    RESOLVING = "resolving"
    """We read deployment, flow and infrastructure document, and work out what to launch."""
    LAUNCHING = "launching"
    """The launch is on record and under way. From here on it may have happened."""
    STARTED = "started"
    """The command runs."""
    EXITED = "exited"
    """The command and all it left behind have ended, or were lost."""
    FAILED = "failed"
    """It could not be launched; the command never ran."""
    ABORTED = "aborted"
    """The server refused the claim: the run is not ours, and we leave it alone."""
    CANCELLED = "cancelled"
    """It was cancelled, deleted or taken over at the server before it was launched."""


ON_THE_WAY: Final = frozenset({State.DISCOVERED, State.PENDING, State.RESOLVING, State.LAUNCHING})
"""The states on the way to a start, in which a submission is expected to get on."""


class Effect(Member):
    """What a submission can owe the world. `events.decider.what_next` says which is due."""

    PROPOSE_PENDING = "propose_pending"
    RESOLVE = "resolve"
    LAUNCH = "launch"
    EXAMINE = "examine"
    """Look at the evidence of the launch: locks, records, boot id."""
    WATCH = "watch"
    REPORT_PID = "report_pid"
    READ_RUN = "read_run"
    """Ask the server for the run's present state before proposing another."""
    REPORT_OUTCOME = "report_outcome"


class Verdict(Member):
    """What the evidence of a launch key proves (locks, `exec` and `exit` records, boot id)."""

    NEVER_RAN = "never_ran"
    RUNNING = "running"
    FINISHED = "finished"
    LOST = "lost"
    """It may have run, and nobody can tell how it ended."""
    IMPOSSIBLE = "impossible"
    """The evidence contradicts itself."""
    NO_EVIDENCE = "no_evidence"
    """The place that the launch left its evidence in is gone, or was replaced by another."""


class OnUncertain(enum.Enum):
    """What becomes of a launch of which no evidence can tell whether it ran."""

    CRASH = "crash"
    """It is reported as Crashed: at most one launch."""
    RELAUNCH = "relaunch"
    """If the run is still Pending by our claim it is launched again: at least one launch."""


@attrs.frozen
class Event:
    """Base of everything in a log. `SCHEMA` is the version of the class's fields."""

    SCHEMA = 1


@attrs.frozen
class Transition(Event):
    """Base of what we decided."""


# --- the claim -----------------------------------------------------------------------------


@attrs.frozen
class RunDiscovered(Transition):
    """The server handed out a scheduled run, and it is to be submitted.

    Attributes:
        ordinal: counts the submissions of this flow run in this log, from 1.
        attempt: counts those for the same Scheduled state, from 1.
        scheduled_state_id: the Scheduled state it was found in. A retry or a reschedule has
            another one, and so is another launch.
        scheduled_time: when it is due, UTC, ISO 8601.
        launch_key: names the launch for all time; every other id is derived from it.
    """

    flow_run_id: UUID
    run_name: str
    flow_id: UUID | None
    deployment_id: UUID | None
    queue: str
    ordinal: int
    attempt: int
    scheduled_state_id: UUID
    scheduled_time: str | None
    launch_key: str


@attrs.frozen
class PendingProposed(Transition):
    """We are about to propose Pending. The id makes the request exact, however often it is sent."""

    transition_id: UUID


@attrs.frozen
class PendingAccepted(Transition):
    """The run is ours. `repeated`: this was learned from a second answer or from reading."""

    state_id: UUID | None
    repeated: bool


@attrs.frozen
class ClaimMisplaced(Transition):
    """The server took the claim over another state than the Scheduled one it had handed out.

    Somebody else was faster, and the run was over (or scheduled anew) by then: it gets that state
    back.

    Attributes:
        scheduled_time: of the state it was taken over; None when that was not Scheduled.
    """

    state_id: UUID | None
    scheduled_time: str | None


@attrs.frozen
class PendingRefused(Transition):
    """The run is not ours, and why."""

    reason: str
    server_state: str | None


# --- resolution and launch -----------------------------------------------------------------


@attrs.frozen
class ResolutionStarted(Transition):
    """We are about to read what this run is to be launched on."""


@attrs.frozen
class LaunchRequested(Transition):
    """We are about to launch. After this record the command may run; before it, it can't.

    Attributes:
        infrastructure: the kind, e.g. `process`.
        name: what people call this launch.
        command: the program and its arguments. Environment and labels are in the observation
            that led here (`InfrastructureResolved`).
        working_dir: None for a fresh temporary directory.
        evidence_id: names the place that will hold the evidence of the launch.
    """

    infrastructure: str
    name: str
    command: tuple[str, ...]
    working_dir: str | None
    evidence_id: str = ""


@attrs.frozen
class LaunchVoided(Transition):
    """The evidence proves that the command never ran; it may be launched under the same key."""

    reason: str


@attrs.frozen
class LaunchRepeated(Transition):
    """Nobody can tell whether the command ran, and the operator wants such runs launched again."""

    launch_key: str
    reason: str


@attrs.frozen
class LaunchConfirmed(Transition):
    """The command runs (or ran), as whom. `adopted`: found by a later agent, from evidence."""

    infrastructure_pid: str
    pid: int
    start_time: int
    boot_id: str
    adopted: bool


@attrs.frozen
class InfrastructureAdopted(Transition):
    """A restarted agent found the command of a confirmed launch still running."""

    detail: str


@attrs.frozen
class InfrastructureExited(Transition):
    """The command ended. `exit_code` is negative for a signal, None when nobody could tell."""

    exit_code: int | None
    reason: str


@attrs.frozen
class SubmissionFailed(Transition):
    """The command never ran and won't. `step`: resolve, launch or recover."""

    step: str
    error: str


@attrs.frozen
class SubmissionCancelled(Transition):
    """The server no longer wants this run launched by us, and why."""

    reason: str
    server_state: str | None


# --- what we owe the server, waits and restarts --------------------------------------------


@attrs.frozen
class PidReported(Transition):
    """The server has the infrastructure pid, or has said that it will not take it."""

    answer: str


@attrs.frozen
class OutcomeProposed(Transition):
    """We owe the server this state, until it has answered.

    Attributes:
        restores: the earlier state of the run that this one repeats, with its time and data.
    """

    state_type: str
    state_name: str
    message: str
    transition_id: UUID
    restores: UUID | None = None


@attrs.frozen
class OutcomeSettled(Transition):
    """Nothing more is owed: the server answered, or its own state of the run says enough."""

    answer: str
    server_state: str | None


@attrs.frozen
class EffectDeferred(Transition):
    """An effect has to be tried again, not before a delay has passed."""

    effect: Effect
    delay_seconds: float
    reason: str


@attrs.frozen
class RecoveryStarted(Transition):
    """A new agent took this submission over: look at the evidence before acting on it."""


# --- the table -----------------------------------------------------------------------------

TRANSITIONS: Mapping[State, Mapping[type[Transition], State]] = MappingProxyType(
    {
        State.ABSENT: {
            RunDiscovered: State.DISCOVERED,
        },
        State.DISCOVERED: {
            PendingProposed: State.DISCOVERED,
            PendingAccepted: State.PENDING,
            ClaimMisplaced: State.CANCELLED,
            PendingRefused: State.ABORTED,
            EffectDeferred: State.DISCOVERED,
            RecoveryStarted: State.DISCOVERED,
        },
        State.PENDING: {
            ResolutionStarted: State.RESOLVING,
        },
        State.RESOLVING: {
            ResolutionStarted: State.RESOLVING,
            LaunchRequested: State.LAUNCHING,
            SubmissionFailed: State.FAILED,
            SubmissionCancelled: State.CANCELLED,
            EffectDeferred: State.RESOLVING,
            RecoveryStarted: State.RESOLVING,
        },
        State.LAUNCHING: {
            LaunchConfirmed: State.STARTED,
            LaunchVoided: State.RESOLVING,
            LaunchRepeated: State.RESOLVING,
            SubmissionFailed: State.FAILED,
            EffectDeferred: State.LAUNCHING,
            RecoveryStarted: State.LAUNCHING,
        },
        State.STARTED: {
            PidReported: State.STARTED,
            InfrastructureAdopted: State.STARTED,
            InfrastructureExited: State.EXITED,
            EffectDeferred: State.STARTED,
            RecoveryStarted: State.STARTED,
        },
        State.EXITED: {
            PidReported: State.EXITED,
            OutcomeProposed: State.EXITED,
            OutcomeSettled: State.EXITED,
            EffectDeferred: State.EXITED,
            RecoveryStarted: State.EXITED,
        },
        State.FAILED: {
            OutcomeProposed: State.FAILED,
            OutcomeSettled: State.FAILED,
            EffectDeferred: State.FAILED,
            RecoveryStarted: State.FAILED,
        },
        State.CANCELLED: {
            OutcomeProposed: State.CANCELLED,
            OutcomeSettled: State.CANCELLED,
            EffectDeferred: State.CANCELLED,
            RecoveryStarted: State.CANCELLED,
        },
        State.ABORTED: {},
    }
)


class IllegalTransition(Exception):
    """An event came in a state that the table has no move for."""

    def __init__(self, state: State, event: Event, stream: str = "?") -> None:
        self.state, self.event, self.stream = state, event, stream
        super().__init__(f"{type(event).__name__} is not legal in {state.name} (stream {stream})")
