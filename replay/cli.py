"""The commands `pluperfect replay list|show|verify LOG`, also as `python -m replay`.

Importing this costs no more than click: what a command needs is imported when it runs, so that
`--help` answers at once. Whatever a person can get wrong ends in one line and a documented exit
status; `agent.cli` attaches `main` as the group `replay`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

if TYPE_CHECKING:
    from events.sqlite import SqliteReader

EXIT_DIVERGED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREADABLE: Final = 3

LOG_NAME: Final = "events.sqlite"
"""What the agent calls the log in its state directory."""

EPILOG: Final = (
    "Exit status: 0 fine; 1 verify found damage or a divergence; 2 bad option, or a RUN that is"
    " not in the log or could be several; 3 LOG is no log that this release can read."
)

log_argument = click.argument("log", type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="For machines.")


@click.group(epilog=EPILOG)
def main() -> None:
    """Tell from a log what happened, and verify it.

    LOG is an agent's log, or the state directory that holds it. It is only read; the agent may
    be writing it meanwhile, and no server is asked.
    """
    # A pager that is left early, or `| head`, ends this as it ends any other tool.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


@main.command("list", epilog=EPILOG)
@log_argument
@json_option
def list_(log: Path, *, as_json: bool) -> None:
    """List the submissions in LOG, oldest first.

    One line each: when it began, the run, how long it took (`+`: so far), its state (`*`: not
    closed yet) and what became of it. With --json, one object on each line.
    """
    with _reading(log) as reader:
        from replay.listing import objects, print_list, read_all  # noqa: PLC0415 - see above
        from replay.screen import open_screen  # noqa: PLC0415

        timelines, now = read_all(reader)
        if as_json:
            _print_json(*objects(timelines, now))
        else:
            print_list(timelines, now, open_screen())


@main.command(epilog=EPILOG)
@log_argument
@click.argument("run")
@click.option("--full", is_flag=True, help="Every field of every record.")
@json_option
def show(log: Path, run: str, *, full: bool, as_json: bool) -> None:
    """Show what happened to RUN, step by step, and what it owes.

    RUN is a flow run's id, the beginning of one, or its name; `/2` after it means its second
    submission. `agent` shows what happened to the agent itself. What was learned stands at the
    left, what was decided from it below with a hook.
    """
    with _reading(log) as reader:
        from replay.finding import NoSuchRun, find  # noqa: PLC0415 - see above
        from replay.screen import open_screen  # noqa: PLC0415
        from replay.showing import print_story, story_object, tell  # noqa: PLC0415

        try:
            streams = find(reader, run)
        except NoSuchRun as error:
            hint = f" (similar: {', '.join(error.similar)})" if error.similar else ""
            _fail(EXIT_USAGE, f"{error}{hint}; `replay list {log}` lists them")
        streams = _those_in_this_log(reader, streams)
        if len(streams) > 1:
            _refuse_to_choose(reader, run, streams)
        story = tell(reader, streams[0])
        if as_json:
            _print_json(story_object(story))
        else:
            print_story(story, open_screen(), full=full)


@main.command(epilog=EPILOG, short_help="Check chain and rules, and make every decision again.")
@log_argument
@json_option
def verify(log: Path, *, as_json: bool) -> None:
    """Check LOG's hash chain and legality, and make every decision again.

    The first difference between what is recorded and what is decided now ends it, with the exact
    event and fields. An end that was cut off is found too, but not a whole log that was put back
    from an older copy: keep the last position and hash elsewhere if that matters.
    """
    with _reading(log, damage_status=EXIT_DIVERGED) as reader:
        from replay.screen import open_screen  # noqa: PLC0415 - see above
        from replay.verifying import print_verdict, verdict_object, verify_log  # noqa: PLC0415

        verdict = verify_log(reader, str(log))
        if as_json:
            _print_json(verdict_object(verdict))
        else:
            print_verdict(verdict, open_screen())
        if not verdict.sound:
            sys.exit(EXIT_DIVERGED)


@contextlib.contextmanager
def _reading(log: Path, damage_status: int = EXIT_UNREADABLE) -> Iterator[SqliteReader]:
    """Open a log; end with a line and a status when it can't be read, now or later."""
    import apsw  # noqa: PLC0415 - see the module's docstring

    from events.archive import open_log  # noqa: PLC0415
    from events.log import LogDamaged, LogError  # noqa: PLC0415

    try:
        with open_log(log / LOG_NAME if log.is_dir() else log) as reader:
            yield reader
    except LogDamaged as error:
        _fail(damage_status, str(error))
    except LogError as error:
        _fail(EXIT_UNREADABLE, str(error))
    except apsw.Error as error:
        _fail(EXIT_UNREADABLE, f"{log} can't be read as a pluperfect log: {error}")


def _those_in_this_log(reader: SqliteReader, streams: Sequence[str]) -> list[str]:
    here = [stream for stream in streams if not reader.is_archived(stream)]
    if not here:
        names = ", ".join(sorted({str(reader.archive_of(stream)) for stream in streams}))
        _fail(EXIT_USAGE, f"{streams[0]} was moved to an archive; ask that one: {names}")
    return here


def _refuse_to_choose(reader: SqliteReader, run: str, streams: list[str]) -> NoReturn:
    from replay.showing import tell  # noqa: PLC0415 - see the module's docstring
    from replay.summary import outcome, state_in_words  # noqa: PLC0415
    from replay.words import clock_time  # noqa: PLC0415

    shown = 20
    click.echo(f"{run!r} could be any of {len(streams)} submissions:", err=True)
    for stream in streams[-shown:]:
        timeline = tell(reader, stream).timeline
        discovered = timeline.submission.discovered
        name = discovered.run_name if discovered else "?"
        began = clock_time(timeline.began.recorded_at, day=True) if timeline.began else "?"
        state, words = state_in_words(timeline), " ".join(outcome(timeline)[0].split())
        click.echo(f"  {stream}  {name}  {began}  {state}  {words}", err=True)
    if len(streams) > shown:
        click.echo(f"  and {len(streams) - shown} older ones", err=True)
    _fail(EXIT_USAGE, "name one of them")


def _print_json(*values: dict[str, Any]) -> None:
    import orjson  # noqa: PLC0415 - see the module's docstring

    for value in values:
        sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def _fail(status: int, message: str) -> NoReturn:
    click.echo(f"pluperfect replay: {message}", err=True)
    sys.exit(status)
