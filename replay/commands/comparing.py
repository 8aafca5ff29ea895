"""`diff` and `check`: why did these two go differently, and what would have been decided if?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from replay.commands.common import (
    EPILOG,
    EXIT_DIVERGED,
    EXIT_USAGE,
    Seconds,
    fail,
    find_stream,
    json_option,
    log_argument,
    print_json,
    reading,
    where,
)

if TYPE_CHECKING:
    from replay.showing import Story


@click.command(epilog=EPILOG, short_help="Why did these two go differently?")
@click.argument("given", nargs=-1, metavar="[LOG] A [B] | LOG_A LOG_B")
@click.option("--run", metavar="RUN", help="Of two logs: compare this run in both.")
@click.option(
    "--all", "everything", is_flag=True, help="Also what is expected to differ: ids, times, pids."
)
@json_option
def diff(given: tuple[str, ...], *, run: str | None, everything: bool, as_json: bool) -> None:
    """Compare two submissions step by step, or two logs.

    A and B are named as for `show`. Without B it is the nearest submission of the same deployment
    (or queue) that went the other way: why did this one fail and its neighbour not? Two logs are
    compared submission by submission.
    """
    names = list(given)
    paths = [Path(name) for name in names]
    if len(names) == 2 and all(path.exists() for path in paths):
        _diff_logs(*paths, run=run, everything=everything, as_json=as_json)
    if run is not None:
        raise click.UsageError("--run is for two logs; each has to exist")
    log = paths[0] if len(names) == 3 or (len(names) == 2 and paths[0].exists()) else None
    wanted = names[1:] if log is not None else names
    if len(wanted) not in (1, 2):
        raise click.UsageError("this command takes [LOG] A [B], or LOG_A LOG_B")
    with reading(log) as reader:
        from replay.neighbour import neighbour  # noqa: PLC0415 - see `common`
        from replay.showing import tell  # noqa: PLC0415

        one = find_stream(reader, log, wanted[0])
        if len(wanted) == 2:
            other = find_stream(reader, log, wanted[1])
        else:
            found = neighbour(reader, one)
            if found is None:
                fail(EXIT_USAGE, "no submission of the same deployment or queue went otherwise"
                     f" than {wanted[0]}; name one to compare it with")  # fmt: skip
            other = found
        _print_diff(tell(reader, one), tell(reader, other), everything=everything, as_json=as_json)


def _print_diff(left: Story, right: Story, *, everything: bool, as_json: bool) -> NoReturn:
    from replay.comparison import compare  # noqa: PLC0415 - see `common`
    from replay.diffing import comparison_object, print_comparison  # noqa: PLC0415
    from replay.screen import open_screen  # noqa: PLC0415

    comparison = compare(left, right, everything=everything)
    if as_json:
        print_json([comparison_object(comparison)])
    else:
        print_comparison(comparison, open_screen())
    sys.exit(0 if comparison.same else EXIT_DIVERGED)


def _diff_logs(a: Path, b: Path, *, run: str | None, everything: bool, as_json: bool) -> NoReturn:
    with reading(a) as left, reading(b) as right:
        if run is not None:
            from replay.showing import tell  # noqa: PLC0415 - see `common`

            stories = (
                tell(reader, find_stream(reader, log, run))
                for reader, log in ((left, a), (right, b))
            )
            _print_diff(*stories, everything=everything, as_json=as_json)
        from replay.screen import open_screen  # noqa: PLC0415
        from replay.two_logs import compare_logs  # noqa: PLC0415
        from replay.two_logs_report import logs_object, print_logs  # noqa: PLC0415

        found = compare_logs(left, right, everything=everything)
        if as_json:
            print_json([logs_object(found)])
        else:
            print_logs(found, (str(a), str(b)), open_screen())
        sys.exit(0 if found.same else EXIT_DIVERGED)


class _Replacement(click.ParamType[tuple[int, dict[str, Any]]]):
    """`POSITION=JSON`."""

    name = "position=json"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, dict[str, Any]]:
        """Read a position and the fields of an observation."""
        if isinstance(value, tuple):
            return value
        import orjson  # noqa: PLC0415 - see `common`

        position, equals, text = str(value).partition("=")
        if not equals or not position.strip().isdecimal():
            self.fail(f"{value!r} is no replacement: write 120='{{\"status\": \"ABORT\"}}'",
                      param, ctx)  # fmt: skip
        try:
            fields = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            self.fail(f"what follows {position}= is no JSON: {error}", param, ctx)
        if not isinstance(fields, dict):
            self.fail(f"what follows {position}= is no JSON object", param, ctx)
        return int(position), fields


@click.command(epilog=EPILOG, short_help="What would have been decided, with one thing changed?")
@log_argument
@click.option("--run", metavar="RUN", help="Only this submission.")
@click.option(
    "--against",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="PATH",
    help="Let the decider of another version decide: of a checkout of pluperfect. It is run.",
)
@click.option(
    "--drop",
    type=click.IntRange(1),
    multiple=True,
    metavar="POSITION",
    help="Leave an observation out. May be given again.",
)
@click.option(
    "--replace",
    type=_Replacement(),
    multiple=True,
    metavar="POSITION=JSON",
    help="Other fields of an observation; with another `type`, another observation. May be given"
    " again.",
)
@click.option(
    "--on-uncertain",
    type=click.Choice(["crash", "relaunch"]),
    help="As if the agent had been started with it.",
)
@click.option("--max-late", type=Seconds(), metavar="AGE", help="The same: 30d, 12h, 45m.")
@click.option("--overdue-after", type=Seconds(), metavar="AGE", help="The same.")
@click.option(
    "--show",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    help="Tell N differences of each kind in full.",
)
@json_option
def check(log: Path | None, *, run: str | None, as_json: bool, **options: Any) -> None:
    """Show what LOG recorded to a decider again, and tell which decisions would be others.

    Without an option that is today's decider; with --against it is that of a checkout, which is
    how a release is tried on old logs before it is deployed. After a decision that leads elsewhere,
    what was recorded later is shown all the same: what is no longer owed leads to nothing.
    """
    with reading(log) as reader:
        from events.lifecycle import OnUncertain  # noqa: PLC0415 - see `common`
        from replay.against import NoDecider  # noqa: PLC0415
        from replay.changes import UnfitChange  # noqa: PLC0415
        from replay.check_report import print_report, report_object  # noqa: PLC0415
        from replay.checking_again import Wanted, check_log  # noqa: PLC0415
        from replay.screen import open_screen  # noqa: PLC0415

        wanted = Wanted(
            streams=[find_stream(reader, log, run)] if run else None,
            against=options["against"],
            dropped=options["drop"],
            replaced=dict(options["replace"]),
            on_uncertain=OnUncertain(options["on_uncertain"]) if options["on_uncertain"] else None,
            max_late_seconds=options["max_late"],
            overdue_after_seconds=options["overdue_after"],
            examples=options["show"],
        )
        try:
            report = check_log(reader, str(log or where(None)), wanted)
        except (UnfitChange, NoDecider) as error:
            fail(EXIT_USAGE, str(error))
        if as_json:
            print_json([report_object(report)])
        else:
            print_report(report, open_screen())
        if not report.same:
            sys.exit(EXIT_DIVERGED)


COMMANDS = (diff, check)
