"""The host's own clocks, read for the stamps of a log. Simulations pass a clock of their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from events.log import Stamp


def system_clock() -> Stamp:
    """Return the present time by the host's wall clock and since its boot (suspend included)."""
    wall = datetime.now(UTC).isoformat(timespec="microseconds")
    return Stamp(wall, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
