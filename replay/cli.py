"""The command group `pluperfect replay`, also as `python -m replay`.

The commands are in `replay.commands`; `agent.cli` attaches `main` as the group `replay`.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterable
from typing import Final

import click

from replay.commands import (
    checking,
    comparing,
    copying,
    exporting,
    looking,
    reporting,
    rerunning,
    watching,
)
from replay.commands.common import EPILOG

COMMANDS: Final[Iterable[click.Command]] = (
    *looking.COMMANDS,
    *watching.COMMANDS,
    *checking.COMMANDS,
    *comparing.COMMANDS,
    *exporting.COMMANDS,
    *reporting.COMMANDS,
    *copying.COMMANDS,
    *rerunning.COMMANDS,
)


class InOrder(click.Group):
    """A group that lists its commands in the order in which they were added."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(self.commands)


@click.group(cls=InOrder, epilog=EPILOG)
def main() -> None:
    """Tell from a log what happened, and verify it.

    LOG is an agent's log, the state directory that holds it, or an archive; without one, it is
    that of this user's agent (PLUPERFECT_STATE, ~/.local/state/pluperfect). It is only read; the
    agent may be writing it meanwhile, and no server is asked.
    """
    # Folding a log makes no cycles to speak of; looking for them took a tenth of the time.
    gc.set_threshold(100_000)
    # A pager that is left early, or `| head`, ends this as it ends any other tool.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


for _command in COMMANDS:
    main.add_command(_command)
