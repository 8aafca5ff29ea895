"""`replay list`: every submission in a log, one line each, and a count of how they went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import attrs

from events.lifecycle import State
from events.log import LogReader
from replay.screen import Screen, cells, padded, shortened
from replay.summary import STATE_STYLES, as_object, outcome, state_in_words
from replay.timeline import History, Moment, Timeline
from replay.words import clock_time, duration, zone

NAME_LIMIT: Final = 24
QUEUE_LIMIT: Final = 16
LEAST_OUTCOME: Final = 30
"""A terminal too narrow to leave this many columns for the outcome goes without the queue, and
then without the id: `replay show` takes the name as well."""


def read_all(reader: LogReader) -> tuple[list[Timeline], Moment | None]:
    """Return all submissions in the order in which they began, and the log's last moment."""
    history = History()
    timelines = list(history.follow(reader.read_all()))
    timelines.sort(key=lambda timeline: timeline.began.position if timeline.began else 0)
    return timelines, history.latest


def print_list(timelines: Sequence[Timeline], now: Moment | None, screen: Screen) -> None:
    """Print submissions as a table with a count below it."""
    if not timelines:
        screen.line(("no submissions in this log", "dim"))
        return
    columns = _columns(timelines, now, screen.width)
    widths = [max(map(cells, [column.heading, *column.cells])) for column in columns]
    screen.line((_row([column.heading for column in columns], columns, widths), "dim"))
    for number, timeline in enumerate(timelines):
        _print_row(timeline, [column.cells[number] for column in columns], widths, columns, screen)
    screen.line()
    screen.hanging([], _count(timelines))


@attrs.frozen
class _Column:
    heading: str
    cells: Sequence[str]
    right: bool = False


def _columns(timelines: Sequence[Timeline], now: Moment | None, width: int | None) -> list[_Column]:
    whole = width is None
    days = {clock_time(t.began.recorded_at, day=True)[:10] for t in timelines if t.began}
    day = whole or len(days) > 1
    columns = [
        _Column("BEGAN", [clock_time(t.began.recorded_at, day=day) for t in timelines if t.began]),
        _Column("RUN", [_name(t) if whole else shortened(_name(t), NAME_LIMIT) for t in timelines]),
        _Column("ID", _ids(timelines, whole=whole)),
        _Column("QUEUE", [_queue(t, whole=whole) for t in timelines]),
        _Column("TOOK", [_took(t, now) for t in timelines], right=True),
        _Column("STATE", [state_in_words(t) for t in timelines]),
    ]
    for heading in ("QUEUE", "ID"):
        if width is not None and _used(columns) + LEAST_OUTCOME > width:
            columns = [column for column in columns if column.heading != heading]
    return [*columns, _Column("", [""] * len(timelines))]


def _used(columns: Sequence[_Column]) -> int:
    return sum(max(map(cells, [column.heading, *column.cells])) + 2 for column in columns)


def _name(timeline: Timeline) -> str:
    run = timeline.submission.discovered
    if run is None:
        return "?"
    return run.run_name if run.ordinal == 1 else f"{run.run_name}/{run.ordinal}"


def _queue(timeline: Timeline, *, whole: bool) -> str:
    run = timeline.submission.discovered
    queue = run.queue if run else "?"
    return queue if whole else shortened(queue, QUEUE_LIMIT)


def _took(timeline: Timeline, now: Moment | None) -> str:
    return duration(timeline.seconds(now)) + ("+" if timeline.is_open else "")


def _ids(timelines: Sequence[Timeline], *, whole: bool) -> list[str]:
    """Return ids as short as they can be and still be told apart.

    Servers that make time-ordered ids (UUID 7) give runs of the same minute the same first
    characters.
    """
    if whole:
        return [timeline.stream for timeline in timelines]
    runs = {timeline.stream.split("/")[0] for timeline in timelines}
    lengths = (8, 13, 18, 23)
    length = next((n for n in lengths if len({run[:n] for run in runs}) == len(runs)), 36)
    return [timeline.stream[:length] for timeline in timelines]


def _row(texts: Sequence[str], columns: Sequence[_Column], widths: Sequence[int]) -> str:
    return "  ".join(
        padded(text, width, right=column.right)
        for text, column, width in zip(texts, columns, widths, strict=True)
    )


def _print_row(
    timeline: Timeline,
    texts: Sequence[str],
    widths: Sequence[int],
    columns: Sequence[_Column],
    screen: Screen,
) -> None:
    words, style = outcome(timeline)
    start = _row(texts[:-2], columns[:-2], widths[:-2]) + "  "
    state = padded(texts[-2], widths[-2])
    words = " ".join(words.split())
    if screen.width is not None:
        words = shortened(words, max(screen.width - cells(start) - cells(state) - 2, 1))
    state_style = style if timeline.state is State.EXITED else STATE_STYLES[timeline.state]
    screen.line((start, ""), (state, state_style), ("  ", ""), (words, _quieter(style)))


def _quieter(style: str) -> str:
    # The reason of a failure is for reading; colour is for finding it.
    return "" if style == "bad" else "dim"


def _count(timelines: Sequence[Timeline]) -> list[tuple[str, str]]:
    kinds = Counter(_kind(timeline) for timeline in timelines)
    runs = len({timeline.stream.split("/")[0] for timeline in timelines})
    total = f"{len(timelines)} submission{'s' * (len(timelines) != 1)}"
    if runs != len(timelines):
        total += f" of {runs} run{'s' * (runs != 1)}"
    spans = [(f"{total}: ", "")]
    for (kind, style), number in sorted(kinds.items(), key=lambda item: -item[1]):
        spans += [(f"{number} {kind}", style), (", ", "")]
    spans[-1] = (f"   times: {zone()}", "dim")
    return spans


def _kind(timeline: Timeline) -> tuple[str, str]:
    if timeline.is_open:
        return ("still owing a report", "wait") if _has_ended(timeline) else ("open", "busy")
    if timeline.state is State.EXITED:
        _words, style = outcome(timeline)
        return ("exited well" if style == "good" else "exited badly"), style
    words = {State.FAILED: "never launched", State.ABORTED: "not ours"}
    return words.get(timeline.state, timeline.state.value), STATE_STYLES[timeline.state]


def _has_ended(timeline: Timeline) -> bool:
    return timeline.state in (State.EXITED, State.FAILED, State.CANCELLED)


def objects(timelines: Sequence[Timeline], now: Moment | None) -> list[dict[str, object]]:
    """Return submissions as JSON values."""
    return [as_object(timeline, now) for timeline in timelines]
