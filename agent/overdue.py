"""Says when a submission does not get on: on its way to a start, and for too long in one state.

Such a run is Pending at the server and looks stuck. Nothing is decided by it; it is a warning and a
notice in the log. The daemon runs it beside everything else.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import trio

from agent.submission import SubmissionDriver
from events.lifecycle import State
from events.notices import Notice, SubmissionOverdue

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0


async def watch_for_overdue(
    drivers: Callable[[], Collection[SubmissionDriver]],
    states: Collection[State],
    after_seconds: float,
    post: Callable[[Notice], Awaitable[None]],
) -> None:
    """Look every few seconds, for ever.

    Args:
        drivers: gives the open submissions.
        states: those in which a submission is expected to get on.
        after_seconds: how long it may be in one of them.
        post: records a notice.
    """
    entered: dict[tuple[str, State], float] = {}
    told: set[tuple[str, State]] = set()
    while True:
        await trio.sleep(min(LOOK_SECONDS, after_seconds))
        now = trio.current_time()
        places = {(d.stream, d.submission.state): d for d in drivers()}
        entered = {place: entered.get(place, now) for place in places if place[1] in states}
        told &= entered.keys()
        for place, since in entered.items():
            if now - since < after_seconds or place in told:
                continue
            told.add(place)
            stream, state = place
            name, seconds = places[place].submission.run.run_name, now - since
            logger.warning("%s: %s for %.0f s (%s)", name, state.name, seconds, stream)
            await post(SubmissionOverdue(stream, state, round(seconds, 3)))
