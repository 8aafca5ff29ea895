"""Builds a report from a log. `replay report` is the caller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from events.log import LogReader
from replay.report.contents import FIELDS, Contents
from replay.report.page import page
from replay.report.selection import Wanted, select


@attrs.frozen
class Report:
    """A page that is ready to be written, and what is in it.

    Attributes:
        html: the document, UTF-8.
        left_out: how many older submissions would have fitted too, but for the limit.
    """

    html: bytes
    submissions: int
    events: int
    left_out: int

    def in_words(self, path: Path) -> str:
        """Return a line for the person who asked for it."""
        size = f"{len(self.html) / 1e6:.1f} MB" if len(self.html) >= 1e6 else (
            f"{len(self.html) / 1e3:.0f} kB")  # fmt: skip
        return (
            f"{path}: {self.submissions:,} submissions, {self.events:,} events, {size};"
            " open it in a browser"
        )

    def as_object(self, path: Path) -> dict[str, Any]:
        """Return the same for machines."""
        return {
            "path": str(path),
            "bytes": len(self.html),
            "submissions": self.submissions,
            "events": self.events,
            "left_out": self.left_out,
        }


def build(reader: LogReader, wanted: Wanted, title: str | None) -> Report:
    """Read a log twice, from the first submission that is shown the second time."""
    contents = Contents(select(reader.read_all(), wanted))
    contents.follow(reader.read_all(max(contents.selection.first - 1, 0)))
    shown = contents.submissions
    events = sum(len(each["events"]) for each in shown) // FIELDS
    html = page(contents.as_object(title or contents.heading())).encode()
    return Report(html, len(shown), events, contents.selection.left_out)
