"""Copies what running commands write to the agent's own output.

The commands write to files, so that they need nobody to read along; one task follows all of the
files that are to be copied. `process` runs it and tells it whom to follow. A reader of the
agent's output who stops reading stops the copying, in its thread, and nothing else: no command
and no launch waits for it, and nothing is kept in memory meanwhile.
"""

from __future__ import annotations

import logging
import math
import os
import select
from pathlib import Path
from typing import Final

import attrs
import trio

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.2
"""How often the files are looked at. A look is one fstat per command: nothing, next to people."""

CHUNK: Final = 64 * 1024
"""At most so much of one command at a time, so that a chatty one does not hide the others."""


@attrs.define(eq=False)
class _Source:
    """One output file. `position`: everything before was copied. `over`: nobody writes any more."""

    descriptor: int
    position: int
    over: bool = False

    def next_part(self) -> bytes:
        """Return what to copy next: whole lines, so that commands don't cut into each other's."""
        size = os.fstat(self.descriptor).st_size
        if size < self.position:
            self.position = 0  # somebody emptied the file
        part = os.pread(self.descriptor, CHUNK, self.position)
        end = part.rfind(b"\n") + 1
        # A line that does not end is not held back for ever.
        return part if self.over or (len(part) == CHUNK and not end) else part[:end]


@attrs.define(eq=False)
class OutputCopier:
    """The one task that copies for all.

    Attributes:
        target: descriptor of the agent's own output.
    """

    target: int
    _sources: dict[str, _Source] = attrs.field(factory=dict)
    _stirred: trio.Event = attrs.field(factory=trio.Event)
    _closing: bool = False
    _closed: trio.Event = attrs.field(factory=trio.Event)
    _life: trio.CancelScope = attrs.field(factory=lambda: trio.CancelScope(shield=True))
    # Its own, so that a stalled reader takes a thread from nobody.
    _limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    _broken: bool = False

    def follow(self, key: str, path: Path, position: int | None = None) -> None:
        """Copy what is written to a file after `position`; None for after its present end."""
        if key in self._sources or self._broken:
            return
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            logger.warning("the output of %s can't be copied: %s", key, error)
            return
        end = os.fstat(descriptor).st_size
        self._sources[key] = _Source(descriptor, end if position is None else position)
        self._stir()

    def conclude(self, key: str) -> None:
        """Take note that nothing more will be written: copy the rest, then let go of it."""
        if key in self._sources:
            self._sources[key].over = True
            self._stir()

    async def run(self) -> None:
        """Copy until closed; a cancellation alone must not cut off the last lines."""
        try:
            with self._life:
                while not self._closing:
                    await self._copy_what_is_there()
                    await self._pause()
                await self._copy_what_is_there()
        finally:
            self._let_go()
            self._closed.set()

    async def close(self, grace_seconds: float) -> None:
        """Copy what is there, for as long as the grace allows, and stop."""
        self._closing = True
        self._stir()
        with trio.move_on_after(grace_seconds, shield=True):
            await self._closed.wait()
        self._life.cancel()

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = trio.Event()

    async def _pause(self) -> None:
        with trio.move_on_after(POLL_SECONDS if self._sources else math.inf):
            await self._stirred.wait()

    async def _copy_what_is_there(self) -> None:
        """Copy until nothing is left for now, taking turns."""
        more = True
        while more:
            more = False
            for key, source in tuple(self._sources.items()):
                more |= await self._copy_part(key, source)

    async def _copy_part(self, key: str, source: _Source) -> bool:
        """Copy a little; return whether there may be more."""
        if self._broken:
            return False
        part = source.next_part()
        if part:
            await self._write(part)
            source.position += len(part)
        elif source.over:
            del self._sources[key]
            os.close(source.descriptor)
        return bool(part)

    async def _write(self, part: bytes) -> None:
        """Write to the target; if that is gone, copy nothing any more."""
        try:
            await trio.to_thread.run_sync(
                _write_all, self.target, part, abandon_on_cancel=True, limiter=self._limiter
            )
        except OSError as error:
            logger.warning("output is no longer copied (it is kept in the spool): %s", error)
            self._broken = True
            self._let_go()

    def _let_go(self) -> None:
        for source in self._sources.values():
            os.close(source.descriptor)
        self._sources.clear()


def _write_all(target: int, part: bytes) -> None:
    rest = memoryview(part)
    while rest:
        try:
            rest = rest[os.write(target, rest) :]
        except BlockingIOError:
            # Whoever shares the terminal or pipe with us has made it non-blocking.
            select.select((), (target,), ())
