"""`replay step` on a terminal: draw, wait for a key or for new records, and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from events.log import LogError, LogReader
from events.notices import AGENT_STREAM
from replay.full_screen import REDRAW, FullScreen
from replay.step_moves import Place, grown, press
from replay.step_screen import render
from replay.stepping import Walk
from replay.timeline import Agents

LOOK_SECONDS: Final = 1.0
"""How often an open submission is looked at for new records."""


def walk_through(reader: LogReader, stream: str) -> Walk:
    """Read a stream, ready to be looked at."""
    walk = Walk(stream, Agents(reader.read_stream(AGENT_STREAM)))
    walk.add(reader.read_stream(stream))
    return walk


def show(walk: Walk, at: int, look: Callable[[], int]) -> None:
    """Show a walk until somebody leaves it.

    Args:
        at: the step to begin at, from 0.
        look: adds new records to the walk, and tells how many there were.
    """
    place: Place | None = Place(at)
    with FullScreen() as screen:
        while place is not None:
            place = _shown(screen, walk, place)
            wait = LOOK_SECONDS if walk.timeline.is_open else None
            keys = screen.keys(wait)
            if not keys:
                place = _looked(place, walk, look)
            for key in keys:
                if key != REDRAW and place is not None:
                    place = press(place, key, walk)


def _shown(screen: FullScreen, walk: Walk, place: Place) -> Place:
    frame = render(walk, place, *screen.size)
    screen.draw(frame.lines)
    return attrs.evolve(place, scroll=min(place.scroll, frame.most_scroll))


def _looked(place: Place, walk: Walk, look: Callable[[], int]) -> Place:
    try:
        number = look()
    except LogError as error:
        return attrs.evolve(place, message=f"the log can't be read any more: {error}")
    return grown(place, walk, number) if number else place


def growing(reader: LogReader, walk: Walk) -> Callable[[], int]:
    """Return what adds the records that have come since to a walk."""
    last_notice = [reader.version_of(AGENT_STREAM)]

    def look() -> int:
        records = reader.read_stream(walk.stream, walk.version)
        if records:
            for notice in reader.read_stream(AGENT_STREAM, last_notice[0]):
                walk.agents.follow(notice)
                last_notice[0] = notice.version
            walk.add(records)
        return len(records)

    return look
