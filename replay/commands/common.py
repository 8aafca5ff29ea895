"""What the commands share: how LOG and RUN are named, opened and found, and how a mistake ends.

Importing this costs no more than click: what a command needs is imported when it runs, so that
`--help` answers at once. Whatever a person can get wrong ends in one line and a documented exit
status.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from events.places import LOG_NAME, STATE_VARIABLE, default_state_dir, log_in

if TYPE_CHECKING:
    from events.sqlite_reader import SqliteReader

F = TypeVar("F", bound=Callable[..., Any])

EXIT_DIVERGED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREADABLE: Final = 3
EXIT_UNWRITABLE: Final = 4

EPILOG: Final = (
    "Exit status: 0 fine; 1 something was found (verify: damage or a divergence; diff: a"
    " difference; check: a decision that would differ; run: other events; salvage: a loss);"
    " 2 bad option, or a RUN that is not in the log or could be several; 3 LOG is no log that this"
    " release can read; 4 what was to be written can't be."
)

json_option = click.option("--json", "as_json", is_flag=True, help="For machines.")

log_argument = click.argument("log", type=click.Path(path_type=Path), required=False)
"""`[LOG]`, to be given to `reading`."""


def log_and(*names: str) -> Callable[[F], F]:
    """Declare `[LOG] NAME …`: a function is given `log` (a path or None) and each of the names."""

    def split(ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> Any:
        wanted = " ".join(name.upper() for name in names)
        if len(given) not in (len(names), len(names) + 1):
            raise click.UsageError(f"this command takes [LOG] {wanted}", ctx)
        log = Path(given[0]) if len(given) > len(names) else None
        ctx.params["log"] = log
        ctx.params.update(zip(names, given[len(given) - len(names) :], strict=True))

    metavar = "[LOG] " + " ".join(name.upper() for name in names)
    return click.argument("given", nargs=-1, metavar=metavar, callback=split, expose_value=False)


@contextlib.contextmanager
def reading(log: Path | None, damage_status: int = EXIT_UNREADABLE) -> Iterator[SqliteReader]:
    """Open a log; end with a line and a status when it can't be read, now or later.

    Args:
        log: the log, an archive, or a state directory; None for that of the agent of this user.
        damage_status: the exit status for a log that is damaged.
    """
    import apsw  # noqa: PLC0415 - see the module's docstring

    from events.archive import open_log  # noqa: PLC0415
    from events.log import LogDamaged, LogError  # noqa: PLC0415

    path = where(log)
    if log is None and not path.exists():
        fail(EXIT_UNREADABLE, f"there is no log at {path}; name one: an agent's state directory,"
             " its events.sqlite, or an archive")  # fmt: skip
    try:
        with open_log(path) as reader:
            yield reader
    except LogDamaged as error:
        fail(damage_status, str(error))
    except LogError as error:
        fail(EXIT_UNREADABLE, str(error))
    except apsw.Error as error:
        fail(EXIT_UNREADABLE, f"{path} can't be read as a pluperfect log: {error}")


def where(log: Path | None) -> Path:
    """Return the log's file; for None that of the agent of this user."""
    if log is not None:
        return log_in(log)
    named = os.environ.get(STATE_VARIABLE)
    return (Path(named) if named else default_state_dir(os.environ)) / LOG_NAME


def find_stream(reader: SqliteReader, log: Path | None, run: str) -> str:
    """Return the one stream that a person means by RUN; end with a line when it is not one."""
    from replay.finding import NoSuchRun, find  # noqa: PLC0415 - see the module's docstring

    try:
        streams = find(reader, run)
    except NoSuchRun as error:
        hint = f" (similar: {', '.join(error.similar)})" if error.similar else ""
        fail(EXIT_USAGE, f"{error}{hint}; `replay list {where(log)}` lists them")
    streams = _those_in_this_log(reader, streams)
    if len(streams) > 1:
        _refuse_to_choose(reader, run, streams)
    return streams[0]


def _those_in_this_log(reader: SqliteReader, streams: Sequence[str]) -> list[str]:
    here = [stream for stream in streams if not reader.is_archived(stream)]
    if not here:
        names = ", ".join(sorted({str(reader.archive_of(stream)) for stream in streams}))
        fail(EXIT_USAGE, f"{streams[0]} was moved to an archive; ask that one: {names}")
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
    fail(EXIT_USAGE, "name one of them")


class Moment(click.ParamType[datetime]):
    """A moment: `2026-11-24 02:15`, `02:15` (today), `yesterday`, `now`, or `90m`, `3h`, `2d` ago.

    Without an offset it is in the reader's zone, as the times are that are shown.
    """

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read a moment; the result is in UTC."""
        if isinstance(value, datetime):
            return value
        now = datetime.now().astimezone()
        if value in ("now", "today", "yesterday"):
            if value == "now":
                return now.astimezone(UTC)
            midnight = datetime.combine(now.date(), datetime.min.time())
            days = timedelta(days=1 if value == "yesterday" else 0)
            return (midnight - days).astimezone().astimezone(UTC)
        with contextlib.suppress(ValueError):
            return now.astimezone(UTC) - age(value)
        try:
            return _written(value, now)
        except ValueError:
            self.fail(
                f"{value!r} is no time: write 2026-11-24T02:15, 02:15, yesterday, or 90m, 3h, 2d"
                " (ago)", param, ctx)  # fmt: skip


def _written(value: str, now: datetime) -> datetime:
    import pendulum  # noqa: PLC0415 - takes 60 ms, and few commands are given a time

    parsed = pendulum.parse(value, tz=pendulum.tz.local_timezone(), now=pendulum.instance(now))
    if not isinstance(parsed, datetime):
        raise ValueError(value)  # noqa: TRY004 - a date is text of the wrong kind here
    return parsed.astimezone(UTC)


def recorded(moment: datetime) -> str:
    """Return a moment as records have it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def age(text: str) -> timedelta:
    """Return an age or a duration such as `30d`, `12h`, `45m`, `1.5h`, `500ms`.

    Raises:
        ValueError: it is none.
    """
    units = {"ms": "milliseconds", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
    suffix = next((suffix for suffix in units if text.endswith(suffix)), None)
    if suffix is None:
        raise ValueError(text)
    number = float(text.removesuffix(suffix))
    if not 0 <= number < 1e6:
        raise ValueError(text)
    return timedelta(**{units[suffix]: number})


class Seconds(click.ParamType[float]):
    """A duration such as `45m` or `1.5h`; becomes seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read a duration."""
        if isinstance(value, float):
            return value
        try:
            return age(value).total_seconds()
        except ValueError:
            self.fail(f"{value!r} is no duration: write 500ms, 90s, 45m, 1.5h or 2d", param, ctx)


def print_json(values: Iterable[dict[str, Any]]) -> None:
    """Print one object on each line."""
    import orjson  # noqa: PLC0415 - see the module's docstring

    for value in values:
        sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def fail(status: int, message: str) -> NoReturn:
    """End with a line for the person and a status for the machine."""
    click.echo(f"pluperfect replay: {message}", err=True)
    sys.exit(status)
