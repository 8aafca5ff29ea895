"""Records what happens to the agent itself, in the stream `agent` of the log."""

from __future__ import annotations

import attrs
import trio

from events.codec import encode
from events.log import EventLog
from events.notices import AGENT_STREAM, Notice


@attrs.define(eq=False)
class NoticeBoard:
    """The agent's own stream. Any task may post; `version` is that of the last notice."""

    log: EventLog
    version: int
    _posting: trio.Lock = attrs.field(factory=trio.Lock)

    @classmethod
    async def open(cls, log: EventLog) -> NoticeBoard:
        """Find the end of the stream."""
        return cls(log, await log.version_of(AGENT_STREAM))

    async def post(self, notice: Notice) -> None:
        """Make a notice durable.

        Raises:
            LogError: it is not recorded.
        """
        async with self._posting:
            await self.log.append(AGENT_STREAM, self.version, [encode(notice)])
            self.version += 1
