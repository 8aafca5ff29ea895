"""Launches commands as processes of this host: at most once each, and none tied to our own life.

The daemon calls `ProcessLauncher` through the `Launcher` protocol. Each command has a keeper
(`keeper` says how, and why a command starts at most once) and a folder (`spool` says what is in
it, and what it proves). Nothing that matters is in the memory of this module: another agent, or
this one after a crash, finds everything again by the launch key.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import attrs
import trio

from agent.infrastructure import keeper, procfs, spool
from agent.infrastructure.keeper import Order, pack_order
from agent.infrastructure.launcher import (
    Ended,
    Evidence,
    LaunchFailed,
    LaunchInDoubt,
    ProcessSpec,
    Running,
)
from agent.infrastructure.output import OutputCopier
from agent.infrastructure.procfs import Process
from agent.infrastructure.records import ExecRecord, parse_reason
from agent.infrastructure.spool import KeeperAlive, LaunchFolder, Sight
from events.lifecycle import Verdict

logger = logging.getLogger(__name__)

T = TypeVar("T")

KEEPER: Final[Sequence[str]] = (sys.executable, "-I", "-S", keeper.__file__)

PATIENCE_SECONDS: Final = 10.0
"""How long `examine` waits for a keeper that is about to pass, or die before, the commit point;
it takes milliseconds, unless the disk or the working directory's file system hangs."""

SETTLING_POLL_SECONDS: Final = 0.02
SHORTEST_POLL_SECONDS: Final = 0.05
LONGEST_POLL_SECONDS: Final = 2.0
"""Of what is left when the command has ended: descendants have no pidfd that we could know of."""

LAST_OUTPUT_SECONDS: Final = 1.0
"""How long the end of the agent waits for a reader of its output."""

# What an interpreter may need to start. All else in the agent's environment, API keys among it,
# is the command's, and reaches it through the order.
_FOR_THE_KEEPER: Final = ("LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE")


@attrs.frozen
class Spawned:
    """A keeper that was started just now.

    Attributes:
        order: where it waits for its order.
        report: where it will tell what came of it.
        output_start: how long the output file was before.
    """

    keeper: subprocess.Popen[bytes]
    order: int
    report: int
    output_start: int


def spawn(folder: LaunchFolder, command: Sequence[str] = KEEPER) -> Spawned:
    """Start a keeper in a launch folder. Blocks for about a millisecond, so call it in a thread.

    Raises:
        KeeperAlive: there is one already.
        OSError: there is none now.
    """
    with contextlib.ExitStack() as ours:

        def owned(descriptor: int) -> int:
            ours.callback(os.close, descriptor)
            return descriptor

        lock = owned(folder.lock())
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        output = owned(os.open(folder.output, flags, 0o600))
        order_read, order_write = os.pipe()
        owned(order_read)
        abandon = ours.enter_context(contextlib.ExitStack())
        abandon.callback(os.close, order_write)
        report_read, report_write = os.pipe()
        owned(report_write)
        abandon.callback(os.close, report_read)
        process = subprocess.Popen(  # noqa: S603 - our own file, in our own interpreter
            [*command, str(folder.path), str(lock), str(report_write)],
            stdin=order_read,
            stdout=output,
            stderr=output,
            pass_fds=(lock, report_write),
            cwd=folder.path,
            env={name: os.environ[name] for name in _FOR_THE_KEEPER if name in os.environ},
            start_new_session=True,
        )
        abandon.pop_all()
        return Spawned(process, order_write, report_read, os.fstat(output).st_size)


def compose(spec: ProcessSpec, hostname: str) -> bytes:
    """Return the order for the keeper: the agent's environment, changed as the spec says.

    Raises:
        LaunchFailed: it can't be executed as it stands.
    """
    if not spec.command:
        raise LaunchFailed("the command is empty")
    environment = dict(os.environ)
    for name, value in spec.env.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    order = Order(
        hostname=os.fsencode(hostname),
        streams=spec.stream_output,
        directory=os.fsencode(os.path.abspath(spec.working_dir)) if spec.working_dir else b"",
        command=[os.fsencode(argument) for argument in spec.command],
        environment={os.fsencode(n): os.fsencode(v) for n, v in environment.items()},
    )
    try:
        return pack_order(order)
    except ValueError as error:
        raise LaunchFailed(str(error)) from None


@attrs.define(eq=False)
class ProcessLauncher:
    """A `Launcher` of processes. Make one with `open`.

    Attributes:
        spool: where the launch folders are; on a local file system.
        evidence_id: the spool's own id, made when it was made.
        hostname: how Prefect is told of this host, in `<hostname>:<pid>`.
        keeper_command: runs the keeper; tests put a tracer in front of it.
    """

    spool: Path
    evidence_id: str
    hostname: str
    keeper_command: Sequence[str]
    _nursery: trio.Nursery
    _copier: OutputCopier
    _own: dict[str, trio.Event] = attrs.field(factory=dict)
    # Its own, so that stalled output (or anything else in threads) never delays a launch.
    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(8))

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        spool_path: Path,
        *,
        hostname: str | None = None,
        output: int = 1,
        keeper_command: Sequence[str] = KEEPER,
    ) -> AsyncIterator[ProcessLauncher]:
        """Provide a launcher. At the end of the block everything that runs goes on running.

        Args:
            spool_path: made if it is not there.
            hostname: this host's name by default.
            output: descriptor that the output of commands is copied to.

        Raises:
            SpoolUnusable: the spool can't be made, or locks don't hold there.
        """
        path, evidence_id = await trio.to_thread.run_sync(spool.prepare, spool_path)
        copier = OutputCopier(output)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copier.run)
            try:
                host = hostname or socket.gethostname()
                yield cls(path, evidence_id, host, keeper_command, nursery, copier)
            finally:
                await copier.close(LAST_OUTPUT_SECONDS)
                nursery.cancel_scope.cancel()

    # --- the protocol --------------------------------------------------------------------------

    async def launch(self, key: str, spec: ProcessSpec) -> Running:
        """Start the command under this key, at most once for all time.

        Cancelled, it leaves the launch in doubt.

        Raises:
            LaunchFailed: it does not run and never will under this key.
            LaunchInDoubt: whether it runs can't be told from here; `examine` decides. Also when
                this host has no room for it now: then `examine` says that it never ran.
            BadLaunchKey: the key is not fit for the name of a folder.
        """
        folder = LaunchFolder.of(self.spool, key)
        order = compose(spec, self.hostname)
        try:
            spawned = await self._in_thread(partial(spawn, folder, self.keeper_command))
        except KeeperAlive:
            raise LaunchInDoubt("another keeper of this launch is alive") from None
        except OSError as error:
            what = f"{error.strerror} ({error.filename})" if error.filename else error.strerror
            raise LaunchInDoubt(f"no keeper could be started: {what}") from error
        self._own[key] = reaped = trio.Event()
        self._nursery.start_soon(self._reap, key, spawned.keeper, reaped)
        running = _understand(await _converse(spawned, order))
        if spec.stream_output:
            self._copier.follow(key, folder.output, spawned.output_start)
        return running

    async def examine(
        self, key: str, *, evidence_id: str = "", known: Running | None = None
    ) -> Evidence:
        """Tell what became of a launch key.

        Where there is no folder the launch NEVER_RAN: whoever launches makes it first. But only
        if the spool is the one that the launch was meant for; in another, that proves nothing.

        Args:
            key: which launch.
            evidence_id: that of the spool it was meant for; "" for this one.
            known: who the command is. It lives even if its folder was deleted.

        Raises:
            LaunchInDoubt: it is still changing after `PATIENCE_SECONDS`. Examine it again.
            BadLaunchKey: the key is not fit for the name of a folder.
        """
        deadline = trio.current_time() + PATIENCE_SECONDS
        while True:
            sight = await self._look(key)
            if not sight.exists:
                return self._without_a_folder(sight, evidence_id, known)
            if (evidence := sight.evidence) is not None:
                return evidence
            if trio.current_time() > deadline:
                raise LaunchInDoubt(f"{sight.detail}, for {PATIENCE_SECONDS:g} s now")
            await trio.sleep(SETTLING_POLL_SECONDS)

    def _without_a_folder(self, sight: Sight, evidence_id: str, known: Running | None) -> Evidence:
        if known is not None and _lives(known):
            detail = f"{sight.detail}, but process {known.pid} lives"
            return Evidence(Verdict.RUNNING, running=known, detail=detail)
        if evidence_id in ("", self.evidence_id):
            return Evidence(Verdict.NEVER_RAN, detail=sight.detail)
        detail = f"{sight.detail}, which is not the spool that it was launched from"
        return Evidence(Verdict.NO_EVIDENCE, detail=detail)

    async def wait(self, key: str, *, known: Running | None = None) -> Ended:
        """Return when the command and all it left running have ended.

        Output of a command that an earlier agent launched is copied from here on.

        Args:
            key: which launch.
            known: who the command is, to wait for if its folder was deleted.

        Raises:
            BadLaunchKey: the key is not fit for the name of a folder.
        """
        sight = await self._look(key)
        if not sight.exists and known is not None:
            return await _wait_without_a_folder(sight, known)
        if sight.started is not None and sight.started.stream_output and not sight.is_over:
            self._copier.follow(key, LaunchFolder.of(self.spool, key).output)
        pause = SHORTEST_POLL_SECONDS
        while not sight.is_over or key in self._own:
            if not await self._until_a_process_ends(key, sight.started):
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_POLL_SECONDS)
            sight = await self._look(key)
        self._copier.conclude(key)
        return sight.ended

    # --- beyond the protocol -------------------------------------------------------------------

    async def kill(self, key: str, grace_seconds: float) -> Ended:
        """End a command and all that belongs to it: SIGTERM, and after the grace SIGKILL.

        Returns at once if nothing of it runs. Only processes that provably belong to this key
        are signalled. As long as one of them survives (it runs as another user, it hangs in the
        kernel) this does not return; bound it with a cancel scope.

        Raises:
            LaunchInDoubt: a keeper has been on its way to the commit point for too long.
            BadLaunchKey: the key is not fit for the name of a folder.
        """
        await self._signal(key, signal.SIGTERM)
        with trio.move_on_after(grace_seconds):
            return await self.wait(key)
        pause = SHORTEST_POLL_SECONDS
        while True:
            # Again and again: one that is being killed may have started another meanwhile.
            await self._signal(key, signal.SIGKILL)
            with trio.move_on_after(pause):
                return await self.wait(key)
            pause = min(2 * pause, LONGEST_POLL_SECONDS)

    async def remove(self, key: str) -> None:
        """Delete the folder of a launch that is over, its output included.

        From then on nothing keeps the key from being launched again; only the log does.

        Raises:
            NotConcluded: something of it is alive, or what happened is not clear.
            BadLaunchKey: the key is not fit for the name of a folder.
        """
        await self._in_thread(LaunchFolder.of(self.spool, key).remove)

    async def keys(self) -> Sequence[str]:
        """Return the launch keys that have a folder, sorted."""
        return await self._in_thread(partial(spool.keys, self.spool))

    # --- inside --------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._threads)

    async def _look(self, key: str) -> Sight:
        return await self._in_thread(LaunchFolder.of(self.spool, key).look)

    async def _reap(self, key: str, process: subprocess.Popen[bytes], reaped: trio.Event) -> None:
        """Wait for a keeper of our own, so that it does not stay a zombie."""
        try:
            while process.poll() is None:
                if not await _until_it_ends(partial(os.pidfd_open, process.pid)):
                    await trio.sleep(LONGEST_POLL_SECONDS)
        finally:
            if process.returncode is None:
                # Outliving us is what it is for, and no reason for Popen to warn.
                process.returncode = 0
            reaped.set()
            if self._own[key] is reaped:
                del self._own[key]

    async def _until_a_process_ends(self, key: str, started: ExecRecord | None) -> bool:
        """Wait for the keeper, or else for the command; False if neither is there to wait for."""
        if (own := self._own.get(key)) is not None:
            await own.wait()
            return True
        if started is None or started.boot_id != keeper.boot_id():
            return False
        for process in (started.keeper, started.process):
            if await _until_it_ends(partial(procfs.open_process, process)):
                return True
        return False

    async def _signal(self, key: str, number: signal.Signals) -> None:
        if (await self._look(key)).started is None:
            await self.examine(key)  # which waits for a keeper on its way to the commit point
        folder = LaunchFolder.of(self.spool, key)
        await self._in_thread(partial(_signal_all, folder, number))


async def _converse(spawned: Spawned, order: bytes) -> bytes:
    """Give the keeper its order and return its report; empty if it died without one."""
    async with trio.lowlevel.FdStream(spawned.report) as report:
        async with trio.lowlevel.FdStream(spawned.order) as pipe:
            # A keeper that does not want the whole order says why in its report.
            with contextlib.suppress(trio.BrokenResourceError):
                await pipe.send_all(order)
        return b"".join([part async for part in report])


def _understand(report: bytes) -> Running:
    kind, _, record = report.partition(b"\n")
    if kind == keeper.EXEC.encode():
        return ExecRecord.parse(record).running
    if kind == keeper.REFUSED.encode():
        raise LaunchFailed(parse_reason(record))
    if kind == keeper.DOUBT.encode():
        raise LaunchInDoubt(parse_reason(record))
    raise LaunchInDoubt("the keeper went away before it told whether it had started the command")


def _lives(known: Running) -> bool:
    process = Process(known.pid, known.start_time)
    return known.boot_id == keeper.boot_id() and procfs.is_alive(process)


async def _wait_without_a_folder(sight: Sight, known: Running) -> Ended:
    process = Process(known.pid, known.start_time)
    while _lives(known):
        if not await _until_it_ends(partial(procfs.open_process, process)):
            await trio.sleep(LONGEST_POLL_SECONDS)
    return Ended(None, f"{sight.detail}, so nobody saw how it ended")


async def _until_it_ends(open_pidfd: Callable[[], int | None]) -> bool:
    """Wait for the end of a process; False if it has ended, or can't be waited for."""
    try:
        descriptor = open_pidfd()
    except OSError as error:
        logger.debug("no pidfd, so polling: %s", error)
        return False
    if descriptor is None:
        return False
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    return True


def _signal_all(folder: LaunchFolder, number: signal.Signals) -> None:
    started = folder.look().started
    if started is None:
        return
    leader: Process | None = started.process if started.boot_id == keeper.boot_id() else None
    locks = (folder.path / keeper.WORKER_LOCK, folder.path / keeper.OUTPUT)
    for process in list(procfs.members(leader, locks)):
        try:
            procfs.send_signal(process, number)
        except PermissionError:
            logger.warning(
                "process %d of launch %s runs as another user and can't be signalled",
                process.pid,
                folder.path.name,
            )
