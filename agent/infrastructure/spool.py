"""The spool: one folder for each launch key, and what the things in it prove.

The keeper writes the folder, `process` and the tools that only look (they need neither a lock nor
write permission) read it. The judgement is a table: `ROWS` says for every combination of locks
and records what it proves, `judge` finds the row, and a test walks all combinations.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

import attrs

from agent.infrastructure.keeper import (
    EXEC,
    EXIT,
    KEEPER_LOCK,
    OUTPUT,
    REFUSED,
    WORKER_LOCK,
    boot_id,
    is_locked,
    sync_folder,
    try_lock,
)
from agent.infrastructure.launcher import Ended, Evidence
from agent.infrastructure.procfs import is_alive
from agent.infrastructure.records import DamagedRecord, ExecRecord, parse_exit, parse_reason
from events.lifecycle import Verdict

_KEY: Final = re.compile(r"[a-z0-9]{1,64}")
_GARBAGE: Final = ".removed-"
_ID: Final = ".spool-id"


class BadLaunchKey(ValueError):
    """Not a launch key, and so not fit for the name of a folder."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"{key!r} is no launch key: lower-case letters and digits, at most 64")


class SpoolUnusable(Exception):
    """The spool's file system can't give what exactly-once launching needs."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"the spool {path} can't be used: {reason}")


class NotConcluded(Exception):
    """A launch folder can't be removed, because its launch is not over."""

    def __init__(self, key: str, reason: str) -> None:
        self.key, self.reason = key, reason
        super().__init__(f"the launch {key} is not over: {reason}")


class KeeperAlive(Exception):
    """Another keeper of the same key is alive, or an agent is starting one."""


# --- the table -----------------------------------------------------------------------------


class Committed(enum.Enum):
    """Whether there is an `exec` record, and of which boot of the host."""

    NO = "no"
    THIS_BOOT = "this boot"
    EARLIER_BOOT = "another boot"


@attrs.frozen
class Facts:
    """What is seen of one launch key.

    Attributes:
        keeper: somebody holds `keeper.lock`: a keeper lives, or is being started.
        worker: the command or something that it left running is alive: it holds `worker.lock`
            or the lock on `output.log`, or the process of the `exec` record lives.
        committed: there is an `exec` record.
        exited: there is an `exit` record.
        refused: there is a `refused` record.
        damaged: one of the records can't be understood.
    """

    keeper: bool
    worker: bool
    committed: Committed
    exited: bool
    refused: bool
    damaged: bool


@attrs.frozen
class Row:
    """One line of the table. None matches anything.

    Attributes:
        verdict: None where this will change by itself in a moment: look again.
        meaning: for people.
    """

    keeper: bool | None
    worker: bool | None
    committed: frozenset[Committed]
    exited: bool | None
    refused: bool | None
    verdict: Verdict | None
    meaning: str
    damaged: bool = False

    def matches(self, facts: Facts) -> bool:
        """Tell whether this row speaks of these facts."""
        return (
            self.damaged == facts.damaged
            and self.keeper in (None, facts.keeper)
            and self.worker in (None, facts.worker)
            and facts.committed in self.committed
            and self.exited in (None, facts.exited)
            and self.refused in (None, facts.refused)
        )


_NO: Final = frozenset({Committed.NO})
_NOW: Final = frozenset({Committed.THIS_BOOT})
_BEFORE: Final = frozenset({Committed.EARLIER_BOOT})
_YES: Final = _NOW | _BEFORE
_ANY: Final = _NO | _YES

# fmt: off
ROWS: Final[Sequence[Row]] = (
    # keeper worker exec    exit   refused  verdict             meaning
    Row(False, False, _NO,   False, False, Verdict.NEVER_RAN,
        "nothing was started, and no keeper is alive that could"),
    Row(False, True, _NO,    False, False, None,
        "the keeper died before the commit point; its child is about to find out"),
    Row(True, None, _NO,     False, False, None,
        "a keeper is on its way to the commit point"),
    Row(True, True, _NOW,    False, False, Verdict.RUNNING,
        "the command runs, and its keeper watches it"),
    Row(False, True, _NOW,   False, False, Verdict.RUNNING,
        "the command runs, but its keeper was killed"),
    Row(True, False, _NOW,   False, False, None,
        "the command has ended, and its keeper is writing down how"),
    Row(False, False, _NOW,  False, False, Verdict.LOST,
        "its keeper was killed, so nobody saw how it ended"),
    Row(None, False, _BEFORE, False, False, Verdict.LOST,
        "the host was rebooted"),
    Row(None, True, _BEFORE, False, False, Verdict.IMPOSSIBLE,
        "it was started in another boot of the host, and yet something holds its locks: "
        "do two hosts share this spool?"),
    Row(None, None, _YES,    True,  False, Verdict.FINISHED,
        "it has ended"),
    Row(None, False, _ANY,   False, True, Verdict.FINISHED,
        "it could not be executed"),
    Row(None, True, _ANY,    False, True, Verdict.IMPOSSIBLE,
        "it could not be executed, and yet something holds its locks"),
    Row(None, None, _NO,     True,  False, Verdict.IMPOSSIBLE,
        "there is an exit record, but no exec record"),
    Row(None, None, _ANY,    True,  True, Verdict.IMPOSSIBLE,
        "there are both an exit record and a refused record"),
    Row(None, None, _ANY,    None,  None, Verdict.IMPOSSIBLE,
        "a record is damaged", damaged=True),
)
# fmt: on


def judge(facts: Facts) -> Row:
    """Return the one row of the table that speaks of these facts."""
    (row,) = (row for row in ROWS if row.matches(facts))
    return row


# --- what is in a folder -------------------------------------------------------------------


@attrs.frozen
class Sight:
    """One look at a launch folder.

    Attributes:
        exists: there is a folder.
        row: what the facts prove.
        started: the `exec` record.
        exit_code: of the `exit` record.
        refusal: the reason in the `refused` record.
        damage: what is wrong with a record.
    """

    key: str
    exists: bool
    facts: Facts
    row: Row
    started: ExecRecord | None = None
    exit_code: int | None = None
    refusal: str | None = None
    damage: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is alive, or will be."""
        return self.row.verdict is not None and not self.facts.worker

    @property
    def detail(self) -> str:
        """What was seen, for people."""
        if not self.exists:
            return f"there is no launch folder {self.key} in the spool"
        return self.damage or self.refusal or self.row.meaning

    @property
    def ended(self) -> Ended:
        """How it ended, as far as this look can tell."""
        if self.row.verdict is Verdict.FINISHED and self.refusal is None:
            return Ended(self.exit_code)
        return Ended(None, self.detail)

    @property
    def evidence(self) -> Evidence | None:
        """What it proves, in the words of the contract; None if it is to be looked at again."""
        verdict = self.row.verdict
        if verdict is None:
            return None
        # What was refused never was anybody, also where the refusal came after the commit point.
        started = self.started if self.refusal is None else None
        over = verdict in (Verdict.FINISHED, Verdict.LOST)
        return Evidence(
            verdict,
            running=started.running if started else None,
            ended=self.ended if over else None,
            detail=self.detail,
        )


@attrs.frozen
class LaunchFolder:
    """Where everything about one launch key is."""

    path: Path

    @classmethod
    def of(cls, spool: Path, key: str) -> LaunchFolder:
        """Return the folder of a key, which need not exist.

        Raises:
            BadLaunchKey: the key could lead elsewhere.
        """
        if not _KEY.fullmatch(key):
            raise BadLaunchKey(key)
        return cls(spool / key)

    @property
    def output(self) -> Path:
        """What the command wrote."""
        return self.path / OUTPUT

    def lock(self) -> int:
        """Make the folder if there is none and take its keeper's lock; return the descriptor.

        Raises:
            KeeperAlive: somebody else holds it.
        """
        while True:
            self.path.mkdir(0o700, exist_ok=True)
            lock = self.path / KEEPER_LOCK
            try:
                descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:
                continue  # the folder was removed meanwhile
            if not try_lock(descriptor):
                os.close(descriptor)
                raise KeeperAlive
            if _is_at(descriptor, lock):
                return descriptor
            # The folder was removed between the two steps: this lock guards nothing.
            os.close(descriptor)

    def look(self, *, locked_by_us: bool = False) -> Sight:
        """Look at locks and records, without touching them.

        The order matters. Only a keeper writes records, so once its lock is seen free they stay
        as they are, and the worker's lock, seen last, can only have become free.
        """
        exists = self.path.exists()
        keeper = not locked_by_us and _held(self.path / KEEPER_LOCK)
        started: ExecRecord | None = None
        exit_code: int | None = None
        refusal: str | None = None
        damage: str | None = None
        try:
            if data := self._read(EXEC):
                started = ExecRecord.parse(data)
            if data := self._read(EXIT):
                exit_code = parse_exit(data)
            if data := self._read(REFUSED):
                refusal = parse_reason(data)
        except DamagedRecord as error:
            damage = str(error)
        facts = Facts(
            keeper=keeper,
            worker=self._worker_lives(started),
            committed=_boot_of(started),
            exited=exit_code is not None,
            refused=refusal is not None,
            damaged=damage is not None,
        )
        row = judge(facts)
        return Sight(self.path.name, exists, facts, row, started, exit_code, refusal, damage)

    def _read(self, name: str) -> bytes | None:
        """Return a record; an empty file is no record of ours, and so a newline: damaged."""
        try:
            return (self.path / name).read_bytes() or b"\n"
        except FileNotFoundError:
            return None

    def _worker_lives(self, started: ExecRecord | None) -> bool:
        if _held(self.path / WORKER_LOCK) or _held(self.path / OUTPUT):
            return True
        # A command that closes every descriptor holds no lock any more, and is alive all the same.
        return started is not None and started.boot_id == boot_id() and is_alive(started.process)

    def remove(self) -> None:
        """Delete the folder of a launch that is over. That there is none is fine.

        Raises:
            NotConcluded: something of it is alive, or what happened is not clear.
        """
        key = self.path.name
        if not self.path.exists():
            return
        try:
            descriptor = self.lock()
        except KeeperAlive:
            raise NotConcluded(key, "its keeper is alive") from None
        try:
            sight = self.look(locked_by_us=True)
            if not sight.is_over or sight.row.verdict is Verdict.IMPOSSIBLE:
                raise NotConcluded(key, sight.detail)
            # At one stroke, so that a half-deleted folder never tells half the truth.
            garbage = self.path.with_name(f"{_GARBAGE}{key}-{os.getpid()}")
            self.path.rename(garbage)
            shutil.rmtree(garbage)
        finally:
            os.close(descriptor)


def _held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return is_locked(descriptor)
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _boot_of(started: ExecRecord | None) -> Committed:
    if started is None:
        return Committed.NO
    return Committed.THIS_BOOT if started.boot_id == boot_id() else Committed.EARLIER_BOOT


# --- the spool itself ----------------------------------------------------------------------


def prepare(spool: Path) -> tuple[Path, str]:
    """Make the spool, make sure that its file system's locks hold.

    Returns:
        Its absolute path, and its id: what was launched from another spool has no evidence here.

    Raises:
        SpoolUnusable: it can't be made, or two descriptors can lock the same file.
    """
    spool = spool.absolute()
    try:
        spool.mkdir(0o700, parents=True, exist_ok=True)
        spool.chmod(0o700)
        sync_folder(str(spool.parent))
        for garbage in spool.glob(f"{_GARBAGE}*"):
            # Another agent may be sweeping too.
            shutil.rmtree(garbage, ignore_errors=True)
        conflict = _locks_conflict(spool)
        spool_id = _read_or_make_id(spool)
    except OSError as error:
        raise SpoolUnusable(spool, f"{error.strerror} ({error.filename or spool})") from error
    if not conflict:
        raise SpoolUnusable(spool, "its file system lets two at once lock a file; use a local one")
    return spool, spool_id


def _read_or_make_id(spool: Path) -> str:
    path = spool / _ID
    if not path.exists():
        partial = spool / f"{_ID}.{os.getpid()}"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, f"{uuid4()}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # Another agent may be making it too: the first one counts.
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
        partial.unlink()
        sync_folder(str(spool))
    return path.read_text().strip()


def _locks_conflict(folder: Path) -> bool:
    with tempfile.TemporaryFile(dir=folder) as file:
        first = file.fileno()
        # The file has no name, so that nothing is left of it if we are killed.
        second = os.open(f"/proc/self/fd/{first}", os.O_RDWR)
        try:
            return try_lock(first) and is_locked(second) and not try_lock(second)
        finally:
            os.close(second)


def keys(spool: Path) -> Sequence[str]:
    """Return the launch keys that have a folder, sorted."""
    with os.scandir(spool) as entries:
        return sorted(e.name for e in entries if e.is_dir() and _KEY.fullmatch(e.name))
