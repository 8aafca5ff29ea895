"""The command line: `pluperfect agent start`, `pluperfect replay …`, `pluperfect demo`.

Options and variables are those of `prefect agent start`. Nothing heavy is imported before a
command is chosen, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import click

EXIT_POLL_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_LOG_UNUSABLE: Final = 3
EXIT_LOG_WRITE_FAILED: Final = 4

NOT_IN_NAMES: Final = frozenset("/%&<>")
"""What Prefect's servers refuse in the name of a work queue (422)."""

LAZY: Final = {
    "replay": ("replay.cli", "main", "Tell from a log what happened, and verify it."),
    "demo": (
        "agent.standin.demo",
        "demo",
        "See it lose nothing: kill it in the middle of 30 runs.",
    ),
}
"""Commands whose modules are imported when they are used: module, attribute, one line of help."""


class LazyGroup(click.Group):
    """A group that lists commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), *LAZY])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module now that it is wanted."""
        if cmd_name not in LAZY:
            return super().get_command(ctx, cmd_name)
        module, attribute, _help = LAZY[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands for `--help`."""
        rows = []
        for name in self.list_commands(ctx):
            if name in LAZY:
                rows.append((name, LAZY[name][2]))
            elif (command := super().get_command(ctx, name)) is not None:
                rows.append((name, command.get_short_help_str()))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Age(click.ParamType[timedelta]):
    """An age such as `30d`, `12h` or `45m`."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read an age."""
        if isinstance(value, timedelta):
            return value
        unit = {"d": "days", "h": "hours", "m": "minutes"}.get(value[-1:])
        if unit is None or not value[:-1].isdecimal():
            self.fail(f"{value!r} is no age: write 30d, 12h or 45m", param, ctx)
        return timedelta(**{unit: int(value[:-1])})


@click.group(cls=LazyGroup)
@click.version_option(version("pluperfect"), prog_name="pluperfect")
def main() -> None:
    """A Prefect agent that never loses a run, never starts one twice, and can tell."""


@main.group()
def agent() -> None:
    """Poll work queues, and launch the flow runs that they hand out."""


@agent.command(
    epilog="Exit status: 0 stopped as asked; 1 --run-once, and the server could not be polled;"
    " 2 bad option or setting; 3 the log can't be used (locked, damaged, another program's);"
    " 4 the log took no more (disk full, I/O error): what runs goes on running."
)
@click.option(
    "-q",
    "--work-queue",
    "work_queues",
    multiple=True,
    metavar="NAME",
    help="A work queue to poll; repeat for several. Created when missing.",
)
@click.option(
    "-m",
    "--match",
    "prefixes",
    multiple=True,
    metavar="PREFIX",
    help="Poll every work queue whose name begins with this; repeat for several.",
)
@click.option(
    "-l",
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most this many runs at once. [default: no limit]",
)
@click.option(
    "--prefetch-seconds",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Take runs this long before they are due. [default: PREFECT_AGENT_PREFETCH_SECONDS, 15]",
)
@click.option("--run-once", is_flag=True, help="Poll once, see everything through, and stop.")
@click.option("--hide-welcome", is_flag=True, help="Don't say what is being started.")
@click.option("--api", metavar="URL", help="The server's API. [default: PREFECT_API_URL]")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the log and the spool are kept. [default: PLUPERFECT_STATE,"
    " ~/.local/state/pluperfect]",
)
@click.option(
    "--default-infrastructure",
    metavar="ID",
    help="The infrastructure block document for deployments without one. [default: a process]",
)
@click.option(
    "--python",
    metavar="PATH",
    help="The interpreter of the default command. [default: the one that has prefect]",
)
@click.option(
    "--on-stop",
    type=click.Choice(["leave", "wait"]),
    default="leave",
    show_default=True,
    help="At SIGINT or SIGTERM: leave what runs to the next start, or wait for it.",
)
@click.option(
    "--max-late",
    type=Age(),
    metavar="AGE",
    help="Leave runs alone that were due longer ago: 30d, 12h, 45m. [default: no bound]",
)
@click.option(
    "--overdue-after",
    type=Age(),
    default="5m",
    show_default=True,
    metavar="AGE",
    help="Warn of a submission that has been on its way for so long without getting on.",
)
@click.option(
    "--on-uncertain",
    type=click.Choice(["crash", "relaunch"]),
    default="crash",
    show_default=True,
    envvar="PLUPERFECT_ON_UNCERTAIN",
    help="What becomes of a launch of which nobody can tell whether it ran (its spool was"
    " deleted): report it as Crashed, or launch it again if the run is still Pending.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the agent's own lines are written to standard error.",
)
def start(**options: Any) -> None:
    """Start an agent.

    Poll the given work queues until SIGINT or SIGTERM. Runs outlive the agent: the next start
    adopts those that are still running, and reports those that ended meanwhile.
    """
    from agent.settings import SettingsError, load  # noqa: PLC0415 - see the module's docstring

    if bool(options["work_queues"]) == bool(options["prefixes"]):
        raise click.UsageError(
            "name the work queues to poll: -q NAME (repeatable), or -m PREFIX for all that begin"
            " with it; not both"
        )
    for name in options["work_queues"]:
        if unfit := sorted(set(name) & NOT_IN_NAMES):
            raise click.UsageError(
                f"a work queue can't be named {name!r}: Prefect allows no {' '.join(unfit)} there"
            )
    command_line = {
        "api_url": options["api"],
        "prefetch_seconds": options["prefetch_seconds"],
        "state_dir": options["state"],
        "python": options["python"],
        "default_infrastructure": options["default_infrastructure"],
    }
    try:
        settings = load(os.environ, {k: v for k, v in command_line.items() if v is not None})
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    from agent.start import Request, start_agent  # noqa: PLC0415
    from events.lifecycle import OnUncertain  # noqa: PLC0415

    request = Request(
        queues=tuple(options["work_queues"]),
        prefixes=tuple(options["prefixes"]),
        limit=options["limit"],
        run_once=options["run_once"],
        hide_welcome=options["hide_welcome"],
        wait_on_stop=options["on_stop"] == "wait",
        json_lines=options["log_format"] == "json",
        max_late=options["max_late"],
        overdue_after=options["overdue_after"],
        on_uncertain=OnUncertain(options["on_uncertain"]),
    )
    sys.exit(start_agent(settings, request))


@agent.command(
    epilog="Exit status: 0 an agent is alive on this log; 1 none is; 2 bad option or setting;"
    " 3 there is no log, or it can't be read."
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the log and the spool are kept. [default: as for start]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def status(state: Path | None, as_json: bool) -> None:
    """Say what runs now.

    From the log and the spool alone: whether an agent is alive, and for each submission that is
    open its state, its command and what is owed. Changes nothing, and needs no server.
    """
    from agent.settings import SettingsError, load  # noqa: PLC0415 - see the module's docstring
    from agent.status import print_status  # noqa: PLC0415
    from events.log import LogError  # noqa: PLC0415

    try:
        folder = load(os.environ, {} if state is None else {"state_dir": state}).state_dir
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    try:
        sys.exit(print_status(folder, as_json=as_json))
    except LogError as error:
        print(f"pluperfect: {error}", file=sys.stderr)
        sys.exit(EXIT_LOG_UNUSABLE)


@main.group()
def log() -> None:
    """Look after the log."""


@log.command(
    epilog="Exit status: 0 done; 2 bad option or setting; 3 the log can't be read, or another"
    " compaction is at work; 4 it can't be written.",
)
@click.option(
    "--older-than",
    type=Age(),
    required=True,
    metavar="AGE",
    help="Move submissions that were closed longer ago: 30d, 12h, 45m.",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the log and the spool are. [default: as for agent start]",
)
@click.option(
    "--archive",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where the archive goes. [default: archive/ in the state folder]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def compact(older_than: timedelta, state: Path | None, archive: Path | None, as_json: bool) -> None:
    """Move what is long over from the log into a compressed archive.

    Works while an agent is running. The archive verifies, and every replay command reads it. The
    launch folders of the moved submissions, output included, are deleted.
    """
    from agent.retention import retire  # noqa: PLC0415 - see the module's docstring
    from agent.settings import SettingsError, load  # noqa: PLC0415
    from events.log import LogError, LogWriteFailed  # noqa: PLC0415
    from events.places import LOG_NAME  # noqa: PLC0415

    try:
        folder = load(os.environ, {} if state is None else {"state_dir": state}).state_dir
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    try:
        moved, swept = retire(
            folder / LOG_NAME, folder / "spool", archive or folder / "archive", older_than
        )
    except LogWriteFailed as error:
        print(f"pluperfect: {error}", file=sys.stderr)
        sys.exit(EXIT_LOG_WRITE_FAILED)
    except LogError as error:
        print(f"pluperfect: {error}", file=sys.stderr)
        sys.exit(EXIT_LOG_UNUSABLE)
    if as_json:
        import json  # noqa: PLC0415

        name = None if moved.archive is None else str(moved.archive)
        counts = {"submissions": moved.streams, "records": moved.records}
        spool = {"folders_deleted": swept.deleted, "folders_kept": swept.kept}
        print(json.dumps({"archive": name, **counts, **spool}))
        return
    if moved.archive is None:
        print("nothing is old enough; nothing was moved")
        return
    print(f"{moved.streams} submissions ({moved.records} records) moved to {moved.archive}")
    print(f"{swept.deleted} launch folders deleted")
    for key in swept.kept:
        print(f"kept the launch folder {key}: something of it is alive, or not clear")
