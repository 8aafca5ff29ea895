"""The records in a launch folder, as the keeper writes them: lines of `name value`.

A record is there wholly or not at all (`keeper.write_record`), so one that can't be understood
was written by something else. Names that this release does not know are skipped. `spool` reads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs

from agent.infrastructure.launcher import Running
from agent.infrastructure.procfs import Process


class DamagedRecord(Exception):
    """A record is there but can't be understood."""


@attrs.frozen
class ExecRecord:
    """What the keeper wrote at the commit point."""

    pid: int
    start_time: int
    boot_id: str
    keeper_pid: int
    keeper_start_time: int
    hostname: str
    stream_output: bool

    @classmethod
    def parse(cls, data: bytes) -> ExecRecord:
        """Read a record.

        Raises:
            DamagedRecord: something is missing or makes no sense.
        """
        fields = _fields(data)
        try:
            return cls(
                pid=int(fields["pid"]),
                start_time=int(fields["start_time"]),
                boot_id=fields["boot_id"],
                keeper_pid=int(fields["keeper_pid"]),
                keeper_start_time=int(fields["keeper_start_time"]),
                hostname=fields["hostname"],
                stream_output=fields["stream_output"] == "1",
            )
        except (KeyError, ValueError) as error:
            raise DamagedRecord(f"the exec record is damaged: {error!r}") from error

    @property
    def process(self) -> Process:
        """The command."""
        return Process(self.pid, self.start_time)

    @property
    def keeper(self) -> Process:
        """Its keeper."""
        return Process(self.keeper_pid, self.keeper_start_time)

    @property
    def running(self) -> Running:
        """Who the command is, in the words of the contract."""
        return Running(f"{self.hostname}:{self.pid}", self.pid, self.start_time, self.boot_id)


def parse_exit(data: bytes) -> int:
    """Return the exit status of an `exit` record, negative for a signal.

    Raises:
        DamagedRecord: there is none.
    """
    try:
        return int(_fields(data)["exit_code"])
    except (KeyError, ValueError) as error:
        raise DamagedRecord(f"the exit record is damaged: {error!r}") from error


def parse_reason(data: bytes) -> str:
    """Return the reason of a `refused` record.

    Raises:
        DamagedRecord: there is none.
    """
    try:
        return _fields(data)["reason"]
    except KeyError as error:
        raise DamagedRecord("the refused record gives no reason") from error


def _fields(data: bytes) -> Mapping[str, str]:
    pairs = (line.partition(" ") for line in os.fsdecode(data).split("\n") if line)
    return {name: value for name, _, value in pairs}
