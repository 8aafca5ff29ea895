"""`list` and `show`: what became of the runs, and what happened to one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from replay.commands.common import (
    EPILOG,
    EXIT_USAGE,
    F,
    Moment,
    Seconds,
    fail,
    find_stream,
    json_option,
    log_and,
    log_argument,
    print_json,
    reading,
    recorded,
)

if TYPE_CHECKING:
    from replay.selection import Wanted

PAGE: Final = 50
SLOW_SECONDS: Final = 10.0

# Written out, so that `--help` need not import what they are about; a test compares.
STATES: Final = (
    "discovered", "pending", "resolving", "launching", "started", "exited", "failed", "aborted",
    "cancelled",
)  # fmt: skip
SORTS: Final = ("began", "took", "start", "state", "run", "queue", "deployment")


def _choosing(function: F) -> F:
    """Add the options that say which submissions are meant."""
    for option in reversed(
        (
            click.option("--state", "states", multiple=True, type=click.Choice(STATES),
                         help="Only those in this state; repeat for several."),
            click.option("-d", "--deployment", "deployments", multiple=True, metavar="NAME",
                         help="Only this deployment's: its name, or the beginning of its id."),
            click.option("-q", "--queue", "queues", multiple=True, metavar="NAME",
                         help="Only those of this work queue."),
            click.option("--since", type=Moment(), metavar="TIME",
                         help="Only those that began at this time or later: 2026-11-24T02:15,"
                         " 02:15, yesterday, or 3h (ago)."),
            click.option("--until", type=Moment(), metavar="TIME",
                         help="Only those that began before this time."),
            click.option("--failed", is_flag=True, help="Only what went wrong."),
            click.option("--slow", is_flag=True,
                         help=f"Only those that took over {SLOW_SECONDS:.0f} s to start."),
            click.option("--slower-than", type=Seconds(), metavar="DURATION",
                         help="Only those that took longer than this to start: 500ms, 45s, 10m."),
            click.option("-t", "--text", metavar="TEXT",
                         help="Only those that mention this: in a name, an id, how it went."),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def _wanted(options: dict[str, Any]) -> Wanted:
    from events.lifecycle import State  # noqa: PLC0415 - see `common`
    from replay.selection import Wanted  # noqa: PLC0415

    slower = options["slower_than"]
    since, until = options["since"], options["until"]
    return Wanted(
        states=frozenset(State(state) for state in options["states"]),
        deployments=options["deployments"],
        queues=options["queues"],
        since=recorded(since) if since else "",
        until=recorded(until) if until else "~",
        failed=options["failed"],
        slower_than=SLOW_SECONDS if slower is None and options["slow"] else slower,
        text=options["text"],
    )


@click.command("list", epilog=EPILOG)
@log_argument
@_choosing
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="began",
    show_default=True,
    help="By what: the newest, the longest, or the first of the alphabet comes first.",
)
@click.option("-r", "--reverse", is_flag=True, help="The other way round.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"How many on a page. [default: {PAGE}; with --json all]",
)
@click.option(
    "-p", "--page", type=click.IntRange(min=1), default=1, metavar="K", help="Which page."
)
@click.option("--all", "everything", is_flag=True, help="All of them, on one page.")
@json_option  # fmt: skip
def list_(log: Path | None, *, as_json: bool, **options: Any) -> None:
    """List the submissions in LOG, the newest first.

    One line each: when it began, the run, how long it took (`+`: so far), its state (`*`: not
    closed yet) and what became of it. With --json, one object on each line.
    """
    with reading(log) as reader:
        from replay.listing import Order, in_order, objects, page_of, print_page  # noqa: PLC0415
        from replay.screen import open_screen  # noqa: PLC0415 - see `common`
        from replay.selection import Selection  # noqa: PLC0415

        limit = None if options["everything"] else options["limit"] or (None if as_json else PAGE)
        order = Order(options["sort"], options["reverse"], limit, options["page"])
        selection = Selection.of(reader, _wanted(options))
        if as_json:
            print_json(objects(in_order(selection, order), selection.now))
        else:
            print_page(page_of(selection, order), selection.now, open_screen())


@click.command(epilog=EPILOG)
@log_and("run")
@click.option("--full", is_flag=True, help="Every field of every record.")
@click.option(
    "--at",
    type=Moment(),
    metavar="TIME",
    help="As it was then: 2026-11-24T02:15, 02:15, yesterday, or 3h (ago).",
)
@click.option(
    "--position", type=click.IntRange(min=1), metavar="N", help="As it was after this record."
)
@json_option
def show(log: Path | None, run: str, *, as_json: bool, **options: Any) -> None:
    """Show what happened to RUN, step by step, and what it owes.

    RUN is a flow run's id, the beginning of one, or its name; `/2` after it means its second
    submission. `agent` shows what happened to the agent itself. What was learned stands at the
    left, what was decided from it below with a hook.
    """
    with reading(log) as reader:
        from replay.screen import open_screen  # noqa: PLC0415 - see `common`
        from replay.showing import (  # noqa: PLC0415
            NothingYet,
            Until,
            print_story,
            story_object,
            tell,
        )

        time = recorded(options["at"]) if options["at"] else None
        try:
            stream = find_stream(reader, log, run)
            story = tell(reader, stream, Until(options["position"], time))
        except NothingYet as error:
            fail(EXIT_USAGE, str(error))
        if as_json:
            print_json([story_object(story)])
        else:
            print_story(story, open_screen(), full=options["full"])


@click.command(epilog=EPILOG)
@log_argument
@_choosing
@json_option
def stats(log: Path | None, *, as_json: bool, **options: Any) -> None:
    """Count and time the submissions in LOG.

    How long they were in each state (median, p95, p99, the longest), by queue and deployment;
    failures by cause; retries, waits and recoveries.
    """
    with reading(log) as reader:
        from replay.screen import open_screen  # noqa: PLC0415 - see `common`
        from replay.selection import Selection  # noqa: PLC0415
        from replay.statistics import (  # noqa: PLC0415
            print_statistics,
            statistics_object,
            statistics_of,
        )

        selection = Selection.of(reader, _wanted(options))
        numbers, starts = statistics_of(selection), selection.agents.count
        if as_json:
            print_json([statistics_object(numbers, starts)])
        else:
            print_statistics(numbers, starts, open_screen())


COMMANDS = (list_, show, stats)
