"""Serves the stand-in on the loopback interface: h11 for the protocol, trio for the sockets."""

from __future__ import annotations

import h11
import trio

from agent.standin.app import Request, Response, StandinApp

CHUNK = 65536
_TROUBLE = (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError)


async def serve(app: StandinApp, listeners: list[trio.SocketListener]) -> None:
    """Answer requests until cancelled."""

    async def converse(stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while await _answer_one(app, stream, connection):
                    connection.start_next_cycle()
            except _TROUBLE:
                return  # The client went away, which is its right.

    await trio.serve_listeners(converse, listeners)


async def _answer_one(
    app: StandinApp, stream: trio.SocketStream, connection: h11.Connection
) -> bool:
    """Read a request and answer it; return whether another may follow."""
    request: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(CHUNK))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            break
        else:
            return False
    headers = {name.decode(): value.decode() for name, value in request.headers}
    answer = app.handle(Request(request.method.decode(), request.target.decode(), headers, body))
    await stream.send_all(_encode(connection, answer))
    return connection.our_state is h11.DONE and connection.their_state is h11.DONE


def _encode(connection: h11.Connection, answer: Response) -> bytes:
    headers = [*answer.headers.items(), ("content-type", "application/json")]
    if answer.status != 204:
        headers.append(("content-length", str(len(answer.body))))
    parts = [
        connection.send(h11.Response(status_code=answer.status, headers=headers)),
        connection.send(h11.Data(answer.body)) if answer.body else b"",
        connection.send(h11.EndOfMessage()),
    ]
    return b"".join(part for part in parts if part)
