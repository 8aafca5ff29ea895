"""What a submission is: the fold of its stream, what it owes next, and the names derived from it.

`evolve` folds one transition, `fold` a whole stream, and `what_next` names the effects that are
owed. Pure, like `events.decider`, which says which transitions follow from an observation; the
daemon, a restart and replay all go through these.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from uuid import UUID

import attrs

from events.lifecycle import (
    TRANSITIONS,
    ClaimMisplaced,
    Effect,
    EffectDeferred,
    Event,
    IllegalTransition,
    InfrastructureAdopted,
    InfrastructureExited,
    LaunchConfirmed,
    LaunchRepeated,
    LaunchRequested,
    LaunchVoided,
    OutcomeProposed,
    OutcomeSettled,
    PendingAccepted,
    PendingProposed,
    PidReported,
    RecoveryStarted,
    ResolutionStarted,
    RunDiscovered,
    State,
    Transition,
)

PROPOSALS: Final = frozenset({Effect.PROPOSE_PENDING, Effect.REPORT_OUTCOME})
"""The effects that ask the server to change a run's state."""

CLOSED_STATES: Final = frozenset({State.ABORTED, State.CANCELLED, State.EXITED, State.FAILED})


@attrs.frozen(slots=False)  # `evolve` copies its dict
class Submission:
    """The fold of one stream: the state, and the last transition of each kind that matters.

    Attributes:
        discovered, claim, launch, confirmed, exited, outcome: that transition, once it came.
        claimed_state_id: the Pending state by which the server made the run ours.
        misplaced: the claim was accepted over another state than the one that was handed out.
        repeated: nobody could tell whether the launch ran, and another takes its place.
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
    misplaced: ClaimMisplaced | None = None
    repeated: LaunchRepeated | None = None
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
    def launch_key(self) -> str:
        """Names the present launch: there is another one only after `LaunchRepeated`."""
        return self.run.launch_key if self.repeated is None else self.repeated.launch_key

    @property
    def is_closed(self) -> bool:
        """Whether nothing will ever follow."""
        return self.state in CLOSED_STATES and not what_next(self)


def launch_key(flow_run_id: UUID, scheduled_state_id: UUID, attempt: int) -> str:
    """Name a launch for all time: 26 characters of base32, fit for a folder or container name."""
    parts = f"{flow_run_id}/{scheduled_state_id}/{attempt}".encode()
    digest = hashlib.blake2b(parts, digest_size=16).digest()
    return base64.b32encode(digest).decode("ascii").rstrip("=").lower()


def key_after(key: str) -> str:
    """Name the launch that takes the place of another one."""
    digest = hashlib.blake2b(f"{key}/again".encode(), digest_size=16).digest()
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
    simple = _OWED.get(submission.state)
    if simple is not None:
        return simple[submission.in_doubt]
    if submission.state in CLOSED_STATES:
        return _owed_at_the_end(submission)
    if submission.state is State.STARTED:
        watching = Effect.EXAMINE if submission.in_doubt else Effect.WATCH
        return (watching, Effect.REPORT_PID) if submission.pid_owed else (watching,)
    return ()


_OWED: Final[Mapping[State, tuple[tuple[Effect, ...], tuple[Effect, ...]]]] = {
    State.DISCOVERED: ((Effect.PROPOSE_PENDING,), (Effect.READ_RUN,)),
    State.RESOLVING: ((Effect.RESOLVE,), (Effect.READ_RUN,)),
    State.LAUNCHING: ((Effect.LAUNCH,), (Effect.EXAMINE,)),
    State.ABORTED: ((), ()),
}
"""What is owed on the way to a start, and instead of it when it is in doubt."""


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
    # A fold of a million records is mostly this: `attrs.evolve` takes five times as long.
    after = object.__new__(Submission)
    fields = after.__dict__
    fields.update(submission.__dict__)
    fields["state"], fields["deferred"], fields["tries"] = target, None, 0
    changes = _CHANGES.get(type(event))
    if changes is not None:
        fields.update(changes(submission, event))
    return after


def fold(events: Iterable[Event], stream: str = "?") -> Submission:
    """Fold a whole stream."""
    submission = Submission()
    for event in events:
        submission = evolve(submission, event, stream)
    return submission


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
    ClaimMisplaced: lambda _s, e: {"misplaced": e, "in_doubt": False},
    ResolutionStarted: lambda s, _e: {"in_doubt": False, "tries": s.tries},
    LaunchRequested: lambda s, e: {"launch": e, "tries": s.tries},
    # Time has passed since the claim, so the run is read again before it is resolved again.
    LaunchVoided: lambda s, _e: {"launch": None, "in_doubt": True, "tries": s.tries},
    LaunchRepeated: lambda s, e: {
        "launch": None,
        "repeated": e,
        "in_doubt": True,
        "tries": s.tries,
    },
    LaunchConfirmed: lambda _s, e: {"confirmed": e, "pid_owed": True, "in_doubt": False},
    InfrastructureAdopted: lambda _s, _e: {"in_doubt": False},
    InfrastructureExited: lambda _s, e: {"exited": e, "in_doubt": False},
    PidReported: lambda _s, _e: {"pid_owed": False},
    OutcomeProposed: lambda s, e: {"outcome": e, "in_doubt": False, "tries": s.tries},
    OutcomeSettled: lambda _s, _e: {"outcome_settled": True, "in_doubt": False},
    EffectDeferred: _deferred,
    RecoveryStarted: lambda _s, _e: {"in_doubt": True},
}
