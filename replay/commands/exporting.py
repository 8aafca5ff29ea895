"""`export`: a log in the formats of other tools."""

from __future__ import annotations

import contextlib
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from replay.commands.common import (
    EPILOG,
    EXIT_UNWRITABLE,
    EXIT_USAGE,
    Moment,
    fail,
    find_stream,
    json_option,
    log_argument,
    print_json,
    reading,
    recorded,
    where,
)

if TYPE_CHECKING:
    from events.sqlite_reader import SqliteReader

RUN, TIME, EVENTS = "--run", "--since/--until", "--events"


class Format(NamedTuple):
    """A format: the function that writes it, and which options mean something to it.

    Attributes:
        module, function: imported when it is asked for. It is given what `reads` says and the
            binary output.
        reads: `log` (the reader), `submissions` (a selection of them) or `life` (just one).
        about: for the help.
        opens: what opens it.
    """

    module: str
    function: str
    reads: str
    options: tuple[str, ...]
    about: str
    opens: str


FORMATS: Final = {
    "jsonl": Format("replay.jsonl", "write_jsonl", "log", (),
                    "JSON Lines: every record as it is; `replay import` makes the log of it again",
                    "replay import, jq"),
    "chrome": Format("replay.export.chrome", "write_chrome", "submissions", (RUN, TIME),
                     "a trace to look at: submissions as bars in time, in lanes, a group per queue",
                     "ui.perfetto.dev, chrome://tracing"),
    "otlp": Format("replay.export.otlp", "write_otlp", "submissions", (RUN, TIME),
                   "OpenTelemetry spans: an OTLP/JSON request on each line, a trace per flow run",
                   "the collector's otlpjsonfile receiver"),
    "csv": Format("replay.export.table", "write_submissions", "submissions", (RUN, TIME, EVENTS),
                  "a row per submission; with --events, per record", "a spreadsheet"),
    "mermaid": Format("replay.export.mermaid", "write_mermaid", "life", (RUN,),
                      "a diagram of the way that one submission took (needs --run)",
                      "mermaid.live, any Markdown that draws Mermaid"),
}  # fmt: skip


@click.command(
    epilog=EPILOG,
    short_help="The log as JSON Lines, a trace, spans, a table or a diagram.",
    help="Export LOG, or some of its submissions, to the standard output or to FILE.\n\n\b\n"
    + "\n".join(f"{name:<8} {format_.about}" for name, format_ in FORMATS.items())
    + "\n\nFILE is replaced when the export is whole, and left alone if it fails.",
)
@log_argument
@click.option("-f", "--format", "format_", required=True, type=click.Choice(tuple(FORMATS)))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write there, and say so; with --json, for machines.",
)
@click.option(
    "--run",
    metavar="RUN",
    help="Only this run: its id, the beginning of one, or its name. /2 after it means"
    " its second submission.",
)
@click.option(
    "--since",
    type=Moment(),
    metavar="TIME",
    help="Only what began at this time or later: 2026-11-24T02:15, yesterday, 3h (ago).",
)
@click.option("--until", type=Moment(), metavar="TIME", help="Only what began before this time.")
@click.option("--events", is_flag=True, help="csv: a row for each record.")
@json_option  # fmt: skip
def export(log: Path | None, *, output: Path | None, as_json: bool, **options: Any) -> None:
    """Write the log, or some of it, in another format; the help is made of the formats above."""
    name, chosen = options["format_"], FORMATS[options["format_"]]
    _refuse_what_means_nothing(name, chosen, options)
    _refuse_to_overwrite(where(log), output)
    with reading(log) as reader:
        from replay.writing import written  # noqa: PLC0415 - see `common`

        module = import_module(chosen.module)
        write = getattr(module, "write_events" if options["events"] else chosen.function)
        source = _source(reader, log, chosen.reads, options)
        try:
            with written(output) as out:
                write(source, out)
        except OSError as error:
            fail(EXIT_UNWRITABLE, f"can't write {output or 'the output'}: {error.strerror}")
    if output is not None and str(output) != "-":
        _say(name, output, as_json=as_json)


def _refuse_what_means_nothing(name: str, chosen: Format, options: dict[str, Any]) -> None:
    given = {
        RUN: options["run"] is not None,
        TIME: options["since"] is not None or options["until"] is not None,
        EVENTS: options["events"],
    }
    for option, is_given in given.items():
        if is_given and option not in chosen.options:
            raise click.UsageError(f"{option} means nothing to {name}")
    if given[RUN] and given[TIME]:
        raise click.UsageError(f"{RUN} or {TIME}, not both")
    if chosen.reads == "life" and not given[RUN]:
        raise click.UsageError(f"{name} is of one submission: add {RUN}")


def _refuse_to_overwrite(log: Path, output: Path | None) -> None:
    from events.sqlite_file import companions  # noqa: PLC0415 - see `common`

    if output is None:
        return
    for path in (log, *companions(log)):
        if os.path.realpath(path) == os.path.realpath(output):
            fail(EXIT_USAGE, f"{output} is the log itself; name another file")


def _source(reader: SqliteReader, log: Path | None, reads: str, options: dict[str, Any]) -> Any:
    """Return what a format is made from: see `Format.reads`."""
    if reads == "log":
        return reader
    from events.notices import AGENT_STREAM  # noqa: PLC0415 - see `common`
    from replay.export.lives import lives  # noqa: PLC0415
    from replay.selection import Selection, Wanted  # noqa: PLC0415

    run, since, until = options["run"], options["since"], options["until"]
    wanted = Wanted(
        since=recorded(since) if since else "",
        until=recorded(until) if until else "~",
        streams=_streams(reader, log, run, several=reads != "life") if run else None,
    )
    if wanted.streams == [AGENT_STREAM] and not options["events"]:
        fail(
            EXIT_USAGE, "the agent's own notices are no run; they are in jsonl and in csv --events"
        )
    selection = Selection.of(reader, wanted)
    return next(lives(selection)) if reads == "life" else selection


def _streams(reader: SqliteReader, log: Path | None, run: str, *, several: bool) -> list[str]:
    """Return the submissions that a person means: all of one run, unless just one is asked for."""
    from replay.finding import NoSuchRun, find  # noqa: PLC0415 - see `common`

    with contextlib.suppress(NoSuchRun):
        streams = [stream for stream in find(reader, run) if not reader.is_archived(stream)]
        if several and len({stream.partition("/")[0] for stream in streams}) == 1:
            return streams
    return [find_stream(reader, log, run)]


def _say(name: str, output: Path, *, as_json: bool) -> None:
    size = output.stat().st_size
    if as_json:
        print_json([{"format": name, "file": str(output), "bytes": size}])
    else:
        click.echo(f"{output}: {name}, {size:,} bytes; open it with {FORMATS[name].opens}")


COMMANDS = (export,)
