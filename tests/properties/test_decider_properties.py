"""What holds for every history that the decider can be shown."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from events.decider import decide
from events.lifecycle import (
    TRANSITIONS,
    Effect,
    Event,
    LaunchRepeated,
    LaunchRequested,
    LaunchVoided,
    OnUncertain,
    OutcomeProposed,
    OutcomeSettled,
    PendingAccepted,
    PendingProposed,
    State,
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
from events.submission import Submission, evolve, fold, what_next
from tests.properties.strategies import STATE_TYPES, observations

DUE = "2026-01-01T00:00:00+00:00"
A = UUID("a0000000-0000-4000-8000-000000000000")
B = UUID("b0000000-0000-4000-8000-000000000000")
OFFER = RunOffered(A, A, "run", A, A, "default", 1, 1, A, DUE)


def play(history: list[Observation]) -> list[tuple[Submission, list[Event]]]:
    """Return every state on the way, with the events that were recorded up to it."""
    submission, recorded = Submission(), list[Event]()
    way = [(submission, list(recorded))]
    for observation in history:
        recorded.append(observation)
        for transition in decide(submission, observation):
            recorded.append(transition)
            submission = evolve(submission, transition)
        way.append((submission, list(recorded)))
    return way


HISTORIES = st.lists(observations(), max_size=30).map(lambda rest: [OFFER, *rest])


@given(HISTORIES)
def test_any_observations_lead_to_legal_states_only(history: list[Observation]) -> None:
    for submission, _recorded in play(history):
        assert submission.state in TRANSITIONS


@given(HISTORIES)
def test_the_fold_of_any_prefix_is_the_state_that_the_daemon_had(
    history: list[Observation],
) -> None:
    for submission, recorded in play(history):
        assert fold(recorded) == submission


@given(HISTORIES)
def test_no_submission_rests_in_pending(history: list[Observation]) -> None:
    assert all(submission.state is not State.PENDING for submission, _ in play(history))


@given(HISTORIES, observations())
def test_a_closed_submission_stays_closed(history: list[Observation], more: Observation) -> None:
    submission, _ = play(history)[-1]
    if submission.is_closed:
        assert not decide(submission, more)


@given(st.data())
def test_an_effect_that_is_owed_always_leads_on(data: st.DataObject) -> None:
    """What an effect can bring moves the submission: the daemon never spins."""
    submission = Submission()
    for transition in decide(submission, OFFER):
        submission = evolve(submission, transition)
    for _step in range(40):
        owed = what_next(submission)
        if not owed:
            return
        effect = data.draw(st.sampled_from(owed))
        found = decide(submission, data.draw(outcomes(effect, submission)))
        assert found, (submission, effect)
        for transition in found:
            submission = evolve(submission, transition)


def outcomes(effect: Effect, submission: Submission) -> st.SearchStrategy[Observation]:
    """Everything that the daemon can learn by executing an effect."""
    jitter = st.floats(0, 1, exclude_max=True)
    claim = None if submission.claim is None else submission.claim.transition_id
    ours = st.sampled_from([claim, B, None])
    pid = st.sampled_from([None, "host:1", "host:2"])
    types = st.none() | st.sampled_from(STATE_TYPES)
    failed = st.builds(RequestFailed, st.just(effect), st.just("e"), st.booleans(), jitter)
    missing = st.just(RunMissing(effect))
    answered = st.builds(
        ProposalAnswered,
        effect=st.just(effect),
        status=st.sampled_from(["ACCEPT", "REJECT", "ABORT", "WAIT"]),
        state_type=types,
        state_id=st.sampled_from([None, A]),
        transition_id=ours,
        scheduled_time=st.sampled_from([None, DUE]),
        delay_seconds=st.none() | st.floats(0, 1e6),
    )
    before = st.sampled_from(
        [(None, None, None, None), (B, "COMPLETED", "Completed", None), (B, "PENDING", None, claim)]
    )
    due = st.sampled_from([None, DUE])
    read = st.builds(
        lambda type_, id_, ours, pid, due, before: RunRead(
            type_, None, id_, ours, pid, due, *before
        ),
        *(types, st.sampled_from([A, B]), ours, pid, due, before),
    )
    evidence = st.builds(
        EvidenceFound,
        st.sampled_from(Verdict),
        st.just("seen"),
        st.sampled_from([None, "host:1"]),
        st.just(1),
        st.just(1),
        st.just("boot"),
        st.sampled_from([None, 0, 1]),
        st.sampled_from(OnUncertain),
    )
    started = st.just(CommandStarted("host:1", 1, 1, "boot"))
    refused, uncertain = st.just(CommandRefused("e")), st.just(LaunchUncertain("e"))
    resolved = st.just(InfrastructureResolved("process", "n", ("c",), None, {}, {}))
    unresolved = st.just(ResolutionFailed("e"))
    return {
        Effect.PROPOSE_PENDING: answered | failed | missing,
        Effect.REPORT_OUTCOME: answered | failed | missing,
        Effect.READ_RUN: read | failed | missing,
        Effect.RESOLVE: resolved | unresolved | failed,
        Effect.LAUNCH: started | refused | uncertain,
        Effect.EXAMINE: evidence | failed,
        Effect.WATCH: st.builds(CommandEnded, st.sampled_from([None, 0, 1]), st.just("")) | failed,
        Effect.REPORT_PID: st.just(PidAcknowledged()) | failed | missing,
    }[effect]


@st.composite
def lives(draw: st.DrawFn) -> list[Event]:
    """A recorded life in which effects are executed, and agents restart in between."""
    submission, recorded = Submission(), list[Event]()
    observation: Observation = OFFER
    for _step in range(draw(st.integers(1, 40))):
        recorded.append(observation)
        for transition in decide(submission, observation):
            recorded.append(transition)
            submission = evolve(submission, transition)
        owed = what_next(submission)
        if not owed:
            break
        if draw(st.integers(0, 5)) == 0:
            observation = AgentRestarted()
        else:
            observation = draw(outcomes(draw(st.sampled_from(owed)), submission))
    return recorded


@settings(max_examples=300)
@given(lives())
def test_nothing_is_launched_again_without_proof_that_it_never_ran(life: list[Event]) -> None:
    live = 0
    wanted = False
    for event in life:
        if isinstance(event, EvidenceFound):
            wanted = event.on_uncertain is OnUncertain.RELAUNCH
        # Without that proof it takes the operator's word.
        assert wanted or not isinstance(event, LaunchRepeated)
        live += isinstance(event, LaunchRequested)
        live -= isinstance(event, LaunchVoided | LaunchRepeated)
        assert live in (0, 1)


@settings(max_examples=300)
@given(lives())
def test_a_claimed_run_is_only_let_go_when_its_outcome_is_settled(life: list[Event]) -> None:
    claimed = any(isinstance(event, PendingAccepted) for event in life)
    if claimed and fold(life).is_closed:
        assert any(isinstance(event, OutcomeSettled) for event in life)


@settings(max_examples=300)
@given(lives())
def test_a_repeated_proposal_is_the_same_request(life: list[Event]) -> None:
    claims = {event.transition_id for event in life if isinstance(event, PendingProposed)}
    assert len(claims) == 1
    for state_type in ("FAILED", "CRASHED", "CANCELLED"):
        outcome = {
            event.transition_id
            for event in life
            if isinstance(event, OutcomeProposed) and event.state_type == state_type
        }
        assert len(outcome) <= 1


@given(st.uuids(), st.uuids())
def test_two_agents_never_send_the_same_claim(one: UUID, other: UUID) -> None:
    claims = [
        transition.transition_id
        for agent in (one, other)
        for transition in decide(
            Submission(), RunOffered(agent, A, "run", A, A, "default", 1, 1, A, None)
        )
        if isinstance(transition, PendingProposed)
    ]
    assert (claims[0] == claims[1]) == (one == other)


@given(lives())
def test_a_restart_leaves_an_open_submission_open_and_in_doubt(life: list[Event]) -> None:
    submission = fold(life)
    if submission.state is State.ABSENT or submission.is_closed:
        return
    for transition in decide(submission, AgentRestarted()):
        submission = evolve(submission, transition)
    assert what_next(submission)
    assert set(what_next(submission)) <= {Effect.READ_RUN, Effect.EXAMINE, Effect.REPORT_PID}
