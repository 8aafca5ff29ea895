"""Notices when polling fails and when it works again, and says so without repeating itself.

An outage is said when it begins, then at intervals, and when it ends; a single queue's trouble
likewise. Called by the daemon after each poll.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs
import trio

from agent.prefect.errors import ApiError
from events.notices import Notice, PollingFailed, PollingResumed

logger = logging.getLogger(__name__)

REMIND_EVERY_SECONDS: Final = 300.0
LONGEST_DELAY_SECONDS: Final = 60.0


@attrs.define(eq=False)
class OutageWatch:
    """What is known of the server's health from polling it.

    Attributes:
        post: records a notice.
        failed_polls: how many polls in a row brought nothing but errors.
    """

    post: Callable[[Notice], Awaitable[None]]
    failed_polls: int = 0
    _began: float = 0.0
    _said: dict[str, float] = attrs.field(factory=dict)

    async def note(self, failures: Mapping[str, ApiError], *, succeeded: bool) -> None:
        """Take in one poll: the errors by queue, and whether any queue answered."""
        for queue, error in failures.items():
            self._say(queue, str(error))
        for queue in self._said.keys() - failures.keys():
            del self._said[queue]
        if failures and not succeeded:
            if self.failed_polls == 0:
                self._began = trio.current_time()
                await self.post(
                    PollingFailed("; ".join(sorted({str(e) for e in failures.values()})))
                )
            self.failed_polls += 1
        elif self.failed_polls:
            seconds = round(trio.current_time() - self._began, 3)
            logger.info("polling works again after %.0f s", seconds)
            self.failed_polls = 0
            await self.post(PollingResumed(seconds))

    def delay_seconds(self, usual: float) -> float:
        """Return how long to wait before the next poll; longer and longer in an outage."""
        if not self.failed_polls:
            return usual
        return float(
            min(min(usual, 1.0) * 2.0 ** min(self.failed_polls, 10), LONGEST_DELAY_SECONDS)
        )

    def _say(self, queue: str, error: str) -> None:
        now = trio.current_time()
        last = self._said.get(queue)
        if last is not None and now - last < REMIND_EVERY_SECONDS:
            return
        self._said[queue] = now
        where = f"work queue {queue!r}: " if queue else ""
        logger.error("%s%s (trying on)", where, error)
