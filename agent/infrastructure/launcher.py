"""What the daemon asks of anything that can run a command: launch it once, find it again, wait.

`process` implements this with real processes; the simulator implements it with imagined ones.
A launch is named by its *launch key*. Everything a launcher keeps (folder, container, job) derives
its name from the key, so that asking twice is asking for the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from events.lifecycle import Verdict


@attrs.frozen
class ProcessSpec:
    """What to run, ready for one flow run: the document, the overrides and the run's own values.

    `env` holds secrets; it is never written to disk, put on a command line, or printed.

    Attributes:
        command: the program and its arguments; no shell is involved.
        env: variables on top of the agent's own environment; None unsets one.
        working_dir: absolute or relative to the agent's; None for a fresh temporary directory.
        stream_output: copy the command's output to the agent's own.
        labels: what Prefect would label the infrastructure with.
        name: what people call it: the document's name or the flow run's.
    """

    command: Sequence[str]
    env: Mapping[str, str | None] = attrs.field(repr=False)
    working_dir: str | None = None
    stream_output: bool = True
    labels: Mapping[str, str] = attrs.field(factory=dict)
    name: str = ""


@attrs.frozen
class Running:
    """A command that was started under a launch key.

    Attributes:
        infrastructure_pid: how Prefect names it, `<hostname>:<pid>` for a process.
        pid: its process id on this host.
        start_time: clock ticks between the host's boot and its start (proc(5), stat field 22),
            which with the boot id tells it from a later process with the same pid.
        boot_id: the boot of the host it was started in.
    """

    infrastructure_pid: str
    pid: int
    start_time: int
    boot_id: str


@attrs.frozen
class Ended:
    """How a command ended.

    Attributes:
        exit_code: its status; negative for the signal that ended it; None when nobody saw it
            end (the keeper was killed, or the host went down).
        reason: for people, when `exit_code` is None.
    """

    exit_code: int | None
    reason: str = ""


@attrs.frozen
class Evidence:
    """What the launch folder, its locks and the boot id prove about one launch key.

    Attributes:
        verdict: exactly one of the verdicts of `events.lifecycle.Verdict`.
        running: who it is (was), where that is known.
        ended: how it ended, for FINISHED and LOST.
        detail: for people: what was seen.
    """

    verdict: Verdict
    running: Running | None = None
    ended: Ended | None = None
    detail: str = ""


class LaunchFailed(Exception):
    """The command could not be started and certainly does not run.

    Attributes:
        reason: for people and for the server: what is wrong and where, e.g. "command not found:
            'pyhton'", "working directory /srv/flows does not exist". Holds no secret.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Launcher(Protocol):
    """Runs commands that outlive the agent.

    Attributes:
        evidence_id: names the place that the evidence is kept in; another one when it was made
            anew, so that a launch without evidence there says nothing.
    """

    @property
    def evidence_id(self) -> str:
        """See above."""
        ...

    async def launch(self, key: str, spec: ProcessSpec) -> Running:
        """Start the command under this key, at most once for all time.

        Raises:
            LaunchFailed: it does not run and never will under this key.
            LaunchInDoubt: whether it runs can't be told from here; `examine` decides.
        """
        ...

    async def examine(self, key: str, *, evidence_id: str, known: Running | None) -> Evidence:
        """Tell what became of a launch key, from evidence that outlives the agent.

        Waits (bounded) while the keeper of a dead agent is between its start and its commit
        point, so that the answer is never "it depends".

        Args:
            key: which launch.
            evidence_id: where its evidence was to be kept, as the log has it.
            known: who the command is, as the log has it; found by that if all else is gone.

        Raises:
            LaunchInDoubt: it is still changing; examine it again.
        """
        ...

    async def wait(self, key: str, *, known: Running | None) -> Ended:
        """Return when the command and all it left running have ended.

        For commands launched by this agent and for adopted ones alike.

        Args:
            key: which launch.
            known: see `examine`.
        """
        ...


class LaunchInDoubt(Exception):
    """The keeper went away before it told whether the command was started: examine the key."""
