"""What Prefect servers hand out, and what they say to queues, ids, versions and paths.

Each test of `any_server` runs four times: against a real 2.20, a real 3.8, and the stand-in as
either. So the protocol stays as the agent takes it to be, and the stand-in can't drift from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.rest import JSON, NOBODY, Rest, new_run, soon

# --- getting runs --------------------------------------------------------------------------


def test_runs_come_oldest_first_up_to_the_horizon_and_the_limit(any_server: Rest) -> None:
    queue = any_server.queue()
    deployment = any_server.deployment(queue["name"])
    third, first, second, far = (
        any_server.schedule(deployment, in_seconds=s) for s in (100, -10, -5, 3600)
    )
    horizon = soon(200)
    ask = any_server.get_runs
    assert ask(queue["id"], scheduled_before=horizon) == [first, second, third]
    assert ask(queue["id"], scheduled_before=horizon, limit=2) == [first, second]
    assert ask(queue["id"], scheduled_before=horizon, limit=0) == []
    assert ask(queue["id"]) == [first, second, third, far]
    assert ask(queue["id"], limit=None, scheduled_before=None) == [first, second, third, far]
    any_server.lead(first, "PENDING")
    assert ask(queue["id"], scheduled_before=horizon) == [second, third]


def test_the_horizon_is_inclusive_and_read_in_any_offset_or_none(any_server: Rest) -> None:
    queue = any_server.queue()
    due = datetime.now(UTC) + timedelta(hours=1)
    run = any_server.schedule(any_server.deployment(queue["name"]), at=due)
    ask = any_server.get_runs
    assert ask(queue["id"], scheduled_before=due.isoformat()) == [run]
    assert ask(queue["id"], scheduled_before=due.replace(tzinfo=None).isoformat()) == [run]
    elsewhere = due.astimezone(timezone(timedelta(hours=5)))
    assert ask(queue["id"], scheduled_before=elsewhere.isoformat()) == [run]
    before = due - timedelta(microseconds=1)
    assert ask(queue["id"], scheduled_before=before.isoformat()) == []


def test_a_run_may_be_scheduled_in_any_offset_or_none(any_server: Rest) -> None:
    deployment = any_server.deployment(f"queue-{uuid4()}")
    due = datetime.now(UTC) + timedelta(hours=1)
    for written in (due.replace(tzinfo=None), due.astimezone(timezone(timedelta(hours=5)))):
        found = any_server.run(any_server.schedule(deployment, at=written))
        state_time = found["state"]["state_details"]["scheduled_time"]
        assert datetime.fromisoformat(state_time) == due
        assert datetime.fromisoformat(found["next_scheduled_start_time"]) == due


def test_a_run_tells_its_pool_except_on_3_when_it_is_handed_out(any_server: Rest) -> None:
    queue = any_server.queue()
    run = any_server.schedule(any_server.deployment(queue["name"]))
    offered = any_server.post(f"/work_queues/{queue['id']}/get_runs", {})[0]
    pool = (queue["work_pool_id"], "default-agent-pool")
    told = (None, None) if any_server.flavour == "3" else pool
    assert (offered["work_pool_id"], offered["work_pool_name"]) == told
    found = any_server.run(run)
    assert (found["work_pool_id"], found["work_pool_name"]) == pool


def test_nothing_is_reserved_by_being_handed_out(any_server: Rest) -> None:
    queue = any_server.queue()
    run = any_server.schedule(any_server.deployment(queue["name"]))
    assert any_server.get_runs(queue["id"]) == any_server.get_runs(queue["id"]) == [run]


def test_a_paused_queue_hands_out_nothing(any_server: Rest) -> None:
    queue = any_server.queue()
    run = any_server.schedule(any_server.deployment(queue["name"]))
    any_server.patch(f"/work_queues/{queue['id']}", {"is_paused": True})
    assert any_server.get_runs(queue["id"]) == []
    paused = any_server.get(f"/work_queues/{queue['id']}")
    assert (paused["is_paused"], paused["status"]) == (True, "PAUSED")
    any_server.patch(f"/work_queues/{queue['id']}", {"is_paused": False})
    assert any_server.get_runs(queue["id"]) == [run]


def test_a_queues_limit_counts_pending_running_and_cancelling(any_server: Rest) -> None:
    queue = any_server.queue(concurrency_limit=3)
    deployment = any_server.deployment(queue["name"])
    runs = [any_server.schedule(deployment, in_seconds=-20 + n) for n in range(5)]
    ask = any_server.get_runs
    assert ask(queue["id"]) == runs[:3]
    any_server.lead(runs[0], "PENDING")
    assert ask(queue["id"]) == runs[1:3]
    any_server.lead(runs[1], "PENDING", "RUNNING")
    assert ask(queue["id"]) == runs[2:3]
    any_server.lead(runs[2], "PENDING", "CANCELLING")
    assert ask(queue["id"]) == []
    any_server.lead(runs[0], "CRASHED")
    assert ask(queue["id"]) == runs[3:4]


@pytest.mark.parametrize(("limit", "bound"), [(201, "less"), (-1, "greater")])
def test_a_limit_out_of_bounds_is_refused(any_server: Rest, limit: int, bound: str) -> None:
    queue = any_server.queue()
    for path in (f"/work_queues/{queue['id']}/get_runs", "/flow_runs/filter"):
        answer = any_server.ask("POST", path, {"limit": limit})
        edge = 200 if bound == "less" else 0
        words = f"Invalid limit: must be {bound} than or equal to {edge}."
        assert (answer.status_code, answer.json()) == (422, {"detail": words})


def test_a_time_that_is_none_is_refused(any_server: Rest) -> None:
    path = f"/work_queues/{any_server.queue()['id']}/get_runs"
    answer = any_server.ask("POST", path, {"scheduled_before": "nonsense"})
    assert answer.status_code == 422
    assert answer.json()["exception_detail"][0]["loc"] == ["body", "scheduled_before"]


def test_a_poll_shows_in_the_queue_unless_it_is_a_peek(any_server: Rest) -> None:
    queue = any_server.queue()
    path = f"/work_queues/{queue['id']}/get_runs"
    any_server.ask("POST", path, {}, headers={"X-Prefect-UI": "true"})
    assert any_server.get(f"/work_queues/{queue['id']}")["last_polled"] is None
    any_server.post(path, {})
    # The real servers note it after they have answered.
    for _ in range(200):
        found = any_server.get(f"/work_queues/{queue['id']}")
        if found["last_polled"] is not None:
            break
    assert found["last_polled"] is not None
    assert found["status"] == "READY"


# --- the other things an agent reads and writes --------------------------------------------


def test_a_queue_is_made_once(any_server: Rest) -> None:
    name = f"queue-{uuid4()}"
    missing = any_server.ask("GET", f"/work_queues/name/{name}")
    assert (missing.status_code, missing.json()) == (404, {"detail": "work queue not found"})
    made = any_server.ask("POST", "/work_queues/", {"name": name})
    again = any_server.ask("POST", "/work_queues/", {"name": name})
    assert made.status_code == 201
    assert again.status_code == 409
    assert again.json() == {"detail": "A work queue with this name already exists."}
    assert any_server.get(f"/work_queues/name/{name}")["id"] == made.json()["id"]


def test_a_queues_name_may_have_spaces_and_signs(any_server: Rest) -> None:
    name = f"a b ü?# {uuid4()}"
    queue = any_server.queue(name)
    found = any_server.get(f"/work_queues/name/{quote(name, safe='')}")
    assert found["id"] == queue["id"]


@pytest.mark.parametrize("name", ["a/b", "a%b", "a&b", "a<b", "a>b"])
def test_a_queues_name_has_no_forbidden_sign(any_server: Rest, name: str) -> None:
    answer = any_server.ask("POST", "/work_queues/", {"name": name})
    assert answer.status_code == 422
    assert answer.json()["exception_detail"][0]["loc"] == ["body", "name"]


def test_queues_are_found_by_the_beginning_of_their_names_page_by_page(any_server: Rest) -> None:
    prefix = f"match-{uuid4()}"
    names = sorted(any_server.queue(f"{prefix}-{n}")["name"] for n in range(3))
    filters = {"work_queues": {"name": {"startswith_": [prefix]}}}
    pages = [
        any_server.post("/work_queues/filter", filters | {"limit": 2, "offset": offset})
        for offset in (0, 2, 4)
    ]
    assert [len(page) for page in pages] == [2, 1, 0]
    assert sorted(queue["name"] for page in pages for queue in page) == names


MISSING: Mapping[str, tuple[str, str, Any, JSON]] = {
    "queue": ("GET", "/work_queues/{}", None, {"detail": "work queue not found"}),
    "queue's runs": (
        "POST",
        "/work_queues/{}/get_runs",
        {},
        {"exception_message": f"Work queue with id {NOBODY} not found."},
    ),
    "deployment": ("GET", "/deployments/{}", None, {"detail": "Deployment not found"}),
    "deployment's run": (
        "POST",
        "/deployments/{}/create_flow_run",
        {},
        {"detail": "Deployment not found"},
    ),
    "flow": ("GET", "/flows/{}", None, {"detail": "Flow not found"}),
    "block": ("GET", "/block_documents/{}", None, {"detail": "Block document not found"}),
    "run": ("GET", "/flow_runs/{}", None, {"detail": "Flow run not found"}),
    "run to change": (
        "PATCH",
        "/flow_runs/{}",
        {"infrastructure_pid": "h:1"},
        {"detail": "Flow run not found"},
    ),
    "run to delete": ("DELETE", "/flow_runs/{}", None, {"detail": "Flow run not found"}),
    "state": ("GET", "/flow_run_states/{}", None, {"detail": "Flow run state not found"}),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_a_404_of_its_own_shape(any_server: Rest, what: str) -> None:
    method, path, body, said = MISSING[what]
    answer = any_server.ask(method, path.format(NOBODY), body)
    assert (answer.status_code, answer.json()) == (404, said)


@pytest.mark.parametrize("path", ["/work_queues/x", "/flow_runs/None", "/deployments/None"])
def test_an_id_that_is_none_is_invalid_on_2_20_and_unknown_on_3(
    any_server: Rest, path: str
) -> None:
    answer = any_server.ask("GET", path)
    if any_server.flavour == "3":
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    else:
        assert answer.status_code == 422
        assert answer.json()["exception_detail"][0]["loc"] == ["path", "id"]


def test_an_unknown_route_and_a_wrong_method_are_told_apart(any_server: Rest) -> None:
    unknown = any_server.ask("GET", "/nosuch")
    wrong = any_server.ask("PUT", "/health")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})


def test_a_missing_slash_is_redirected(any_server: Rest) -> None:
    answer = any_server.ask("POST", "/work_queues", {"name": f"queue-{uuid4()}"})
    assert answer.status_code == 307
    assert answer.headers["location"] == f"{any_server.url}/work_queues/"


def test_the_api_version_is_checked_but_for_the_health(any_server: Rest) -> None:
    def status(path: str, version: str) -> int:
        headers = {"X-PREFECT-API-VERSION": version}
        return any_server.ask("GET", path, headers=headers).status_code

    assert [status("/admin/version", v) for v in ("0.7.0", "x", "0.8.0", "0.8.4", "9.0.0")] == [
        400,
        400,
        200,
        200,
        200,
    ]
    assert status("/ready", "0.7.0") == 400
    assert status("/health", "0.7.0") == 200
    old = any_server.ask("GET", "/admin/version", headers={"X-PREFECT-API-VERSION": "0.7.0"})
    assert old.json() == {
        "detail": "The request specified API version 0.7.0 but this server requires version 0.8.0"
        " or higher."
    }


def test_csrf_protection_is_off_and_says_so(any_server: Rest) -> None:
    answer = any_server.ask("GET", f"/csrf-token?client={NOBODY}")
    assert (answer.status_code, answer.json()) == (422, {"detail": "CSRF protection is disabled."})
    assert any_server.ask("GET", "/csrf-token").status_code == 422


def test_health_readiness_and_version(any_server: Rest) -> None:
    assert any_server.get("/health") is True
    assert any_server.get("/ready") == {"message": "OK"}
    version = any_server.get("/admin/version")
    assert version.startswith({"2.20": "2.20.", "3": "3.8."}[any_server.flavour])


def test_a_pid_is_kept_and_has_to_be_text_on_3(any_server: Rest) -> None:
    run = new_run(any_server)
    kept = any_server.ask("PATCH", f"/flow_runs/{run}", {"infrastructure_pid": "host:1"})
    assert (kept.status_code, kept.content) == (204, b"")
    assert any_server.run(run)["infrastructure_pid"] == "host:1"
    number = any_server.ask("PATCH", f"/flow_runs/{run}", {"infrastructure_pid": 5})
    assert number.status_code == (204 if any_server.flavour == "2.20" else 422)


def test_deleting_a_deployment_deletes_its_scheduled_runs_only(any_server: Rest) -> None:
    deployment = any_server.deployment(f"queue-{uuid4()}")
    waiting, claimed = any_server.schedule(deployment), any_server.schedule(deployment)
    any_server.lead(claimed, "PENDING")
    assert any_server.ask("DELETE", f"/deployments/{deployment['id']}").status_code == 204
    assert any_server.ask("GET", f"/flow_runs/{waiting}").status_code == 404
    # It names a deployment that is no longer there.
    assert any_server.run(claimed)["deployment_id"] == deployment["id"]
    assert any_server.ask("GET", f"/deployments/{deployment['id']}").status_code == 404
    assert any_server.ask("DELETE", f"/deployments/{deployment['id']}").status_code == 404


def test_a_run_takes_parameters_tags_and_variables_on_top_of_its_deployments(
    any_server: Rest,
) -> None:
    deployment = any_server.deployment(
        f"queue-{uuid4()}", parameters={"a": 1, "b": 1}, tags=["one"]
    )
    run = any_server.run(
        any_server.schedule(
            deployment,
            name="a name",
            parameters={"b": 2},
            tags=["two"],
            job_variables={"env": {"A": "1"}},
        )
    )
    assert run["name"] == "a name"
    assert run["parameters"] == {"a": 1, "b": 2}
    assert sorted(run["tags"]) == ["one", "two"]
    assert run["job_variables"] == {"env": {"A": "1"}}
    assert run["flow_id"] == deployment["flow_id"]
    assert run["work_queue_name"] == deployment["work_queue_name"]


def test_an_idempotency_key_finds_the_earlier_run(any_server: Rest) -> None:
    path = f"/deployments/{any_server.deployment(f'queue-{uuid4()}')['id']}/create_flow_run"
    key = {"idempotency_key": str(uuid4())}
    first, again = (any_server.ask("POST", path, key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]


def test_a_run_without_a_deployment_gets_into_a_queue_on_3_only(any_server: Rest) -> None:
    queue = any_server.queue()
    flow = any_server.post("/flows/", {"name": f"flow-{uuid4()}"})
    body = {"flow_id": flow["id"], "state": {"type": "SCHEDULED"}}
    into = any_server.ask("POST", "/flow_runs/", body | {"work_queue_name": queue["name"]})
    if any_server.flavour == "2.20":
        assert into.status_code == 422
        run = any_server.post("/flow_runs/", body)["id"]
    else:
        assert into.status_code == 201
        run = into.json()["id"]
        assert any_server.get_runs(queue["id"]) == [run]
    assert any_server.run(run)["deployment_id"] is None
    any_server.lead(run, "PENDING", "CRASHED")
    made = any_server.propose(run, "SCHEDULED")
    assert made.status == "ABORT"
    assert made.reason == "Cannot reschedule a run without an associated deployment."


def test_a_deployment_has_its_overrides_under_one_name(any_server: Rest) -> None:
    overrides = {"env.FOO": "1", "command": ["true"]}
    made = any_server.deployment(f"queue-{uuid4()}", overrides=overrides)
    found = any_server.get(f"/deployments/{made['id']}")
    ours, other = "infra_overrides", "job_variables"
    if any_server.flavour == "3":
        ours, other = other, ours
    assert found[ours] == overrides
    assert other not in found


def test_2_20_takes_job_variables_and_3_does_not_take_infra_overrides(any_server: Rest) -> None:
    flow = any_server.post("/flows/", {"name": f"flow-{uuid4()}"})
    body = {"name": "d", "flow_id": flow["id"]}
    newer = any_server.ask("POST", "/deployments/", body | {"job_variables": {"a": "1"}})
    assert newer.status_code == 201
    older = any_server.ask("POST", "/deployments/", body | {"infra_overrides": {"a": "1"}})
    assert older.status_code == (200 if any_server.flavour == "2.20" else 422)


def test_a_deployment_needs_its_flow_and_its_block(any_server: Rest) -> None:
    flow = any_server.post("/flows/", {"name": f"flow-{uuid4()}"})
    no_flow = any_server.ask("POST", "/deployments/", {"name": "d", "flow_id": NOBODY})
    assert no_flow.status_code == 409
    body = {"name": "d", "flow_id": flow["id"], "infrastructure_document_id": NOBODY}
    no_block = any_server.ask("POST", "/deployments/", body)
    assert no_block.status_code == 409
    assert f"Could not find infrastructure block with id: {NOBODY}" in no_block.json()["detail"]
