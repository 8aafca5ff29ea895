"""Processes of this host: whether this very one lives, who belongs to a command, signalling them.

A bare pid proves nothing, because it is used again; a pid with its start time does. `spool` asks
who is alive, `process` waits for and signals them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from agent.infrastructure.keeper import stat_fields


@attrs.frozen
class Process:
    """One process of this boot. `start_time` in clock ticks since boot."""

    pid: int
    start_time: int


def is_alive(process: Process) -> bool:
    """Tell whether this very process lives; a zombie does not, whoever forgot to reap it."""
    try:
        fields = stat_fields(process.pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[19]) == process.start_time and fields[0] not in (b"Z", b"X")


def open_process(process: Process) -> int | None:
    """Return a pidfd of this very process, or None if it has ended.

    Raises:
        OSError: the kernel has no pidfds, or we have no descriptors left.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    # Checked after opening: if that process lives now, it is the one that was opened.
    if is_alive(process):
        return descriptor
    os.close(descriptor)
    return None


def members(leader: Process | None, locks: Sequence[Path]) -> Iterator[Process]:
    """Find the living processes of a command.

    Those are the command and its session, as long as it lives (later that number may be
    another's), and whoever holds one of its locks: only a descendant can have inherited them.

    Args:
        leader: the command, which leads its session; None if it was of another boot.
        locks: files that the command holds locks on, in a folder named by the launch key.
    """
    # By the end of the name, because the holder may see the spool mounted elsewhere.
    names = tuple("/".join(("", path.parent.name, path.name)) for path in locks)
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        pid = int(entry)
        try:
            fields = stat_fields(pid)
            session, started = int(fields[3]), int(fields[19])
            in_session = leader is not None and session == leader.pid and is_alive(leader)
            if in_session or _holds_lock(pid, names):
                yield Process(pid, started)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            # It has just ended, or it is another user's, whom we could not signal either.
            continue


def _holds_lock(pid: int, names: tuple[str, ...]) -> bool:
    folder = f"/proc/{pid}"
    for descriptor in os.listdir(f"{folder}/fd"):
        try:
            if os.readlink(f"{folder}/fd/{descriptor}").endswith(names):
                # The keeper and whoever reads the output have it open too, but not locked.
                details = Path(f"{folder}/fdinfo/{descriptor}").read_bytes()
                if b"OFDLCK" in details:
                    return True
        except FileNotFoundError:
            continue  # closed just now
    return False


def send_signal(process: Process, number: signal.Signals) -> None:
    """Signal this very process, or nobody.

    Raises:
        PermissionError: it runs as somebody whom we may not signal.
    """
    descriptor = open_process(process)
    if descriptor is None:
        return
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return  # it ended just now
    finally:
        os.close(descriptor)
