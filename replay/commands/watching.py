"""`tail` and `step`: what comes in now, and one run's story at the reader's own pace."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from replay.commands.common import (
    EPILOG,
    EXIT_USAGE,
    Moment,
    fail,
    find_stream,
    json_option,
    log_and,
    log_argument,
    print_json,
    reading,
    where,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from events.log import Record, Tip
    from events.sqlite_reader import SqliteReader
    from replay.following import FileIdentity
    from replay.stepping import Walk
    from replay.tailing import Entry, Tail, Wanted

EXIT_INTERRUPTED: Final = 130
"""As of anything that Ctrl-C ends."""

DEFAULT_LINES: Final = 20


@click.command(epilog=EPILOG)
@log_argument
@click.option("-n", "--lines", type=click.IntRange(min=0), help="How many; 20 if not given.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is appended, until Ctrl-C.")
@click.option("--since", type=Moment(), help="From this time on, all of it without --lines.")
@click.option("--run", "runs", multiple=True, metavar="RUN", help="Only this run; repeatable.")
@click.option("--queue", "queues", multiple=True, help="Only runs of this queue; repeatable.")
@click.option("--failed", is_flag=True, help="Only what goes wrong.")
@click.option("--transitions", is_flag=True, help="Only what was decided.")
@json_option
def tail(
    log: Path | None,
    lines: int | None,
    since: datetime | None,
    runs: tuple[str, ...],
    queues: tuple[str, ...],
    *,
    follow: bool,
    failed: bool,
    transitions: bool,
    as_json: bool,
) -> None:
    """Show the last records of LOG, a line for each, and with -f those to come.

    All runs and the agent itself, as they came: the time, the position, the run, its state after
    it (capitals: it has just changed), the event and what matters of it. RUN is a flow run's id,
    the beginning of one, its name, or `agent`.

    With -f a log that is not there yet is waited for, and one that takes its place is followed
    instead. --failed shows failures, refusals, crashes, deferrals and outages.
    """
    from replay.following import file_at, wait_for_log  # noqa: PLC0415 - see `common`
    from replay.tailing import Wanted  # noqa: PLC0415

    wanted = Wanted(runs, queues, failed=failed, transitions=transitions)
    try:
        if follow and not wait_for_log(lambda: where(log), _tell):
            return
        file = file_at(where(log))
        with reading(log) as reader:
            tailing = _Tailing(reader, log, wanted, as_json=as_json)
            tailing.show_end(lines, since, follow=follow)
            if follow:
                tailing.follow(file)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _tell(message: str) -> None:
    click.echo(f"pluperfect replay: {message}", err=True)


class _Tailing:
    """Prints the end of a log, and then what follows."""

    def __init__(
        self, reader: SqliteReader, log: Path | None, wanted: Wanted, *, as_json: bool
    ) -> None:
        from replay.tailing import Tail  # noqa: PLC0415 - see `common`

        self.reader, self.log, self.wanted = reader, log, wanted
        self.tail: Tail = Tail(reader)
        self.end: Tip = reader.tip()
        self.observation_shown: str | None = None
        self.print: Callable[[Entry], None] = _objects() if as_json else _lines(self.end.position)

    def show_end(self, lines: int | None, since: datetime | None, *, follow: bool) -> None:
        """Print what there is. `follow`: what is not there may still come."""
        records, after = self._backlog(lines, since, follow=follow)
        for record in records:
            self._show(record, after)
        sys.stdout.flush()

    def follow(self, file: FileIdentity | None) -> None:
        """Print what comes, until nobody reads it any more. `file`: see `FollowedLog`."""
        from replay.following import FollowedLog, pause  # noqa: PLC0415 - see `common`

        path = where(self.log)
        followed = FollowedLog(path, self.reader, file, self.end, _tell, self.tail.start_on)
        with closing(followed):
            while True:
                for record in followed.news():
                    self._show(record, 0)
                sys.stdout.flush()
                if not pause():
                    return

    def _show(self, record: Record, after: int) -> None:
        entry = self.tail.take(record)
        shown = record.position > after and self.wanted.wants(entry)
        if entry.step.kind == "observation":
            self.observation_shown = record.stream if shown else None
        elif self.observation_shown != record.stream:
            entry = entry.telling_all()  # What is appended together stands together.
        if shown:
            self.print(entry)

    def _backlog(
        self, lines: int | None, since: datetime | None, *, follow: bool
    ) -> tuple[Iterator[Record], int]:
        """Return records, and the position after which they are to be shown."""
        from itertools import takewhile  # noqa: PLC0415 - see `common`

        from replay.tailing import (  # noqa: PLC0415 - see `common`
            FURTHEST_LOOK_BACK,
            position_before,
            position_before_last,
        )

        floor = position_before(self.reader, since) if since else 0
        count = lines if since or lines is not None else DEFAULT_LINES
        end = self.end.position
        if self.wanted.runs:
            return self._backlog_of_runs(count, floor, follow=follow)
        if not (since or self.wanted.all):
            floor = max(end - FURTHEST_LOOK_BACK, 0)
        after = floor
        if count is not None:
            after = position_before_last(self.reader, count, self.wanted, end=end, floor=floor)
        if after == floor > 0 and not since:
            _tell(f"looked back to position {floor} only; --since looks further")
        return takewhile(lambda r: r.position <= end, self.reader.read_all(after)), after

    def _backlog_of_runs(
        self, count: int | None, floor: int, *, follow: bool
    ) -> tuple[Iterator[Record], int]:
        """Find runs by the log's indexes rather than by looking through all of it."""
        from replay.tailing import Tail, records_of  # noqa: PLC0415 - see `common`

        streams = self._streams(follow=follow)
        end = self.end.position
        after = floor
        if count is not None:
            tail = Tail(self.reader)
            entries = (tail.take(record) for record in records_of(self.reader, streams, end))
            positions = [e.step.record.position for e in entries if self.wanted.wants(e)]
            after = max(floor, positions[-count] - 1 if 0 < count <= len(positions) else 0)
            after = end if count == 0 else after
        return records_of(self.reader, streams, end), after

    def _streams(self, *, follow: bool) -> list[str]:
        from replay.finding import NoSuchRun, find  # noqa: PLC0415 - see `common`

        streams: dict[str, None] = {}
        for run in self.wanted.runs:
            try:
                streams |= dict.fromkeys(find(self.reader, run))
            except NoSuchRun as error:
                if not follow:
                    fail(EXIT_USAGE, f"{error}; `replay list {where(self.log)}` lists them")
                _tell(f"{error} yet; waiting for it")
        return list(streams)


def _objects() -> Callable[[Entry], None]:
    from replay.tailing import entry_object  # noqa: PLC0415 - see `common`

    return lambda entry: print_json([entry_object(entry)])


def _lines(last_position: int) -> Callable[[Entry], None]:
    from replay.screen import open_screen  # noqa: PLC0415 - see `common`
    from replay.tail_lines import Lines  # noqa: PLC0415

    return Lines(open_screen(), max(len(str(last_position)), 3)).print


@click.command(epilog=EPILOG)
@log_and("run")
@click.option("--position", type=click.IntRange(min=0), help="Begin at this position of the log.")
@click.option("--at", "moment", type=Moment(), help="Begin at this time.")
@click.option("--full", is_flag=True, help="Without a terminal: every field.")
@json_option
def step(
    log: Path | None,
    run: str,
    position: int | None,
    moment: datetime | None,
    *,
    full: bool,
    as_json: bool,
) -> None:
    """Go through what happened to RUN step by step, forward and back by key.

    Each step with the event and all its fields, the state before and after with what changed,
    what was decided (and whether it would be today), and what was owed then. The arrow keys
    step; `?` tells the others. RUN is as for `show`; `agent` is the agent itself.

    Without a terminal, or with --json, the steps come one after the other.
    """
    with reading(log) as reader:
        from replay.step_app import walk_through  # noqa: PLC0415 - see `common`
        from replay.stepping import view_object  # noqa: PLC0415

        walk = walk_through(reader, find_stream(reader, log, run))
        start = 0
        if position is not None:
            start = walk.index_at(position)
        elif moment is not None:
            start = walk.index_at_time(moment)
        if as_json:
            print_json(view_object(view) for view in walk.views(start))
        else:
            _show_steps(reader, walk, start, full=full)


def _show_steps(reader: SqliteReader, walk: Walk, start: int, *, full: bool) -> None:
    from replay.full_screen import Interrupted, is_possible  # noqa: PLC0415 - see `common`
    from replay.screen import open_screen  # noqa: PLC0415
    from replay.step_app import growing, show  # noqa: PLC0415
    from replay.step_panes import print_view  # noqa: PLC0415

    if not is_possible():
        screen = open_screen()
        for view in walk.views(start):
            print_view(view, screen, full=full)
        return
    try:
        show(walk, start, growing(reader, walk))
    except EOFError:
        return  # The terminal was closed.
    except Interrupted as interrupted:
        if interrupted.number == signal.SIGINT:
            sys.exit(EXIT_INTERRUPTED)
        signal.signal(interrupted.number, signal.SIG_DFL)
        os.kill(os.getpid(), interrupted.number)  # So that whoever sent it sees it obeyed.


COMMANDS = (tail, step)
