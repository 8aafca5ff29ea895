"""Which events tell that something goes wrong: what `replay tail --failed` shows, and in red.

A judgement about single events, for the eye: whether a run went well is `replay.summary`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from events.codec import EVENT_TYPES
from events.lifecycle import (
    ClaimMisplaced,
    EffectDeferred,
    Event,
    InfrastructureExited,
    LaunchRepeated,
    LaunchVoided,
    OutcomeProposed,
    PendingRefused,
    SubmissionCancelled,
    SubmissionFailed,
    Verdict,
)
from events.notices import PollingFailed, RunLeftAlone, SubmissionOverdue
from events.observations import (
    CommandEnded,
    CommandRefused,
    EvidenceFound,
    LaunchUncertain,
    ProposalAnswered,
    RequestFailed,
    ResolutionFailed,
    RunMissing,
)

BAD: Final = "bad"
"""Something failed, was refused, or crashed."""
WAIT: Final = "wait"
"""Something did not go as it should, and may yet: a deferral, a doubt, a run given back."""

_UNPROVED: Final = frozenset({Verdict.LOST, Verdict.IMPOSSIBLE, Verdict.NO_EVIDENCE})


def severity(event: Event | None) -> str:
    """Return `BAD` or `WAIT`, styles of `replay.screen`; empty when all is well.

    Args:
        event: None for one that can't be read, which is bad.
    """
    if event is None:
        return BAD
    judge = _JUDGES.get(type(event))
    return judge(event) if judge else ""


def is_never_wrong(type_: str) -> bool:
    """Tell of a type whose events are all well, without reading one."""
    known = EVENT_TYPES.get(type_)
    return known is not None and known not in _JUDGES


def _by_exit(event: Any) -> str:
    return "" if event.exit_code == 0 else BAD


def _by_status(event: ProposalAnswered) -> str:
    return {"ACCEPT": "", "WAIT": WAIT}.get(event.status, BAD)


_JUDGES: Final[Mapping[type[Event], Callable[[Any], str]]] = {
    ProposalAnswered: _by_status,
    RunMissing: lambda _e: BAD,
    RequestFailed: lambda e: WAIT if e.retryable else BAD,
    ResolutionFailed: lambda _e: BAD,
    CommandRefused: lambda _e: BAD,
    LaunchUncertain: lambda _e: WAIT,
    EvidenceFound: lambda e: BAD if e.verdict in _UNPROVED else "",
    CommandEnded: _by_exit,
    PendingRefused: lambda _e: BAD,
    ClaimMisplaced: lambda _e: WAIT,
    LaunchVoided: lambda _e: WAIT,
    LaunchRepeated: lambda _e: WAIT,
    InfrastructureExited: _by_exit,
    SubmissionFailed: lambda _e: BAD,
    SubmissionCancelled: lambda _e: WAIT,
    OutcomeProposed: lambda e: BAD if e.state_type in ("FAILED", "CRASHED") else "",
    EffectDeferred: lambda _e: WAIT,
    PollingFailed: lambda _e: BAD,
    RunLeftAlone: lambda _e: WAIT,
    SubmissionOverdue: lambda _e: WAIT,
}
