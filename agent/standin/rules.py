"""What a Prefect server makes of a proposed state: the orchestration rules, in their true order.

`judge` is pure; `state` calls it and carries out what it says. The first rule that objects
decides, as on the real servers. Left out: timeouts of pauses, subflows, and the deployment
concurrency of 3.x.

Source: the policies of 2.20.26 and 3.8.8, and some 180 transitions probed on each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import attrs

from agent.standin.flavours import Flavour
from agent.standin.refusals import JSON

FINAL: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
STATE_TYPES: Final = (
    "SCHEDULED",
    "PENDING",
    "RUNNING",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "CRASHED",
    "PAUSED",
    "CANCELLING",
)
OCCUPYING: Final = frozenset({"PENDING", "RUNNING", "CANCELLING"})
"""What counts against a queue's concurrency limit (on both servers; Cancelling does, too)."""


@attrs.frozen
class Verdict:
    """What the orchestration makes of a proposed state.

    Attributes:
        status: ACCEPT, REJECT, ABORT or WAIT.
        entered: the state to write; None keeps the present one. A REJECT may write another state
            than the one that was proposed.
        policy: the run's `empirical_policy` from now on.
        reason: the server's words; None for ACCEPT.
        delay_seconds: for WAIT.
    """

    status: str
    entered: JSON | None
    policy: JSON
    reason: str | None = None
    delay_seconds: int | None = None


@attrs.frozen
class Proposal:
    """What the rules look at. `state` is complete: it has a name and details."""

    run: JSON
    state: JSON
    now: datetime
    flavour: Flavour

    @property
    def present(self) -> JSON:
        """The state that the run is in."""
        found: JSON = self.run["state"]
        return found

    @property
    def policy(self) -> JSON:
        """The run's policy before the proposal."""
        found: JSON = self.run["empirical_policy"]
        return found

    @property
    def move(self) -> tuple[str, str]:
        """From which type to which."""
        return self.present["type"], self.state["type"]

    def reject(self, reason: str, instead: JSON | None = None) -> Verdict:
        """Return a REJECT, which may put the run into another state instead."""
        return Verdict("REJECT", instead, self.policy, reason)

    def abort(self, reason: str) -> Verdict:
        """Return an ABORT."""
        return Verdict("ABORT", None, self.policy, reason)


Rule = Callable[[Proposal], Verdict | None]


def _duplicate(p: Proposal) -> Verdict | None:
    # PreventDuplicateTransitions: only the present state's id is compared, so a late one passes.
    mine = p.state["state_details"]["transition_id"]
    if mine is not None and mine == p.present["state_details"]["transition_id"]:
        return p.reject("This run has already made this state transition.")
    return None


def _leaving_a_final_state(p: Proposal) -> Verdict | None:
    present, proposed = p.move
    if present not in FINAL:
        return None
    if proposed in ("CANCELLING", "PAUSED", "CRASHED"):
        return p.abort(f"Run is already in terminal state {present}.")
    if present == "COMPLETED" and proposed not in FINAL and _has_a_stored_result(p.present):
        return p.reject("Run is already COMPLETED.")
    if proposed == "SCHEDULED" and p.run["deployment_id"] is None:
        return p.abort("Cannot reschedule a run without an associated deployment.")
    return None


def _has_a_stored_result(state: JSON) -> bool:
    data = state["data"]
    return isinstance(data, dict) and bool(data) and data.get("type") != "unpersisted"


def _overwriting_a_result(p: Proposal) -> Verdict | None:
    # 3.x only; both with and without force.
    if not p.flavour.keeps_results or p.move != ("COMPLETED", "COMPLETED"):
        return None
    if _has_a_stored_result(p.present) and not _has_a_stored_result(p.state):
        return p.reject(
            "Cannot overwrite a COMPLETED state that carries persisted result data with one that"
            " does not."
        )
    return None


def _only_cancelled_after_cancelling(p: Proposal) -> Verdict | None:
    present, proposed = p.move
    held = ("CANCELLING", "CANCELLED") if p.flavour.cancelled_is_final else ("CANCELLING",)
    if present in held and proposed != "CANCELLED":
        return p.reject(
            "Cannot transition flows that are cancelling to a state other than Cancelled."
        )
    return None


def _cancelling_without_infrastructure(p: Proposal) -> Verdict | None:
    cancelled = {"type": "CANCELLED", "name": "Cancelled"}
    if p.move == ("SCHEDULED", "CANCELLING"):
        if not p.run["infrastructure_pid"] or p.present["name"] == "Resuming":
            reason = "Scheduled flow run has no infrastructure to terminate."
            return p.reject(reason, cancelled)
    elif p.move == ("PAUSED", "CANCELLING") and p.present["state_details"]["pause_reschedule"]:
        return p.reject("Suspended flow run has no infrastructure to terminate.", cancelled)
    return None


def _pending_over_what_is_under_way(p: Proposal) -> Verdict | None:
    present, proposed = p.move
    if proposed != "PENDING" or present not in ("PENDING", "CANCELLING", "RUNNING", "CANCELLED"):
        return None
    renamed = p.state["name"] not in (p.present["name"], "Pending")
    if present == "PENDING" and renamed and p.flavour.pending_may_be_renamed:
        return None
    return p.abort(f"This run is in a {present} state and cannot transition to a PENDING state.")


def _late_only_when_scheduled(p: Proposal) -> Verdict | None:
    present, proposed = p.move
    if (proposed, p.state["name"]) != ("SCHEDULED", "Late"):
        return None
    if present != "SCHEDULED":
        return p.reject("Only scheduled flows can be marked late.")
    if p.flavour.late_once and p.present["name"] == "Late":
        return p.reject("This flow run is already marked late.")
    return None


def _pausing_only_what_runs(p: Proposal) -> Verdict | None:
    present, proposed = p.move
    if proposed != "PAUSED":
        return None
    verb = "suspend" if p.state["name"] == "Suspended" else "pause"
    if present != "RUNNING":
        return p.reject(f"Cannot {verb} flows that are not currently running.")
    if p.state["state_details"]["pause_key"] in p.policy["pause_keys"]:
        return p.reject(f"This {verb} has already fired.")
    return None


def _leaving_a_pause(p: Proposal) -> Verdict | None:
    present, proposed = p.move
    allowed = {"RUNNING", "SCHEDULED", *FINAL}
    if p.flavour.cancels_paused_runs:
        allowed.add("CANCELLING")
    if present != "PAUSED" or proposed in allowed:
        return None
    return p.reject(
        f"This run cannot transition to the StateType.{proposed} state from the"
        " StateType.PAUSED state."
    )


def _before_its_time(p: Proposal) -> Verdict | None:
    present, proposed = p.move
    due = p.present["state_details"]["scheduled_time"]
    if proposed != "RUNNING" or present not in ("SCHEDULED", "PENDING") or due is None:
        return None
    remaining = datetime.fromisoformat(due) - p.now
    # Rounded as the servers do it: whole seconds, and one more from half a second on.
    whole = math.floor(remaining.total_seconds())
    delay = whole + round((remaining - timedelta(seconds=whole)).microseconds / 1e6)
    if delay <= 0:
        return None
    reason = "Scheduled time is in the future"
    return Verdict("WAIT", None, p.policy, reason, delay_seconds=delay)


def _retrying_in_process(p: Proposal) -> Verdict | None:
    retries = p.policy["retries"]
    if p.move != ("RUNNING", "FAILED") or retries is None or p.run["run_count"] > retries:
        return None
    due = p.now + timedelta(seconds=p.policy["retry_delay"] or 0)
    retry = {
        "type": "SCHEDULED",
        "name": "AwaitingRetry",
        "message": p.state["message"],
        "data": p.state["data"],
        "state_details": {"scheduled_time": due.isoformat()},
    }
    policy = p.policy | {"resuming": False, "pause_keys": [], "retry_type": "in_process"}
    return Verdict("REJECT", retry, policy, "Retrying")


_CORE: Final[tuple[Rule, ...]] = (
    _duplicate,
    _leaving_a_final_state,
    _overwriting_a_result,
    _only_cancelled_after_cancelling,
    _cancelling_without_infrastructure,
    _pending_over_what_is_under_way,
    _late_only_when_scheduled,
    _pausing_only_what_runs,
    _leaving_a_pause,
    _before_its_time,
    _retrying_in_process,
)

# What holds for `force: true` as well. It neither compares ids nor copies the scheduled time.
_MINIMAL: Final[tuple[Rule, ...]] = (_overwriting_a_result, _cancelling_without_infrastructure)


def judge(proposal: Proposal, *, force: bool) -> Verdict:
    """Say what becomes of a proposed state; nothing is changed.

    Args:
        proposal: the run as it is, and what is asked for.
        force: whether the proposer insists.
    """
    for rule in _MINIMAL if force else _CORE:
        objection = rule(proposal)
        if objection is not None:
            return objection
    if force:
        return Verdict("ACCEPT", proposal.state, proposal.policy)
    return Verdict("ACCEPT", _with_scheduled_time(proposal), _policy_after(proposal))


def _with_scheduled_time(p: Proposal) -> JSON:
    """Copy the scheduled time into Pending: from Scheduled, and (3.x) from Pending to its names.

    Over a final state nothing is copied: a Pending without a scheduled time, made without force,
    was not made out of a Scheduled state.
    """
    details = p.state["state_details"]
    renamed = p.move == ("PENDING", "PENDING")
    copied = p.move == ("SCHEDULED", "PENDING") and details["scheduled_time"] is None
    if not (renamed or copied):
        return p.state
    due = p.present["state_details"]["scheduled_time"]
    return p.state | {"state_details": details | {"scheduled_time": due}}


def _policy_after(p: Proposal) -> JSON:
    """Return the run's policy after an accepted transition."""
    present, proposed = p.move
    if present in FINAL and proposed not in FINAL:
        retry = "reschedule" if proposed == "SCHEDULED" else None
        return p.policy | {"resuming": False, "pause_keys": [], "retry_type": retry}
    if p.move == ("RUNNING", "FAILED") and p.flavour.clears_retry_type:
        return p.policy | {"retry_type": None}
    if proposed == "PAUSED":
        key = p.state["state_details"]["pause_key"] or f"pause at {p.now.isoformat()}"
        return p.policy | {"pause_keys": [*p.policy["pause_keys"], key]}
    if present == "PAUSED":
        return p.policy | {"resuming": True}
    if proposed == "RUNNING" or proposed in FINAL:
        return p.policy | {"resuming": False}
    return p.policy
