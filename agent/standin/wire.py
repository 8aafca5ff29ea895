"""Turns the stand-in's rows into the JSON that a Prefect server answers with.

Called by `routes`. Rows may be as bare as a test likes; the answers have all the fields that
2.20.26 and 3.8.8 send, so that a client's models are tried on whole bodies. The conformance
tests compare the keys with real answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from agent.standin.flavours import Flavour
from agent.standin.refusals import JSON
from agent.standin.rules import FINAL

POOL_NAME: Final = "default-agent-pool"
POOL_ID: Final = "5bd0c0de-0000-4000-8000-000000000001"
OBFUSCATED: Final = "********"


def timestamp(when: datetime, flavour: Flavour) -> str:
    """Return a time as the flavour writes it: `+00:00` or `Z`."""
    return when.isoformat().removesuffix("+00:00") + flavour.utc_suffix


def _dated(row: JSON) -> JSON:
    return {"id": row["id"], "created": row["created"], "updated": row["updated"]}


def _with(row: JSON, defaults: JSON) -> JSON:
    return {name: row.get(name, default) for name, default in defaults.items()}


def queue(row: JSON, occupied: int, flavour: Flavour) -> JSON:
    """Return a work queue. `occupied`: how many of its runs count against its limit."""
    defaults: JSON = {
        "name": None,
        "description": "",
        "is_paused": False,
        "concurrency_limit": None,
        "priority": 1,
        "work_pool_id": POOL_ID,
        "filter": None,
        "last_polled": None,
        "work_pool_name": POOL_NAME,
        "status": "NOT_READY",
    }
    body = _dated(row) | _with(row, defaults)
    if flavour.name == "3":
        body["active_slots"] = None if body["concurrency_limit"] is None else occupied
    return body


def flow(row: JSON, flavour: Flavour) -> JSON:
    """Return a flow."""
    body = _dated(row) | _with(row, {"name": None, "tags": []})
    return body | {"labels": {}} if flavour.has_labels else body


def deployment(row: JSON, flavour: Flavour) -> JSON:
    """Return a deployment. Its overrides are under the one name that the flavour has for them."""
    defaults: JSON = {
        "name": None,
        "version": None,
        "description": None,
        "flow_id": None,
        "paused": False,
        "schedules": [],
        "parameters": {},
        "tags": [],
        "work_queue_name": None,
        "last_polled": None,
        "path": None,
        "entrypoint": None,
        "storage_document_id": None,
        "infrastructure_document_id": None,
        "created_by": None,
        "updated_by": None,
        "status": "NOT_READY",
    }
    body = _dated(row) | _with(row, defaults)
    body[flavour.overrides_field] = row.get("job_variables") or {}
    body["work_pool_name"] = None if body["work_queue_name"] is None else POOL_NAME
    if flavour.name == "3":
        return body | {
            "concurrency_limit": None,
            "global_concurrency_limit": None,
            "concurrency_options": None,
            "labels": {"prefect.flow.id": body["flow_id"]},
            "work_queue_id": row.get("work_queue_id"),
            "parameter_openapi_schema": {},
            "pull_steps": [],
            "enforce_parameter_schema": True,
        }
    return body | {
        "schedule": None,
        "is_schedule_active": True,
        "parameter_openapi_schema": None,
        "pull_steps": None,
        "manifest_path": None,
        "enforce_parameter_schema": False,
    }


def state(row: JSON, flavour: Flavour) -> JSON:
    """Return a state with all the details that the flavour knows."""
    details: JSON = {
        "flow_run_id": None,
        "task_run_id": None,
        "child_flow_run_id": None,
        "scheduled_time": None,
        "cache_key": None,
        "cache_expiration": None,
        "untrackable_result": False,
        "pause_timeout": None,
        "pause_reschedule": False,
        "pause_key": None,
        "run_input_keyset": None,
        "refresh_cache": None,
        "retriable": None,
        "transition_id": None,
        "task_parameters_id": None,
    }
    if flavour.name == "3":
        details |= {"deferred": False, "traceparent": None, "deployment_concurrency_lease_id": None}
    return row | {"state_details": details | row["state_details"]}


def run(row: JSON, now: datetime, flavour: Flavour, *, with_pool: bool = True) -> JSON:
    """Return a flow run. `with_pool`: get_runs of 3.x leaves the pool's id and name empty."""
    defaults: JSON = {
        "name": None,
        "flow_id": None,
        "deployment_id": None,
        "deployment_version": None,
        "work_queue_id": None,
        "work_queue_name": None,
        "flow_version": None,
        "parameters": {},
        "idempotency_key": None,
        "context": {},
        "empirical_policy": {},
        "tags": [],
        "parent_task_run_id": None,
        "state_id": None,
        "state_type": None,
        "state_name": None,
        "run_count": 0,
        "expected_start_time": None,
        "next_scheduled_start_time": None,
        "start_time": None,
        "end_time": None,
        "total_run_time": 0.0,
        "auto_scheduled": False,
        "infrastructure_document_id": None,
        "infrastructure_pid": None,
        "created_by": None,
        "job_variables": {},
    }
    body = _dated(row) | _with(row, defaults)
    body["state"] = state(row["state"], flavour)
    pooled = with_pool and row.get("work_queue_id") is not None
    body["work_pool_id"] = POOL_ID if pooled else None
    body["work_pool_name"] = POOL_NAME if pooled else None
    if flavour.has_labels:
        body["labels"] = _labels(row)
    return body | _estimates(body, now)


def _labels(row: JSON) -> JSON:
    labels = {"prefect.flow.id": row["flow_id"]}
    if row.get("deployment_id") is not None:
        labels["prefect.deployment.id"] = row["deployment_id"]
    return labels


def _estimates(body: JSON, now: datetime) -> JSON:
    running = timedelta()
    if body["state_type"] == "RUNNING":
        running = now - datetime.fromisoformat(body["state"]["timestamp"])
    expected, started = body["expected_start_time"], body["start_time"]
    late = timedelta()
    if expected is not None and (started is not None or body["state_type"] not in FINAL):
        until = now if started is None else datetime.fromisoformat(started)
        late = max(until - datetime.fromisoformat(expected), late)
    return {
        "estimated_run_time": body["total_run_time"] + running.total_seconds(),
        "estimated_start_time_delta": late.total_seconds(),
    }


def masked(data: Mapping[str, Any], secret_fields: Sequence[str]) -> JSON:
    """Return a block's data with its secret fields (dotted paths) made unreadable."""
    hidden: JSON = dict(data)
    for path in secret_fields:
        first, _, rest = path.partition(".")
        if hidden.get(first) is None:
            continue
        if not rest:
            hidden[first] = OBFUSCATED
        elif isinstance(hidden[first], dict):
            hidden[first] = masked(hidden[first], [rest])
    return hidden
