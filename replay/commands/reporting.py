"""`report`: a log as one web page, for those who would rather look than read."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from replay.commands.common import (
    EPILOG,
    EXIT_UNWRITABLE,
    EXIT_USAGE,
    Moment,
    fail,
    json_option,
    log_argument,
    print_json,
    reading,
)


@click.command(epilog=EPILOG, short_help="Write one web page that shows what happened.")
@log_argument
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE", help="Where to write the page; `-` for the standard output.",
)  # fmt: skip
@click.option("--since", type=Moment(), help="Leave out submissions that ended before TIME.")
@click.option("--until", type=Moment(), help="Leave out submissions that began after TIME.")
@click.option(
    "--last", "newest", type=click.IntRange(min=1), default=20_000, show_default=True,
    metavar="N", help="Show the N submissions that began last.",
)  # fmt: skip
@click.option("--title", help="The page's heading; otherwise it names the agent's host.")
@json_option
def report(
    log: Path | None,
    *,
    output: Path,
    since: datetime | None,
    until: datetime | None,
    newest: int,
    title: str | None,
    as_json: bool,
) -> None:
    """Write one web page that shows what happened in LOG.

    It holds everything it needs and asks no network, so it can be opened offline and sent to
    others: a timeline of the submissions, each with its events; how long they took; failures by
    cause; restarts and outages. Whatever is in it, whoever has it can read.
    """
    if since and until and since > until:
        fail(EXIT_USAGE, "--since is after --until: nothing can be between")
    with reading(log) as reader:
        from replay.report.building import build  # noqa: PLC0415
        from replay.report.selection import Wanted  # noqa: PLC0415 - see `common`
        from replay.writing import written  # noqa: PLC0415

        made = build(reader, Wanted(newest, since, until), title)
    try:
        with written(output) as out:
            out.write(made.html)
    except OSError as error:
        fail(EXIT_UNWRITABLE, f"{output} can't be written: {error.strerror or error}")
    if made.left_out:
        click.echo(
            f"pluperfect replay: {made.left_out:,} older submissions are left out; --last N shows"
            " more", err=True)  # fmt: skip
    if str(output) == "-":
        return
    if as_json:
        print_json([made.as_object(output)])
    else:
        click.echo(made.in_words(output))


COMMANDS = (report,)
