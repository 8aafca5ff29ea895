"""Answers become models, or an error that names the field and shows no value."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.prefect.errors import BadAnswer
from agent.prefect.models import (
    BlockDocument,
    Deployment,
    FlowRun,
    State,
    StateAnswer,
    Unstructurable,
    WorkQueue,
    structure,
)
from tests.unit.prefect_api import OTHER_ID, RUN_ID, answer, client, run_json, state_json

CANARY = "hunter2-canary"


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T12:00:00+00:00",
        "2026-01-01T12:00:00Z",
        "2026-01-01T12:00:00",
        "2026-01-01 12:00:00.000Z",
        "2026-01-01T14:00:00.000000+02:00",
    ],
)
def test_trap_43_dates_of_all_servers_parse_to_utc(text: str) -> None:
    run = structure(run_json(next_scheduled_start_time=text), FlowRun)
    assert run.next_scheduled_start_time == pendulum.datetime(2026, 1, 1, 12)
    assert run.next_scheduled_start_time.isoformat() == "2026-01-01T12:00:00+00:00"


@given(st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1)), st.integers(-12 * 60, 14 * 60))
def test_any_date_is_the_same_moment_whatever_its_offset(naive: datetime, minutes: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    state = structure(state_json(timestamp=moment.isoformat()), State)
    assert state.timestamp == moment.astimezone(UTC)


def test_a_state_type_of_a_newer_server_is_kept_as_it_is() -> None:
    assert structure(state_json(type="HIBERNATING"), State).type == "HIBERNATING"


def test_unknown_fields_are_ignored() -> None:
    assert structure(run_json(labels={"a": 1}, brand_new=[{}]), FlowRun).id == RUN_ID


def test_trap_41_a_run_without_deployment_is_read() -> None:
    run = structure(run_json(deployment_id=None, flow_id=None, state=None), FlowRun)
    assert (run.deployment_id, run.flow_id, run.state) == (None, None, None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"infra_overrides": {"a": 1}}, {"a": 1}),
        ({"infra_overrides": {"a": 1}, "job_variables": {"a": 2}}, {"a": 2}),
        ({"infra_overrides": {"a": 1}, "job_variables": None}, {"a": 1}),
        ({"job_variables": {"a": 2}}, {"a": 2}),
        ({"infra_overrides": None}, {}),
        ({}, {}),
    ],
)
def test_a_deployments_overrides_are_found_under_both_names(
    fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    deployment = structure({"id": str(RUN_ID), "name": "d"} | fields, Deployment)
    assert deployment.job_variables == expected


def test_a_block_type_is_also_found_in_the_schema() -> None:
    document = {"id": str(RUN_ID), "data": {}, "block_schema": {"block_type": {"slug": "process"}}}
    assert structure(document, BlockDocument).block_type_slug == "process"


def test_models_that_hold_secrets_do_not_show_them() -> None:
    block = {"id": str(RUN_ID), "data": {"password": CANARY}, "block_document_references": {}}
    deployment = {"id": str(RUN_ID), "name": "d", "job_variables": {"env.KEY": CANARY}}
    run = run_json(job_variables={"env.KEY": CANARY})
    shown = repr(
        [
            structure(block, BlockDocument),
            structure(deployment, Deployment),
            structure(run, FlowRun),
        ]
    )
    assert CANARY not in shown


@pytest.mark.parametrize(
    ("runs", "where", "problem"),
    [
        ([run_json(), run_json(id=CANARY)], "[1].id", "is text, expected a UUID"),
        ([run_json(id=7)], "[0].id", "is a number, expected a UUID"),
        ([{"id": str(RUN_ID)}], "[0].name", "is missing"),
        (
            [run_json(state=state_json(timestamp=CANARY))],
            "[0].state.timestamp",
            "is text, expected an ISO 8601 date and time",
        ),
        ([run_json(state=CANARY)], "[0].state", "is text, expected an object"),
        ([run_json(job_variables=[CANARY])], "[0].job_variables", "is a list, expected an object"),
        ([None], "[0]", "is null, expected an object"),
        ({"detail": CANARY}, "", "is an object, expected a list"),
        (CANARY, "", "is text, expected a list"),
    ],
)
def test_the_field_at_fault_is_named_and_its_value_is_not(
    runs: Any, where: str, problem: str
) -> None:
    with pytest.raises(Unstructurable) as caught:
        structure(runs, list[FlowRun])
    assert (caught.value.field, caught.value.problem) == (where, problem)


@pytest.mark.parametrize("value", ["false", 0, None])
def test_what_is_not_a_boolean_is_not_taken_for_one(value: object) -> None:
    with pytest.raises(Unstructurable, match="is_paused"):
        structure({"id": str(RUN_ID), "name": "q", "is_paused": value}, WorkQueue)


def test_a_boolean_is_not_taken_for_a_number() -> None:
    with pytest.raises(Unstructurable, match="concurrency_limit is true or false"):
        structure({"id": str(RUN_ID), "name": "q", "concurrency_limit": True}, WorkQueue)


def test_a_status_that_is_none_of_the_four_is_refused() -> None:
    with pytest.raises(Unstructurable, match="status is text, expected one of ACCEPT, REJECT"):
        structure({"status": "MAYBE", "state": None, "details": {}}, StateAnswer)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(run_json())), json_values))
def test_no_answer_breaks_the_reader_in_another_way(fields: dict[str, Any]) -> None:
    """Whatever a server sends is a model or an Unstructurable, never another error."""
    with suppress(Unstructurable):
        structure(run_json(**fields), FlowRun)


async def test_an_answer_that_is_no_model_names_endpoint_and_field() -> None:
    prefect, _ = client(answer([run_json(), run_json(id=CANARY)]))
    with pytest.raises(BadAnswer) as caught:
        await prefect.get_runs(OTHER_ID, limit=1, scheduled_before=datetime.now(UTC))
    assert str(caught.value) == (
        "the server's answer can't be understood: field [1].id is text, expected a UUID"
        " (POST /work_queues/{id}/get_runs)"
    )
    assert caught.value.retryable


async def test_a_web_page_in_place_of_json_hints_at_the_address() -> None:
    import httpx

    prefect, _ = client(httpx.Response(200, html="<html>"))
    with pytest.raises(BadAnswer, match=r"not JSON but text/html; .*usually ends in /api"):
        await prefect.read_flow_run(RUN_ID)
