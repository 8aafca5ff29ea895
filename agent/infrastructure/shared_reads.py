"""Reads that several submissions share: one request answers all that ask for the same thing.

Called by `agent.infrastructure.resolve`, which says how old an answer may be at most.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from uuid import UUID

import attrs
import trio

T = TypeVar("T")

Request = Callable[[UUID], Awaitable[T]]
"""A client's method, e.g. `client.read_flow`."""

MOST_KEPT: Final = 256
"""Answers; a poll's runs have at most a few for each run that can be launched at once."""


@attrs.define(eq=False)
class _Read:
    """One request. It was answered, or failed, or (neither) whoever sent it was cancelled."""

    began: float
    ended: trio.Event = attrs.field(factory=trio.Event)
    answer: tuple[Any] | None = attrs.field(default=None, repr=False)
    error: Exception | None = None


@attrs.define(eq=False)
class SharedReads:
    """Requests under way, and the answers of those that are still fresh enough for somebody.

    Those who wait for one request share its failure as well: forty runs that meet a dead server
    make one series of retries, not forty. But it is kept for nobody: who asks later asks the
    server. If the one who sent the request is cancelled, one of those who wait sends it again.

    Answers may hold secrets. They are dropped as soon as somebody asks for fresher ones, which
    the runs of each poll do.
    """

    _reads: dict[tuple[Request[Any], UUID], _Read] = attrs.field(factory=dict, repr=False)

    async def read(self, request: Request[T], id_: UUID, *, fresh_since: float) -> T:
        """Return what a request answers.

        Args:
            request: equal requests (the same method of the same client) are shared.
            id_: what is asked for.
            fresh_since: trio's time; no request that began earlier is good enough.

        Raises:
            Exception: what the request raised.
        """
        self._forget_older_than(fresh_since)
        while found := self._reads.get((request, id_)):
            await found.ended.wait()
            if found.error is not None:
                raise found.error.with_traceback(None)
            if found.answer is not None:
                answer: T = found.answer[0]
                return answer
        return await self._send(request, id_)

    async def _send(self, request: Request[T], id_: UUID) -> T:
        mine = self._reads[request, id_] = _Read(trio.current_time())
        try:
            answer = await request(id_)
        except Exception as error:
            mine.error = error
            raise
        else:
            mine.answer = (answer,)
            return answer
        finally:
            if mine.answer is None and self._reads.get((request, id_)) is mine:
                del self._reads[request, id_]
            mine.ended.set()

    def _forget_older_than(self, moment: float) -> None:
        # Requests under way among them: those who wait for one hold it themselves.
        kept = [(key, read) for key, read in self._reads.items() if read.began >= moment]
        self._reads = dict(kept[-MOST_KEPT:])
