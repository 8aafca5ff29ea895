"""What goes with every request: who we are, which API we speak, and how we authenticate."""

from __future__ import annotations

import re

import httpx
import pytest

from agent.prefect.errors import Rejected, Unreachable
from agent.prefect.models import StateProposal
from tests.unit.prefect_api import OTHER_ID, RUN_ID, answer, client, run_json

GOOD = answer(run_json())
PENDING = StateProposal("PENDING", "Pending", None, OTHER_ID)


async def _headers(**environment: str) -> httpx.Headers:
    prefect, server = client(GOOD, **environment)
    await prefect.read_flow_run(RUN_ID)
    return server.seen[0].headers


async def test_we_say_who_we_are_and_which_api_we_speak() -> None:
    headers = await _headers()
    assert re.fullmatch(r"pluperfect/[\d.]+\S* \(Python \S+; API 0\.8\.4\)", headers["user-agent"])
    assert headers["x-prefect-api-version"] == "0.8.4"
    assert "authorization" not in headers


async def test_a_key_is_sent_as_a_bearer_token() -> None:
    assert (await _headers(PREFECT_API_KEY="pnu_1"))["authorization"] == "Bearer pnu_1"


async def test_an_auth_string_wins_over_a_key() -> None:
    headers = await _headers(PREFECT_API_KEY="pnu_1", PREFECT_API_AUTH_STRING="admin:pass")
    assert headers["authorization"] == "Basic YWRtaW46cGFzcw=="


async def test_custom_headers_are_sent_with_any_case() -> None:
    headers = await _headers(
        PREFECT_API_KEY="pnu_1",
        PREFECT_CLIENT_CUSTOM_HEADERS='{"X-Team": "data", "authorization": "Custom 1"}',
    )
    assert headers["x-team"] == "data"
    assert headers.get_list("authorization") == ["Custom 1"]


async def test_custom_headers_do_not_replace_ours(caplog: pytest.LogCaptureFixture) -> None:
    headers = await _headers(
        PREFECT_CLIENT_CUSTOM_HEADERS='{"user-agent": "prefect/3.0.0", "PREFECT-CSRF-TOKEN": "x"}'
    )
    assert headers["user-agent"].startswith("pluperfect/")
    assert "prefect-csrf-token" not in headers
    assert "can't set PREFECT-CSRF-TOKEN" in caplog.text


async def test_a_redirect_to_the_same_host_is_followed_with_the_same_request() -> None:
    moved = httpx.Response(308, headers={"location": "https://prefect.test/api/x"})
    accepted = answer({"state": None, "status": "ABORT", "details": {}})
    prefect, server = client(moved, accepted, PREFECT_API_KEY="pnu_1")
    await prefect.set_state(RUN_ID, PENDING)
    first, second = server.seen
    assert (str(second.url), second.method) == ("https://prefect.test/api/x", "POST")
    assert second.content == first.content
    assert second.headers["authorization"] == "Bearer pnu_1"


@pytest.mark.parametrize(
    ("base", "location", "status"),
    [
        ("http://prefect.test/api", "https://prefect.test/x", 301),  # would become a GET
        ("http://prefect.test/api", "http://elsewhere.test/x?token=abc", 308),
        ("https://prefect.test/api", "http://prefect.test/x", 307),
    ],
)
async def test_a_redirect_that_would_lose_the_request_or_leak_headers_is_refused(
    base: str, location: str, status: int
) -> None:
    moved = httpx.Response(status, headers={"location": location})
    prefect, server = client(moved, PREFECT_API_URL=base)
    with pytest.raises(Rejected, match=r"redirected to .*; set PREFECT_API_URL") as caught:
        await prefect.set_state(RUN_ID, PENDING)
    assert len(server.seen) == 1
    assert "token=abc" not in str(caught.value)


async def test_a_circle_of_redirects_ends() -> None:
    prefect, server = client(httpx.Response(307, headers={"location": "/api/again"}))
    with pytest.raises(Unreachable, match="redirects in circles"):
        await prefect.read_flow_run(RUN_ID)
    assert len(server.seen) == 5
