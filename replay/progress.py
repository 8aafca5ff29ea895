"""A bar for what takes a while: on the terminal of standard error, and nowhere else.

Used around the reading of a whole log (`verify`, `stats`). It is gone when the work is done.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

Watch = Callable[[Iterator[Any]], Iterator[Any]]
"""Passes the items of an iterator on."""

_STEP: Final = 1000
"""Items between two looks at the bar; it draws itself ten times a second at most."""


@contextlib.contextmanager
def watched(total: int, noun: str) -> Iterator[Watch]:
    """Give a function that passes an iterator's items on, and shows how far it has come.

    Args:
        total: how many items there are, as far as is known.
        noun: what they are, for the bar.
    """
    if total < 20 * _STEP or not sys.stderr.isatty():
        yield iter
        return
    # Imported here so that pipes and small logs do without it (30 ms).
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TextColumn(noun))
    console = Console(file=sys.stderr)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(noun, total=total)

        def watch(items: Iterator[Any]) -> Iterator[Any]:
            for number, item in enumerate(items, 1):
                if number % _STEP == 0:
                    progress.advance(task, _STEP)
                yield item

        yield watch
