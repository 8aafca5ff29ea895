"""Every row of the recovery tables, as the decider answers it."""

from __future__ import annotations

from uuid import UUID, uuid5

import attrs
import pytest

from events.decider import decide
from events.lifecycle import (
    ClaimMisplaced,
    Effect,
    InfrastructureExited,
    LaunchConfirmed,
    LaunchRepeated,
    LaunchRequested,
    OnUncertain,
    OutcomeProposed,
    OutcomeSettled,
    PendingAccepted,
    PendingProposed,
    RecoveryStarted,
    ResolutionStarted,
    RunDiscovered,
    State,
    SubmissionCancelled,
    SubmissionFailed,
    Transition,
    Verdict,
)
from events.observations import EvidenceFound, ProposalAnswered, RunMissing, RunRead
from events.recovery import AT_LAUNCHER, AT_SERVER, Standing, standing
from events.submission import Submission, fold, launch_key, what_next

RUN, FOUND, CLAIMED, OTHER = (UUID(int=n) for n in (1, 2, 3, 4))
AGENT = UUID(int=9)
DUE = "2026-01-01T00:00:00+00:00"
KEY = launch_key(RUN, FOUND, 1)
OURS = uuid5(AGENT, f"{KEY}/pending")

DISCOVERED: list[Transition] = [
    RunDiscovered(RUN, "run", None, None, "q", 1, 1, FOUND, DUE, KEY),
    PendingProposed(OURS),
]
RESOLVING = [*DISCOVERED, PendingAccepted(CLAIMED, repeated=False), ResolutionStarted()]
LAUNCHING = [*RESOLVING, LaunchRequested("process", "run", ("true",), None, "spool")]
STARTED = [*LAUNCHING, LaunchConfirmed("host:7", 7, 70, "boot", adopted=False)]
MISPLACED = [*DISCOVERED, ClaimMisplaced(CLAIMED, None)]
LIVES: dict[State, list[Transition]] = {
    State.DISCOVERED: DISCOVERED,
    State.RESOLVING: RESOLVING,
    State.LAUNCHING: LAUNCHING,
    State.STARTED: STARTED,
    State.EXITED: [*STARTED, InfrastructureExited(1, "")],
    State.FAILED: [
        *RESOLVING,
        SubmissionFailed("resolve", "no"),
        OutcomeProposed("FAILED", "Failed", "no", UUID(int=8)),
    ],
    State.CANCELLED: [*RESOLVING, SubmissionCancelled("gone", None)],
}
"""A submission in each state that can be in doubt."""

SEEN: dict[Standing, RunRead | RunMissing] = {
    Standing.OURS: RunRead("PENDING", "Pending", CLAIMED, OURS, None, DUE),
    Standing.MISPLACED: RunRead(
        "PENDING", "Pending", CLAIMED, OURS, None, None, OTHER, "COMPLETED", "Completed"
    ),
    Standing.AS_FOUND: RunRead("SCHEDULED", "Scheduled", FOUND, None, None, DUE),
    Standing.RUNS_AS_OURS: RunRead("RUNNING", "Running", OTHER, None, "host:7"),
    Standing.CANCELLING: RunRead("CANCELLING", "Cancelling", OTHER, None, None),
    Standing.CANCELLED_OURS: RunRead(
        *("CANCELLING", "Cancelling", OTHER, None, None, None),
        *(CLAIMED, "PENDING", "Pending", OURS),
    ),
    Standing.OTHER: RunRead("COMPLETED", "Completed", OTHER, None, None),
    Standing.MISSING: RunMissing(Effect.READ_RUN),
}

IN_DOUBT = (
    State.DISCOVERED,
    State.RESOLVING,
    State.EXITED,
    State.FAILED,
    State.CANCELLED,
)


def in_doubt(state: State, life: list[Transition] | None = None) -> Submission:
    submission = fold([*(life or LIVES[state]), RecoveryStarted()])
    assert submission.state is state
    return submission


def found(verdict: Verdict, policy: OnUncertain = OnUncertain.CRASH) -> EvidenceFound:
    who = ("host:7", 7, 70, "boot")
    if verdict in (Verdict.RUNNING, Verdict.FINISHED, Verdict.LOST):
        return EvidenceFound(verdict, "seen", *who, exit_code=3, on_uncertain=policy)
    return EvidenceFound(verdict, "seen", on_uncertain=policy)


def test_the_tables_have_a_row_for_everything_that_can_be_found() -> None:
    assert set(AT_SERVER) == {(state, seen) for state in IN_DOUBT for seen in Standing}
    examined = (State.LAUNCHING, State.STARTED)
    assert set(AT_LAUNCHER) == {(state, verdict) for state in examined for verdict in Verdict}


@pytest.mark.parametrize("policy", OnUncertain)
@pytest.mark.parametrize(("state", "verdict"), AT_LAUNCHER)
def test_what_follows_from_the_evidence_of_a_launch(
    state: State, verdict: Verdict, policy: OnUncertain
) -> None:
    submission = in_doubt(state)
    assert what_next(submission)[0] is Effect.EXAMINE

    follows = decide(submission, found(verdict, policy))

    assert tuple(map(type, follows)) in AT_LAUNCHER[state, verdict].leads_to
    launched_again = LaunchRepeated in map(type, follows)
    uncertain = verdict in (Verdict.IMPOSSIBLE, Verdict.NO_EVIDENCE)
    wanted = policy is OnUncertain.RELAUNCH
    assert launched_again == (state is State.LAUNCHING and uncertain and wanted)


@pytest.mark.parametrize(("state", "seen"), AT_SERVER)
def test_what_follows_from_how_the_run_stands_at_the_server(state: State, seen: Standing) -> None:
    misplaced = seen is Standing.MISPLACED and state is not State.DISCOVERED
    submission = in_doubt(state)
    if misplaced:
        submission = attrs.evolve(submission, misplaced=ClaimMisplaced(CLAIMED, None))
    if seen is Standing.RUNS_AS_OURS:
        # Before a launch this can't be seen, and has a row because a table has no holes.
        submission = attrs.evolve(submission, confirmed=in_doubt(State.STARTED).confirmed)
    assert what_next(submission)[0] is Effect.READ_RUN
    assert standing(submission, SEEN[seen]) is seen

    follows = decide(submission, SEEN[seen])

    assert tuple(map(type, follows)) in AT_SERVER[state, seen].leads_to


def test_an_exit_status_is_kept_only_where_the_evidence_has_one() -> None:
    finished, lost = (
        decide(in_doubt(State.STARTED), found(verdict))
        for verdict in (Verdict.FINISHED, Verdict.LOST)
    )
    assert finished == (InfrastructureExited(3, "seen"),)
    assert lost == (InfrastructureExited(None, "seen"),)


def test_a_launch_that_is_repeated_has_another_key_and_the_run_is_read_before() -> None:
    follows = decide(in_doubt(State.LAUNCHING), found(Verdict.NO_EVIDENCE, OnUncertain.RELAUNCH))
    submission = fold([*LAUNCHING, RecoveryStarted(), *follows])

    assert submission.launch_key != KEY
    assert what_next(submission) == (Effect.READ_RUN,)


@pytest.mark.parametrize(
    ("scheduled_time", "taken"),
    [
        (DUE, True),
        ("2026-01-01T00:00:00.000001Z", True),
        ("2026-01-01T01:00:00+00:00", False),
        (None, False),
    ],
)
def test_a_claim_counts_only_over_the_state_that_was_handed_out(
    scheduled_time: str | None, taken: bool
) -> None:
    answer = ProposalAnswered(
        Effect.PROPOSE_PENDING, "ACCEPT", None, "PENDING", "Pending", CLAIMED, OURS, scheduled_time
    )

    follows = decide(fold(DISCOVERED), answer)

    expected = (PendingAccepted, ResolutionStarted) if taken else (ClaimMisplaced,)
    assert tuple(map(type, follows)) == expected


def test_a_report_that_meets_a_cancellation_turns_into_cancelled() -> None:
    refused = ProposalAnswered(
        Effect.REPORT_OUTCOME, "REJECT", "cancelling", "CANCELLING", "Cancelling", OTHER
    )
    (owed,) = decide(fold(LIVES[State.FAILED]), refused)
    assert isinstance(owed, OutcomeProposed)
    assert owed.state_type == "CANCELLED"

    # A server that does not take that either has the last word.
    again = decide(fold([*LIVES[State.FAILED], owed]), refused)
    assert tuple(map(type, again)) == (OutcomeSettled,)


def test_a_run_that_was_claimed_too_late_gets_the_state_back_that_it_had() -> None:
    submission = fold(MISPLACED)
    assert what_next(submission) == (Effect.READ_RUN,)

    (owed,) = decide(submission, SEEN[Standing.MISPLACED])

    assert isinstance(owed, OutcomeProposed)
    assert (owed.state_type, owed.state_name, owed.restores) == ("COMPLETED", "Completed", OTHER)
