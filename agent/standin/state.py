"""The stand-in server's memory: what Prefect's database and models do, in a few tables of rows.

Pure and deterministic: the clock and the ids come from outside, so one seed makes one history.
`routes` calls this for requests; tests and the simulator also call it directly, to arrange a world,
to play another agent or a person, and to look. `rules` decides about states.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import attrs

from agent.standin import wire
from agent.standin.flavours import FLAVOURS, Flavour
from agent.standin.refusals import (
    INTEGRITY_CONFLICT,
    JSON,
    Refusal,
    detail,
    from_below,
    not_found,
)
from agent.standin.rules import FINAL, OCCUPYING, Proposal, judge

__all__ = ["JSON", "Refusal", "StandinState"]

RECENTLY_POLLED: Final = timedelta(seconds=60)
LATE_AFTER: Final = timedelta(seconds=15)

_NO_DETAILS: Final = {
    "scheduled_time": None,
    "transition_id": None,
    "pause_key": None,
    "pause_reschedule": False,
}


def new_policy(retries: int | None = None, retry_delay: int | None = None) -> JSON:
    """Return a fresh `empirical_policy`; `retries` are those of the run's own engine."""
    return {
        "max_retries": 0,
        "retry_delay_seconds": 0.0,
        "retries": retries,
        "retry_delay": retry_delay,
        "pause_keys": [],
        "resuming": False,
        "retry_type": None,
    }


@attrs.define(eq=False)
class StandinState:
    """Everything the stand-in server knows.

    Attributes:
        now: the server's clock, UTC.
        new_id: makes an id.
        flavour: "2.20" or "3".
        history: of each run, every state that it was in, oldest first.
    """

    now: Callable[[], datetime]
    new_id: Callable[[], UUID]
    flavour: str = "2.20"
    flows: dict[str, JSON] = attrs.field(factory=dict)
    queues: dict[str, JSON] = attrs.field(factory=dict)
    deployments: dict[str, JSON] = attrs.field(factory=dict)
    blocks: dict[str, JSON] = attrs.field(factory=dict)
    block_types: dict[str, JSON] = attrs.field(factory=dict)
    block_schemas: dict[str, JSON] = attrs.field(factory=dict)
    block_references: dict[str, dict[str, str]] = attrs.field(factory=dict)
    runs: dict[str, JSON] = attrs.field(factory=dict)
    history: dict[str, list[JSON]] = attrs.field(factory=dict)

    @property
    def traits(self) -> Flavour:
        """How this generation of server differs from the other."""
        return FLAVOURS[self.flavour]

    def timestamp(self, when: datetime | None = None) -> str:
        """Return a time as the server writes it: `+00:00` in 2.20, `Z` in 3."""
        return wire.timestamp(when or self.now(), self.traits)

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
            raise detail(409, "A work queue with this name already exists.")
        defaults = {
            "description": "",
            "is_paused": False,
            "concurrency_limit": None,
            "priority": 1,
            "last_polled": None,
            "status": "NOT_READY",
        }
        return self.add(self.queues, {"name": name} | defaults | fields)

    def queue_id_for(self, name: str | None) -> str | None:
        """Return the id of a queue, which is made when it is missing; None for no name."""
        if name is None:
            return None
        found = next((q for q in self.queues.values() if q["name"] == name), None)
        queue_id: str = (found or self.create_queue(name))["id"]
        return queue_id

    def update_queue(self, queue_id: str, changes: JSON) -> None:
        """Change a queue; pausing shows in its status at once."""
        queue = self.queues.get(queue_id)
        if queue is None:
            raise detail(404, f"Work Queue {queue_id} not found")
        queue |= changes | {"updated": self.timestamp()}
        if changes.get("is_paused") is True:
            queue["status"] = "PAUSED"
        elif changes.get("is_paused") is False and queue["status"] == "PAUSED":
            polled = queue["last_polled"]
            recently = (
                polled is not None and self.now() - datetime.fromisoformat(polled) < RECENTLY_POLLED
            )
            queue["status"] = "READY" if recently else "NOT_READY"

    def occupied(self, queue: JSON) -> int:
        """Return how many runs count against a queue's concurrency limit."""
        return sum(
            run["work_queue_name"] == queue["name"] and run["state"]["type"] in OCCUPYING
            for run in self.runs.values()
        )

    def scheduled_runs(
        self, queue: JSON, limit: int, before: datetime | None, *, peek: bool = False
    ) -> list[JSON]:
        """Return what `get_runs` hands out: scheduled, due before, oldest first.

        Nothing is reserved: the next caller gets the same. Runs that their own engine is retrying
        (`retry_type: in_process`) are among them: only work pools leave those out, on both servers.

        Args:
            queue: which queue.
            limit: at most so many.
            before: due at or before this time; None for all.
            peek: leave no trace of a poll (the header X-Prefect-UI).
        """
        if not peek:
            self._note_poll(queue)
        if queue["is_paused"]:
            return []
        if queue["concurrency_limit"] is not None:
            limit = min(limit, max(queue["concurrency_limit"] - self.occupied(queue), 0))
        due = [
            (datetime.fromisoformat(run["next_scheduled_start_time"]), run["id"], run)
            for run in self.runs.values()
            if run["work_queue_name"] == queue["name"] and run["state"]["type"] == "SCHEDULED"
        ]
        due = [item for item in due if before is None or item[0] <= before]
        return [run for _when, _id, run in sorted(due, key=lambda item: item[:2])[:limit]]

    def _note_poll(self, queue: JSON) -> None:
        polled = {"last_polled": self.timestamp()}
        queue |= polled
        if queue["status"] == "NOT_READY":
            queue["status"] = "READY"
        for deployment in self.deployments.values():
            if deployment.get("work_queue_id") == queue["id"]:
                deployment.update(polled | {"status": "READY"})

    # --- deployments --------------------------------------------------------------------------

    def create_deployment(self, name: str, flow_id: str, fields: JSON) -> tuple[JSON, bool]:
        """Make a deployment, or change the one of that flow and name; say whether it was made.

        Its queue is made with it when it is missing.

        Raises:
            Refusal: 409, its flow or its infrastructure block does not exist.
        """
        block_id = fields.get("infrastructure_document_id")
        if block_id is not None and block_id not in self.blocks:
            raise detail(
                409,
                "Error creating deployment. Could not find infrastructure block with id:"
                f" {block_id}. This usually occurs when applying a deployment specification that"
                " was built against a different Prefect database / workspace.",
            )
        if flow_id not in self.flows:
            raise detail(409, INTEGRITY_CONFLICT)
        existing = next(
            (
                row
                for row in self.deployments.values()
                if (row["flow_id"], row["name"]) == (flow_id, name)
            ),
            None,
        )
        named = {"name": name, "flow_id": flow_id} | fields
        if existing is None:
            row = self.add(self.deployments, named)
        else:
            kept = existing if self.traits.keeps_unnamed_deployment_fields else {}
            identity = {"id": existing["id"], "created": existing["created"]}
            row = kept | named | identity | {"updated": self.timestamp()}
            self.deployments[row["id"]] = row
        row["work_queue_id"] = self.queue_id_for(row.get("work_queue_name"))
        return row, existing is None

    def delete_deployment(self, deployment_id: str) -> None:
        """Delete a deployment and its scheduled runs; its other runs keep its id."""
        del self.deployments[deployment_id]
        for run in list(self.runs.values()):
            if run["deployment_id"] == deployment_id and run["state"]["type"] == "SCHEDULED":
                self.delete_run(run["id"])

    # --- runs ---------------------------------------------------------------------------------

    def create_run(self, deployment: JSON | None, state: JSON, fields: JSON) -> JSON:
        """Create a run of a deployment (None: of a flow only) in a first state."""
        source = deployment or {}
        name = fields.get("work_queue_name")
        queue_id = source.get("work_queue_id") if name is None else self.queue_id_for(name)
        run = self.add(
            self.runs,
            {
                "name": fields.get("name") or f"run-{len(self.runs) + 1}",
                "flow_id": source.get("flow_id") or fields.get("flow_id"),
                "deployment_id": source.get("id"),
                "deployment_version": source.get("version"),
                "work_queue_id": queue_id if deployment is not None else None,
                "work_queue_name": name or source.get("work_queue_name"),
                "parameters": (source.get("parameters") or {}) | (fields.get("parameters") or {}),
                "tags": sorted({*(source.get("tags") or ()), *(fields.get("tags") or ())}),
                "job_variables": fields.get("job_variables") or {},
                "context": fields.get("context") or {},
                "idempotency_key": fields.get("idempotency_key"),
                "infrastructure_document_id": fields.get("infrastructure_document_id")
                or source.get("infrastructure_document_id"),
                "infrastructure_pid": None,
                "empirical_policy": fields.get("empirical_policy") or new_policy(),
                "run_count": 0,
                "expected_start_time": None,
                "next_scheduled_start_time": None,
                "start_time": None,
                "end_time": None,
                "total_run_time": 0.0,
                "state": None,
            },
        )
        self._enter(run, self._complete(state))
        return run

    def run(self, run_id: str) -> JSON:
        """Return a run, or refuse with 404."""
        try:
            return self.runs[run_id]
        except KeyError:
            raise not_found("Flow run") from None

    def delete_run(self, run_id: str) -> None:
        """Delete a run and its states."""
        del self.runs[run_id]
        self.history.pop(run_id, None)

    # --- states -------------------------------------------------------------------------------

    def set_state(self, run_id: str, proposed: JSON, *, force: bool) -> tuple[int, JSON]:
        """Orchestrate a proposed state; return the HTTP status and the answer.

        The status is 201 when a state was made, whatever the answer says, else 200.
        """
        if run_id not in self.runs:
            raise from_below(404, f"Flow run with id {run_id} not found")
        run = self.runs[run_id]
        proposal = Proposal(run, self._complete(proposed), self.now(), self.traits)
        verdict = judge(proposal, force=force)
        if verdict.entered is not None:
            self._enter(run, self._complete(verdict.entered))
        run["empirical_policy"] = verdict.policy
        details: JSON = {"type": f"{verdict.status.lower()}_details"}
        if verdict.reason is not None:
            details["reason"] = verdict.reason
        if verdict.delay_seconds is not None:
            details["delay_seconds"] = verdict.delay_seconds
        state = wire.state(run["state"], self.traits)
        answer = {"state": state, "status": verdict.status, "details": details}
        return (200 if verdict.entered is None else 201), answer

    def mark_late_runs(self, after: timedelta = LATE_AFTER) -> list[str]:
        """Do once what the servers' late-runs service does, and return the ids of those runs.

        An overdue run becomes Late: a new state with a new id and the old scheduled time.
        """
        latest = self.now() - after
        late = [
            run
            for run in self.runs.values()
            if (run["state"]["type"], run["state"]["name"]) == ("SCHEDULED", "Scheduled")
            and datetime.fromisoformat(run["next_scheduled_start_time"]) <= latest
        ]
        for run in late:
            details = {"scheduled_time": run["next_scheduled_start_time"]}
            state = {"type": "SCHEDULED", "name": "Late", "state_details": details}
            self.set_state(run["id"], state, force=False)
        return [run["id"] for run in late]

    def _complete(self, proposed: JSON) -> JSON:
        """Fill in what a proposed state leaves out, and write its times as this server does."""
        type_, given = proposed["type"], proposed.get("state_details") or {}
        details = _NO_DETAILS | {name: given[name] for name in _NO_DETAILS if name in given}
        if type_ == "SCHEDULED" and details["scheduled_time"] is None:
            details["scheduled_time"] = self.timestamp()
        elif details["scheduled_time"] is not None:
            due = datetime.fromisoformat(details["scheduled_time"])
            due = due.replace(tzinfo=UTC) if due.tzinfo is None else due.astimezone(UTC)
            details["scheduled_time"] = self.timestamp(due)
        return {
            "type": type_,
            "name": proposed.get("name") or type_.capitalize(),
            "message": proposed.get("message"),
            "data": proposed.get("data"),
            "state_details": details,
        }

    def _enter(self, run: JSON, proposed: JSON) -> None:
        """Write a state, and what the servers keep of it in the run."""
        before, when = run["state"], self._moment_of_its_own(run)
        details = proposed["state_details"] | {"flow_run_id": run["id"]}
        state = {
            "id": self._new_state_id(when),
            "type": proposed["type"],
            "name": proposed["name"],
            "timestamp": self.timestamp(when),
            "message": proposed["message"],
            "data": proposed["data"],
            "state_details": details,
        }
        run["state"], run["state_type"], run["state_name"] = state, state["type"], state["name"]
        run["state_id"], run["updated"] = state["id"], self.timestamp(when)
        self.history.setdefault(run["id"], []).append(copy.deepcopy(state))
        _keep_times(run, before, state)

    def _moment_of_its_own(self, run: JSON) -> datetime:
        # No two states of a run share a timestamp. Where they would, 3.x moves on by microseconds
        # and 2.20 fails; a simulated clock stands still, so here both flavours move on.
        taken = {state["timestamp"] for state in self.history.get(run["id"], ())}
        when = self.now()
        while self.timestamp(when) in taken:
            when += timedelta(microseconds=1)
        return when

    def _new_state_id(self, when: datetime) -> str:
        """Return an id for a state: in 3.x (for states only) a UUIDv7, beginning with the time."""
        fresh = self.new_id()
        if not self.traits.state_ids_are_ordered:
            return str(fresh)
        milliseconds = int(when.timestamp() * 1000) & ((1 << 48) - 1)
        value = milliseconds << 80 | fresh.int & ((1 << 80) - 1)
        return str(UUID(int=value & ~(0xF << 76) | 0x7 << 76))


def _keep_times(run: JSON, before: JSON | None, after: JSON) -> None:
    when = after["timestamp"]
    if after["type"] == "RUNNING":
        run["start_time"] = run["start_time"] or when
        if not run["empirical_policy"]["resuming"]:
            run["run_count"] += 1
    if before is not None and before["type"] in FINAL and after["type"] not in FINAL:
        run["end_time"] = None
    if after["type"] in FINAL and run["start_time"] is not None:
        run["end_time"] = run["end_time"] or when
    if before is not None and before["type"] == "RUNNING":
        ran = datetime.fromisoformat(when) - datetime.fromisoformat(before["timestamp"])
        run["total_run_time"] += ran.total_seconds()
    due = after["state_details"]["scheduled_time"] if after["type"] == "SCHEDULED" else None
    run["expected_start_time"] = run["expected_start_time"] or due or when
    run["next_scheduled_start_time"] = due
