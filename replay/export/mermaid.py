"""One submission's way through the machine as a Mermaid state diagram, to paste where it helps:
into an issue, a chat or a page, which draw it.

The edges are the steps that were taken, numbered in their order, with the time that was spent
before each. What only repeated itself is one edge with a count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

import attrs
import orjson

from events.codec import EVENT_TYPES
from events.lifecycle import State, Transition
from replay.export.lives import Life
from replay.screen import shortened, visible
from replay.summary import outcome, state_in_words
from replay.words import duration

LONGEST_TEXT: Final = 200

_PLAIN: Final = frozenset(" .,()/_")


@attrs.frozen
class Edge:
    """A step that was taken, or several alike in a row.

    Attributes:
        first, last: their numbers among the steps of the submission, from 1.
        after: seconds since the step before (of the first of them).
    """

    source: State
    target: State
    name: str
    first: int
    last: int
    after: float


def write_mermaid(life: Life, out: BinaryIO) -> None:
    """Write the diagram of one submission."""
    out.write("".join(f"{line}\n" for line in diagram(life)).encode())


def diagram(life: Life) -> Iterator[str]:
    """Yield the lines of the diagram."""
    timeline, run = life.timeline, life.timeline.submission.discovered
    name = run.run_name if run else "?"
    title = f"{name} · {timeline.stream}"
    # Front matter is YAML, in which a JSON string is a string.
    yield from ("---", f"title: {orjson.dumps(visible(title)).decode()}", "---", "stateDiagram-v2")
    seconds = _seconds_in_states(life)
    for state, (total, visits) in seconds.items():
        lasted = [duration(total)] if total else []
        times = [f"{visits} times"] if visits > 1 else []
        shown = [state.name, ", ".join([*lasted, *times])]
        yield f'    state "{_lines(*shown)}" as {state.name}'
    for edge in edges(life):
        source = "[*]" if edge.source is State.ABSENT else edge.source.name
        yield f"    {source} --> {edge.target.name}: {_label(edge)}"
    last = life.spans[-1].state
    if last is State.ABSENT:
        return
    if not timeline.is_open:
        yield f"    {last.name} --> [*]"
    words = " ".join(f"{state_in_words(timeline)}: {outcome(timeline)[0]}".split())
    yield f"    note right of {last.name}: {escaped(shortened(words, LONGEST_TEXT))}"


def edges(life: Life) -> Iterator[Edge]:
    """Yield the steps that were taken, in order; those alike in a row as one."""
    before: Edge | None = None
    number, time_before = 0, life.begin
    for source, target, time, name in _steps(life):
        number += 1
        after = (time - time_before) / 1e9
        time_before = time
        if before is not None and (before.source, before.target, before.name) == (
            source,
            target,
            name,
        ):
            before = attrs.evolve(before, last=number)
            continue
        if before is not None:
            yield before
        before = Edge(source, target, name, number, number, after)
    if before is not None:
        yield before


def _steps(life: Life) -> Iterator[tuple[State, State, int, str]]:
    for index, span in enumerate(life.spans):
        for time, record in span.records:
            kind = EVENT_TYPES.get(record.type)
            if kind is None or not issubclass(kind, Transition):
                continue
            moved = record is span.records[-1][1] and index + 1 < len(life.spans)
            target = life.spans[index + 1].state if moved else span.state
            yield span.state, target, time, record.type


def _label(edge: Edge) -> str:
    after = [f"+{duration(edge.after)}"] if edge.after else []
    if edge.first == edge.last:
        return _lines(f"{edge.first}. {edge.name}", *after)
    times = f"{edge.last - edge.first + 1} times"
    return _lines(f"{edge.first}. to {edge.last}. {edge.name}", ", ".join([*after, times]))


def _lines(*texts: str) -> str:
    return "<br/>".join(escaped(text) for text in texts if text)


def _seconds_in_states(life: Life) -> dict[State, tuple[float, int]]:
    found: dict[State, tuple[float, int]] = {}
    for span in life.spans[1:]:
        seconds, visits = found.get(span.state, (0.0, 0))
        found[span.state] = seconds + (span.end - span.begin) / 1e9, visits + 1
    return found


def escaped(text: str) -> str:
    """Return a text for Mermaid to show: whatever could mean something to it is a code."""
    return "".join(c if c.isalnum() or c in _PLAIN else f"#{ord(c)};" for c in visible(text))
