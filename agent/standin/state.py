"""The stand-in server's memory and its rules: what Prefect does with a proposed state, and why.

Pure and deterministic: the clock and the ids come from outside, so one seed makes one history.
The rules are those of Prefect 2.20.26 and 3.8.8 (both probed), in their order and their words;
where the two differ, `flavour` says which is played. The same conformance tests run against this
and against the real servers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import attrs

JSON = dict[str, Any]

FINAL: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
STATE_TYPES: Final = FINAL | {"SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"}


class Refusal(Exception):
    """A request that gets an error for an answer.

    Attributes:
        status: HTTP status.
        body: JSON of the answer.
    """

    def __init__(self, status: int, body: JSON) -> None:
        self.status, self.body = status, body
        super().__init__(f"{status}: {body}")


def not_found(what: str) -> Refusal:
    """Return the 404 that FastAPI gives for a missing thing."""
    return Refusal(404, {"detail": f"{what} not found"})


@attrs.frozen
class Verdict:
    """What the orchestration makes of a proposed state.

    Attributes:
        status: ACCEPT, REJECT, ABORT or WAIT.
        instead: for REJECT: a state to enter instead of the proposed one; None keeps the present.
    """

    status: str
    reason: str | None = None
    delay_seconds: int | None = None
    instead: JSON | None = None


ACCEPTED: Final = Verdict("ACCEPT")


@attrs.define(eq=False)
class StandinState:
    """Everything the stand-in server knows.

    Attributes:
        now: the server's clock, UTC.
        new_id: makes an id.
        flavour: "2.20" or "3".
    """

    now: Callable[[], datetime]
    new_id: Callable[[], UUID]
    flavour: str = "2.20"
    flows: dict[str, JSON] = attrs.field(factory=dict)
    queues: dict[str, JSON] = attrs.field(factory=dict)
    deployments: dict[str, JSON] = attrs.field(factory=dict)
    blocks: dict[str, JSON] = attrs.field(factory=dict)
    runs: dict[str, JSON] = attrs.field(factory=dict)
    history: dict[str, list[JSON]] = attrs.field(factory=dict)

    def timestamp(self, when: datetime | None = None) -> str:
        """Return a time as the server writes it: `+00:00` in 2.20, `Z` in 3."""
        text = (when or self.now()).isoformat()
        return text.replace("+00:00", "Z") if self.flavour == "3" else text

    def add(self, table: dict[str, JSON], fields: JSON) -> JSON:
        """Store a new thing under a new id."""
        now = self.timestamp()
        row = {"id": str(self.new_id()), "created": now, "updated": now} | fields
        table[row["id"]] = row
        return row

    # --- queues -------------------------------------------------------------------------------

    def queue_named(self, name: str) -> JSON:
        """Return a queue by its name, or refuse with 404."""
        for queue in self.queues.values():
            if queue["name"] == name:
                return queue
        raise not_found("work queue")

    def create_queue(self, name: str, **fields: Any) -> JSON:
        """Create a queue, or refuse with 409."""
        if any(queue["name"] == name for queue in self.queues.values()):
            detail = "A work queue with this name already exists."
            raise Refusal(409, {"detail": detail})
        defaults = {"is_paused": False, "concurrency_limit": None, "priority": 1}
        return self.add(self.queues, {"name": name} | defaults | fields)

    def scheduled_runs(self, queue: JSON, limit: int, before: datetime | None) -> list[JSON]:
        """Return what `get_runs` hands out: scheduled, due before, oldest first."""
        if queue["is_paused"]:
            return []
        mine = [run for run in self.runs.values() if run["work_queue_id"] == queue["id"]]
        if queue["concurrency_limit"] is not None:
            busy = sum(run["state"]["type"] in ("PENDING", "RUNNING") for run in mine)
            limit = min(limit, max(queue["concurrency_limit"] - busy, 0))
        due = [
            (datetime.fromisoformat(run["next_scheduled_start_time"]), index, run)
            for index, run in enumerate(mine)
            if run["state"]["type"] == "SCHEDULED"
        ]
        due = [item for item in due if before is None or item[0] <= before]
        return [run for _when, _index, run in sorted(due, key=lambda item: item[:2])[:limit]]

    # --- runs ---------------------------------------------------------------------------------

    def create_run(self, deployment: JSON, state: JSON, fields: JSON) -> JSON:
        """Create a run of a deployment in a first state."""
        run = self.add(
            self.runs,
            {
                "name": fields.get("name") or f"run-{len(self.runs) + 1}",
                "flow_id": deployment["flow_id"],
                "deployment_id": deployment["id"],
                "work_queue_id": deployment["work_queue_id"],
                "work_queue_name": deployment["work_queue_name"],
                "parameters": fields.get("parameters") or {},
                "job_variables": fields.get("job_variables") or {},
                "infrastructure_pid": None,
                "state": None,
            },
        )
        self._enter(run, state)
        return run

    def run(self, run_id: str) -> JSON:
        """Return a run, or refuse with 404."""
        try:
            return self.runs[run_id]
        except KeyError:
            raise not_found("Flow run") from None

    def set_state(self, run_id: str, proposed: JSON, *, force: bool) -> tuple[int, JSON]:
        """Orchestrate a proposed state; return the HTTP status and the answer."""
        if run_id not in self.runs:
            message = f"Flow run with id {run_id} not found"
            raise Refusal(404, {"exception_message": message})
        run = self.runs[run_id]
        verdict = ACCEPTED if force else self._judge(run, proposed)
        entered = proposed if verdict.status == "ACCEPT" else verdict.instead
        if entered is not None:
            self._enter(run, entered)
        details: JSON = {"type": f"{verdict.status.lower()}_details"}
        if verdict.reason is not None:
            details["reason"] = verdict.reason
        if verdict.delay_seconds is not None:
            details["delay_seconds"] = verdict.delay_seconds
        answer = {"state": run["state"], "status": verdict.status, "details": details}
        return (200 if entered is None else 201), answer

    def _enter(self, run: JSON, proposed: JSON) -> None:
        before = run["state"]
        details = dict(proposed.get("state_details") or {})
        details["flow_run_id"] = run["id"]
        type_ = proposed["type"]
        if type_ == "SCHEDULED":
            details["scheduled_time"] = details.get("scheduled_time") or self.timestamp()
            run["next_scheduled_start_time"] = details["scheduled_time"]
        else:
            run["next_scheduled_start_time"] = None
        if type_ == "PENDING" and before is not None and before["type"] == "SCHEDULED":
            # CopyScheduledTime: the engine must know how long to wait.
            details["scheduled_time"] = before["state_details"]["scheduled_time"]
        state = {
            "id": str(self.new_id()),
            "type": type_,
            "name": proposed.get("name") or type_.title(),
            "timestamp": self.timestamp(),
            "message": proposed.get("message"),
            "data": proposed.get("data"),
            "state_details": {"scheduled_time": None, "transition_id": None} | details,
        }
        run["state"], run["state_type"], run["state_name"] = state, type_, state["name"]
        run["state_id"], run["updated"] = state["id"], self.timestamp()
        self.history.setdefault(run["id"], []).append(copy.deepcopy(state))

    def _judge(self, run: JSON, proposed: JSON) -> Verdict:
        for rule in (
            self._duplicate,
            self._pending_over_pending,
            self._cancelling,
            self._leaving_a_final_state,
            self._before_its_time,
        ):
            verdict = rule(run, proposed)
            if verdict is not None:
                return verdict
        return ACCEPTED

    def _duplicate(self, run: JSON, proposed: JSON) -> Verdict | None:
        # PreventDuplicateTransitions: only the present state's id is compared.
        mine = (proposed.get("state_details") or {}).get("transition_id")
        if mine is not None and mine == run["state"]["state_details"]["transition_id"]:
            return Verdict("REJECT", "This run has already made this state transition.")
        return None

    def _pending_over_pending(self, run: JSON, proposed: JSON) -> Verdict | None:
        # PreventPendingTransitions.
        present, type_ = run["state"]["type"], proposed["type"]
        if type_ != "PENDING" or present not in ("PENDING", "RUNNING", "CANCELLED"):
            return None
        name = proposed.get("name") or "Pending"
        if (
            present == "PENDING"
            and self.flavour == "3"
            and name
            not in (
                "Pending",
                run["state"]["name"],
            )
        ):
            return None  # 3.x: a named sub-state, e.g. Submitting
        return Verdict(
            "ABORT",
            f"This run is in a {present} state and cannot transition to a PENDING state.",
        )

    def _cancelling(self, run: JSON, proposed: JSON) -> Verdict | None:
        present, type_ = run["state"]["type"], proposed["type"]
        if present == "CANCELLING" and type_ not in ("CANCELLED", "CANCELLING"):
            reason = "Cannot transition flows that are cancelling to a state other than Cancelled."
            return Verdict("REJECT", reason)
        if type_ == "CANCELLING" and present == "SCHEDULED" and not run["infrastructure_pid"]:
            reason = "Scheduled flow run has no infrastructure to terminate."
            return Verdict("REJECT", reason, instead={"type": "CANCELLED", "name": "Cancelled"})
        return None

    def _leaving_a_final_state(self, run: JSON, proposed: JSON) -> Verdict | None:
        if run["state"]["type"] in FINAL and proposed["type"] == "CRASHED":
            return Verdict("ABORT", "Run is already in terminal state " + run["state"]["name"])
        return None

    def _before_its_time(self, run: JSON, proposed: JSON) -> Verdict | None:
        due = run["state"]["state_details"]["scheduled_time"]
        if proposed["type"] != "RUNNING" or due is None:
            return None
        early = (datetime.fromisoformat(due) - self.now()).total_seconds()
        if early <= 0:
            return None
        return Verdict("WAIT", "Scheduled time is in the future", delay_seconds=int(early) + 1)


def mask_secrets(block: Mapping[str, Any]) -> JSON:
    """Return a block document as it reads without `include_secrets`."""
    masked = copy.deepcopy(dict(block))
    for path in masked["block_schema"]["fields"].get("secret_fields", ()):
        *way, last = path.split(".")
        target = masked["data"]
        for part in way:
            target = target.get(part) or {}
        if last in target:
            target[last] = "********"
    return masked
