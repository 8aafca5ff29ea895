"""Stories that were recorded and are lived again by the daemon's own code, for its tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from events.lifecycle import Event
from events.log import Record
from events.notices import AGENT_STREAM
from replay.reexecution.execution import Outcome, reexecute
from replay.reexecution.recording import Recording, read_recording
from replay.timeline import Agents
from tests.samples.edited import record
from tests.samples.make_sample import Happening, Run


def recordings(records: Iterable[Record]) -> list[Recording]:
    """Return every submission of a log as a recording."""
    streams: dict[str, list[Record]] = {}
    for each in records:
        streams.setdefault(each.stream, []).append(each)
    agents = Agents(streams.pop(AGENT_STREAM, ()))
    return [read_recording(name, found, agents) for name, found in streams.items()]


def lived_again(records: Iterable[Record]) -> Outcome:
    """Live the one submission of some records again."""
    (recording,) = recordings(records)
    return reexecute(recording, lambda _step: None)


def told_again(run: Run, *happenings: Event | Sequence[Happening]) -> Outcome:
    """Record a story of one run, an observation a second or as it tells, and live it again."""
    story: list[Happening] = []
    for each in happenings:
        if isinstance(each, Event):
            story.append((story[-1][0] + 100.0 if story else 0.0, run, each))  # type: ignore[arg-type]
        else:
            story += each
    return lived_again(record(story))


def expect_the_same(outcome: Outcome, *, stood_in: int = 0) -> None:
    """Expect that all was appended again, and so many errors handed over as recorded."""
    assert outcome.divergence is None
    assert outcome.same
    assert outcome.stood_in == stood_in
