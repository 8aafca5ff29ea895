"""`python -m agent.standin`: a stand-in Prefect server on the loopback interface."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import click
import trio

from agent.standin.app import StandinApp
from agent.standin.http import serve
from agent.standin.state import StandinState


@click.command()
@click.option("--port", type=int, default=0, help="0 takes a free one.")
@click.option("--flavour", type=click.Choice(["2.20", "3"]), default="2.20", show_default=True)
def main(port: int, flavour: str) -> None:
    """Serve until interrupted. Everything is forgotten at the end."""
    app = StandinApp(StandinState(lambda: datetime.now(UTC), uuid4, flavour))
    trio.run(_serve, app, port)


async def _serve(app: StandinApp, port: int) -> None:
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    click.echo(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/api")
    await serve(app, listeners)


if __name__ == "__main__":
    main()
