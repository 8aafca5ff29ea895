"""Where a debugger comes between the record and the daemon: `--break-at`.

`breakpoint()` is called with the daemon's own code three frames up, whichever way it came here:
waiting for an answer, or about to decide.
"""

from __future__ import annotations

from bdb import BdbQuit
from collections.abc import Callable
from typing import Final

import attrs

from events.observations import Observation
from replay.reexecution.recording import Entry

FRAMES_UP: Final = 3
"""From where the debugger stands to the daemon's code."""


class DebuggerLeft(BaseException):
    """Whoever debugs has seen enough. Nothing in the daemon may catch this."""


@attrs.define
class Pause:
    """The entry before which the debugger is called, once.

    Attributes:
        index: of the entry in its stream; None for nowhere (any more).
        announce: is told the entry, just before.
    """

    index: int | None
    announce: Callable[[Entry], None]

    def is_wanted(self, entry: Entry) -> bool:
        """Tell whether to call the debugger now; the answer is yes once."""
        if entry.index != self.index:
            return False
        self.index = None
        self.announce(entry)
        return True


def pause(recorded: Entry) -> Entry:
    """Call the debugger before `recorded`, which the daemon is about to learn or to decide on."""
    breakpoint()
    return recorded  # `up 3`: the daemon's own code


def leave_if_left(observation: Observation) -> None:
    """End it when the debugger was left inside of an effect.

    The driver makes an observation of whatever is raised there, and so of the debugger's way to
    end a program.
    """
    if f" {BdbQuit.__name__} at " in str(getattr(observation, "error", "")):
        raise DebuggerLeft
