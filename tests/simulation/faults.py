"""What can go wrong in a simulation, as data: drawn from a seed, and written as text.

A fault names when it strikes by counting: the n-th step of an agent's tasks (each await point ends
one), its n-th append, request or launch, or a virtual time. So a schedule without one of its
faults is the same world up to the point where that fault would have struck.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence

import attrs


class Kind(enum.StrEnum):
    """What strikes. `at` counts what the name says; times are in tenths of a second."""

    KILL_AT_STEP = "kill_at_step"
    KILL_BEFORE_APPEND = "kill_before_append"
    KILL_IN_APPEND = "kill_in_append"
    """`value` odd: the records reached the disk all the same."""
    KILL_AFTER_APPEND = "kill_after_append"
    DISK_FULL_AT_APPEND = "disk_full_at_append"
    DISK_ERROR_AT_APPEND = "disk_error_at_append"
    """`value` odd: the records reached the disk all the same."""
    REQUEST_LOST = "request_lost"
    ANSWER_LOST = "answer_lost"
    REQUEST_TWICE = "request_twice"
    REQUEST_DELAYED = "request_delayed"
    """`value`: by how many tenths of a second before the server has it."""
    REQUEST_REFUSED = "request_refused"
    """`value`: which of the statuses."""
    ANSWER_MALFORMED = "answer_malformed"
    REQUEST_TIMES_OUT = "request_times_out"
    """`value` odd: the server had it."""
    LAUNCH_FAILS = "launch_fails"
    LAUNCH_IN_DOUBT_BEFORE = "launch_in_doubt_before"
    LAUNCH_IN_DOUBT_AFTER = "launch_in_doubt_after"
    SERVER_DOWN = "server_down"
    """`value`: for how many tenths of a second."""
    HOST_REBOOTS = "host_reboots"
    CLOCK_JUMPS = "clock_jumps"
    """`value`: by how many seconds."""
    RUN_CANCELLED = "run_cancelled"
    """`value`: which run."""
    RUN_DELETED = "run_deleted"
    RUN_RESCHEDULED = "run_rescheduled"
    QUEUE_PAUSED = "queue_paused"
    """`value`: for how many tenths of a second."""


BY_TIME = frozenset(
    {
        Kind.SERVER_DOWN,
        Kind.HOST_REBOOTS,
        Kind.CLOCK_JUMPS,
        Kind.RUN_CANCELLED,
        Kind.RUN_DELETED,
        Kind.RUN_RESCHEDULED,
        Kind.QUEUE_PAUSED,
    }
)
BY_PEOPLE = frozenset({Kind.RUN_CANCELLED, Kind.RUN_DELETED, Kind.RUN_RESCHEDULED})
STATUSES = (429, 500, 502, 503)

_REACH = {
    "step": 300,
    "append": 30,
    "request": 40,
    "launch": 4,
    "time": 300,
}
"""Up to where a fault's `at` is drawn, by what it counts."""


@attrs.frozen
class Fault:
    """One thing that goes wrong.

    Attributes:
        agent: which one it strikes; without meaning for faults by time.
        at: when, counted from 1 (times: tenths of a second).
        value: see `Kind`.
    """

    kind: Kind
    agent: int
    at: int
    value: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.agent}:{self.at}:{self.value}"

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read what `str` wrote."""
        kind, agent, at, value = text.split(":")
        return cls(Kind(kind), int(agent), int(at), int(value))


def written(faults: Sequence[Fault]) -> str:
    """Return a schedule as text."""
    return ",".join(map(str, faults))


def parse(text: str) -> list[Fault]:
    """Read what `written` wrote."""
    return [Fault.parse(part) for part in text.split(",") if part]


def draw(rng: random.Random, agents: int) -> list[Fault]:
    """Draw a schedule: mostly a few faults, at times many, at times none."""
    count = rng.choice((0, 1, 1, 2, 2, 3, 4, 6, 10))
    drawn = [_draw_one(rng, agents) for _ in range(count)]
    if rng.random() < 0.25:
        # Early requests are claims and reports; later ones are mostly polls.
        kind = rng.choice((Kind.REQUEST_LOST, Kind.ANSWER_LOST, Kind.REQUEST_TIMES_OUT))
        drawn.append(Fault(kind, rng.randrange(agents), rng.randrange(3, 14), rng.randrange(2)))
    if agents > 1 and rng.random() < 0.3:
        # A claim that is under way for so long that the other agent is done with the run.
        at, delay = rng.randrange(3, 9), rng.randrange(50, 400)
        drawn.append(Fault(Kind.REQUEST_DELAYED, rng.randrange(agents), at, delay))
    return drawn


def _draw_one(rng: random.Random, agents: int) -> Fault:
    # Half of them kill: it is what this is for.
    kills = (
        Kind.KILL_AT_STEP,
        Kind.KILL_AT_STEP,
        Kind.KILL_BEFORE_APPEND,
        Kind.KILL_IN_APPEND,
        Kind.KILL_AFTER_APPEND,
    )
    kind = rng.choice(kills if rng.random() < 0.5 else tuple(Kind))
    counted = next((word for word in ("step", "append", "launch") if word in kind), "request")
    reach = _REACH["time" if kind in BY_TIME else counted]
    at = 1 + int(reach * rng.random() ** 1.5)
    value = rng.randrange(-3600, 3600) if kind is Kind.CLOCK_JUMPS else rng.randrange(100)
    return Fault(kind, rng.randrange(agents), at, value)
