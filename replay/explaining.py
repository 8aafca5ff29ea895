"""Why two submissions went differently, in a few sentences. Pure; `replay.diffing` prints them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from events.lifecycle import Effect, Event
from events.observations import (
    AgentRestarted,
    CommandEnded,
    CommandRefused,
    CommandStarted,
    EvidenceFound,
    InfrastructureResolved,
    LaunchUncertain,
    PidAcknowledged,
    ProposalAnswered,
    RequestFailed,
    ResolutionFailed,
    RunMissing,
    RunOffered,
    RunRead,
)
from replay.alignment import Row
from replay.comparison import Comparison
from replay.player import Step
from replay.summary import outcome, state_in_words
from replay.timeline import Timeline
from replay.words import EFFECTS, describe

MILESTONES: Final = {
    "PendingAccepted": "claimed",
    "LaunchRequested": "resolved",
    "LaunchConfirmed": "started",
    "InfrastructureExited": "run to an end",
}
"""What both can have behind them when they part."""


def explain(comparison: Comparison) -> list[str]:
    """Return sentences: what was alike, what was different, and what came of it."""
    if comparison.same:
        return ["They went alike: nothing differs but ids, times, pids and names."]
    turning = comparison.turning
    sentences = list(_beginning(comparison, turning))
    if turning is not None:
        learned = [_learned(*each) for each in zip(comparison.names, turning, strict=True)]
        sentences.append(_sentence("; ".join(learned), comparison.names))
    sentences += _settings(comparison)
    said = " ".join(sentences)
    stories = comparison.left, comparison.right
    ends = [
        f"{name} {_end(story.timeline, said)}"
        for name, story in zip(comparison.names, stories, strict=True)
    ]
    sentences.append(_sentence("; ".join(ends), comparison.names))
    return sentences


def _beginning(
    comparison: Comparison, turning: tuple[Step | None, Step | None] | None
) -> Iterator[str]:
    at = _row_of(comparison.rows, turning)
    before = comparison.rows[:at]
    passed = [
        words
        for type_, words in MILESTONES.items()
        if any(row.left and row.right and row.left.record.type == type_ for row in before)
    ]
    first = next((number for number, row in enumerate(before) if not row.same), None)
    if passed:
        yield f"Both were {_listed(passed)}{' alike' if first is None else ''}."
    elif first is None:
        yield "They differ from the first answer on."
    if first is not None:
        told = _difference(comparison.names, before[first:])
        yield _sentence(f"the first difference is that {told}", comparison.names)


def _row_of(rows: Sequence[Row], turning: tuple[Step | None, Step | None] | None) -> int:
    """Return the number of the row from which on the two went different ways."""
    if turning is None:
        return len(rows)
    return next(
        (n for n, row in enumerate(rows)
         if any(step is not None and step in (row.left, row.right) for step in turning)),
        len(rows),
    )  # fmt: skip


def _difference(names: tuple[str, str], rows: Sequence[Row]) -> str:
    """Say how the first of some rows differs, with what the other side has in its place."""
    first = rows[0]
    if first.left is not None and first.right is not None:
        fields = ", ".join(field.path.removeprefix("$.") for field in first.fields[:3])
        more = f" and {len(first.fields) - 3} more" if len(first.fields) > 3 else ""
        return f"{first.left.record.type} has another {fields}{more}"
    block = list(itertools.takewhile(lambda row: row.left is None or row.right is None, rows))
    steps = (
        next((row.left for row in block if row.left is not None), None),
        next((row.right for row in block if row.right is not None), None),
    )
    return ", and ".join(
        _learned(name, step) for name, step in zip(names, steps, strict=True) if step is not None
    )


def _settings(comparison: Comparison) -> Iterator[str]:
    names = [setting.name for setting in comparison.settings]
    secrets = [name.removeprefix("env ") for name in names if name.startswith("env ")]
    others = [name for name in names if not name.startswith("env ")]
    if others:
        yield f"They were given another {_listed(others)}."
    if secrets:
        values = "value" if len(secrets) == 1 else "values"
        differ = "differs" if len(secrets) == 1 else "differ"
        yield f"The {values} of {_listed(secrets)} {differ}."


def _end(timeline: Timeline, said: str) -> str:
    words = " ".join(outcome(timeline)[0].split())
    # An error is long, and has been told by now.
    error = words.partition(": ")[2].rstrip(".")
    if error and error in said:
        words = words.partition(": ")[0]
    state = state_in_words(timeline).upper()
    return f"{'is' if timeline.is_open else 'ended'} {state}" + (f" ({words})" if words else "")


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _sentence(text: str, names: tuple[str, str] = ("", "")) -> str:
    text = text.rstrip(". \n")
    # A run's name is written as it is.
    begins_with_a_name = any(name and text.startswith(name) for name in names)
    return f"{text if begins_with_a_name else text[:1].upper() + text[1:]}."


def _learned(name: str, step: Step | None) -> str:
    if step is None:
        return f"nothing was learned about {name}"
    event = step.event
    if event is None:
        return f"{name} has a {step.record.type} that can't be read"
    phrase = _PHRASES.get(type(event))
    words = " ".join(describe(event).split())
    if phrase is None:
        return f"{type(event).__name__} ({words})" if words else type(event).__name__
    return phrase(name, event)


def _answered(name: str, event: ProposalAnswered) -> str:
    what = "claim" if event.effect is Effect.PROPOSE_PENDING else "report"
    return f"the server answered {name}'s {what}: {describe(event)}"


_PHRASES: Final[Mapping[type[Event], Callable[[str, Any], str]]] = {
    RunOffered: lambda name, e: f"{name} was offered ({describe(e)})",
    AgentRestarted: lambda name, _e: f"the agent of {name} was replaced",
    ProposalAnswered: _answered,
    RunRead: lambda name, e: f"{name} was {e.state_name or e.state_type} at the server",
    RunMissing: lambda name, _e: f"the server did not know {name} (any more)",
    RequestFailed: lambda name, e: (
        f"the request of {name} to {EFFECTS[e.effect]} failed: {e.error}"
    ),
    InfrastructureResolved: lambda name, _e: f"what to launch for {name} was worked out",
    ResolutionFailed: lambda name, e: (
        f"what to launch for {name} could not be worked out: {e.error}"
    ),
    CommandStarted: lambda name, _e: f"{name}'s command started",
    CommandRefused: lambda name, e: f"{name}'s launch was refused: {e.error}",
    LaunchUncertain: lambda name, e: f"nobody could tell whether {name} had started: {e.error}",
    EvidenceFound: lambda name, e: f"the evidence of {name}'s launch said: {describe(e)}",
    CommandEnded: lambda name, e: f"{name}'s command ended: {describe(e)}",
    PidAcknowledged: lambda name, _e: f"the server took the pid of {name}",
}
"""What was learned, told of a submission by name."""
