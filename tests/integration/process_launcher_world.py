"""What the tests of the process launcher share: commands, a launcher that cleans up, patience."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import trio

from agent.infrastructure.launcher import ProcessSpec
from agent.infrastructure.process import ProcessLauncher
from agent.infrastructure.spool import LaunchFolder

DEADLINE_SECONDS = 20.0
"""Nothing here takes a second; on a busy machine a condition may be late all the same."""


@contextlib.asynccontextmanager
async def clean_launcher(spool: Path, output: int = 2) -> AsyncIterator[ProcessLauncher]:
    """Provide a launcher that leaves nothing running, and does not let a test hang."""
    with trio.fail_after(3 * DEADLINE_SECONDS):
        async with ProcessLauncher.open(spool, output=output) as launcher:
            try:
                yield launcher
            finally:
                # Also after a failure: a command left behind would run for ever.
                with trio.move_on_after(DEADLINE_SECONDS, shield=True):
                    for key in await launcher.keys():
                        await launcher.kill(key, 0)


def shell(
    script: str,
    env: Mapping[str, str | None] | None = None,
    working_dir: str | None = None,
    *,
    stream: bool = False,
) -> ProcessSpec:
    """Return a shell script as what to launch."""
    return ProcessSpec(["sh", "-c", script], env or {}, working_dir, stream_output=stream)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that other processes bring about."""
    with trio.fail_after(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what other processes do sets no event
            await trio.sleep(0.01)


def output_of(launcher: ProcessLauncher, key: str) -> str:
    """Return what a command has written."""
    return LaunchFolder.of(launcher.spool, key).output.read_text()


def exists(path: str | Path) -> bool:
    """Tell whether there is such a file."""
    return os.path.lexists(path)
