"""`python -m agent.standin`: a stand-in Prefect server on the loopback interface.

Prints its API's URL on the first line. For the demo, for tests with real processes, and for trying
things out by hand.
"""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime
from uuid import UUID, uuid4

import click
import trio

from agent.standin.app import StandinApp
from agent.standin.http import serve
from agent.standin.state import StandinState


@click.command()
@click.option("--port", type=int, default=0, help="0 takes a free one.")
@click.option("--flavour", type=click.Choice(["2.20", "3"]), default="2.20", show_default=True)
@click.option("--csrf", is_flag=True, help="Ask for CSRF tokens.")
@click.option("--seed", type=int, help="Make the same ids each time.")
@click.option("--until-eof", is_flag=True, help="End when standard input does.")
def main(port: int, flavour: str, csrf: bool, seed: int | None, until_eof: bool) -> None:
    """Serve until interrupted. Everything is forgotten at the end."""
    source = random.Random(seed)  # noqa: S311 - ids that repeat are what a seed is for

    def seeded() -> UUID:
        return UUID(int=source.getrandbits(128), version=4)

    new_id = uuid4 if seed is None else seeded
    app = StandinApp(StandinState(lambda: datetime.now(UTC), new_id, flavour), csrf=csrf)
    trio.run(_serve, app, port, until_eof)


async def _serve(app: StandinApp, port: int, until_eof: bool) -> None:
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    click.echo(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/api")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, app, listeners)
        if until_eof:
            # So that it ends with whoever started it, however that ends.
            while await trio.to_thread.run_sync(os.read, 0, 4096, abandon_on_cancel=True):
                pass
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    main()
