"""The machine's table, cell by cell."""

from __future__ import annotations

import itertools
from uuid import UUID

import attrs
import pytest

from events.codec import EVENT_TYPES
from events.lifecycle import (
    TRANSITIONS,
    Effect,
    IllegalTransition,
    LaunchConfirmed,
    PendingAccepted,
    PendingProposed,
    RunDiscovered,
    State,
    Transition,
)
from events.submission import CLOSED_STATES, Submission, evolve, what_next

ID = UUID("00000000-0000-4000-8000-000000000001")
RUN = RunDiscovered(ID, "run", ID, ID, "default", 1, 1, ID, None, "key")
SAMPLE: dict[type, object] = {
    UUID: ID,
    str: "text",
    int: 1,
    float: 1.0,
    bool: False,
    Effect: Effect.RESOLVE,
}

KINDS = [kind for kind in EVENT_TYPES.values() if issubclass(kind, Transition)]
CELLS = list(itertools.product(State, KINDS))


def sample(kind: type[Transition]) -> Transition:
    values = {}
    for field in attrs.fields(kind):
        text = str(field.type)
        values[field.name] = next(
            (value for of, value in SAMPLE.items() if of.__name__ in text),
            ("true",) if "tuple" in text else None,
        )
    return kind(**values)


def submission(state: State) -> Submission:
    return Submission(state, discovered=RUN, claim=PendingProposed(ID))


@pytest.mark.parametrize(("state", "kind"), CELLS)
def test_every_event_moves_as_the_table_says_or_is_illegal(
    state: State, kind: type[Transition]
) -> None:
    event = sample(kind)
    target = TRANSITIONS[state].get(kind)
    if target is not None:
        assert evolve(submission(state), event, "s/1").state is target
        return
    with pytest.raises(IllegalTransition) as caught:
        evolve(submission(state), event, "s/1")
    message = str(caught.value)
    assert state.name in message
    assert kind.__name__ in message
    assert "s/1" in message


def test_the_table_has_a_row_for_every_state() -> None:
    assert set(TRANSITIONS) == set(State)


def test_every_transition_is_used() -> None:
    used = {kind for moves in TRANSITIONS.values() for kind in moves}
    assert used == set(KINDS)


def test_every_state_can_be_reached() -> None:
    reached = {State.ABSENT}
    while True:
        further = {to for state in reached for to in TRANSITIONS[state].values()} | reached
        if further == reached:
            break
        reached = further
    assert reached == set(State)


def test_every_state_leads_to_an_end() -> None:
    ending = set(CLOSED_STATES)
    while True:
        more = {s for s in State if set(TRANSITIONS[s].values()) & ending} | ending
        if more == ending:
            break
        ending = more
    assert ending == set(State)


def test_something_is_owed_in_every_state_that_can_rest() -> None:
    resting = set(State) - CLOSED_STATES - {State.ABSENT, State.PENDING}
    assert all(what_next(submission(state)) for state in resting)


def test_the_states_of_the_user_are_passed_in_their_order() -> None:
    path = [State.DISCOVERED, State.PENDING, State.RESOLVING, State.LAUNCHING, State.STARTED]
    for earlier, later in itertools.pairwise(path):
        assert later in TRANSITIONS[earlier].values()
    assert State.FAILED in TRANSITIONS[State.LAUNCHING].values()


def test_a_pid_is_owed_from_the_start_of_the_command_on() -> None:
    started = evolve(submission(State.LAUNCHING), sample(LaunchConfirmed))
    assert Effect.REPORT_PID in what_next(started)


def test_an_accepted_claim_settles_the_doubt() -> None:
    doubtful = attrs.evolve(submission(State.DISCOVERED), in_doubt=True)
    assert not evolve(doubtful, PendingAccepted(ID, repeated=True)).in_doubt
