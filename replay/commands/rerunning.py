"""`run`: does the daemon's own code, given the recorded answers, append the same events again?"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replay.commands.common import (
    EPILOG,
    EXIT_DIVERGED,
    EXIT_UNREADABLE,
    EXIT_USAGE,
    fail,
    find_stream,
    json_option,
    log_and,
    print_json,
    reading,
    where,
)

if TYPE_CHECKING:
    from replay.reexecution.recording import Recording


@click.command("run", epilog=EPILOG)
@log_and("run")
@click.option(
    "--break-at",
    metavar="EVENT",
    help="Call the debugger before this event: a position, a version (v5), or a type of event.",
)
@json_option
def run_(log: Path | None, run: str, *, break_at: str | None, as_json: bool) -> None:
    """Let the daemon's own code live RUN again, and compare.

    Its submission driver, Prefect client and resolver get the recorded answers, at the recorded
    times of a virtual clock; nothing is sent and nothing is launched. Each event that they append
    is compared with the record, up to the first difference. RUN is what `show` takes.

    The log has no values of environment variables, so only their names are compared.

    --break-at calls Python's breakpoint(), and so what PYTHONBREAKPOINT names, right before the
    daemon learns or decides that event: the daemon's code is three frames up. Leaving it ends the
    command with status 1, for the rest was not compared.
    """
    with reading(log) as reader:
        from events.notices import AGENT_STREAM  # noqa: PLC0415 - see `common`
        from replay.reexecution.debugging import Pause  # noqa: PLC0415
        from replay.reexecution.execution import reexecute  # noqa: PLC0415
        from replay.reexecution.recording import NotReexecutable, read_recording  # noqa: PLC0415
        from replay.reexecution.telling import Steps, outcome_object, print_outcome  # noqa: PLC0415
        from replay.screen import open_screen, visible  # noqa: PLC0415
        from replay.timeline import Agents  # noqa: PLC0415

        stream = find_stream(reader, log, run)
        if stream == AGENT_STREAM:
            fail(EXIT_USAGE, "the agent's own notices are no submission that could be executed")
        try:
            agents = Agents(reader.read_stream(AGENT_STREAM))
            recording = read_recording(stream, reader.read_stream(stream), agents)
        except NotReexecutable as error:
            fail(EXIT_UNREADABLE, visible(str(error)))
        name = str(log or where(None))
    # What the daemon's code has to say of itself is in the events; its lines would only repeat it.
    logging.getLogger("agent").addHandler(logging.NullHandler())
    screen, index = open_screen(), _find(recording, break_at)
    began = time.perf_counter()
    if as_json:
        outcome = reexecute(recording, lambda _step: None, Pause(index, lambda _entry: None))
        print_json([outcome_object(name, recording, outcome, time.perf_counter() - began)])
    else:
        steps = Steps(recording, screen)
        steps.head()
        outcome = reexecute(recording, steps.tell, Pause(index, steps.announce))
        print_outcome(recording, outcome, time.perf_counter() - began, screen)
    if not outcome.same:
        sys.exit(EXIT_DIVERGED)


def _find(recording: Recording, wanted: str | None) -> int | None:
    """Return the index of the entry that a person means by EVENT."""
    if wanted is None:
        return None
    records = [entry.record for entry in recording.entries]
    names = [(str(record.position), f"v{record.version}", record.type) for record in records]
    found = next((index for index, each in enumerate(names) if wanted in each), None)
    if found is None:
        from replay.screen import visible  # noqa: PLC0415 - see `common`

        types = ", ".join(dict.fromkeys(record.type for record in records))
        fail(
            EXIT_USAGE,
            f"{visible(recording.stream)} has no event {wanted!r}; it has positions"
            f" {records[0].position} to {records[-1].position}, versions v1 to v{len(records)},"
            f" and {types}",
        )
    return found


COMMANDS = (run_,)
