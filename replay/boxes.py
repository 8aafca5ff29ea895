"""Text in boxes of so many columns: cut, wrapped, side by side, one above the other.

Pure, in cells and not in characters: East Asian wide characters take two. `replay.step_screen`
builds its screen of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from replay.screen import Line, Span, cells, shortened, visible

LEAST_BESIDE: Final = 20
"""Columns that a text needs beside its start; with fewer it stands below it."""

INDENT: Final = 4


def fitted(spans: Line, width: int) -> list[Span]:
    """Return one line that takes at most so many columns, with an ellipsis where it was cut."""
    line: list[Span] = []
    room = width
    for text, style in spans:
        if room <= 0:
            break
        line.append((shortened(visible(text), room), style))
        room -= cells(line[-1][0])
    return line


def filled(spans: Line, width: int) -> list[Span]:
    """Return one line that takes exactly so many columns."""
    line = fitted(spans, width)
    return [*line, (" " * (width - length(line)), "")]


def length(spans: Line) -> int:
    """Return how many columns a line takes."""
    return sum(cells(text) for text, _style in spans)


def wrapped(start: Line, text: str, style: str, width: int) -> list[Line]:
    """Return a start with a text that goes on below itself, in lines of at most so many columns.

    Where the start leaves no room for it, the text stands below the start, indented a little.
    """
    start = fitted(start, width)
    indent = length(start)
    if indent > INDENT and not _fits_beside(text, width - indent, width - INDENT):
        rest = _broken(text, max(width - INDENT, 1))
        return [start, *(fitted([(" " * INDENT, ""), (line, style)], width) for line in rest)]
    first, *rest = _broken(text, max(width - indent, 1))
    below = [(" " * indent, "")]
    return [
        fitted([*start, (first, style)], width),
        *(fitted([*below, (line, style)], width) for line in rest),
    ]


def _fits_beside(text: str, beside: int, below: int) -> bool:
    if " " in text:
        return beside >= LEAST_BESIDE
    # An id is broken only where it has to be.
    return cells(text) <= beside or (beside >= LEAST_BESIDE and cells(text) > below)


def _broken(text: str, width: int) -> list[str]:
    """Return a text in lines, broken where it is, and at spaces where that is possible."""
    paragraphs = visible(text, keep_breaks=True).split("\n")
    return [line for paragraph in paragraphs for line in _lines(paragraph, width)]


def _lines(paragraph: str, width: int) -> list[str]:
    lines = [""]
    for word in paragraph.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cells(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        *whole, lines[-1] = _pieces(word, width)
        lines[-1:-1] = whole
    return lines


def _pieces(word: str, width: int) -> list[str]:
    pieces, used = [""], 0
    for char in word:
        taken = cells(char)
        if used + taken > width and pieces[-1]:
            pieces.append("")
            used = 0
        pieces[-1] += char
        used += taken
    return pieces


def allotted(needs: Sequence[int], room: int) -> list[int]:
    """Share out lines: each gets what it needs, and where that is too much, as much as the others.

    Args:
        needs: how many lines each would take.
        room: how many there are; what is over stays unused.
    """
    given = [0] * len(needs)
    while room > 0:
        short = [index for index, need in enumerate(needs) if given[index] < need]
        if not short:
            break
        given[min(short, key=lambda index: given[index])] += 1
        room -= 1
    return given


def beside(columns: Sequence[tuple[Sequence[Line], int]], height: int, between: Span) -> list[Line]:
    """Return columns of lines side by side.

    Args:
        columns: each with the width it is filled to.
        between: what stands between two.
    """
    rows: list[Line] = []
    for row in range(height):
        line: list[Span] = []
        for index, (lines, width) in enumerate(columns):
            if index:
                line.append(between)
            line += filled(lines[row] if row < len(lines) else (), width)
        rows.append(line)
    return rows
