"""CSRF tokens are fetched, sent, renewed and given up as servers want it."""

from __future__ import annotations

from datetime import timedelta
from email.utils import format_datetime

import attrs
import httpx
import pytest
import trio

from agent.prefect.errors import Unauthorised
from agent.prefect.models import StateProposal
from tests.unit.prefect_api import NOW, OTHER_ID, RUN_ID, answer, client, run_json, state_json

PENDING = StateProposal("PENDING", "Pending", None, OTHER_ID)
ON = {"PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true"}


@attrs.define
class Guarded:
    """A server that wants a token with each change. `moved`: how far its clock is from ours."""

    valid: str = "token-1"
    issued: int = 0
    moved: timedelta = timedelta()
    token_status: int = 200
    protects: bool = True

    def __call__(self, request: httpx.Request) -> httpx.Response:
        now = NOW + self.moved + timedelta(seconds=trio.current_time())
        date = {"date": format_datetime(now, usegmt=True)}
        if request.url.path.endswith("/csrf-token"):
            if self.token_status != 200:
                said = {404: "Not Found", 422: "CSRF protection is disabled."}[self.token_status]
                return httpx.Response(self.token_status, json={"detail": said}, headers=date)
            self.issued += 1
            self.valid = f"token-{self.issued}"
            expiration = (now + timedelta(hours=1)).isoformat()
            fields = {"token": self.valid, "client": "x", "expiration": expiration}
            return httpx.Response(200, json=fields, headers=date)
        sent = request.headers.get("Prefect-Csrf-Token")
        if request.method == "GET":
            assert sent is None
            return answer(run_json())
        if self.protects and sent is None:
            return answer({"detail": "Missing CSRF token."}, 403)
        if self.protects and sent != self.valid:
            return answer({"detail": "Invalid CSRF token or client identifier."}, 403)
        return answer({"state": state_json(), "status": "ACCEPT", "details": {}})


async def test_a_token_is_fetched_before_the_first_change_and_kept() -> None:
    guarded = Guarded()
    prefect, server = client(guarded, **ON)
    await prefect.read_flow_run(RUN_ID)
    await prefect.set_state(RUN_ID, PENDING)
    await prefect.set_state(RUN_ID, PENDING)
    paths = [request.url.path.removeprefix("/api") for request in server.seen]
    assert paths == [f"/flow_runs/{RUN_ID}", "/csrf-token", *[f"/flow_runs/{RUN_ID}/set_state"] * 2]
    chosen = server.seen[1].url.params["client"]
    assert {r.headers["Prefect-Csrf-Client"] for r in server.seen[2:]} == {chosen}
    assert {r.headers["Prefect-Csrf-Token"] for r in server.seen[2:]} == {"token-1"}


async def test_many_changes_at_once_fetch_one_token() -> None:
    guarded = Guarded()
    prefect, _ = client(guarded, **ON)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(prefect.set_state, RUN_ID, PENDING)
    assert guarded.issued == 1


@pytest.mark.parametrize("days_apart", [-400, 0, 400])
async def test_a_token_is_fetched_anew_before_it_expires_whatever_the_clocks_say(
    days_apart: int, autojump_clock: trio.testing.MockClock
) -> None:
    guarded = Guarded(moved=timedelta(days=days_apart))
    prefect, _ = client(guarded, **ON)
    await prefect.set_state(RUN_ID, PENDING)
    await trio.sleep(3500)
    await prefect.set_state(RUN_ID, PENDING)
    assert guarded.issued == 1
    await trio.sleep(80)
    await prefect.set_state(RUN_ID, PENDING)
    assert guarded.issued == 2


async def test_a_refused_token_is_fetched_anew_also_for_what_is_sent_only_once() -> None:
    guarded = Guarded()
    prefect, _ = client(guarded, **ON)
    await prefect.set_state(RUN_ID, PENDING)
    guarded.valid = "token-of-a-restarted-server"
    await prefect.set_state(RUN_ID, PENDING, retry=False)
    assert guarded.issued == 2


async def test_a_token_that_is_refused_twice_is_an_error_not_a_loop() -> None:
    def refuses(request: httpx.Request) -> httpx.Response:
        guarded.valid = "never"
        return guarded(request)

    guarded = Guarded()
    prefect, server = client(refuses, **ON)
    with pytest.raises(Unauthorised, match="Invalid CSRF token"):
        await prefect.set_state(RUN_ID, PENDING)
    assert len(server.seen) == 4


@pytest.mark.parametrize("status", [404, 422])
async def test_a_server_without_tokens_is_asked_once(status: int) -> None:
    guarded = Guarded(token_status=status, protects=False)
    prefect, server = client(guarded, **ON)
    for _ in range(3):
        await prefect.set_state(RUN_ID, PENDING)
    assert [request.method for request in server.seen] == ["GET", "POST", "POST", "POST"]


async def test_a_server_that_is_restarted_with_tokens_switched_on_gets_them() -> None:
    guarded = Guarded(token_status=422, protects=False)
    prefect, _ = client(guarded, **ON)
    await prefect.set_state(RUN_ID, PENDING)
    guarded.token_status, guarded.protects = 200, True
    await prefect.set_state(RUN_ID, PENDING, retry=False)
    assert guarded.issued == 1


async def test_no_token_is_asked_for_when_the_setting_says_so() -> None:
    prefect, server = client(Guarded(), PREFECT_CLIENT_CSRF_SUPPORT_ENABLED="false")
    with pytest.raises(Unauthorised):
        await prefect.set_state(RUN_ID, PENDING)
    assert [request.method for request in server.seen] == ["POST"]


async def test_prefect_cloud_is_not_asked_for_tokens() -> None:
    cloud = "https://api.prefect.cloud/api/accounts/a/workspaces/w"
    prefect, server = client(Guarded(protects=False), PREFECT_API_URL=cloud, **ON)
    await prefect.set_state(RUN_ID, PENDING)
    assert [str(request.url) for request in server.seen] == [
        f"{cloud}/flow_runs/{RUN_ID}/set_state"
    ]
