"""What the tests of exports share."""

from __future__ import annotations

from events.log import Record
from events.notices import AGENT_STREAM
from replay.export.lives import Life, life_of
from replay.timeline import Agents, Moment, Timeline


def life(records: list[Record]) -> Life:
    """Return the one submission that some records are of."""
    agents = Agents(records)
    own = [each for each in records if each.stream != AGENT_STREAM]
    timeline = Timeline(own[0].stream, agents)
    for each in own:
        timeline.follow(each)
    return life_of(timeline, own, Moment.of(records[-1]))
