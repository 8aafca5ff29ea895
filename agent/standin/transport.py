"""Plugs the stand-in into httpx without sockets: for simulation and quick tests."""

from __future__ import annotations

import attrs
import httpx
import trio

from agent.standin.app import Request, StandinApp


@attrs.define(eq=False)
class StandinTransport(httpx.AsyncBaseTransport):
    """Answers every request from the app, at once but for one checkpoint each way."""

    app: StandinApp

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx's custom transports."""
        body = await request.aread()
        await trio.lowlevel.checkpoint()
        headers = {name.lower(): value for name, value in request.headers.items()}
        target = request.url.raw_path.decode()
        answer = self.app.handle(Request(request.method, target, headers, body))
        await trio.lowlevel.checkpoint()
        answered = {**answer.headers, "content-type": "application/json"}
        return httpx.Response(answer.status, headers=answered, content=answer.body)
