"""The judgement: `decide` says which transitions follow from what was learned.

With `evolve` and `what_next` of `events.submission` it is the whole machine. The daemon is a loop
around them (observe, decide, append durably, act), a restart is the fold, and replay is the same
functions on a recorded log. None of them reads a clock, a random source or the environment. What
follows from evidence is in the tables of `events.recovery`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid5

from events.lifecycle import (
    ClaimMisplaced,
    Effect,
    EffectDeferred,
    InfrastructureExited,
    LaunchConfirmed,
    LaunchRequested,
    OutcomeSettled,
    PendingAccepted,
    PendingProposed,
    PendingRefused,
    PidReported,
    RecoveryStarted,
    ResolutionStarted,
    RunDiscovered,
    State,
    Transition,
)
from events.observations import (
    AgentRestarted,
    CommandEnded,
    CommandRefused,
    CommandStarted,
    EvidenceFound,
    InfrastructureResolved,
    LaunchUncertain,
    Observation,
    PidAcknowledged,
    ProposalAnswered,
    RequestFailed,
    ResolutionFailed,
    RunMissing,
    RunOffered,
    RunRead,
)
from events.outcomes import failure, outcome
from events.recovery import AT_LAUNCHER, AT_SERVER, is_misplaced, standing
from events.submission import PROPOSALS, Submission, launch_key, what_next

LONGEST_DELAY_SECONDS: Final = 60.0
"""However long an outage lasts, its end is noticed within this time."""


def decide(submission: Submission, observation: Observation) -> Sequence[Transition]:
    """Say which transitions follow from one observation.

    An observation that comes when it no longer matters (an answer to a request that a restart
    has made again) leads to nothing.
    """
    return _DECISIONS[type(observation)](submission, observation)


def _on_offered(submission: Submission, seen: RunOffered) -> Sequence[Transition]:
    if submission.state is not State.ABSENT:
        return ()
    key = launch_key(seen.flow_run_id, seen.scheduled_state_id, seen.attempt)
    return (
        RunDiscovered(
            flow_run_id=seen.flow_run_id,
            run_name=seen.run_name,
            flow_id=seen.flow_id,
            deployment_id=seen.deployment_id,
            queue=seen.queue,
            ordinal=seen.ordinal,
            attempt=seen.attempt,
            scheduled_state_id=seen.scheduled_state_id,
            scheduled_time=seen.scheduled_time,
            launch_key=key,
        ),
        PendingProposed(transition_id=uuid5(seen.agent_id, f"{key}/pending")),
    )


def _on_restarted(submission: Submission, _seen: AgentRestarted) -> Sequence[Transition]:
    if submission.state is State.ABSENT or submission.is_closed:
        return ()
    return (RecoveryStarted(),)


def _on_answer(submission: Submission, seen: ProposalAnswered) -> Sequence[Transition]:
    if seen.effect not in PROPOSALS or seen.effect not in what_next(submission):
        return ()
    if seen.status == "WAIT":
        delay = min(max(seen.delay_seconds or 0.0, 1.0), LONGEST_DELAY_SECONDS)
        return (EffectDeferred(seen.effect, delay, seen.reason or "the server said to wait"),)
    if seen.effect is Effect.PROPOSE_PENDING:
        return _on_claim_answer(submission, seen)
    if seen.state_type == "CANCELLING" and not _owes_cancelled(submission):
        # Cancelled since it was read: nothing but Cancelled is taken, and nobody else ends it.
        return (outcome(submission, "CANCELLED", "Cancelled", "Its infrastructure has ended."),)
    return (OutcomeSettled(_in_words(seen), seen.state_type),)


def _owes_cancelled(submission: Submission) -> bool:
    return submission.outcome is not None and submission.outcome.state_type == "CANCELLED"


def _on_claim_answer(submission: Submission, seen: ProposalAnswered) -> Sequence[Transition]:
    accepted = seen.status == "ACCEPT" and seen.state_type in ("PENDING", None)
    ours = _is_our_claim(submission, seen.state_type, seen.transition_id)
    if not (accepted or ours):
        return (PendingRefused(_in_words(seen), seen.state_type),)
    if seen.state_id is not None and is_misplaced(submission, seen.scheduled_time):
        return (ClaimMisplaced(seen.state_id, seen.scheduled_time),)
    return (PendingAccepted(seen.state_id, repeated=not accepted), ResolutionStarted())


def _in_words(seen: ProposalAnswered) -> str:
    return f"{seen.status}: {seen.reason}" if seen.reason else seen.status


def _is_our_claim(submission: Submission, state_type: str | None, transition: UUID | None) -> bool:
    claim = submission.claim
    return claim is not None and state_type == "PENDING" and transition == claim.transition_id


def _on_read(submission: Submission, seen: RunRead) -> Sequence[Transition]:
    if Effect.READ_RUN not in what_next(submission):
        return ()
    return AT_SERVER[submission.state, standing(submission, seen)].follows(submission, seen)


def _on_missing(submission: Submission, seen: RunMissing) -> Sequence[Transition]:
    if seen.effect not in what_next(submission):
        return ()
    if seen.effect is Effect.REPORT_PID:
        return (PidReported("the run no longer exists at the server"),)
    rule = AT_SERVER.get((submission.state, standing(submission, seen)))
    return () if rule is None else rule.follows(submission, seen)


def _on_evidence(submission: Submission, seen: EvidenceFound) -> Sequence[Transition]:
    if Effect.EXAMINE not in what_next(submission):
        return ()
    return AT_LAUNCHER[submission.state, seen.verdict].follows(submission, seen)


def _on_failed_request(submission: Submission, seen: RequestFailed) -> Sequence[Transition]:
    if seen.effect not in what_next(submission):
        return ()
    if seen.retryable:
        steps = min(2.0**submission.tries, LONGEST_DELAY_SECONDS)
        delay = round(min(steps * (0.75 + 0.5 * seen.jitter), LONGEST_DELAY_SECONDS), 3)
        return (EffectDeferred(seen.effect, delay, seen.error),)
    match seen.effect:
        case Effect.PROPOSE_PENDING:
            return (PendingRefused(seen.error, None),)
        case Effect.RESOLVE:
            return failure(submission, "resolve", seen.error)
        case Effect.REPORT_PID:
            return (PidReported(seen.error),)
        case Effect.REPORT_OUTCOME:
            return (OutcomeSettled(seen.error, None),)
        case _:
            # Reading can't be refused for good: whatever is wrong may be mended, so ask again.
            return (EffectDeferred(seen.effect, LONGEST_DELAY_SECONDS, seen.error),)


def _on_resolved(submission: Submission, seen: InfrastructureResolved) -> Sequence[Transition]:
    if Effect.RESOLVE not in what_next(submission):
        return ()
    what = (seen.infrastructure, seen.name, seen.command, seen.working_dir, seen.evidence_id)
    return (LaunchRequested(*what),)


def _on_unresolved(submission: Submission, seen: ResolutionFailed) -> Sequence[Transition]:
    if Effect.RESOLVE not in what_next(submission):
        return ()
    return failure(submission, "resolve", seen.error)


def _on_started(submission: Submission, seen: CommandStarted) -> Sequence[Transition]:
    if Effect.LAUNCH not in what_next(submission):
        return ()
    who = (seen.infrastructure_pid, seen.pid, seen.start_time, seen.boot_id)
    return (LaunchConfirmed(*who, adopted=False),)


def _on_not_started(submission: Submission, seen: CommandRefused) -> Sequence[Transition]:
    if Effect.LAUNCH not in what_next(submission):
        return ()
    return failure(submission, "launch", seen.error)


def _on_uncertain(submission: Submission, seen: LaunchUncertain) -> Sequence[Transition]:
    if Effect.LAUNCH not in what_next(submission):
        return ()
    # The evidence is looked at without delay the first time; a launcher that breaks every time
    # must not be a busy loop.
    delay = 0.0 if submission.tries == 0 else min(2.0**submission.tries, LONGEST_DELAY_SECONDS)
    return (EffectDeferred(Effect.LAUNCH, delay, seen.error),)


def _on_ended(submission: Submission, seen: CommandEnded) -> Sequence[Transition]:
    if Effect.WATCH not in what_next(submission):
        return ()
    return (InfrastructureExited(seen.exit_code, seen.reason),)


def _on_pid_taken(submission: Submission, _seen: PidAcknowledged) -> Sequence[Transition]:
    return (PidReported("accepted"),) if submission.pid_owed else ()


_DECISIONS: Final[Mapping[type[Observation], Callable[[Submission, Any], Sequence[Transition]]]] = {
    RunOffered: _on_offered,
    AgentRestarted: _on_restarted,
    ProposalAnswered: _on_answer,
    RunRead: _on_read,
    RunMissing: _on_missing,
    RequestFailed: _on_failed_request,
    InfrastructureResolved: _on_resolved,
    ResolutionFailed: _on_unresolved,
    CommandStarted: _on_started,
    CommandRefused: _on_not_started,
    LaunchUncertain: _on_uncertain,
    EvidenceFound: _on_evidence,
    CommandEnded: _on_ended,
    PidAcknowledged: _on_pid_taken,
}
