"""What the daemon can learn about a submission, as events.

Everything `decide` needs arrives in one of these: answers, evidence, ids and jitter. It reads no
clock, no random source and no environment, which is why replay can ask it again years later.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import attrs

from events.lifecycle import Effect, Event, OnUncertain, Verdict


@attrs.frozen
class Observation(Event):
    """Base of what we learned."""


@attrs.frozen
class RunOffered(Observation):
    """A poll handed out a scheduled run, and there is room to launch it.

    Attributes:
        agent_id: the log's own id. It is part of every transition id, so that two agents that
            are offered the same run never send the same claim.
        ordinal: this submission's number among this run's, from 1.
        attempt: this submission's number among those for the same Scheduled state, from 1.
    """

    agent_id: UUID
    flow_run_id: UUID
    run_name: str
    flow_id: UUID | None
    deployment_id: UUID | None
    queue: str
    ordinal: int
    attempt: int
    scheduled_state_id: UUID
    scheduled_time: str | None


@attrs.frozen
class AgentRestarted(Observation):
    """The agent that drove this submission is gone; another one has opened the log."""


@attrs.frozen
class ProposalAnswered(Observation):
    """The server answered a proposed state.

    Attributes:
        effect: which proposal: PROPOSE_PENDING or REPORT_OUTCOME.
        status: ACCEPT, REJECT, ABORT or WAIT. On its own it tells little: a repeated claim is
            a REJECT whose state carries our transition id (probed on 2.20.26 and 3.8.8).
        state_type, state_name, state_id, transition_id, scheduled_time: of the state that the
            run has now, where the server says (old servers answer ABORT without a state).
        delay_seconds: for WAIT.
    """

    effect: Effect
    status: str
    reason: str | None = None
    state_type: str | None = None
    state_name: str | None = None
    state_id: UUID | None = None
    transition_id: UUID | None = None
    scheduled_time: str | None = None
    delay_seconds: float | None = None


@attrs.frozen
class RunRead(Observation):
    """The server's present state of the run.

    Attributes:
        scheduled_time: of that state. A Pending has that of the Scheduled state it was proposed
            over, and none over any other (probed on 2.20.26 and 3.8.8).
        before_id, before_type, before_name, before_transition_id: the state before it; looked up
            only where it matters.
    """

    state_type: str | None
    state_name: str | None
    state_id: UUID | None
    transition_id: UUID | None
    infrastructure_pid: str | None
    scheduled_time: str | None = None
    before_id: UUID | None = None
    before_type: str | None = None
    before_name: str | None = None
    before_transition_id: UUID | None = None


@attrs.frozen
class RunMissing(Observation):
    """The server does not know the run (any more)."""

    effect: Effect


@attrs.frozen
class RequestFailed(Observation):
    """A request got no answer that could be used.

    Attributes:
        error: what, where; holds no secret.
        retryable: False when the same request will never get a better answer.
        jitter: drawn from [0, 1), so that a fleet does not retry in step.
    """

    effect: Effect
    error: str
    retryable: bool
    jitter: float


@attrs.frozen
class InfrastructureResolved(Observation):
    """What is to be launched is known.

    Attributes:
        infrastructure: the kind, e.g. `process`.
        env: each variable's name with a keyed digest of its value (None: it is unset): whether
            two launches had the same value can be seen, the value can't.
        evidence_id: names the place that will hold the evidence of a launch.
    """

    infrastructure: str
    name: str
    command: tuple[str, ...]
    working_dir: str | None
    env: Mapping[str, str | None]
    labels: Mapping[str, str]
    evidence_id: str = ""


@attrs.frozen
class ResolutionFailed(Observation):
    """What is to be launched can't be worked out, and trying again would not help."""

    error: str


@attrs.frozen
class CommandStarted(Observation):
    """The launcher started the command."""

    infrastructure_pid: str
    pid: int
    start_time: int
    boot_id: str


@attrs.frozen
class CommandRefused(Observation):
    """The launcher could not start the command, which certainly does not run."""

    error: str


@attrs.frozen
class LaunchUncertain(Observation):
    """The launcher can't tell whether the command was started."""

    error: str


@attrs.frozen
class EvidenceFound(Observation):
    """What locks, records and boot id prove about the launch.

    Attributes:
        infrastructure_pid, pid, start_time, boot_id: of the command, where known.
        exit_code: for FINISHED; None also when the command could never be executed.
        detail: for people.
        on_uncertain: what the operator wants to become of it if nothing can be proved.
    """

    verdict: Verdict
    detail: str
    infrastructure_pid: str | None = None
    pid: int | None = None
    start_time: int | None = None
    boot_id: str | None = None
    exit_code: int | None = None
    on_uncertain: OnUncertain = OnUncertain.CRASH


@attrs.frozen
class CommandEnded(Observation):
    """The command ended. `exit_code` is None when nobody saw how; then `reason` says why."""

    exit_code: int | None
    reason: str


@attrs.frozen
class PidAcknowledged(Observation):
    """The server took the infrastructure pid."""
