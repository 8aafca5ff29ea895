"""What we owe the server about how a submission ended: which state, in which words.

Used by the decider and by the recovery tables. The states and words are those of Prefect 2.20.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid5

from events.lifecycle import (
    InfrastructureExited,
    OutcomeProposed,
    SubmissionFailed,
    Transition,
)
from events.submission import Submission


def outcome(
    submission: Submission, type_: str, name: str, message: str, restores: UUID | None = None
) -> OutcomeProposed:
    """Owe the server a state. Repeating it is the same request.

    Raises:
        LookupError: the run was never claimed.
    """
    if submission.claim is None:
        raise LookupError("an outcome is owed only for a run that was claimed")
    # Derived from the claim's id, and so from the launch key.
    transition_id = uuid5(submission.claim.transition_id, f"outcome/{type_}")
    return OutcomeProposed(type_, name, message, transition_id, restores)


def failure(submission: Submission, step: str, error: str) -> Sequence[Transition]:
    """Give a submission up before its command ran, and owe the server a word about it.

    What can't be resolved has Failed, what can't be put on infrastructure has Crashed.
    """
    if step == "resolve":
        owed = outcome(submission, "FAILED", "Failed", f"Submission failed. {error}")
    else:
        message = f"Flow run could not be submitted to infrastructure: {error}"
        owed = outcome(submission, "CRASHED", "Crashed", message)
    return (SubmissionFailed(step, error), owed)


def crashed(submission: Submission, exited: InfrastructureExited, *, ran: bool) -> OutcomeProposed:
    """Owe the server a Crashed. `ran`: whether the run was Running at the server by then."""
    if exited.exit_code is None:
        message = f"Flow run infrastructure was lost: {exited.reason}"
    else:
        status = f"Flow run infrastructure exited with status code {exited.exit_code}"
        why = f" ({exited.reason})" if exited.reason else ""
        message = f"{status}{why}." if ran else f"{status}{why} before the run was Running."
    return outcome(submission, "CRASHED", "Crashed", message)
