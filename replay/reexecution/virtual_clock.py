"""A clock for trio on which waits take no time: when every task waits, it goes to the next end."""

from __future__ import annotations

import math

import trio


class VirtualClock(trio.abc.Clock):
    """Seconds from 0, which pass only while every task waits.

    trio asks how long to sleep when no task can go on. Nothing here waits for anything outside of
    the loop, so that is when the time can be put forward.
    """

    def __init__(self) -> None:
        self._now = 0.0

    def start_clock(self) -> None:
        """See `trio.abc.Clock`: there is nothing to start."""

    def current_time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Go to a deadline; return the real seconds until then, which are none."""
        if math.isinf(deadline):
            return deadline
        self._now = max(self._now, deadline)
        return 0.0
