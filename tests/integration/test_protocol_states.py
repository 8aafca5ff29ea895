"""What Prefect servers make of proposed states: the whole table, the claim, what Pending carries.

Each test of `any_server` runs four times: against a real 2.20, a real 3.8, and the stand-in as
either. So the protocol stays as the agent takes it to be, and the stand-in can't drift from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.rest import JSON, NOBODY, Rest, new_run, soon

# --- the transition table ------------------------------------------------------------------

TARGETS = (
    "PENDING",
    "PENDING/Submitting",
    "SCHEDULED",
    "SCHEDULED/Late",
    "SCHEDULED/AwaitingRetry",
    "RUNNING",
    "COMPLETED",
    "FAILED",
    "CRASHED",
    "CANCELLING",
    "CANCELLED",
    "PAUSED",
)

# How a run gets where it starts from; all begin Scheduled.
WAYS: Mapping[str, tuple[str, ...]] = {
    "SCHEDULED": (),
    "SCHEDULED/Late": ("SCHEDULED/Late",),
    "SCHEDULED/AwaitingRetry": ("PENDING", "RUNNING", "SCHEDULED/AwaitingRetry"),
    "PENDING": ("PENDING",),
    "RUNNING": ("PENDING", "RUNNING"),
    "COMPLETED": ("PENDING", "RUNNING", "COMPLETED"),
    "FAILED": ("PENDING", "FAILED"),
    "CRASHED": ("PENDING", "CRASHED"),
    "CANCELLED": ("PENDING", "CANCELLED"),
    "CANCELLING": ("PENDING", "CANCELLING"),
    "PAUSED": ("PENDING", "RUNNING", "PAUSED"),
}

# A row for each state, a column for each target in the order above. `a|b`: 2.20 and 3.8 differ.
TABLE: Mapping[str, str] = {
    #                           Pen Sub Sch Late Retr Run Com Fai Cra Cg  Cd  Pau
    "SCHEDULED":               ".   .   .   .    .    .   .   .   .   N   .   U",
    "SCHEDULED/Late":          ".   .   .   .|M  .    .   .   .   .   N   .   U",
    "SCHEDULED/AwaitingRetry": ".   .   .   .    .    .   .   .   .   N   .   U",
    "PENDING":                 "P   P|. .   L    .    .   .   .   .   .   .   U",
    "RUNNING":                 "P   P   .   L    .    .   .   .   .   .   .   .",
    "COMPLETED":               ".   .   .   L    .    .   .   .   T   T   .   T",
    "FAILED":                  ".   .   .   L    .    .   .   .   T   T   .   T",
    "CRASHED":                 ".   .   .   L    .    .   .   .   T   T   .   T",
    "CANCELLED":               "C|P C|P C|. C|L  C|.  C|. C|. C|. T   T   .   T",
    "CANCELLING":              "C   C   C   C    C    C   C   C   C   C   .   C",
    "PAUSED":                  "Q   Q   .   L    .    .   .   .   .   Q|. .   U",
}  # fmt: skip

# What the letters stand for: the answer's status and reason. `.` is ACCEPT.
ANSWERS: Mapping[str, tuple[str, str]] = {
    "P": ("ABORT", "This run is in a {source} state and cannot transition to a PENDING state."),
    "T": ("ABORT", "Run is already in terminal state {source}."),
    "C": (
        "REJECT",
        "Cannot transition flows that are cancelling to a state other than Cancelled.",
    ),
    "N": ("REJECT", "Scheduled flow run has no infrastructure to terminate."),
    "U": ("REJECT", "Cannot pause flows that are not currently running."),
    "L": ("REJECT", "Only scheduled flows can be marked late."),
    "M": ("REJECT", "This flow run is already marked late."),
    "Q": (
        "REJECT",
        "This run cannot transition to the StateType.{target} state from the StateType.PAUSED"
        " state.",
    ),
}


def cell(flavour: str, source: str, target: str) -> str:
    """The letter in the table for one flavour."""
    both = TABLE[source].split()[TARGETS.index(target)].split("|")
    return both[0] if flavour == "2.20" else both[-1]


@pytest.mark.parametrize("source", WAYS)
def test_a_proposed_state_is_judged_as_the_table_says(any_server: Rest, source: str) -> None:
    deployment = any_server.deployment(f"queue-{uuid4()}")
    seen, expected = {}, {}
    for target in TARGETS:
        run = any_server.schedule(deployment)
        any_server.lead(run, *WAYS[source])
        before = any_server.run(run)["state"]
        type_, _, name = target.partition("/")
        made = any_server.propose(run, type_, name or None)
        after = any_server.run(run)["state"]
        assert made.state["id"] == after["id"]
        moved = "moved" if after["id"] != before["id"] else "stayed"
        here = f"{after['type']}/{after['name']}"
        seen[target] = (made.http_status, made.status, made.reason, moved, here)
        expected[target] = _expectation(any_server.flavour, source, target, before)
    assert seen == expected


def _expectation(flavour: str, source: str, target: str, before: JSON) -> tuple[Any, ...]:
    letter = cell(flavour, source, target)
    type_, _, name = target.partition("/")
    if letter == ".":
        return 201, "ACCEPT", None, "moved", f"{type_}/{name or type_.capitalize()}"
    status, words = ANSWERS[letter]
    reason = words.format(source=source.partition("/")[0], target=type_)
    if letter == "N":
        # The HTTP status tells that a state was made, not that it is the one proposed.
        return 201, status, reason, "moved", "CANCELLED/Cancelled"
    return 200, status, reason, "stayed", f"{before['type']}/{before['name']}"


# --- the claim -----------------------------------------------------------------------------


def test_a_repeated_claim_is_rejected_with_our_own_pending_in_the_answer(any_server: Rest) -> None:
    run, claim = new_run(any_server), str(uuid4())
    first = any_server.propose(run, "PENDING", transition_id=claim)
    again = any_server.propose(run, "PENDING", transition_id=claim)
    assert (first.http_status, first.status) == (201, "ACCEPT")
    assert (again.http_status, again.status) == (200, "REJECT")
    assert again.reason == "This run has already made this state transition."
    assert again.state == first.state
    assert again.state["state_details"]["transition_id"] == claim
    assert any_server.states(run) == ["SCHEDULED/Scheduled", "PENDING/Pending"]


@pytest.mark.parametrize("outcome", ["FAILED", "CRASHED", "CANCELLED"])
def test_a_repeated_outcome_is_rejected_as_a_duplicate(any_server: Rest, outcome: str) -> None:
    run, report = new_run(any_server), str(uuid4())
    any_server.lead(run, "PENDING")
    first = any_server.propose(run, outcome, transition_id=report)
    again = any_server.propose(run, outcome, transition_id=report)
    assert first.status == "ACCEPT"
    assert (again.http_status, again.status) == (200, "REJECT")
    assert again.reason == "This run has already made this state transition."
    assert again.state["id"] == first.state["id"]


def test_an_id_is_compared_whatever_state_it_comes_with(any_server: Rest) -> None:
    run, claim = new_run(any_server), str(uuid4())
    any_server.propose(run, "PENDING", transition_id=claim)
    assert any_server.propose(run, "FAILED", transition_id=claim).status == "REJECT"
    assert any_server.state(run) == "PENDING/Pending"


def test_another_agents_claim_is_aborted_with_the_first_ones_id(any_server: Rest) -> None:
    run, claim = new_run(any_server), str(uuid4())
    any_server.propose(run, "PENDING", transition_id=claim)
    other = any_server.propose(run, "PENDING")
    assert (other.http_status, other.status) == (200, "ABORT")
    assert other.state["state_details"]["transition_id"] == claim


@pytest.mark.parametrize("then", ["CRASHED", "FAILED", "COMPLETED", "SCHEDULED"])
def test_a_late_duplicate_of_a_claim_is_accepted(any_server: Rest, then: str) -> None:
    run, claim = new_run(any_server), str(uuid4())
    any_server.propose(run, "PENDING", transition_id=claim)
    any_server.lead(run, then)
    assert any_server.propose(run, "PENDING", transition_id=claim).status == "ACCEPT"


def test_force_overrides_everything_but_cancelling_without_infrastructure(any_server: Rest) -> None:
    run, claim = new_run(any_server), str(uuid4())
    any_server.propose(run, "PENDING", transition_id=claim)
    for type_ in ("PENDING", "COMPLETED", "CRASHED", "PENDING", "CANCELLED", "SCHEDULED"):
        made = any_server.propose(run, type_, transition_id=claim, force=True)
        assert (made.http_status, made.status) == (201, "ACCEPT"), type_
    made = any_server.propose(run, "CANCELLING", force=True)
    assert (made.http_status, made.status) == (201, "REJECT")
    assert any_server.state(run) == "CANCELLED/Cancelled"


def test_submitting_and_its_like_follow_each_other_on_3_only(any_server: Rest) -> None:
    run, claim = new_run(any_server), str(uuid4())
    any_server.propose(run, "PENDING", transition_id=claim)
    named = [
        any_server.propose(run, "PENDING", name).status
        for name in ("Submitting", "InfrastructurePending", "Submitting", "Submitting", "Pending")
    ]
    late = any_server.propose(run, "PENDING", transition_id=claim)
    if any_server.flavour == "2.20":
        assert named == ["ABORT"] * 5
        assert late.status == "REJECT"
    else:
        assert named == ["ACCEPT"] * 3 + ["ABORT"] * 2
        # The claim's id is no longer the current one: a repeated claim looks like another's.
        assert late.status == "ABORT"
        assert late.state["state_details"]["transition_id"] != claim


# --- the scheduled time in Pending ---------------------------------------------------------


def scheduled_time_of(state: JSON) -> datetime | None:
    """A state's scheduled time."""
    text = state["state_details"]["scheduled_time"]
    return None if text is None else datetime.fromisoformat(text)


@pytest.mark.parametrize(
    "source", ["SCHEDULED", "SCHEDULED/Late", "SCHEDULED/AwaitingRetry", "RESCHEDULED"]
)
def test_pending_over_scheduled_has_its_scheduled_time(any_server: Rest, source: str) -> None:
    run = new_run(any_server)
    way = ("PENDING", "CRASHED", "SCHEDULED") if source == "RESCHEDULED" else WAYS[source]
    any_server.lead(run, *way)
    due = scheduled_time_of(any_server.run(run)["state"])
    made = any_server.propose(run, "PENDING")
    assert due is not None
    assert scheduled_time_of(made.state) == due


@pytest.mark.parametrize("source", ["COMPLETED", "FAILED", "CRASHED"])
def test_pending_over_a_final_state_has_no_scheduled_time(any_server: Rest, source: str) -> None:
    run = new_run(any_server)
    any_server.lead(run, *WAYS[source])
    made = any_server.propose(run, "PENDING")
    assert made.status == "ACCEPT"
    assert scheduled_time_of(made.state) is None


def test_a_final_states_own_scheduled_time_is_not_copied(any_server: Rest) -> None:
    run = new_run(any_server)
    crashed = any_server.propose(run, "CRASHED", scheduled_time=soon(-5))
    assert scheduled_time_of(crashed.state) is not None
    assert scheduled_time_of(any_server.propose(run, "PENDING").state) is None


def test_forced_pending_has_no_scheduled_time_even_over_scheduled(any_server: Rest) -> None:
    made = any_server.propose(new_run(any_server), "PENDING", force=True)
    assert scheduled_time_of(made.state) is None


def test_a_scheduled_time_that_is_proposed_with_pending_is_kept(any_server: Rest) -> None:
    due = soon(3600)
    made = any_server.propose(new_run(any_server), "PENDING", scheduled_time=due)
    assert scheduled_time_of(made.state) == datetime.fromisoformat(due)


def test_scheduled_without_a_time_is_scheduled_for_now(any_server: Rest) -> None:
    run = new_run(any_server)
    any_server.lead(run, "PENDING", "SCHEDULED")
    found = any_server.run(run)
    due = scheduled_time_of(found["state"])
    assert due is not None
    assert abs(due - datetime.now(UTC)) < timedelta(seconds=60)
    assert datetime.fromisoformat(found["next_scheduled_start_time"]) == due


def test_running_has_to_wait_for_the_scheduled_time(any_server: Rest) -> None:
    run = new_run(any_server, in_seconds=600)
    early = any_server.propose(run, "RUNNING")
    any_server.lead(run, "PENDING")
    still = any_server.propose(run, "RUNNING")
    for made in (early, still):
        assert (made.http_status, made.status) == (200, "WAIT")
        assert made.reason == "Scheduled time is in the future"
        assert made.details["type"] == "wait_details"
        assert isinstance(made.details["delay_seconds"], int)
        assert 540 < made.details["delay_seconds"] <= 600
    assert any_server.state(run) == "PENDING/Pending"
    assert any_server.propose(run, "RUNNING", force=True).status == "ACCEPT"


# --- results, retries, cancellation --------------------------------------------------------


def test_a_stored_result_is_not_run_again(any_server: Rest) -> None:
    run = new_run(any_server)
    any_server.lead(run, "PENDING", "RUNNING")
    any_server.propose(run, "COMPLETED", data={"type": "reference", "storage_key": "x"})
    for type_ in ("PENDING", "RUNNING", "SCHEDULED"):
        made = any_server.propose(run, type_)
        assert (made.status, made.reason) == ("REJECT", "Run is already COMPLETED.")
    overwritten = any_server.propose(run, "COMPLETED").status
    assert overwritten == ("ACCEPT" if any_server.flavour == "2.20" else "REJECT")
    assert any_server.propose(run, "FAILED").status == "ACCEPT"


def test_an_engines_own_retry_is_offered_to_agents_as_well(any_server: Rest) -> None:
    # Only work pools leave such runs out: `retry_type` is how an agent can tell.
    queue = any_server.queue()
    deployment = any_server.deployment(queue["name"])
    policy = {"retries": 1, "retry_delay": 0}
    run = any_server.schedule(deployment, empirical_policy=policy)
    any_server.lead(run, "PENDING", "RUNNING")
    made = any_server.propose(run, "FAILED", message="boom")
    assert (made.http_status, made.status, made.reason) == (201, "REJECT", "Retrying")
    assert (made.state["type"], made.state["name"]) == ("SCHEDULED", "AwaitingRetry")
    assert made.state["message"] == "boom"
    offered = any_server.post(f"/work_queues/{queue['id']}/get_runs", {})
    assert [r["id"] for r in offered] == [run]
    assert offered[0]["empirical_policy"]["retry_type"] == "in_process"
    assert any_server.propose(run, "PENDING").status == "ACCEPT"
    any_server.lead(run, "RUNNING", "FAILED")
    found = any_server.run(run)
    assert found["run_count"] == 2
    left = "in_process" if any_server.flavour == "2.20" else None
    assert found["empirical_policy"]["retry_type"] == left


def test_a_reschedule_from_a_final_state_says_so(any_server: Rest) -> None:
    run = new_run(any_server)
    any_server.lead(run, "PENDING", "CRASHED", "SCHEDULED")
    assert any_server.run(run)["empirical_policy"]["retry_type"] == "reschedule"


def test_a_scheduled_run_with_a_pid_is_cancelled_in_two_steps(any_server: Rest) -> None:
    run = new_run(any_server)
    any_server.patch(f"/flow_runs/{run}", {"infrastructure_pid": "host:1"})
    any_server.lead(run, "CANCELLING")
    assert any_server.propose(run, "CRASHED").status == "REJECT"
    any_server.lead(run, "CANCELLED")


# --- what is no proposal -------------------------------------------------------------------


def test_a_run_that_does_not_exist_takes_no_state(any_server: Rest) -> None:
    answer = any_server.ask(
        "POST", f"/flow_runs/{NOBODY}/set_state", {"state": {"type": "PENDING"}}
    )
    assert answer.status_code == 404
    assert answer.json() == {"exception_message": f"Flow run with id {NOBODY} not found"}


INVALID_STATES: Mapping[str, tuple[Any, list[Any]]] = {
    "no state": ({}, ["body", "state"]),
    "no type": ({"state": {}}, ["body", "state", "type"]),
    "unknown type": ({"state": {"type": "BOGUS"}}, ["body", "state", "type"]),
    "lower case": ({"state": {"type": "pending"}}, ["body", "state", "type"]),
    "another field": ({"state": {"type": "PENDING", "x": 1}}, ["body", "state", "x"]),
    "null details": (
        {"state": {"type": "PENDING", "state_details": None}},
        ["body", "state", "state_details"],
    ),
    "transition id that is none": (
        {"state": {"type": "PENDING", "state_details": {"transition_id": "x"}}},
        ["body", "state", "state_details", "transition_id"],
    ),
}


@pytest.mark.parametrize("what", INVALID_STATES)
def test_an_invalid_proposal_is_refused_with_its_place(any_server: Rest, what: str) -> None:
    run = new_run(any_server)
    body, place = INVALID_STATES[what]
    answer = any_server.ask("POST", f"/flow_runs/{run}/set_state", body)
    assert answer.status_code == 422
    said = answer.json()
    assert said["exception_message"] == "Invalid request received."
    assert place in [problem["loc"] for problem in said["exception_detail"]]
    assert said["request_body"] == body
    assert any_server.state(run) == "SCHEDULED/Scheduled"


def test_fields_that_no_server_knows_pass_where_servers_let_them(any_server: Rest) -> None:
    run = new_run(any_server)
    details = {"transition_id": str(uuid4()), "unknown": 1}
    body = {"state": {"type": "PENDING", "state_details": details}, "unknown": 1}
    assert any_server.ask("POST", f"/flow_runs/{run}/set_state", body).status_code == 201


def test_a_proposed_id_is_allowed_on_2_20_only_and_never_used(any_server: Rest) -> None:
    run, own = new_run(any_server), str(uuid4())
    body = {"state": {"type": "PENDING", "id": own, "timestamp": "2020-01-01T00:00:00Z"}}
    answer = any_server.ask("POST", f"/flow_runs/{run}/set_state", body)
    assert answer.status_code == (201 if any_server.flavour == "2.20" else 422)
    found = any_server.run(run)["state"]
    assert found["id"] != own
    assert not found["timestamp"].startswith("2020")
