"""A client on an imagined server: what the tests of `agent.prefect.client` are made of."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import httpx
import trio

from agent.prefect.client import PrefectClient
from agent.profiles import Profile
from agent.settings import Settings, build

URL = "http://prefect.test/api"
RUN_ID = UUID("11111111-1111-4111-8111-111111111111")
OTHER_ID = UUID("22222222-2222-4222-8222-222222222222")
NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
NO_PROFILE = Profile(None, Path("/nowhere/profiles.toml"))

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


def settings(**environment: str) -> Settings:
    """Settings from an environment without CSRF, so that each call is one request."""
    plain = {"PREFECT_API_URL": URL, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false", "HOME": "/h"}
    return build(plain | environment, NO_PROFILE, {})


@attrs.define
class Script:
    """Answers requests in order, the last answer for ever, and remembers them."""

    answers: list[Answer]
    seen: list[httpx.Request] = attrs.field(factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        # As over a network, other tasks run meanwhile.
        await trio.lowlevel.checkpoint()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        # A response can be read once: hand out a copy of it.
        if isinstance(answer, httpx.Response):
            return httpx.Response(
                answer.status_code, headers=answer.headers, content=answer.content, request=request
            )
        return answer(request)


def client(*answers: Answer, **environment: str) -> tuple[PrefectClient, Script]:
    """Make a client and the script that answers it."""
    script = Script(list(answers))
    made = PrefectClient(
        settings(**environment),
        transport=httpx.MockTransport(script),
        rng=random.Random(7),
        now=lambda: NOW,
    )
    return made, script


def answer(body: Any = None, status: int = 200, **headers: str) -> httpx.Response:
    """Make an answer with a JSON body; underscores in header names stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=body, headers=named)


def run_json(**fields: Any) -> dict[str, Any]:
    """Return a flow run as a server sends it."""
    return {
        "id": str(RUN_ID),
        "name": "brave-otter",
        "flow_id": str(OTHER_ID),
        "deployment_id": str(OTHER_ID),
        "state": state_json(),
        "next_scheduled_start_time": "2026-01-01T12:00:00+00:00",
        "infrastructure_pid": None,
        "tags": ["a"],
    } | fields


def state_json(**fields: Any) -> dict[str, Any]:
    """Return a state as a server sends it."""
    return {
        "id": str(OTHER_ID),
        "type": "SCHEDULED",
        "name": "Scheduled",
        "timestamp": "2026-01-01T11:59:00Z",
        "message": None,
        "data": None,
        "state_details": {"scheduled_time": "2026-01-01T12:00:00Z", "transition_id": None},
    } | fields


def body_of(request: httpx.Request) -> Any:
    """Return what a request carries."""
    return json.loads(request.content)
