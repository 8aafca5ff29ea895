"""The three pure functions that are the whole of our judgement.

`decide(submission, observation)` says which transitions follow from what was learned,
`evolve(submission, transition)` folds one into the state, and `what_next(submission)` names the
effects that are owed. The daemon is a loop around them (observe, decide, append durably, act), a
restart is the fold, and replay is the same functions on a recorded log. None of them reads a
clock, a random source or the environment.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid5

import attrs

from events.lifecycle import (
    TRANSITIONS,
    Effect,
    EffectDeferred,
    Event,
    IllegalTransition,
    InfrastructureAdopted,
    InfrastructureExited,
    LaunchConfirmed,
    LaunchRequested,
    LaunchVoided,
    OutcomeProposed,
    OutcomeSettled,
    PendingAccepted,
    PendingProposed,
    PendingRefused,
    PidReported,
    RecoveryStarted,
    ResolutionStarted,
    RunDiscovered,
    State,
    SubmissionCancelled,
    SubmissionFailed,
    Transition,
    Verdict,
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

LONGEST_DELAY_SECONDS: Final = 60.0
"""However long an outage lasts, its end is noticed within this time."""

PROPOSALS: Final = frozenset({Effect.PROPOSE_PENDING, Effect.REPORT_OUTCOME})
"""The effects that ask the server to change a run's state."""

CLOSED_STATES: Final = frozenset({State.ABORTED, State.CANCELLED, State.EXITED, State.FAILED})


@attrs.frozen
class Submission:
    """The fold of one stream: the state, and the last transition of each kind that matters.

    Attributes:
        discovered, claim, launch, confirmed, exited, outcome: that transition, once it came.
        claimed_state_id: the Pending state by which the server made the run ours.
        pid_owed: the server has not been told the infrastructure pid yet.
        outcome_settled: nothing is owed about how it ended.
        in_doubt: somebody acted and the result was not seen: look before acting again.
        deferred: the wait that an effect is in.
        tries: how often in a row an effect was deferred.
    """

    state: State = State.ABSENT
    discovered: RunDiscovered | None = None
    claim: PendingProposed | None = None
    claimed_state_id: UUID | None = None
    launch: LaunchRequested | None = None
    confirmed: LaunchConfirmed | None = None
    exited: InfrastructureExited | None = None
    outcome: OutcomeProposed | None = None
    pid_owed: bool = False
    outcome_settled: bool = False
    in_doubt: bool = False
    deferred: EffectDeferred | None = None
    tries: int = 0

    @property
    def run(self) -> RunDiscovered:
        """The flow run this is about; only an empty stream has none."""
        if self.discovered is None:
            raise LookupError("nothing was discovered in an empty stream")
        return self.discovered

    @property
    def is_closed(self) -> bool:
        """Whether nothing will ever follow."""
        return self.state in CLOSED_STATES and not what_next(self)


def launch_key(flow_run_id: UUID, scheduled_state_id: UUID, attempt: int) -> str:
    """Name a launch for all time: 26 characters of base32, fit for a folder or container name."""
    parts = f"{flow_run_id}/{scheduled_state_id}/{attempt}".encode()
    digest = hashlib.blake2b(parts, digest_size=16).digest()
    return base64.b32encode(digest).decode("ascii").rstrip("=").lower()


def stream_name(flow_run_id: UUID, ordinal: int) -> str:
    """Return the stream of a flow run's n-th submission."""
    return f"{flow_run_id}/{ordinal}"


# --- what is owed --------------------------------------------------------------------------


def what_next(submission: Submission) -> tuple[Effect, ...]:
    """Name the effects that are owed now, most urgent first.

    There is more than one only once the command was started: the server is told its pid while
    it is watched, so that a server that is away does not keep its end from being noticed.
    """
    match submission.state:
        case State.DISCOVERED:
            return (Effect.READ_RUN if submission.in_doubt else Effect.PROPOSE_PENDING,)
        case State.RESOLVING:
            return (Effect.READ_RUN if submission.in_doubt else Effect.RESOLVE,)
        case State.LAUNCHING:
            return (Effect.EXAMINE if submission.in_doubt else Effect.LAUNCH,)
        case State.STARTED:
            watching = Effect.EXAMINE if submission.in_doubt else Effect.WATCH
            return (watching, Effect.REPORT_PID) if submission.pid_owed else (watching,)
        case State.EXITED | State.FAILED | State.CANCELLED:
            return _owed_at_the_end(submission)
        case _:
            return ()


def _owed_at_the_end(submission: Submission) -> tuple[Effect, ...]:
    owed: list[Effect] = []
    if not submission.outcome_settled:
        must_look = submission.in_doubt or submission.outcome is None
        owed.append(Effect.READ_RUN if must_look else Effect.REPORT_OUTCOME)
    if submission.pid_owed:
        owed.append(Effect.REPORT_PID)
    return tuple(owed)


# --- the fold ------------------------------------------------------------------------------


def evolve(submission: Submission, event: Event, stream: str = "?") -> Submission:
    """Fold one event into the state. Observations move nothing.

    Raises:
        IllegalTransition: the table has no move for this transition in this state.
    """
    if not isinstance(event, Transition):
        return submission
    target = TRANSITIONS[submission.state].get(type(event))
    if target is None:
        raise IllegalTransition(submission.state, event, stream)
    changes = _CHANGES.get(type(event), _no_change)(submission, event)
    return attrs.evolve(submission, **{"state": target, "deferred": None, "tries": 0} | changes)


def fold(events: Iterable[Event], stream: str = "?") -> Submission:
    """Fold a whole stream."""
    submission = Submission()
    for event in events:
        submission = evolve(submission, event, stream)
    return submission


def _no_change(_submission: Submission, _event: Any) -> dict[str, Any]:
    return {}


def _deferred(submission: Submission, event: EffectDeferred) -> dict[str, Any]:
    # A proposal without an answer may have taken effect: read the run before repeating it, for
    # the server accepts Pending over Crashed, Failed and Completed too.
    unanswered = event.effect in PROPOSALS or event.effect is Effect.LAUNCH
    return {
        "deferred": event,
        "tries": submission.tries + 1,
        "in_doubt": submission.in_doubt or unanswered,
    }


# What only repeats an earlier step keeps counting its tries: nothing is better than before.
_CHANGES: Final[Mapping[type[Transition], Callable[[Submission, Any], dict[str, Any]]]] = {
    RunDiscovered: lambda _s, e: {"discovered": e},
    PendingProposed: lambda s, e: {"claim": e, "in_doubt": False, "tries": s.tries},
    PendingAccepted: lambda _s, e: {"claimed_state_id": e.state_id, "in_doubt": False},
    ResolutionStarted: lambda s, _e: {"in_doubt": False, "tries": s.tries},
    LaunchRequested: lambda s, e: {"launch": e, "tries": s.tries},
    # Time has passed since the claim, so the run is read again before it is resolved again.
    LaunchVoided: lambda s, _e: {"launch": None, "in_doubt": True, "tries": s.tries},
    LaunchConfirmed: lambda _s, e: {"confirmed": e, "pid_owed": True, "in_doubt": False},
    InfrastructureAdopted: lambda _s, _e: {"in_doubt": False},
    InfrastructureExited: lambda _s, e: {"exited": e, "in_doubt": False},
    PidReported: lambda _s, _e: {"pid_owed": False},
    OutcomeProposed: lambda s, e: {"outcome": e, "in_doubt": False, "tries": s.tries},
    OutcomeSettled: lambda _s, _e: {"outcome_settled": True, "in_doubt": False},
    EffectDeferred: _deferred,
    RecoveryStarted: lambda _s, _e: {"in_doubt": True},
}


# --- the decisions -------------------------------------------------------------------------


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
    return (OutcomeSettled(_in_words(seen), seen.state_type),)


def _on_claim_answer(submission: Submission, seen: ProposalAnswered) -> Sequence[Transition]:
    accepted = seen.status == "ACCEPT" and seen.state_type in ("PENDING", None)
    ours = _is_our_claim(submission, seen.state_type, seen.transition_id)
    if not (accepted or ours):
        return (PendingRefused(_in_words(seen), seen.state_type),)
    return (PendingAccepted(seen.state_id, repeated=not accepted), ResolutionStarted())


def _in_words(seen: ProposalAnswered) -> str:
    return f"{seen.status}: {seen.reason}" if seen.reason else seen.status


def _is_our_claim(submission: Submission, state_type: str | None, transition: UUID | None) -> bool:
    claim = submission.claim
    return claim is not None and state_type == "PENDING" and transition == claim.transition_id


def _on_read(submission: Submission, seen: RunRead) -> Sequence[Transition]:
    if Effect.READ_RUN not in what_next(submission):
        return ()
    return _READINGS[submission.state](submission, seen)


def _read_while_discovered(submission: Submission, seen: RunRead) -> Sequence[Transition]:
    if _is_our_claim(submission, seen.state_type, seen.transition_id):
        return (PendingAccepted(seen.state_id, repeated=True), ResolutionStarted())
    claim = submission.claim
    if claim is not None and seen.state_id == submission.run.scheduled_state_id:
        return (claim,)
    return (PendingRefused(f"the run is {_state_in_words(seen)} now", seen.state_type),)


def _read_while_resolving(submission: Submission, seen: RunRead) -> Sequence[Transition]:
    if _is_our_claim(submission, seen.state_type, seen.transition_id):
        return (ResolutionStarted(),)
    cancelled = SubmissionCancelled(f"the run is {_state_in_words(seen)} now", seen.state_type)
    return (cancelled, *_settlement(submission, seen))


def _read_at_the_end(submission: Submission, seen: RunRead) -> Sequence[Transition]:
    return _settlement(submission, seen)


_READINGS: Final[Mapping[State, Callable[[Submission, RunRead], Sequence[Transition]]]] = {
    State.DISCOVERED: _read_while_discovered,
    State.RESOLVING: _read_while_resolving,
    State.EXITED: _read_at_the_end,
    State.FAILED: _read_at_the_end,
    State.CANCELLED: _read_at_the_end,
}


def _state_in_words(seen: RunRead) -> str:
    return seen.state_name or seen.state_type or "without a state"


def _settlement(submission: Submission, seen: RunRead) -> Sequence[Transition]:
    """Compare how it ended with what the server believes, and say what is owed."""
    owed = _owed_outcome(submission, seen)
    if owed is None:
        return (OutcomeSettled(f"the run is {_state_in_words(seen)}", seen.state_type),)
    return (owed,)


def _owed_outcome(submission: Submission, seen: RunRead) -> OutcomeProposed | None:
    if seen.state_type == "CANCELLING":
        # Crashed is refused over Cancelling, and nobody else will end it: what it ran on was ours.
        return _outcome(submission, "CANCELLED", "Cancelled", "Its infrastructure has ended.")
    if submission.outcome is not None:
        pending = _is_our_claim(submission, seen.state_type, seen.transition_id)
        return submission.outcome if pending or _runs_as_ours(submission, seen) else None
    exited = submission.exited
    if exited is None:
        return None
    if _is_our_claim(submission, seen.state_type, seen.transition_id):
        return _outcome(submission, "CRASHED", "Crashed", _crash_message(exited, ran=False))
    if exited.exit_code != 0 and _runs_as_ours(submission, seen):
        return _outcome(submission, "CRASHED", "Crashed", _crash_message(exited, ran=True))
    return None


def _runs_as_ours(submission: Submission, seen: RunRead) -> bool:
    """Whether the run is Running on the infrastructure of this very submission.

    A run that was rescheduled may be Running as another submission, here or at another agent;
    the pid that the server keeps tells (it may not have reached the server: then it is ours).
    """
    pid = None if submission.confirmed is None else submission.confirmed.infrastructure_pid
    return (
        seen.state_type == "RUNNING" and pid is not None and seen.infrastructure_pid in (None, pid)
    )


def _crash_message(exited: InfrastructureExited, *, ran: bool) -> str:
    if exited.exit_code is None:
        return f"Flow run infrastructure was lost: {exited.reason}"
    status = f"Flow run infrastructure exited with status code {exited.exit_code}"
    why = f" ({exited.reason})" if exited.reason else ""
    return f"{status}{why}." if ran else f"{status}{why} before the run was Running."


def _outcome(submission: Submission, type_: str, name: str, message: str) -> OutcomeProposed:
    if submission.claim is None:
        raise LookupError("an outcome is owed only for a run that was claimed")
    # Derived from the claim's id, and so from the launch key: repeating it is the same request.
    transition_id = uuid5(submission.claim.transition_id, f"outcome/{type_}")
    return OutcomeProposed(type_, name, message, transition_id)


def _on_missing(submission: Submission, seen: RunMissing) -> Sequence[Transition]:
    if seen.effect not in what_next(submission):
        return ()
    gone = "the run no longer exists at the server"
    if seen.effect is Effect.REPORT_PID:
        return (PidReported(gone),)
    match submission.state:
        case State.DISCOVERED:
            return (PendingRefused(gone, None),)
        case State.RESOLVING:
            return (SubmissionCancelled(gone, None), OutcomeSettled(gone, None))
        case State.EXITED | State.FAILED | State.CANCELLED:
            return (OutcomeSettled(gone, None),)
        case _:
            return ()


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
            return _failure(submission, "resolve", seen.error)
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
    return (LaunchRequested(seen.infrastructure, seen.name, seen.command, seen.working_dir),)


def _on_unresolved(submission: Submission, seen: ResolutionFailed) -> Sequence[Transition]:
    if Effect.RESOLVE not in what_next(submission):
        return ()
    return _failure(submission, "resolve", seen.error)


def _failure(submission: Submission, step: str, error: str) -> Sequence[Transition]:
    # The states and words are those of Prefect 2.20: what can't be resolved has Failed, what
    # can't be put on infrastructure has Crashed.
    if step == "resolve":
        owed = _outcome(submission, "FAILED", "Failed", f"Submission failed. {error}")
    else:
        message = f"Flow run could not be submitted to infrastructure: {error}"
        owed = _outcome(submission, "CRASHED", "Crashed", message)
    return (SubmissionFailed(step, error), owed)


def _on_started(submission: Submission, seen: CommandStarted) -> Sequence[Transition]:
    if Effect.LAUNCH not in what_next(submission):
        return ()
    return (_confirmed(seen.infrastructure_pid, seen.pid, seen.start_time, seen.boot_id),)


def _confirmed(
    infrastructure_pid: str, pid: int, start_time: int, boot_id: str, *, adopted: bool = False
) -> LaunchConfirmed:
    return LaunchConfirmed(infrastructure_pid, pid, start_time, boot_id, adopted)


def _on_not_started(submission: Submission, seen: CommandRefused) -> Sequence[Transition]:
    if Effect.LAUNCH not in what_next(submission):
        return ()
    return _failure(submission, "launch", seen.error)


def _on_uncertain(submission: Submission, seen: LaunchUncertain) -> Sequence[Transition]:
    if Effect.LAUNCH not in what_next(submission):
        return ()
    # The evidence is looked at without delay the first time; a launcher that breaks every time
    # must not be a busy loop.
    delay = 0.0 if submission.tries == 0 else min(2.0**submission.tries, LONGEST_DELAY_SECONDS)
    return (EffectDeferred(Effect.LAUNCH, delay, seen.error),)


def _on_evidence(submission: Submission, seen: EvidenceFound) -> Sequence[Transition]:
    if Effect.EXAMINE not in what_next(submission):
        return ()
    if submission.state is State.LAUNCHING:
        return _evidence_of_a_launch(submission, seen)
    match seen.verdict:
        case Verdict.RUNNING:
            return (InfrastructureAdopted(seen.detail),)
        case Verdict.FINISHED:
            return (InfrastructureExited(seen.exit_code, seen.detail),)
        case _:
            # The log proves that it was started, whatever has become of the evidence since.
            return (InfrastructureExited(None, seen.detail),)


def _evidence_of_a_launch(submission: Submission, seen: EvidenceFound) -> Sequence[Transition]:
    if seen.verdict is Verdict.NEVER_RAN:
        return (LaunchVoided(seen.detail),)
    who = (seen.infrastructure_pid, seen.pid, seen.start_time, seen.boot_id)
    match who:
        case (str() as name, int() as pid, int() as start, str() as boot):
            confirmed = _confirmed(name, pid, start, boot, adopted=True)
        case _:
            return _failure(submission, "recover", seen.detail)
    match seen.verdict:
        case Verdict.RUNNING:
            return (confirmed,)
        case Verdict.FINISHED:
            return (confirmed, InfrastructureExited(seen.exit_code, seen.detail))
        case _:
            return (confirmed, InfrastructureExited(None, seen.detail))


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
