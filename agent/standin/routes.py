"""The stand-in's routes: which call of the REST API does what to its state.

One function per route; the table is at the end, where `app` looks them up. A handler returns a
status and a JSON body, or raises a `Refusal`.
"""

from __future__ import annotations

from typing import Final

from agent.standin import block_routes, wire
from agent.standin.bodies import Fields, read_id, read_state
from agent.standin.calls import Call, Handler, Reply
from agent.standin.filters import in_order, read_filters, read_order
from agent.standin.refusals import (
    INTEGRITY_CONFLICT,
    JSON,
    detail,
    from_below,
    invalid_request,
    not_found,
)
from agent.standin.state import new_policy

PAGE: Final = 200
"""The servers' default and largest limit."""

# --- the server itself ---------------------------------------------------------------------


def read_health(_call: Call) -> Reply:
    """It answers, so it is well."""
    return 200, True


def read_readiness(_call: Call) -> Reply:
    """It is ready as soon as it answers."""
    return 200, {"message": "OK"}


def read_version(call: Call) -> Reply:
    """Answer with the server's version."""
    return 200, call.state.traits.server_version


# --- work queues ---------------------------------------------------------------------------


def _show_queue(call: Call, row: JSON) -> JSON:
    return wire.queue(row, call.state.occupied(row), call.state.traits)


def create_work_queue(call: Call) -> Reply:
    """Make a queue in the default agent pool."""
    fields = call.fields()
    name = fields.name("name")
    read: JSON = {
        "description": fields.text("description", ""),
        "is_paused": fields.flag("is_paused"),
        "concurrency_limit": fields.whole("concurrency_limit"),
        "priority": fields.whole("priority", 1, at_least=1),
    }
    if fields.raw.get("filter") is not None:
        fields.wrong(("filter",), "the stand-in has no queues by tags", "unsupported", None)
    fields.ignore("filter")
    fields.forbid_others()
    fields.check()
    return 201, _show_queue(call, call.state.create_queue(name, **read))


def read_work_queue_by_name(call: Call) -> Reply:
    """Answer with a queue, by its name."""
    return 200, _show_queue(call, call.state.queue_named(call.path["name"]))


def read_work_queue(call: Call) -> Reply:
    """Answer with a queue, by its id."""
    return 200, _show_queue(call, call.row(call.state.queues, "work queue"))


def update_work_queue(call: Call) -> Reply:
    """Pause a queue, limit it, rename it."""
    fields = call.fields()
    read: JSON = {
        "name": fields.text("name"),
        "description": fields.text("description", ""),
        "is_paused": fields.flag("is_paused"),
        "concurrency_limit": fields.whole("concurrency_limit"),
        "priority": fields.whole("priority", 1, at_least=1),
    }
    fields.ignore("filter", "last_polled")
    fields.forbid_others()
    fields.check()
    changes = {name: value for name, value in read.items() if name in fields}
    call.state.update_queue(call.id, changes)
    return 204, None


def delete_work_queue(call: Call) -> Reply:
    """Delete a queue; its runs stay, and nobody is handed them."""
    del call.state.queues[call.row(call.state.queues, "work queue")["id"]]
    return 204, None


def _limit(fields: Fields) -> int:
    limit: int = fields.whole("limit", PAGE, at_least=None)
    if limit > PAGE:
        raise detail(422, f"Invalid limit: must be less than or equal to {PAGE}.")
    if limit < 0:
        raise detail(422, "Invalid limit: must be greater than or equal to 0.")
    return limit


def filter_work_queues(call: Call) -> Reply:
    """Answer with the queues whose names match, a page of them."""
    fields = call.fields()
    limit, offset = _limit(fields), fields.whole("offset", 0)
    wanted: list[str] | None = None
    prefixes: list[str] | None = None
    queues = fields.nested("work_queues")
    names = None if queues is None else queues.nested("name")
    if names is not None:
        wanted, prefixes = names.items("any_"), names.items("startswith_")
        names.forbid_others()
    if queues is not None:
        queues.forbid_others()
    fields.check()
    found = [
        queue
        for queue in sorted(call.state.queues.values(), key=lambda q: str(q["name"]))
        if (wanted is None or queue["name"] in wanted)
        and (prefixes is None or queue["name"].startswith(tuple(prefixes)))
    ]
    return 200, [_show_queue(call, queue) for queue in found[offset : offset + limit]]


def get_runs(call: Call) -> Reply:
    """Hand out a queue's scheduled runs."""
    fields = call.fields()
    limit, before = _limit(fields), fields.moment("scheduled_before")
    fields.uuid("agent_id")
    fields.check()
    state = call.state
    if call.id not in state.queues:
        raise from_below(404, f"Work queue with id {call.id} not found.")
    runs = state.scheduled_runs(state.queues[call.id], limit, before, peek=call.peek)
    now, with_pool = state.now(), state.traits.offers_tell_the_pool
    return 200, [wire.run(run, now, state.traits, with_pool=with_pool) for run in runs]


# --- flows and deployments -----------------------------------------------------------------


def create_flow(call: Call) -> Reply:
    """Make a flow, or find the one of that name."""
    fields, state = call.fields(), call.state
    name, tags = fields.name("name"), fields.items("tags") or []
    fields.ignore("labels")
    fields.forbid_others()
    fields.check()
    found = next((row for row in state.flows.values() if row["name"] == name), None)
    row = found or state.add(state.flows, {"name": name, "tags": tags})
    return 201 if found is None else 200, wire.flow(row, state.traits)


def read_flow(call: Call) -> Reply:
    """Answer with a flow."""
    return 200, wire.flow(call.row(call.state.flows, "Flow"), call.state.traits)


# What the servers take and the stand-in has no use for.
_UNUSED_OF_A_DEPLOYMENT: Final = (
    "schedules",
    "enforce_parameter_schema",
    "parameter_openapi_schema",
    "pull_steps",
    "work_pool_name",
    "paused",
)
_UNUSED_OF_2: Final = ("schedule", "is_schedule_active", "manifest_path")


def create_deployment(call: Call) -> Reply:
    """Make a deployment, or change the one of that flow and name."""
    fields, flavour = call.fields(), call.state.traits
    name, flow_id = fields.name("name"), str(fields.required_uuid("flow_id"))
    read: JSON = {
        "work_queue_name": fields.text("work_queue_name"),
        "version": fields.text("version"),
        "description": fields.text("description"),
        "parameters": fields.mapping("parameters"),
        "tags": fields.items("tags") or [],
        "path": fields.text("path"),
        "entrypoint": fields.text("entrypoint"),
        "storage_document_id": fields.id_text("storage_document_id"),
        "infrastructure_document_id": fields.id_text("infrastructure_document_id"),
    }
    kept = {field: value for field, value in read.items() if field in fields}
    for alias in flavour.accepted_overrides_fields:
        overrides = fields.mapping(alias)
        if alias in fields:
            kept["job_variables"] = overrides
    fields.ignore(*_UNUSED_OF_A_DEPLOYMENT)
    if flavour.name == "2.20":
        fields.ignore(*_UNUSED_OF_2)
    fields.forbid_others()
    fields.check()
    row, created = call.state.create_deployment(name, flow_id, kept)
    return 201 if created else 200, wire.deployment(row, flavour)


def read_deployment(call: Call) -> Reply:
    """Answer with a deployment."""
    row = call.row(call.state.deployments, "Deployment")
    return 200, wire.deployment(row, call.state.traits)


def delete_deployment(call: Call) -> Reply:
    """Delete a deployment and its scheduled runs."""
    call.state.delete_deployment(call.row(call.state.deployments, "Deployment")["id"])
    return 204, None


# --- flow runs -----------------------------------------------------------------------------


def _read_new_run(fields: Fields) -> JSON:
    read: JSON = {
        "name": fields.text("name"),
        "parameters": fields.mapping("parameters"),
        "tags": fields.items("tags") or [],
        "job_variables": fields.mapping("job_variables"),
        "context": fields.mapping("context"),
        "idempotency_key": fields.text("idempotency_key"),
        "infrastructure_document_id": fields.id_text("infrastructure_document_id"),
    }
    policy = fields.nested("empirical_policy")
    if policy is not None:
        read["empirical_policy"] = new_policy(policy.whole("retries"), policy.whole("retry_delay"))
    fields.ignore("parent_task_run_id", "enforce_parameter_schema", "labels", "flow_version")
    return read


def _read_state(fields: Fields, default: JSON) -> JSON:
    nested = fields.nested("state")
    return default if nested is None else read_state(nested)


def _create_run(call: Call, deployment: JSON | None, state: JSON, read: JSON) -> Reply:
    flow_id, key = read["flow_id"], read["idempotency_key"]
    for run in call.state.runs.values():
        if key is not None and (run["flow_id"], run["idempotency_key"]) == (flow_id, key):
            return 200, _show_run(call, run)
    return 201, _show_run(call, call.state.create_run(deployment, state, read))


def create_flow_run_from_deployment(call: Call) -> Reply:
    """Make a run of a deployment, Scheduled for now unless it says otherwise."""
    fields = call.fields()
    read = _read_new_run(fields) | {"work_queue_name": fields.text("work_queue_name")}
    state = _read_state(fields, {"type": "SCHEDULED"})
    fields.forbid_others()
    fields.check()
    deployment = call.row(call.state.deployments, "Deployment")
    return _create_run(call, deployment, state, read | {"flow_id": deployment["flow_id"]})


def create_flow_run(call: Call) -> Reply:
    """Make a run without a deployment, which 3.x lets into a queue."""
    fields = call.fields()
    read = _read_new_run(fields) | {"flow_id": str(fields.required_uuid("flow_id"))}
    if call.state.traits.name == "3":
        read["work_queue_name"] = fields.text("work_queue_name")
        fields.ignore("work_pool_name")
    state = _read_state(fields, {"type": "PENDING"})
    fields.ignore("deployment_id")
    fields.forbid_others()
    fields.check()
    if read["flow_id"] not in call.state.flows:
        raise detail(409, INTEGRITY_CONFLICT)
    return _create_run(call, None, state, read)


def _show_run(call: Call, row: JSON) -> JSON:
    return wire.run(row, call.state.now(), call.state.traits)


def read_flow_run(call: Call) -> Reply:
    """Answer with a run."""
    return 200, _show_run(call, call.state.run(call.id))


def update_flow_run(call: Call) -> Reply:
    """Change a run, but not its state: its infrastructure pid, for one."""
    fields = call.fields()
    read: JSON = {
        "name": fields.text("name"),
        "infrastructure_pid": fields.text("infrastructure_pid"),
        "parameters": fields.mapping("parameters"),
        "tags": fields.items("tags") or [],
        "job_variables": fields.mapping("job_variables"),
    }
    fields.ignore("flow_version", "empirical_policy")
    fields.forbid_others()
    fields.check()
    changes = {name: value for name, value in read.items() if name in fields}
    run = call.state.run(call.id)
    run |= changes | {"updated": call.state.timestamp()}
    return 204, None


def delete_flow_run(call: Call) -> Reply:
    """Delete a run."""
    call.state.delete_run(call.state.run(call.id)["id"])
    return 204, None


def set_flow_run_state(call: Call) -> Reply:
    """Propose a state."""
    fields = call.fields()
    force = fields.flag("force")
    if fields.raw.get("state") is None:
        fields.wrong(("state",), "field required", "missing", None)
    state = _read_state(fields, {})
    fields.check()
    return call.state.set_state(call.id, state, force=force)


def _filtered(call: Call, fields: Fields) -> list[JSON]:
    state = call.state
    tests = read_filters(fields, state.deployments, state.flows)
    fields.check()
    return [run for run in state.runs.values() if all(test(run) for test in tests)]


def filter_flow_runs(call: Call) -> Reply:
    """Answer with the runs that pass every filter, a page of them."""
    fields = call.fields()
    limit, offset = _limit(fields), fields.whole("offset", 0)
    unsorted = fields.raw.get("sort") is None
    order = None if unsorted else fields.required("sort", read_order)
    runs = in_order(_filtered(call, fields), order)
    return 200, [_show_run(call, run) for run in runs[offset : offset + limit]]


def count_flow_runs(call: Call) -> Reply:
    """Answer with the number of runs that pass every filter."""
    return 200, len(_filtered(call, call.fields()))


def read_flow_run_states(call: Call) -> Reply:
    """Answer with a run's states, oldest first; with none for a run that does not exist."""
    if "flow_run_id" not in call.query:
        problem = {"loc": ["query", "flow_run_id"], "msg": "field required", "type": "missing"}
        raise invalid_request([problem], None)
    try:
        run_id = str(read_id(call.query["flow_run_id"]))
    except ValueError as error:
        problem = {"loc": ["query", "flow_run_id"], "msg": str(error), "type": "uuid_parsing"}
        raise invalid_request([problem], None) from error
    states = call.state.history.get(run_id, []) if run_id in call.state.runs else []
    return 200, [wire.state(state, call.state.traits) for state in states]


def read_flow_run_state(call: Call) -> Reply:
    """Answer with one state."""
    for states in call.state.history.values():
        for state in states:
            if state["id"] == call.id:
                return 200, wire.state(state, call.state.traits)
    raise not_found("Flow run state")


ROUTES: Final[tuple[tuple[str, str, Handler], ...]] = (
    ("GET", "/health", read_health),
    ("GET", "/ready", read_readiness),
    ("GET", "/admin/version", read_version),
    ("POST", "/work_queues/", create_work_queue),
    ("POST", "/work_queues/filter", filter_work_queues),
    ("GET", "/work_queues/name/{name}", read_work_queue_by_name),
    ("GET", "/work_queues/{id}", read_work_queue),
    ("PATCH", "/work_queues/{id}", update_work_queue),
    ("DELETE", "/work_queues/{id}", delete_work_queue),
    ("POST", "/work_queues/{id}/get_runs", get_runs),
    ("POST", "/flows/", create_flow),
    ("GET", "/flows/{id}", read_flow),
    ("POST", "/deployments/", create_deployment),
    ("GET", "/deployments/{id}", read_deployment),
    ("DELETE", "/deployments/{id}", delete_deployment),
    ("POST", "/deployments/{id}/create_flow_run", create_flow_run_from_deployment),
    ("POST", "/flow_runs/", create_flow_run),
    ("POST", "/flow_runs/filter", filter_flow_runs),
    ("POST", "/flow_runs/count", count_flow_runs),
    ("GET", "/flow_runs/{id}", read_flow_run),
    ("PATCH", "/flow_runs/{id}", update_flow_run),
    ("DELETE", "/flow_runs/{id}", delete_flow_run),
    ("POST", "/flow_runs/{id}/set_state", set_flow_run_state),
    ("GET", "/flow_run_states/", read_flow_run_states),
    ("GET", "/flow_run_states/{id}", read_flow_run_state),
    ("POST", "/block_types/", block_routes.create_block_type),
    ("GET", "/block_types/slug/{slug}", block_routes.read_block_type_by_slug),
    ("POST", "/block_schemas/", block_routes.create_block_schema),
    ("POST", "/block_schemas/filter", block_routes.filter_block_schemas),
    ("POST", "/block_documents/", block_routes.create_block_document),
    ("GET", "/block_documents/{id}", block_routes.read_block_document),
    ("DELETE", "/block_documents/{id}", block_routes.delete_block_document),
)
