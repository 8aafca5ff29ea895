"""Each method of the client asks what the protocol says, and understands the answer."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from agent.prefect.errors import NotFound, Rejected
from agent.prefect.models import StateProposal, WorkQueue
from tests.unit.prefect_api import (
    NOW,
    OTHER_ID,
    RUN_ID,
    answer,
    body_of,
    client,
    run_json,
    state_json,
)

QUEUE = {"id": str(RUN_ID), "name": "default", "is_paused": True, "concurrency_limit": 3}
PENDING = StateProposal("PENDING", "Pending", None, OTHER_ID)


async def test_a_queue_is_read_by_its_name() -> None:
    prefect, server = client(answer(QUEUE))
    assert await prefect.read_work_queue_by_name("ü a?b#c/d") == WorkQueue(
        RUN_ID, "default", is_paused=True, concurrency_limit=3
    )
    assert server.seen[0].url.raw_path == b"/api/work_queues/name/%C3%BC%20a%3Fb%23c%2Fd"


async def test_a_queue_that_is_missing_is_named() -> None:
    prefect, _ = client(answer({"detail": "work queue not found"}, 404))
    with pytest.raises(NotFound, match="work queue 'q' does not exist") as caught:
        await prefect.read_work_queue_by_name("q")
    assert not caught.value.retryable


async def test_a_queue_is_created() -> None:
    prefect, server = client(answer(QUEUE, 201))
    assert (await prefect.create_work_queue("default")).id == RUN_ID
    assert (server.seen[0].method, server.seen[0].url.path) == ("POST", "/api/work_queues/")
    assert body_of(server.seen[0]) == {"name": "default"}


async def test_trap_04_a_queue_that_another_agent_just_created_is_read() -> None:
    taken = answer({"detail": "A work queue with this name already exists."}, 409)
    prefect, server = client(taken, answer(QUEUE))
    assert (await prefect.create_work_queue("default")).id == RUN_ID
    assert [request.method for request in server.seen] == ["POST", "GET"]


async def test_a_queue_that_was_deleted_again_after_the_conflict_is_not_found() -> None:
    taken = answer({"detail": "A work queue with this name already exists."}, 409)
    prefect, _ = client(taken, answer({"detail": "work queue not found"}, 404))
    with pytest.raises(NotFound):
        await prefect.create_work_queue("default")


async def test_a_name_that_no_queue_can_have_is_refused_with_the_servers_reason() -> None:
    said = {
        "exception_message": "Invalid request received.",
        "exception_detail": [{"loc": ["body", "name"], "msg": "Name 'a/b' is bad", "type": "x"}],
        "request_body": {"name": "a/b"},
    }
    prefect, _ = client(answer(said, 422))
    with pytest.raises(Rejected, match=r"status 422: body\.name: Name 'a/b' is bad") as caught:
        await prefect.create_work_queue("a/b")
    assert not caught.value.retryable


async def test_prefix_matching_pages_through_all_queues() -> None:
    pages = [[_queue(n, f"dev-{n}") for n in range(start, start + 100)] for start in (0, 100)]
    prefect, server = client(*map(answer, pages), answer([_queue(200, "dev-200")]))
    assert len(await prefect.match_work_queues(["dev"])) == 201
    assert [body_of(request)["offset"] for request in server.seen] == [0, 100, 200]
    assert body_of(server.seen[0])["work_queues"] == {"name": {"startswith_": ["dev"]}}


async def test_prefix_matching_is_exact_where_the_servers_is_not() -> None:
    # SQL LIKE on SQLite: `_` is any character, and case does not matter (probed: 2.20.26, 3.8.8).
    names = ["de_x", "dev-1", "DE_y"]
    prefect, _ = client(answer([_queue(n, name) for n, name in enumerate(names)]))
    assert [queue.name for queue in await prefect.match_work_queues(["de_"])] == ["de_x"]


async def test_prefix_matching_leaves_other_pools_queues_to_their_workers() -> None:
    queues = [
        _queue(1, "dev-old-server"),
        _queue(2, "dev-agent", "default-agent-pool"),
        _queue(3, "dev-k8s", "k8s"),
    ]
    prefect, _ = client(answer(queues))
    found = await prefect.match_work_queues(["dev"])
    assert [queue.name for queue in found] == ["dev-old-server", "dev-agent"]


async def test_scheduled_runs_are_asked_for_with_limit_and_time() -> None:
    prefect, server = client(answer([run_json()]))
    runs = await prefect.get_runs(OTHER_ID, limit=7, scheduled_before=NOW + timedelta(seconds=15))
    assert [run.id for run in runs] == [RUN_ID]
    assert server.seen[0].url.path == f"/api/work_queues/{OTHER_ID}/get_runs"
    assert body_of(server.seen[0]) == {
        "limit": 7,
        "scheduled_before": "2026-01-01T12:00:15+00:00",
    }


async def test_a_proposed_state_carries_its_transition_id_and_no_pickle() -> None:
    accepted = {"state": state_json(), "status": "ACCEPT", "details": {"type": "accept_details"}}
    prefect, server = client(answer(accepted, 201))
    assert (await prefect.set_state(RUN_ID, PENDING)).status == "ACCEPT"
    assert body_of(server.seen[0]) == {
        "state": {
            "type": "PENDING",
            "name": "Pending",
            "message": None,
            "data": None,
            "state_details": {"flow_run_id": str(RUN_ID), "transition_id": str(OTHER_ID)},
        },
        "force": False,
    }


async def test_a_repeated_claims_answer_shows_whose_state_it_is() -> None:
    state = state_json(type="PENDING", state_details={"transition_id": str(OTHER_ID)})
    details = {"type": "reject_details", "reason": "This run has already made this transition."}
    prefect, _ = client(answer({"state": state, "status": "REJECT", "details": details}))
    got = await prefect.set_state(RUN_ID, PENDING)
    assert got.state is not None
    assert got.state.state_details.transition_id == OTHER_ID
    assert got.reason == "This run has already made this transition."


async def test_trap_27_a_wait_is_an_answer_with_a_delay_not_a_sleep() -> None:
    details = {"type": "wait_details", "delay_seconds": 12, "reason": "too early"}
    prefect, _ = client(answer({"state": None, "status": "WAIT", "details": details}))
    got = await prefect.set_state(RUN_ID, PENDING)
    assert (got.status, got.state, got.delay_seconds) == ("WAIT", None, 12.0)


async def test_the_infrastructure_pid_is_told_although_the_answer_is_empty() -> None:
    from httpx import Response

    prefect, server = client(Response(204))
    await prefect.set_infrastructure_pid(RUN_ID, "host:123")
    assert (server.seen[0].method, body_of(server.seen[0])) == (
        "PATCH",
        {"infrastructure_pid": "host:123"},
    )


async def test_a_run_is_read() -> None:
    prefect, server = client(answer(run_json(infrastructure_pid="h:1")))
    assert (await prefect.read_flow_run(RUN_ID)).infrastructure_pid == "h:1"
    assert server.seen[0].url.path == f"/api/flow_runs/{RUN_ID}"


async def test_a_deployment_and_its_flow_are_read() -> None:
    deployment = {"id": str(RUN_ID), "name": "d", "flow_id": str(OTHER_ID), "job_variables": {}}
    prefect, server = client(answer(deployment), answer({"id": str(OTHER_ID), "name": "f"}))
    found = await prefect.read_deployment(RUN_ID)
    assert found.flow_id == OTHER_ID
    assert (await prefect.read_flow(OTHER_ID)).name == "f"
    assert [request.url.path for request in server.seen] == [
        f"/api/deployments/{RUN_ID}",
        f"/api/flows/{OTHER_ID}",
    ]


async def test_a_block_document_is_read_with_its_secrets() -> None:
    block = {"id": str(RUN_ID), "name": "p", "data": {"env": {}}, "block_type": {"slug": "process"}}
    prefect, server = client(answer(block))
    assert (await prefect.read_block_document(RUN_ID)).block_type_slug == "process"
    assert server.seen[0].url.query == b"include_secrets=true"


async def test_every_request_is_counted() -> None:
    prefect, _ = client(answer(QUEUE))
    for _ in range(3):
        await prefect.read_work_queue_by_name("default")
    assert prefect.requests == 3


def _queue(number: int, name: str, pool: str | None = None) -> dict[str, object]:
    return {"id": str(UUID(int=number)), "name": name, "work_pool_name": pool}
