"""What follows from evidence: two tables, and they are the code.

`AT_LAUNCHER` says what follows from what locks, records and boot id prove about a launch, and
`AT_SERVER` what follows from how the run stands at the server. They are asked whenever a
submission is in doubt: after a restart, a lost answer, a launch that broke off. docs/recovery.md
shows them (`python -m events.diagram`), and a test visits every row.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import attrs

from events.lifecycle import (
    ClaimMisplaced,
    InfrastructureAdopted,
    InfrastructureExited,
    LaunchConfirmed,
    LaunchRepeated,
    LaunchVoided,
    OnUncertain,
    OutcomeProposed,
    OutcomeSettled,
    PendingAccepted,
    PendingProposed,
    PendingRefused,
    ResolutionStarted,
    State,
    SubmissionCancelled,
    SubmissionFailed,
    Transition,
    Verdict,
)
from events.observations import EvidenceFound, RunMissing, RunRead
from events.outcomes import crashed, failure, outcome
from events.submission import Submission, key_after

Follows = Callable[[Submission, Any], Sequence[Transition]]
Types = tuple[type[Transition], ...]


@attrs.frozen
class Rule:
    """One row: what follows from one kind of evidence in one state.

    Attributes:
        words: for people.
        leads_to: the transitions it can lead to; more than one way where the detail decides.
    """

    words: str
    follows: Follows
    leads_to: tuple[Types, ...]


class Standing(enum.Enum):
    """How a run stands at the server, as seen from one submission of it."""

    OURS = "Pending by our claim"
    MISPLACED = "Pending by our claim, but not over the Scheduled state that was handed out"
    AS_FOUND = "in the Scheduled state that was handed out"
    RUNS_AS_OURS = "Running on our infrastructure"
    CANCELLING = "Cancelling"
    CANCELLED_OURS = "Cancelling, and was Pending by our claim before"
    OTHER = "in any other state"
    MISSING = "not known (any more)"


def standing(submission: Submission, seen: RunRead | RunMissing) -> Standing:
    """Classify what the server says of the run."""
    if isinstance(seen, RunMissing):
        return Standing.MISSING
    claim, confirmed = submission.claim, submission.confirmed
    if seen.state_type == "PENDING" and claim and seen.transition_id == claim.transition_id:
        if submission.state is State.DISCOVERED and is_misplaced(submission, seen.scheduled_time):
            return Standing.MISPLACED
        return Standing.MISPLACED if submission.misplaced else Standing.OURS
    if seen.state_id is not None and seen.state_id == submission.run.scheduled_state_id:
        return Standing.AS_FOUND
    # A run that was rescheduled may be Running as another submission, here or at another agent;
    # the pid that the server keeps tells (if it has none, ours did not reach it).
    pids = () if confirmed is None else (None, confirmed.infrastructure_pid)
    if seen.state_type == "RUNNING" and seen.infrastructure_pid in pids:
        return Standing.RUNS_AS_OURS
    if seen.state_type != "CANCELLING":
        return Standing.OTHER
    ours = claim is not None and seen.before_transition_id == claim.transition_id
    return Standing.CANCELLED_OURS if ours else Standing.CANCELLING


def is_misplaced(submission: Submission, scheduled_time: str | None) -> bool:
    """Tell whether an accepted claim was taken over another state than the one handed out.

    Servers take Pending over Completed, Failed and Crashed too, so an agent that was slow would
    launch a finished run once more.

    Args:
        submission: which claim.
        scheduled_time: that the Pending carries; it is that of the state it was taken over.
    """
    expected = submission.run.scheduled_time
    if expected is None:
        return False
    if scheduled_time is None:
        return True
    difference = datetime.fromisoformat(scheduled_time) - datetime.fromisoformat(expected)
    return abs(difference.total_seconds()) >= 1.0


# --- the evidence of a launch --------------------------------------------------------------


def _confirm(submission: Submission, seen: EvidenceFound) -> Sequence[Transition]:
    who = (seen.infrastructure_pid, seen.pid, seen.start_time, seen.boot_id)
    match who:
        case (str() as name, int() as pid, int() as start, str() as boot):
            return (LaunchConfirmed(name, pid, start, boot, adopted=True),)
        case _:
            # What could not be executed never was anybody.
            return failure(submission, "recover", seen.detail)


def _confirm_ended(submission: Submission, seen: EvidenceFound) -> Sequence[Transition]:
    found = _confirm(submission, seen)
    if len(found) > 1:
        return found
    return (*found, *_end(submission, seen))


def _void(_submission: Submission, seen: EvidenceFound) -> Sequence[Transition]:
    return (LaunchVoided(seen.detail),)


def _give_up_or_repeat(submission: Submission, seen: EvidenceFound) -> Sequence[Transition]:
    if seen.on_uncertain is OnUncertain.RELAUNCH:
        return (LaunchRepeated(key_after(submission.launch_key), seen.detail),)
    return failure(submission, "recover", f"it may have run, nobody can tell: {seen.detail}")


def _adopt(_submission: Submission, seen: EvidenceFound) -> Sequence[Transition]:
    return (InfrastructureAdopted(seen.detail),)


def _end(_submission: Submission, seen: EvidenceFound) -> Sequence[Transition]:
    exit_code = seen.exit_code if seen.verdict is Verdict.FINISHED else None
    return (InfrastructureExited(exit_code, seen.detail),)


_CONFIRMED: Final[Types] = (LaunchConfirmed,)
_ENDED: Final[Types] = (LaunchConfirmed, InfrastructureExited)
_GIVEN_UP: Final[Types] = (SubmissionFailed, OutcomeProposed)
_UNCERTAIN: Final = Rule(
    "Nobody can tell whether it ran. `--on-uncertain crash` (the default): it is given up, and"
    " Crashed is owed. `relaunch`: the run is read, and if it is still Pending by our claim it is"
    " launched again under another key.",
    _give_up_or_repeat,
    (_GIVEN_UP, (LaunchRepeated,)),
)
_NO_LONGER: Final = Rule(
    "The log proves that it was started, and no trace of it is left: it has ended, nobody knows"
    " how.",
    _end,
    ((InfrastructureExited,),),
)

AT_LAUNCHER: Final[Mapping[tuple[State, Verdict], Rule]] = {
    (State.LAUNCHING, Verdict.NEVER_RAN): Rule(
        "The launch is void. The run is read, and launched under the same key if it is still"
        " Pending by our claim.",
        _void,
        ((LaunchVoided,),),
    ),
    (State.LAUNCHING, Verdict.RUNNING): Rule(
        "It is adopted: the server is told its pid, and it is watched.", _confirm, (_CONFIRMED,)
    ),
    (State.LAUNCHING, Verdict.FINISHED): Rule(
        "It is adopted and has ended; its exit status is kept. What could not be executed is given"
        " up instead, and Crashed is owed.",
        _confirm_ended,
        (_ENDED, _GIVEN_UP),
    ),
    (State.LAUNCHING, Verdict.LOST): Rule(
        "It was started, and its keeper or the host went down before it ended: it has ended,"
        " nobody knows how.",
        _confirm_ended,
        (_ENDED, _GIVEN_UP),
    ),
    (State.LAUNCHING, Verdict.IMPOSSIBLE): _UNCERTAIN,
    (State.LAUNCHING, Verdict.NO_EVIDENCE): _UNCERTAIN,
    (State.STARTED, Verdict.RUNNING): Rule(
        "It is adopted and watched.", _adopt, ((InfrastructureAdopted,),)
    ),
    (State.STARTED, Verdict.FINISHED): Rule(
        "It has ended; its exit status is kept.", _end, ((InfrastructureExited,),)
    ),
    (State.STARTED, Verdict.LOST): _NO_LONGER,
    (State.STARTED, Verdict.NEVER_RAN): _NO_LONGER,
    (State.STARTED, Verdict.IMPOSSIBLE): _NO_LONGER,
    (State.STARTED, Verdict.NO_EVIDENCE): _NO_LONGER,
}
"""(state, what the launcher's evidence proves) -> what follows."""


# --- the run at the server -----------------------------------------------------------------


def _in_words(seen: RunRead | RunMissing) -> str:
    if isinstance(seen, RunMissing):
        return "the run no longer exists at the server"
    return f"the run is {seen.state_name or seen.state_type or 'without a state'}"


def _now(seen: RunRead | RunMissing) -> str:
    return _in_words(seen) + (" now" if isinstance(seen, RunRead) else "")


def _type(seen: RunRead | RunMissing) -> str | None:
    return None if isinstance(seen, RunMissing) else seen.state_type


def _accept(_submission: Submission, seen: RunRead) -> Sequence[Transition]:
    return (PendingAccepted(seen.state_id, repeated=True), ResolutionStarted())


def _misplace(_submission: Submission, seen: RunRead) -> Sequence[Transition]:
    return (ClaimMisplaced(seen.state_id, seen.scheduled_time),)


def _claim_again(submission: Submission, _seen: RunRead) -> Sequence[Transition]:
    return () if submission.claim is None else (submission.claim,)


def _refuse(_submission: Submission, seen: RunRead | RunMissing) -> Sequence[Transition]:
    return (PendingRefused(_now(seen), _type(seen)),)


def _resolve(_submission: Submission, _seen: RunRead) -> Sequence[Transition]:
    return (ResolutionStarted(),)


def _cancel(submission: Submission, seen: RunRead | RunMissing) -> Sequence[Transition]:
    return (SubmissionCancelled(_now(seen), _type(seen)), *_settle(submission, seen))


def _cancel_cancelling(submission: Submission, seen: RunRead) -> Sequence[Transition]:
    cancelled = SubmissionCancelled(_now(seen), seen.state_type)
    return (cancelled, *_confirm_cancellation(submission, seen))


def _accept_and_cancel(submission: Submission, seen: RunRead) -> Sequence[Transition]:
    accepted = PendingAccepted(seen.before_id, repeated=True)
    return (accepted, ResolutionStarted(), *_cancel_cancelling(submission, seen))


def _settle(_submission: Submission, seen: RunRead | RunMissing) -> Sequence[Transition]:
    return (OutcomeSettled(_in_words(seen), _type(seen)),)


def _confirm_cancellation(submission: Submission, _seen: RunRead) -> Sequence[Transition]:
    # Crashed is refused over Cancelling, and nobody else will end it: what it ran on was ours.
    return (outcome(submission, "CANCELLED", "Cancelled", "Its infrastructure has ended."),)


def _report(submission: Submission, seen: RunRead) -> Sequence[Transition]:
    """Owe what was owed already, or a Crashed if the command has ended in this state."""
    if submission.outcome is not None:
        return (submission.outcome,)
    if submission.exited is None:
        return _settle(submission, seen)
    return (crashed(submission, submission.exited, ran=False),)


def _report_unless_it_went_well(submission: Submission, seen: RunRead) -> Sequence[Transition]:
    if submission.outcome is not None:
        return (submission.outcome,)
    exited = submission.exited
    if exited is None or exited.exit_code == 0:
        return _settle(submission, seen)
    return (crashed(submission, exited, ran=True),)


def _give_back(submission: Submission, seen: RunRead) -> Sequence[Transition]:
    if submission.outcome is not None:
        return (submission.outcome,)
    if seen.before_id is None or seen.before_type is None:
        message = "It was claimed after it was over, and what it was before can't be found out."
        return (outcome(submission, "CRASHED", "Crashed", message),)
    name = seen.before_name or seen.before_type.capitalize()
    message = "Given back: it was claimed late, when another agent was done with it."
    return (outcome(submission, seen.before_type, name, message, seen.before_id),)


_REFUSED: Final = Rule("It is not ours (any more), and left alone.", _refuse, ((PendingRefused,),))
_CANCELLED: Final = Rule(
    "It is not launched, and left alone.", _cancel, ((SubmissionCancelled, OutcomeSettled),)
)
_CANCELLING: Final = Rule(
    "It is not launched, and Cancelled is owed.",
    _cancel_cancelling,
    ((SubmissionCancelled, OutcomeProposed),),
)
_SETTLED: Final = Rule("Its state says enough: nothing is owed.", _settle, ((OutcomeSettled,),))
_END_OF_CANCELLING: Final = Rule(
    "Cancelled is owed: its infrastructure has ended.",
    _confirm_cancellation,
    ((OutcomeProposed,),),
)
_OWED_AGAIN: Final = Rule(
    "What was owed is still owed: it is proposed (again), as the same request.",
    _report,
    ((OutcomeProposed,), (OutcomeSettled,)),
)
_GIVEN_BACK: Final = Rule(
    "It gets the state back that it had before our claim.", _give_back, ((OutcomeProposed,),)
)

AT_SERVER: Final[Mapping[tuple[State, Standing], Rule]] = {
    (State.DISCOVERED, Standing.OURS): Rule(
        "The claim was accepted: it is resolved.", _accept, ((PendingAccepted, ResolutionStarted),)
    ),
    (State.DISCOVERED, Standing.MISPLACED): Rule(
        "Another agent was faster and is done with it: it is not launched, and gets its state"
        " back.",
        _misplace,
        ((ClaimMisplaced,),),
    ),
    (State.DISCOVERED, Standing.AS_FOUND): Rule(
        "The claim did not arrive: it is sent (again), as the same request.",
        _claim_again,
        ((PendingProposed,),),
    ),
    (State.DISCOVERED, Standing.RUNS_AS_OURS): _REFUSED,
    (State.DISCOVERED, Standing.CANCELLING): _REFUSED,
    (State.DISCOVERED, Standing.CANCELLED_OURS): Rule(
        "The claim was accepted, and then the run was cancelled: it is not launched, and Cancelled"
        " is owed.",
        _accept_and_cancel,
        ((PendingAccepted, ResolutionStarted, SubmissionCancelled, OutcomeProposed),),
    ),
    (State.DISCOVERED, Standing.OTHER): _REFUSED,
    (State.DISCOVERED, Standing.MISSING): _REFUSED,
    (State.RESOLVING, Standing.OURS): Rule(
        "It is resolved (again).", _resolve, ((ResolutionStarted,),)
    ),
    (State.RESOLVING, Standing.MISPLACED): _CANCELLED,
    (State.RESOLVING, Standing.AS_FOUND): _CANCELLED,
    (State.RESOLVING, Standing.RUNS_AS_OURS): _CANCELLED,
    (State.RESOLVING, Standing.CANCELLING): _CANCELLING,
    (State.RESOLVING, Standing.CANCELLED_OURS): _CANCELLING,
    (State.RESOLVING, Standing.OTHER): _CANCELLED,
    (State.RESOLVING, Standing.MISSING): _CANCELLED,
    (State.EXITED, Standing.OURS): Rule(
        "It never became Running: Crashed is owed, whatever the exit status.",
        _report,
        ((OutcomeProposed,),),
    ),
    (State.EXITED, Standing.MISPLACED): _GIVEN_BACK,
    (State.EXITED, Standing.AS_FOUND): _SETTLED,
    (State.EXITED, Standing.RUNS_AS_OURS): Rule(
        "Crashed is owed, unless it ended with status 0: such a command may have handed the run"
        " on.",
        _report_unless_it_went_well,
        ((OutcomeProposed,), (OutcomeSettled,)),
    ),
    (State.EXITED, Standing.CANCELLING): _END_OF_CANCELLING,
    (State.EXITED, Standing.CANCELLED_OURS): _END_OF_CANCELLING,
    (State.EXITED, Standing.OTHER): _SETTLED,
    (State.EXITED, Standing.MISSING): _SETTLED,
    (State.FAILED, Standing.OURS): _OWED_AGAIN,
    (State.FAILED, Standing.MISPLACED): _GIVEN_BACK,
    (State.FAILED, Standing.AS_FOUND): _SETTLED,
    (State.FAILED, Standing.RUNS_AS_OURS): _OWED_AGAIN,
    (State.FAILED, Standing.CANCELLING): _END_OF_CANCELLING,
    (State.FAILED, Standing.CANCELLED_OURS): _END_OF_CANCELLING,
    (State.FAILED, Standing.OTHER): _SETTLED,
    (State.FAILED, Standing.MISSING): _SETTLED,
    (State.CANCELLED, Standing.OURS): _SETTLED,
    (State.CANCELLED, Standing.MISPLACED): _GIVEN_BACK,
    (State.CANCELLED, Standing.AS_FOUND): _SETTLED,
    (State.CANCELLED, Standing.RUNS_AS_OURS): _SETTLED,
    (State.CANCELLED, Standing.CANCELLING): _END_OF_CANCELLING,
    (State.CANCELLED, Standing.CANCELLED_OURS): _END_OF_CANCELLING,
    (State.CANCELLED, Standing.OTHER): _SETTLED,
    (State.CANCELLED, Standing.MISSING): _SETTLED,
}
"""(state, how the run stands at the server) -> what follows."""
