"""`list` and `show`: what became of the runs, and what happened to one."""

from __future__ import annotations

from pathlib import Path

import click

from replay.commands.common import (
    EPILOG,
    find_stream,
    json_option,
    log_and,
    log_argument,
    print_json,
    reading,
)


@click.command("list", epilog=EPILOG)
@log_argument
@json_option
def list_(log: Path | None, *, as_json: bool) -> None:
    """List the submissions in LOG, oldest first.

    One line each: when it began, the run, how long it took (`+`: so far), its state (`*`: not
    closed yet) and what became of it. With --json, one object on each line.
    """
    with reading(log) as reader:
        from replay.listing import objects, print_list, read_all  # noqa: PLC0415 - see `common`
        from replay.screen import open_screen  # noqa: PLC0415

        timelines, now = read_all(reader)
        if as_json:
            print_json(objects(timelines, now))
        else:
            print_list(timelines, now, open_screen())


@click.command(epilog=EPILOG)
@log_and("run")
@click.option("--full", is_flag=True, help="Every field of every record.")
@json_option
def show(log: Path | None, run: str, *, full: bool, as_json: bool) -> None:
    """Show what happened to RUN, step by step, and what it owes.

    RUN is a flow run's id, the beginning of one, or its name; `/2` after it means its second
    submission. `agent` shows what happened to the agent itself. What was learned stands at the
    left, what was decided from it below with a hook.
    """
    with reading(log) as reader:
        from replay.screen import open_screen  # noqa: PLC0415 - see `common`
        from replay.showing import print_story, story_object, tell  # noqa: PLC0415

        story = tell(reader, find_stream(reader, log, run))
        if as_json:
            print_json([story_object(story)])
        else:
            print_story(story, open_screen(), full=full)


COMMANDS = (list_, show)
