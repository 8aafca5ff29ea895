"""`replay list`: submissions in one line each, a page at a time, and a count of how they went."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import attrs

from events.lifecycle import State
from replay.screen import Screen, cells, padded, shortened
from replay.selection import Selection
from replay.summary import STATE_STYLES, as_object, outcome, state_in_words, went_wrong
from replay.timeline import Moment, Timeline
from replay.words import clock_time, duration, zone

NAME_LIMIT: Final = 24
QUEUE_LIMIT: Final = 16
LEAST_OUTCOME: Final = 30
"""A terminal too narrow to leave this many columns for the outcome goes without the queue, and
then without the id: `replay show` takes the name as well."""

BEGAN: Final = "began"

Key = Callable[[Timeline, Moment | None], Any]

SORTS: Final[Mapping[str, Key | None]] = {
    BEGAN: None,  # as they are found
    "took": lambda timeline, now: timeline.seconds(now),
    "start": lambda timeline, now: timeline.seconds_to_start(now),
    "state": lambda timeline, _now: (not went_wrong(timeline), timeline.state.value),
    "run": lambda timeline, _now: _name(timeline),
    "queue": lambda timeline, _now: _queue(timeline, whole=True),
    "deployment": lambda timeline, _now: timeline.deployment_name or "",
}
"""What submissions can be sorted by. Times come with the latest or longest first, names and
states (the bad ones first) in the order of the alphabet."""

_DESCENDING: Final = frozenset({BEGAN, "took", "start"})


@attrs.frozen
class Order:
    """In which order, and which part of it.

    Attributes:
        sort: one of `SORTS`.
        reverse: the other way round.
        limit: how many on a page; None for all on one.
        page: from 1.
    """

    sort: str = BEGAN
    reverse: bool = False
    limit: int | None = None
    page: int = 1

    @property
    def descending(self) -> bool:
        """Whether the greatest comes first."""
        return (self.sort in _DESCENDING) is not self.reverse


@attrs.frozen
class Page:
    """A part of a list. `more`: whether another one follows."""

    timelines: Sequence[Timeline]
    number: int
    more: bool


def in_order(selection: Selection, order: Order) -> Iterator[Timeline]:
    """Yield submissions in an order, one page or all of them.

    All of them sorted by something else than their beginning are kept in memory, as far as the
    page that is asked for; by their beginning, none.
    """
    end = None if order.limit is None else order.page * order.limit
    begin = 0 if order.limit is None else (order.page - 1) * order.limit
    key = SORTS[order.sort]
    if key is None:
        found = selection.timelines(newest_first=order.descending)
        return islice(found, begin, end)
    # Of equals the newest comes first: heapq keeps the order in which they are found.
    found = selection.timelines(newest_first=True)
    sort_key = lambda timeline: key(timeline, selection.now)  # noqa: E731 - shorter than a function
    if end is None:
        return iter(sorted(found, key=sort_key, reverse=order.descending))
    choose = heapq.nlargest if order.descending else heapq.nsmallest
    return islice(iter(choose(end, found, key=sort_key)), begin, end)


def page_of(selection: Selection, order: Order) -> Page:
    """Return one page."""
    if order.limit is None:
        return Page(list(in_order(selection, order)), 1, more=False)
    # One more than the page holds tells whether another one follows.
    skipped = (order.page - 1) * order.limit
    one_more = attrs.evolve(order, limit=skipped + order.limit + 1, page=1)
    timelines = list(islice(in_order(selection, one_more), skipped, None))
    return Page(timelines[: order.limit], order.page, more=len(timelines) > order.limit)


def print_page(page: Page, now: Moment | None, screen: Screen) -> None:
    """Print submissions as a table with a count below it."""
    timelines = page.timelines
    if not timelines:
        nothing = "no such submissions in this log" if page.number == 1 else "nothing on this page"
        screen.line((nothing, "dim"))
        return
    columns = _columns(timelines, now, screen.width)
    widths = [max(map(cells, [column.heading, *column.cells])) for column in columns]
    screen.line((_row([column.heading for column in columns], columns, widths), "dim"))
    for number, timeline in enumerate(timelines):
        _print_row(timeline, [column.cells[number] for column in columns], widths, columns, screen)
    screen.line()
    screen.hanging([], _count(timelines))
    if page.more or page.number > 1:
        more = f"; --page {page.number + 1} goes on, --all shows all" if page.more else ", the last"
        screen.line((f"page {page.number}{more}", "dim"))


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
    for (kind, style), number in sorted(kinds.items(), key=lambda item: (-item[1], item[0])):
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


def objects(timelines: Iterator[Timeline], now: Moment | None) -> Iterator[dict[str, object]]:
    """Yield submissions as JSON values."""
    return (as_object(timeline, now) for timeline in timelines)
