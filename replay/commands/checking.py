"""`verify`: is the log whole, and would every decision be made again?"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import click

from replay.commands.common import (
    EPILOG,
    EXIT_DIVERGED,
    Moment,
    json_option,
    log_argument,
    print_json,
    reading,
    recorded,
    where,
)


@click.command(epilog=EPILOG, short_help="Check chain and rules, make every decision again.")
@log_argument
@click.option(
    "--since",
    type=Moment(),
    metavar="TIME",
    help="Only what was recorded since: 2026-11-24T02:15, yesterday, 3h (ago).",
)
@json_option  # fmt: skip
def verify(log: Path | None, *, since: datetime | None, as_json: bool) -> None:
    """Check LOG's hash chain and legality, and make every decision again.

    The first difference between what is recorded and what is decided now ends it, with the exact
    event and fields. An end that was cut off is found too, but not a whole log that was put back
    from an older copy: keep the last position and hash elsewhere if that matters. With --since,
    what came before is believed, but submissions that go on are checked from their beginning.
    """
    with reading(log, damage_status=EXIT_DIVERGED) as reader:
        from replay.screen import open_screen  # noqa: PLC0415 - see `common`
        from replay.verifying import print_verdict, verdict_object, verify_log  # noqa: PLC0415

        verdict = verify_log(reader, str(log or where(None)), recorded(since) if since else None)
        if as_json:
            print_json([verdict_object(verdict)])
        else:
            print_verdict(verdict, open_screen())
        if not verdict.sound:
            sys.exit(EXIT_DIVERGED)


COMMANDS = (verify,)
