"""The lock that keeps a log to one agent. `SqliteStore.open` takes it before it touches the log.

It is an flock on a file of its own, `<log>.lock`: the kernel lets go of it when the process
ends, however that ends. A lock on the database file itself would have to open and close that
file, and closing any descriptor of it drops SQLite's POSIX locks for the whole process.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import attrs

from events.log import LogLocked, LogWriteFailed


@attrs.define(eq=False)
class LogLock:
    """A lock that is held. The file stays behind: removing it would race with the next agent."""

    _descriptor: int | None

    @classmethod
    def take(cls, log: Path, since: str) -> LogLock:
        """Take the lock of a log, without waiting.

        Args:
            log: the log's own path.
            since: when this agent started, for the message that a second one gets.

        Raises:
            LogLocked: a living process has it.
            LogWriteFailed: the lock file can't be made, or the file system knows no locks.
        """
        try:
            # Python's descriptors close on exec: no command that is launched inherits the lock.
            descriptor = os.open(f"{log}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            reason = f"can't make its lock file {log}.lock: {error.strerror}"
            raise LogWriteFailed(log, reason) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # First write, then cut: whoever reads meanwhile finds somebody named.
            line = f"{os.getpid()} {os.uname().nodename} {since}\n".encode()
            os.ftruncate(descriptor, os.pwrite(descriptor, line, 0))
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise LogLocked(log, holder) from None
        except OSError as error:
            os.close(descriptor)
            raise LogWriteFailed(log, f"can't lock {log}.lock: {error.strerror}") from error
        return cls(descriptor)

    def release(self) -> None:
        """Let the next agent in. Releasing twice is allowed."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _holder(descriptor: int) -> str:
    words = os.pread(descriptor, 1000, 0).decode(errors="replace").split("\n")[0].split()
    if len(words) != 3:
        return "another process"
    pid, host, since = words
    return f"process {pid} on {host}, since {since}"
