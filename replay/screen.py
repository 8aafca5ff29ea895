"""Where lines go: to a terminal with colours and wrapped to its width, or plain and whole.

What is printed comes out of a log, and so perhaps out of a stranger's error message: control
characters are made visible, so that no text can move the cursor or forge a line. rich is imported
only when there is a terminal.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, Final, Protocol, TextIO

Span = tuple[str, str]
"""A text and its style: a name from `STYLES`, a style of rich's, or empty for plain text."""

Line = Sequence[Span]

STYLES: Final = {
    "dim": "dim",
    "strong": "bold",
    "heading": "bold",
    "time": "dim",
    "observation": "cyan",
    "transition": "bold",
    "good": "green",
    "bad": "bold red",
    "wait": "yellow",
    "busy": "blue",
    "quiet": "bright_black",
}


class Screen(Protocol):
    """Somewhere to print."""

    @property
    def width(self) -> int | None:
        """Columns, as many as there are now; None where nothing is shortened or wrapped."""
        ...

    def line(self, *spans: Span) -> None:
        """Print one line."""
        ...

    def hanging(self, start: Line, rest: Line) -> None:
        """Print a line whose rest is wrapped, with continuation lines below the rest."""
        ...


def open_screen(stream: TextIO | None = None) -> Screen:
    """Return a screen for an output, by default the standard one."""
    stream = sys.stdout if stream is None else stream
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return _Terminal(stream)
    return _Paper(stream)


class _Paper:
    """A file or a pipe: plain text, one line for each thing, never shortened."""

    width = None

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def line(self, *spans: Span) -> None:
        text = "".join(visible(text) for text, _style in spans)
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.rstrip().encode(encoding, "replace").decode(encoding) + "\n")

    def hanging(self, start: Line, rest: Line) -> None:
        self.line(*start, *rest)


class _Terminal:
    """A terminal, by way of rich, which knows about NO_COLOR and what the terminal can do."""

    def __init__(self, stream: TextIO) -> None:
        # Imported here so that help, pipes and `--json` do without it (19 ms).
        from rich.console import Console  # noqa: PLC0415
        from rich.theme import Theme  # noqa: PLC0415

        self._console = Console(
            file=stream, theme=Theme(STYLES), highlight=False, markup=False, emoji=False
        )

    @property
    def width(self) -> int:
        return int(self._console.width)

    def line(self, *spans: Span) -> None:
        self._console.print(self._text(spans), soft_wrap=True, end="\n")

    def hanging(self, start: Line, rest: Line) -> None:
        indent = sum(cells(text) for text, _style in start)
        width = self._console.width - indent
        if width < 20:
            self._console.print(self._text([*start, *rest]))
            return
        lines = self._text(rest, keep_breaks=True).wrap(self._console, width, overflow="fold")
        for number, wrapped in enumerate(lines or [self._text(())]):
            wrapped.rstrip()
            begin = self._text(start) if number == 0 else self._text([(" " * indent, "")])
            self._console.print(begin + wrapped, soft_wrap=True)

    def _text(self, spans: Line, *, keep_breaks: bool = False) -> Any:
        from rich.text import Text  # noqa: PLC0415 - loaded already

        return Text.assemble(*((visible(text, keep_breaks=keep_breaks), s) for text, s in spans))


def visible(text: str, *, keep_breaks: bool = False) -> str:
    """Return a text whose control characters are escapes; line breaks can be kept."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or (keep_breaks and char == "\n") else _escaped(char)
        for char in text
    )


def _escaped(char: str) -> str:
    # Spaces of all kinds but the plain one count as not printable; they are harmless.
    if unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape").decode("ascii")


def cells(text: str) -> int:
    """Return how many columns a text takes: East Asian wide characters take two."""
    if text.isascii():
        return len(text)
    return sum(_char_cells(char) for char in text)


def _char_cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shortened(text: str, width: int) -> str:
    """Return a text that takes at most so many columns, with an ellipsis where it was cut."""
    if cells(text) <= width:
        return text
    kept, used = [], 1
    for char in text:
        used += _char_cells(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept) + "…"


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Return a text filled up to so many columns."""
    fill = " " * (width - cells(text))
    return fill + text if right else text + fill
