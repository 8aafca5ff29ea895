"""What Prefect servers tell of runs' states, by filters, in block documents and in whole bodies.

Each test of `any_server` runs four times: against a real 2.20, a real 3.8, and the stand-in as
either. So the protocol stays as the agent takes it to be, and the stand-in can't drift from it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.rest import NOBODY, Rest, new_run
from tests.servers import RealServer

# --- states and filters --------------------------------------------------------------------


def test_the_states_of_a_run_are_listed_oldest_first(any_server: Rest) -> None:
    run = new_run(any_server)
    any_server.lead(run, "PENDING", "RUNNING", "CRASHED", "PENDING")
    assert any_server.states(run) == [
        "SCHEDULED/Scheduled",
        "PENDING/Pending",
        "RUNNING/Running",
        "CRASHED/Crashed",
        "PENDING/Pending",
    ]
    found = any_server.get(f"/flow_run_states/?flow_run_id={run}")
    times = [datetime.fromisoformat(state["timestamp"]) for state in found]
    assert times == sorted(set(times))
    assert found[-1] == any_server.run(run)["state"]
    assert any_server.get(f"/flow_run_states/{found[0]['id']}") == found[0]


def test_the_states_of_nobody_are_none_and_without_a_run_invalid(any_server: Rest) -> None:
    assert any_server.get(f"/flow_run_states/?flow_run_id={NOBODY}") == []
    assert any_server.ask("GET", "/flow_run_states/").status_code == 422


def test_runs_are_found_by_id_state_queue_and_deployment(any_server: Rest) -> None:
    deployment = any_server.deployment(f"queue-{uuid4()}")
    waiting, claimed = any_server.schedule(deployment), any_server.schedule(deployment)
    any_server.lead(claimed, "PENDING")

    def found(**filters: Any) -> set[str]:
        body = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}} | filters}
        runs = any_server.post("/flow_runs/filter", body)
        assert any_server.post("/flow_runs/count", body) == len(runs)
        return {run["id"] for run in runs}

    assert found() == {waiting, claimed}
    assert found(id={"any_": [waiting]}) == {waiting}
    assert found(id={"any_": []}) == set()
    assert found(id={"not_any_": [waiting]}) == {claimed}
    assert found(id={"not_any_": []}) == {waiting, claimed}
    assert found(state={"type": {"any_": ["PENDING"]}}) == {claimed}
    assert found(state={"type": {"any_": ["PENDING"]}, "name": {"any_": ["X"]}}) == set()
    assert found(work_queue_name={"any_": [deployment["work_queue_name"]]}) == {waiting, claimed}
    unknown = any_server.ask("POST", "/flow_runs/filter", {"flow_runs": {"unknown": {}}})
    assert unknown.status_code == 422


def test_the_cancel_poll_of_prefects_agent_finds_cancelling_runs(any_server: Rest) -> None:
    deployment = any_server.deployment(f"queue-{uuid4()}")
    cancelling, other = any_server.schedule(deployment), any_server.schedule(deployment)
    any_server.lead(cancelling, "PENDING", "CANCELLING")
    any_server.lead(other, "PENDING")
    body = {
        "flow_runs": {"state": {"type": {"any_": ["CANCELLING"]}}, "id": {"not_any_": []}},
        "work_pools": {"name": {"any_": ["default-agent-pool"]}},
        "work_pool_queues": {"name": {"any_": [deployment["work_queue_name"]]}},
        "sort": None,
        "limit": None,
        "offset": 0,
    }
    assert [run["id"] for run in any_server.post("/flow_runs/filter", body)] == [cancelling]


def test_runs_are_sorted_and_paged(any_server: Rest) -> None:
    deployment = any_server.deployment(f"queue-{uuid4()}")
    runs = [any_server.schedule(deployment, in_seconds=s) for s in (-10, -30, -20)]
    filters = {"flow_runs": {"id": {"any_": runs}}}

    def ask(**more: Any) -> list[str]:
        return [run["id"] for run in any_server.post("/flow_runs/filter", filters | more)]

    by_time = [runs[1], runs[2], runs[0]]
    assert ask() == sorted(runs, reverse=True)
    assert ask(sort="EXPECTED_START_TIME_ASC") == by_time
    assert ask(sort="EXPECTED_START_TIME_DESC") == by_time[::-1]
    assert ask(sort="EXPECTED_START_TIME_ASC", limit=1, offset=1) == by_time[1:2]
    assert any_server.ask("POST", "/flow_runs/filter", {"sort": "BAD"}).status_code == 422


# --- blocks --------------------------------------------------------------------------------


def test_a_process_block_is_read_as_it_was_written(any_server: Rest) -> None:
    data = {"env": {"A": "1", "B": None}, "command": ["true"], "stream_output": False}
    block = any_server.block("process", data)
    deployment = any_server.deployment(f"queue-{uuid4()}", infrastructure=block["id"])
    found = any_server.get(f"/block_documents/{deployment['infrastructure_document_id']}")
    # No defaults are filled in, and no `type`: what is absent is the reader's business.
    assert found["data"] == data
    assert found["block_type"]["slug"] == "process"
    assert found["is_anonymous"] is True
    assert found["block_schema"]["capabilities"] == ["run-infrastructure"]
    run = any_server.run(any_server.schedule(deployment))
    assert run["infrastructure_document_id"] == block["id"]


def test_secrets_are_masked_unless_they_are_asked_for(any_server: Rest) -> None:
    block = any_server.block("secret", {"value": "hunter2"}, name=f"secret-{uuid4()}")
    assert block["data"] == {"value": "********"}

    def value(query: str) -> Any:
        return any_server.get(f"/block_documents/{block['id']}{query}")["data"]["value"]

    assert value("") == "********"
    assert value("?include_secrets=false") == "********"
    assert value("?include_secrets=true") == "hunter2"
    odd = any_server.ask("GET", f"/block_documents/{block['id']}?include_secrets=bogus")
    assert odd.status_code == 422


def test_a_nested_block_is_inlined_with_its_secret_masked_or_not(any_server: Rest) -> None:
    if any_server.flavour == "3":
        inner = any_server.block("secret", {"value": "hunter2"}, name=f"inner-{uuid4()}")
        outer_slug, field, secret, plain = "process", "extra", "value", {}
    else:
        plain = {"username": "u", "registry_url": "http://registry"}
        registry = plain | {"password": "hunter2"}
        inner = any_server.block("docker-registry", registry, name=f"inner-{uuid4()}")
        outer_slug, field, secret = "docker-container", "image_registry", "password"
    reference = {"$ref": {"block_document_id": inner["id"]}}
    outer = any_server.block(outer_slug, {"image": "x", field: reference}, name=f"o-{uuid4()}")
    path = f"/block_documents/{outer['id']}"
    shown = any_server.get(f"{path}?include_secrets=true")
    assert shown["data"] == {"image": "x", field: plain | {secret: "hunter2"}}
    nested = shown["block_document_references"][field]["block_document"]
    assert (nested["id"], nested["name"]) == (inner["id"], inner["name"])
    assert any_server.get(path)["data"][field][secret] == "********"
    assert any_server.ask("DELETE", f"/block_documents/{inner['id']}").status_code == 204
    assert any_server.get(path)["data"] == {"image": "x"}


def test_a_block_that_refers_to_nothing_is_refused(any_server: Rest) -> None:
    reference = {"$ref": {"block_document_id": NOBODY}}
    with pytest.raises(AssertionError, match="Data integrity conflict"):
        any_server.block("process", {"extra": reference}, name=f"o-{uuid4()}")


def test_3_has_no_infrastructure_blocks_of_its_own(prefect3: RealServer, standin3: str) -> None:
    for url in (prefect3.url, standin3):
        server = Rest(url, "3")
        answer = server.ask("GET", "/block_types/slug/docker-container")
        server.close()
        assert (answer.status_code, answer.json()) == (404, {"detail": "Block type not found"})


# --- bodies as wholes ----------------------------------------------------------------------


def test_times_and_ids_are_written_as_the_flavour_writes_them(any_server: Rest) -> None:
    run = any_server.run(new_run(any_server))
    suffix = "+00:00" if any_server.flavour == "2.20" else "Z"
    for text in (run["created"], run["expected_start_time"], run["state"]["timestamp"]):
        assert text.endswith(suffix)
    # Of all ids only those of states are ordered by time, and on 3 only.
    assert UUID(run["state"]["id"]).version == (4 if any_server.flavour == "2.20" else 7)
    assert {UUID(run[name]).version for name in ("id", "flow_id", "deployment_id")} == {4}


def shapes(server: Rest) -> dict[str, Any]:
    """The keys of everything that an agent reads, on one server."""
    queue = server.queue()
    block = server.block("secret", {"value": "x"}, name=f"secret-{uuid4()}")
    deployment = server.deployment(queue["name"])
    waiting, claimed = server.schedule(deployment), server.schedule(deployment)
    made = server.propose(claimed, "PENDING")
    return {
        "queue": keys(server.get(f"/work_queues/{queue['id']}")),
        "run": keys(server.run(waiting)),
        "handed out": keys(server.post(f"/work_queues/{queue['id']}/get_runs", {})[0]),
        "filtered": keys(server.post("/flow_runs/filter", {"limit": 1})[0]),
        "answer": keys({"state": made.state, "details": made.details}),
        "history": keys(server.get(f"/flow_run_states/?flow_run_id={claimed}")[0]),
        "deployment": keys(server.get(f"/deployments/{deployment['id']}")),
        "flow": keys(server.get(f"/flows/{deployment['flow_id']}")),
        "block": sorted(server.get(f"/block_documents/{block['id']}")),
        "block schema": sorted(block["block_schema"]),
        "block type": sorted(block["block_type"]),
    }


def keys(value: Any) -> Any:
    """An object's keys, all the way down."""
    return {name: keys(v) for name, v in value.items()} if isinstance(value, dict) else None


@pytest.mark.real
def test_the_bodies_of_stand_in_and_prefect_2_20_have_the_same_fields(
    prefect2: RealServer, standin2: str
) -> None:
    real, played = Rest(prefect2.url, "2.20"), Rest(standin2, "2.20")
    assert shapes(played) == shapes(real)
    real.close()
    played.close()


@pytest.mark.real
def test_the_bodies_of_stand_in_and_prefect_3_have_the_same_fields(
    prefect3: RealServer, standin3: str
) -> None:
    real, played = Rest(prefect3.url, "3"), Rest(standin3, "3")
    assert shapes(played) == shapes(real)
    real.close()
    played.close()
