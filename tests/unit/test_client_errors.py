"""Refusals become errors that say what to do, and no error ever shows a secret."""

from __future__ import annotations

import base64
import traceback

import httpx
import pytest

from agent.prefect.errors import (
    ApiError,
    BadAnswer,
    NotFound,
    Rejected,
    ServerTrouble,
    Unauthorised,
    Unreachable,
)
from agent.prefect.models import StateProposal
from tests.unit.prefect_api import OTHER_ID, RUN_ID, Answer, answer, client

PENDING = StateProposal("PENDING", "Pending", None, OTHER_ID)
NO_RETRY = {"PREFECT_CLIENT_MAX_RETRIES": "0"}


async def _error(reply: Answer, **environment: str) -> ApiError:
    prefect, _ = client(reply, **(NO_RETRY | environment))
    with pytest.raises(ApiError) as caught:
        await prefect.set_state(RUN_ID, PENDING)
    return caught.value


async def test_a_missing_key_is_named_as_missing() -> None:
    error = await _error(answer({"exception_message": "Unauthorized"}, 401))
    assert isinstance(error, Unauthorised)
    assert "status 401: Unauthorized; check PREFECT_API_KEY or PREFECT_API_AUTH_STRING" in str(
        error
    )
    assert "neither is set" in str(error)


async def test_a_wrong_key_is_named_by_its_variable_and_can_be_mended() -> None:
    error = await _error(answer({}, 403), PREFECT_API_AUTH_STRING="a:b")
    assert isinstance(error, Unauthorised)
    assert "what PREFECT_API_AUTH_STRING may do" in str(error)
    assert error.retryable


@pytest.mark.parametrize(("status", "retryable"), [(409, True), (408, True), (422, False)])
async def test_a_refusal_is_retryable_when_it_is_about_the_moment(
    status: int, retryable: bool
) -> None:
    error = await _error(answer({"detail": "no"}, status))
    assert isinstance(error, Rejected)
    assert (error.status, error.detail, error.retryable) == (status, "no", retryable)


async def test_a_server_error_is_retryable() -> None:
    error = await _error(answer({"exception_message": "Internal Server Error"}, 500))
    assert isinstance(error, ServerTrouble)
    assert error.retryable


@pytest.mark.parametrize(
    "said",
    [
        {"detail": "Flow run not found"},
        {"exception_message": "Flow run with id 1 not found"},
    ],
)
async def test_what_prefect_does_not_know_is_not_found(said: dict[str, str]) -> None:
    error = await _error(answer(said, 404))
    assert isinstance(error, NotFound)
    assert str(error) == (
        f"flow run {RUN_ID} does not exist at the server (POST /flow_runs/{{id}}/set_state)"
    )


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(404, text="404 page not found"),
        httpx.Response(404, html="<html>no</html>"),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(404, json=["?"]),
    ],
    ids=["proxy", "web page", "no such route", "odd JSON"],
)
async def test_a_404_that_is_not_about_the_run_does_not_say_that_the_run_is_gone(
    reply: httpx.Response,
) -> None:
    error = await _error(reply)
    assert isinstance(error, BadAnswer)
    assert error.retryable
    assert "PREFECT_API_URL" in str(error)


async def test_the_servers_words_are_one_short_line() -> None:
    error = await _error(answer({"detail": "a\n\x1b[31mb\x00" + "x" * 1000}, 400))
    assert "a [31mb x" in str(error)
    assert len(str(error)) < 400
    assert str(error).isprintable()


CANARY = "canary-5d41402a"
BASIC = base64.b64encode(f"u:{CANARY}".encode()).decode()


@pytest.mark.parametrize(
    "environment",
    [
        {"PREFECT_API_KEY": CANARY},
        {"PREFECT_API_AUTH_STRING": f"u:{CANARY}"},
        {"PREFECT_CLIENT_CUSTOM_HEADERS": f'{{"X-Token": "{CANARY}"}}'},
        {"PREFECT_API_URL": f"http://u:{CANARY}@prefect.test/api"},
    ],
    ids=["key", "auth string", "custom header", "URL"],
)
@pytest.mark.parametrize(
    "reply",
    [
        answer({"detail": f"who is {CANARY} or {BASIC}?"}, 400),
        answer({"detail": [{"loc": ["body"], "msg": f"bad: {CANARY}", "input": CANARY}]}, 422),
        answer({"request_body": CANARY, "exception_message": CANARY}, 500),
        answer({"detail": f"wrong key {CANARY} {BASIC}"}, 401),
        answer({"status": CANARY, "state": CANARY}),
        httpx.Response(200, text=CANARY),
        httpx.Response(307, headers={"location": f"http://x:{CANARY}@y/?{CANARY}"}),
        httpx.LocalProtocolError(f"Illegal header value b'Bearer {CANARY}'"),
        httpx.RemoteProtocolError(f"illegal status line: {CANARY}"),
        httpx.ReadError(CANARY),
    ],
    ids=lambda reply: getattr(reply, "status_code", None) or type(reply).__name__,
)
async def test_no_error_and_no_traceback_shows_a_secret(
    environment: dict[str, str], reply: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    error = await _error(reply, **environment)
    told = "".join(traceback.format_exception(error)) + repr(error) + caplog.text
    assert CANARY not in told
    if f"u:{CANARY}" in "".join(environment.values()):
        assert BASIC not in told


async def test_credentials_in_the_url_are_not_part_of_what_is_told() -> None:
    error = await _error(httpx.ConnectError("refused"), PREFECT_API_URL="http://u:p@h.test/api")
    assert isinstance(error, Unreachable)
    assert error.url == "http://h.test/api"
