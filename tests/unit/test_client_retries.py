"""Requests are repeated as Prefect's own client does it, on a virtual clock."""

from __future__ import annotations

import logging
import ssl
from datetime import timedelta
from email.utils import format_datetime

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from agent.prefect.errors import Rejected, ServerTrouble, Unreachable
from agent.prefect.models import StateProposal
from agent.prefect.retry import LONGEST_BACKOFF_SECONDS, delay_seconds, retry_after_seconds
from tests.unit.prefect_api import NOW, OTHER_ID, RUN_ID, answer, client, run_json, state_json

GOOD = answer(run_json())
ACCEPTED = answer({"state": state_json(), "status": "ACCEPT", "details": {}}, 201)
PENDING = StateProposal("PENDING", "Pending", None, OTHER_ID)


@pytest.mark.parametrize("status", [408, 429, 502, 503])
async def test_a_passing_refusal_is_tried_again(
    status: int, autojump_clock: trio.testing.MockClock
) -> None:
    prefect, server = client(answer({}, status), GOOD)
    assert (await prefect.read_flow_run(RUN_ID)).id == RUN_ID
    assert len(server.seen) == 2


@pytest.mark.parametrize("status", [400, 500, 504])
async def test_other_refusals_are_not_tried_again(status: int) -> None:
    prefect, server = client(answer({}, status), GOOD)
    with pytest.raises((Rejected, ServerTrouble)):
        await prefect.read_flow_run(RUN_ID)
    assert len(server.seen) == 1


async def test_extra_status_codes_are_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    prefect, server = client(
        answer({}, 500), answer({}, 418), GOOD, PREFECT_CLIENT_RETRY_EXTRA_CODES="500, 418"
    )
    await prefect.read_flow_run(RUN_ID)
    assert len(server.seen) == 3


async def test_there_are_five_retries_with_doubling_delays(
    autojump_clock: trio.testing.MockClock,
) -> None:
    prefect, server = client(answer({}, 503), PREFECT_CLIENT_RETRY_JITTER_FACTOR="0")
    began = trio.current_time()
    with pytest.raises(ServerTrouble) as caught:
        await prefect.read_flow_run(RUN_ID)
    assert (len(server.seen), caught.value.retryable) == (6, True)
    assert trio.current_time() - began == pytest.approx(2 + 4 + 8 + 16 + 32)


async def test_no_retries_when_none_are_allowed() -> None:
    prefect, server = client(answer({}, 503), PREFECT_CLIENT_MAX_RETRIES="0")
    with pytest.raises(ServerTrouble):
        await prefect.read_flow_run(RUN_ID)
    assert len(server.seen) == 1


async def test_a_rate_limit_that_does_not_end_may_still_pass(
    autojump_clock: trio.testing.MockClock,
) -> None:
    prefect, _ = client(answer({"detail": "slow down"}, 429))
    with pytest.raises(Rejected, match="status 429: slow down") as caught:
        await prefect.read_flow_run(RUN_ID)
    assert caught.value.retryable


async def test_retry_after_in_seconds_is_obeyed(autojump_clock: trio.testing.MockClock) -> None:
    prefect, _ = client(answer({}, 429, retry_after="30"), GOOD)
    began = trio.current_time()
    await prefect.read_flow_run(RUN_ID)
    assert 30 <= trio.current_time() - began <= 36


async def test_retry_after_as_a_date_goes_by_the_servers_own_clock(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server_now = NOW + timedelta(days=300)
    headers = {
        "date": format_datetime(server_now, usegmt=True),
        "retry_after": format_datetime(server_now + timedelta(seconds=40), usegmt=True),
    }
    prefect, _ = client(answer({}, 503, **headers), GOOD)
    began = trio.current_time()
    await prefect.read_flow_run(RUN_ID)
    assert 40 <= trio.current_time() - began <= 48


async def test_a_long_wait_that_the_server_asks_for_is_said(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    prefect, _ = client(answer({}, 429, retry_after="3600"), GOOD)
    await prefect.read_flow_run(RUN_ID)
    assert "asks to wait" in caplog.text
    assert "GET /flow_runs/{id}" in caplog.text


async def test_maintenance_is_waited_out_however_long_it_takes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    down = answer({}, 503, prefect_maintenance="true")
    prefect, server = client(*[down] * 40, GOOD)
    await prefect.read_flow_run(RUN_ID)
    assert len(server.seen) == 41


async def test_a_proposal_that_must_not_be_repeated_is_sent_once() -> None:
    for trouble in (answer({}, 503, prefect_maintenance="true"), httpx.ReadTimeout("late")):
        prefect, server = client(trouble, ACCEPTED)
        with pytest.raises((ServerTrouble, Unreachable)):
            await prefect.set_state(RUN_ID, PENDING, retry=False)
        assert len(server.seen) == 1


async def test_a_repeated_request_is_the_same_bytes(autojump_clock: trio.testing.MockClock) -> None:
    prefect, server = client(answer({}, 503), httpx.ReadError("reset"), ACCEPTED)
    await prefect.set_state(RUN_ID, PENDING)
    assert len({(r.method, str(r.url), r.content, tuple(r.headers.raw)) for r in server.seen}) == 1
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ReadTimeout("x"),
        httpx.WriteTimeout("x"),
        httpx.PoolTimeout("x"),
        httpx.ReadError("x"),
        httpx.WriteError("x"),
        httpx.CloseError("x"),
        httpx.RemoteProtocolError("x"),
        httpx.LocalProtocolError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_broken_connection_is_tried_again(
    trouble: Exception, autojump_clock: trio.testing.MockClock
) -> None:
    prefect, server = client(trouble, GOOD)
    await prefect.read_flow_run(RUN_ID)
    assert len(server.seen) == 2


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ConnectTimeout])
async def test_a_server_that_never_answered_is_reported_at_once(
    kind: type[httpx.TransportError],
) -> None:
    prefect, server = client(kind("refused"), GOOD)
    with pytest.raises(Unreachable, match=r"no answer from http://prefect\.test/api") as caught:
        await prefect.read_flow_run(RUN_ID)
    assert (len(server.seen), caught.value.retryable) == (1, True)


async def test_a_server_that_restarts_is_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    prefect, server = client(GOOD, httpx.ConnectError("refused"), httpx.ConnectTimeout("x"), GOOD)
    await prefect.read_flow_run(RUN_ID)
    await prefect.read_flow_run(RUN_ID)
    assert len(server.seen) == 4


async def test_a_certificate_that_is_not_trusted_any_more_is_reported_at_once() -> None:
    distrust = httpx.ConnectError("handshake")
    distrust.__cause__ = ssl.SSLCertVerificationError()
    distrust.__cause__.verify_message = "certificate has expired"
    prefect, server = client(GOOD, distrust, GOOD)
    await prefect.read_flow_run(RUN_ID)
    with pytest.raises(Unreachable, match="certificate has expired"):
        await prefect.read_flow_run(RUN_ID)
    assert len(server.seen) == 2


async def test_an_outage_is_said_once_until_it_ends(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    down = httpx.ConnectError("refused")
    prefect, _ = client(GOOD, down, down, GOOD, down, GOOD)
    for _ in range(3):
        await prefect.read_flow_run(RUN_ID)
    assert caplog.text.count("no answer from http://prefect.test/api: refused; trying again") == 2


async def test_an_answer_that_drips_for_ever_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def drip(_request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    prefect, _ = client(GOOD, PREFECT_CLIENT_MAX_RETRIES="0", PREFECT_API_REQUEST_TIMEOUT="10")
    prefect._wire._http._transport = httpx.MockTransport(drip)
    began = trio.current_time()
    with pytest.raises(Unreachable, match="no complete answer within"):
        await prefect.read_flow_run(RUN_ID)
    assert trio.current_time() - began == pytest.approx(40)


@given(
    st.integers(1, 10_000),
    st.none() | st.floats(0, 1e6),
    st.floats(0, 3),
    st.floats(0, 1, exclude_max=True),
)
def test_delays_stay_within_their_bounds(
    tries: int, retry_after: float | None, factor: float, draw: float
) -> None:
    """Never less than the server asks for, nor more than the factor allows, nor below zero."""
    delay = delay_seconds(tries, retry_after, jitter_factor=factor, draw=draw)
    if retry_after is not None:
        assert retry_after <= delay <= retry_after * (1 + factor) + 1e-9
    else:
        backoff = min(2.0 ** min(tries, 30), LONGEST_BACKOFF_SECONDS)
        assert max(0.0, backoff * (1 - factor)) <= delay <= backoff * (1 + factor)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        (format_datetime(NOW + timedelta(seconds=9), usegmt=True), 9.0),
        (format_datetime(NOW - timedelta(seconds=9), usegmt=True), 0.0),
        ("Thu, 01 Jan 2026 12:00:05 -0000", 5.0),
        ("Thu, 99 Jan 2026 12:00:05 GMT", None),
    ],
)
def test_a_retry_after_header_is_read(value: str, seconds: float | None) -> None:
    assert retry_after_seconds({"retry-after": value}, NOW) == seconds


@given(st.text())
def test_no_retry_after_header_breaks_the_reader(value: str) -> None:
    """Whatever is in the header gives None or a number of seconds that can be slept."""
    seconds = retry_after_seconds({"retry-after": value, "date": value}, NOW)
    assert seconds is None or 0 <= seconds < float("inf")
