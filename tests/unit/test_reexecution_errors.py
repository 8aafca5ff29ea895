"""Whatever error the daemon's client has recorded, re-execution makes it make that error again."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import trio
from hypothesis import given
from hypothesis import strategies as st

from agent.prefect.client import PrefectClient
from agent.prefect.errors import ApiError, BadAnswer, NotFound
from agent.prefect.models import StateProposal
from agent.profiles import Profile
from agent.settings import build
from events.lifecycle import Effect
from events.observations import (
    CommandRefused,
    CommandStarted,
    RequestFailed,
    ResolutionFailed,
)
from replay.reexecution.execution import Outcome
from tests.samples.make_sample import Run
from tests.unit.reexecuted import expect_the_same, told_again

RUN = Run("weary-yak")
ID = UUID(int=1)

URL = "https://prefect.example:4200/api"
DOUBT = f"no answer from {URL}: no connection (POST /flow_runs/{{id}}/set_state)"

STATE = {
    "id": str(ID),
    "type": "PENDING",
    "name": "Pending",
    "message": None,
    "timestamp": "2026-01-01T00:00:00+00:00",
    "state_details": {"transition_id": str(ID), "scheduled_time": "2026-01-01T00:00:00+00:00"},
}
Request = Callable[[PrefectClient], Any]

PROPOSE = partial(
    PrefectClient.set_state, flow_run_id=ID, proposal=StateProposal("PENDING", "P", None, ID)
)
REQUESTS: dict[str, tuple[Effect, Request, Any]] = {
    "claim": (Effect.PROPOSE_PENDING, PROPOSE, {"status": "ACCEPT", "state": STATE}),
    "report": (Effect.REPORT_OUTCOME, PROPOSE, {"status": "ACCEPT", "state": STATE}),
    "run": (
        Effect.READ_RUN,
        partial(PrefectClient.read_flow_run, flow_run_id=ID),
        {"id": str(ID), "name": "n", "state": STATE},
    ),
    "pid": (
        Effect.REPORT_PID,
        partial(PrefectClient.set_infrastructure_pid, flow_run_id=ID, infrastructure_pid="host:1"),
        None,
    ),
    "deployment": (
        Effect.RESOLVE,
        partial(PrefectClient.read_deployment, deployment_id=ID),
        {"id": str(ID), "name": "n", "flow_id": str(ID), "infrastructure_document_id": str(ID)},
    ),
    "flow": (
        Effect.RESOLVE,
        partial(PrefectClient.read_flow, flow_id=ID),
        {"id": str(ID), "name": "n"},
    ),
    "block": (
        Effect.RESOLVE,
        partial(PrefectClient.read_block_document, document_id=ID),
        {"id": str(ID), "name": "n", "data": {}, "is_anonymous": False},
    ),
}

# --- what can go wrong, as the network would have it ------------------------------------------

DETAIL = st.one_of(
    st.text(max_size=20),
    st.text("abc é\n;:()", max_size=400),
    st.sampled_from(
        [
            "This run is locked; check PREFECT_API_KEY",
            "not-in-the-log",
            "x (GET /flows/{id})",
            "redirected to http://elsewhere/api",
        ]
    ),
)


@st.composite
def refusals(draw: st.DrawFn) -> httpx.Response:
    status = draw(st.sampled_from([400, 401, 403, 404, 409, 418, 422, 423, 429, 500, 502, 503]))
    body = draw(
        st.one_of(
            st.builds(lambda d: {"detail": d}, DETAIL),
            st.builds(lambda d: {"exception_message": d}, DETAIL),
            st.builds(lambda d: {"exception_detail": [{"loc": ["a", 1], "msg": d}]}, DETAIL),
            st.just("<html>"),
        )
    )
    return httpx.Response(status, json=body)


def _untrusted() -> httpx.ConnectError:
    error, cause = httpx.ConnectError("handshake"), ssl.SSLCertVerificationError()
    cause.verify_message = "self-signed certificate (in the chain)"
    error.__cause__ = cause
    return error


def _handshake() -> httpx.ConnectError:
    error = httpx.ConnectError("")
    error.__cause__ = cause = ssl.SSLError(1, "wrong version number")
    cause.reason = "WRONG_VERSION_NUMBER"
    return error


BROKEN: list[Callable[[str], httpx.RequestError]] = [
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ReadTimeout,
    httpx.WriteTimeout,
    httpx.PoolTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.CloseError,
    httpx.ProxyError,
    httpx.RemoteProtocolError,
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
    httpx.DecodingError,
    httpx.TooManyRedirects,
    lambda _text: _untrusted(),
    lambda _text: _handshake(),
]
CONNECTION_WORDS = st.one_of(
    st.just(""), st.text(max_size=30), st.just("[Errno -2] Name or service not known")
)
breaks = st.builds(lambda kind, text: kind(text), st.sampled_from(BROKEN), CONNECTION_WORDS)


def _places(body: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield way
    items = body.items() if isinstance(body, dict) else ()
    for key, value in items:
        yield from _places(value, (*way, key))


@st.composite
def nonsense(draw: st.DrawFn, good: Any) -> httpx.Response:
    """Return a good answer with one thing wrong, or no JSON at all."""
    if draw(st.booleans()):
        kind = draw(st.sampled_from(["text/html; charset=utf-8", "text/plain", None]))
        return httpx.Response(200, content=b"{", headers={"content-type": kind} if kind else {})
    way = draw(st.sampled_from(list(_places(good))))
    wrong: Any = draw(st.sampled_from([{}, [], "'", True, 1.5, None, ...]))
    if not way:
        return httpx.Response(200, json=None if wrong is ... else wrong)
    body = json.loads(json.dumps(good))
    at = body
    for step in way[:-1]:
        at = at[step]
    if wrong is ...:
        del at[way[-1]]
    else:
        at[way[-1]] = wrong
    return httpx.Response(200, json=body)


# --- what the real client says of it -----------------------------------------------------------

SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "PREFECT_API_REQUEST_TIMEOUT": st.sampled_from(["60", "2.5", "0.001", "1e6"]),
        "PREFECT_API_KEY": st.just("pnu_secret"),
        "PREFECT_API_AUTH_STRING": st.just("admin:secret"),
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": st.sampled_from(["true", "false"]),
    },
)


class Network(httpx.AsyncBaseTransport):
    """Answers everything the same way."""

    def __init__(self, what: httpx.Response | httpx.RequestError) -> None:
        self.what = what

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if isinstance(self.what, httpx.RequestError):
            raise self.what
        return self.what


def error_of(request: Request, what: Any, settings: dict[str, str]) -> ApiError | None:
    """Return what the client raises, with all its words."""
    fixed = {
        "PREFECT_API_URL": URL,
        "PREFECT_CLIENT_MAX_RETRIES": "0",
        "HOME": "/nowhere",
    }
    built = build(settings | fixed, Profile(None, Path("/nowhere")), {})

    async def ask() -> ApiError | None:
        async with PrefectClient(built, transport=Network(what)) as client:
            try:
                await request(client)
            except ApiError as error:
                return error
            return None

    return trio.run(ask)


def recorded(effect: Effect, error: ApiError) -> RequestFailed | ResolutionFailed:
    """Return what the driver records of an error."""
    if effect is Effect.RESOLVE and isinstance(error, BadAnswer):
        return ResolutionFailed(str(error))
    retryable = error.retryable or isinstance(error, BadAnswer)
    return RequestFailed(effect, str(error), retryable, 0.25)


def lived(seen: RequestFailed | ResolutionFailed) -> Outcome:
    """Live a story again in which it is observed."""
    doubt = RequestFailed(Effect.PROPOSE_PENDING, DOUBT, True, 0.5)
    started = CommandStarted("host:1", 1, 1, "boot")
    stories: dict[Effect, list[Any]] = {
        Effect.PROPOSE_PENDING: [],
        Effect.READ_RUN: [doubt],
        Effect.RESOLVE: [RUN.claimed()],
        Effect.REPORT_PID: [RUN.claimed(), RUN.resolved(), started],
        Effect.REPORT_OUTCOME: [RUN.claimed(), RUN.resolved(), CommandRefused("no such command")],
    }
    effect = Effect.RESOLVE if isinstance(seen, ResolutionFailed) else seen.effect
    return told_again(RUN, RUN.offered(), *stories[effect], seen)


def expect_again(name: str, what: Any, settings: dict[str, str]) -> None:
    effect, request, _good = REQUESTS[name]
    error = error_of(request, what, settings)
    if error is None or isinstance(error, NotFound):
        return
    seen = recorded(effect, error)
    expect_the_same(lived(seen))


@given(name=st.sampled_from([*REQUESTS]), what=st.one_of(refusals(), breaks), settings=SETTINGS)
def test_a_refusal_or_a_broken_connection_is_met_again_in_the_same_words(
    name: str, what: Any, settings: dict[str, str]
) -> None:
    """For every request, status, server's word, kind of broken connection and credentials."""
    expect_again(name, what, settings)


@given(data=st.data(), name=st.sampled_from([*REQUESTS]))
def test_an_answer_that_can_not_be_understood_is_met_again_in_the_same_words(
    data: st.DataObject, name: str
) -> None:
    """For every field of every answer, missing or of another kind."""
    good = REQUESTS[name][2]
    expect_again(name, data.draw(nonsense(good) if good else refusals()), {})
