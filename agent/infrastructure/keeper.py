"""The keeper: starts one command, outlives the agent, and writes down how the command ends.

`agent.infrastructure.process` runs this file as `python -I -S keeper.py FOLDER LOCK REPORT`, with
the order on its standard input; `spool` shares its names and reads what it writes. It never
imports our package, so an upgrade under way can't break it, and it imports only what is built
into the interpreter or nearly free, for there is one keeper for each running command (measured
on Python 3.11: 5 MB PSS as it is; `signal`, which imports `enum`, would add 0.8 MB and 3.5 ms,
`json` 1.2 MB and 6 ms, `typing` 8 ms).

Why a command starts at most once under a key, whoever is killed when:

1. The agent takes the lock of `keeper.lock` and lets the keeper inherit the descriptor. The
   kernel holds it from before the spawn until the keeper's death, so whoever finds it free knows
   that no keeper of this key is alive or on its way, and there is never more than one.
2. The order comes by a pipe. If the agent dies while it writes, the order is cut short and the
   keeper quits; nothing has happened.
3. The keeper forks a child that enters the working directory, finds the program, and waits at
   the gate, an inner pipe. When that pipe ends without a word, the child dies.
4. The keeper writes the `exec` record and syncs it, its folder, and the folder's entry in the
   spool. This is **the commit point**. A keeper that finds such a record goes no further.
5. Only then does it open the gate. So: no `exec` record, no command; and since the record is
   written under the lock and only if absent, at most one child of a key ever passes the gate.

After that the keeper waits and writes the `exit` record. What is sure never to run (no such
command, no such directory) gets a `refused` record instead, before or after the commit point, so
that a later agent says the same. A condition that may pass (a full disk, no more processes)
leaves no record before the commit point: the command never ran, and may be launched again.

The locks are those of open file descriptions (F_OFD_SETLK): like flock's they are inherited and
vanish with the last holder, but they can be looked at without being taken (F_OFD_GETLK), so
that somebody who only looks is never mistaken for a keeper or a command. The command inherits
two: on `worker.lock` by a descriptor of its own, and on `output.log` as its standard output and
error. The second is there because many programs (Python's `subprocess` among them) close all
other descriptors in what they start.

The keeper ignores the signals that ask a process to end. Its one job is to see how the command
ends, and it ends right after. When a service manager signals a whole group, the command gets its
own copy; who wants the command to stop signals the command, whose pid is in the `exec` record.
"""

import errno
import fcntl
import os
import struct
import sys
import time
from _signal import SIG_DFL, SIG_IGN, signal  # type: ignore[import-not-found]  # see above: cost

KEEPER_LOCK = "keeper.lock"
WORKER_LOCK = "worker.lock"
OUTPUT = "output.log"
EXEC = "exec"
EXIT = "exit"
REFUSED = "refused"
DOUBT = "doubt"
"""Only ever reported to the agent, never on disk: what happened is for the records to say."""
TEMPORARY_DIRECTORY = "work"

FORMAT = 1
"""Of the records. Lines of `name value`; a reader skips names that it does not know."""

# HUP, INT, QUIT, USR1, USR2, TERM: the keeper is deaf to them, the command is not.
_ENDING_SIGNALS = (1, 2, 3, 10, 12, 15)
# PIPE and XFSZ: Python itself starts with these ignored, and a command must not inherit that.
_PYTHON_IGNORES = (13, 25)

_READY = b"+"
_OPEN = b"!"
_LONGEST_PAUSE_SECONDS = 30.0
_COMMANDS_LOCK = 100
"""Where, or after which, the command finds the descriptor that holds `worker.lock`."""

# `typing` is too dear; mypy takes this name's word for it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn


class Refused(Exception):
    """The command can't be executed, and never will be under this key."""


class Doubt(Exception):
    """This keeper goes no further; the records tell what that means."""


class Order:
    """What the agent sent: all that is needed to run the command.

    Attributes:
        hostname: how the agent calls this host; part of the infrastructure pid.
        streams: whether the output is to be copied, also by a later agent.
        directory: absolute; empty for a temporary one in the launch folder.
    """

    def __init__(
        self,
        hostname: bytes,
        streams: bool,
        directory: bytes,
        command: "Sequence[bytes]",
        environment: "Mapping[bytes, bytes]",
    ) -> None:
        self.hostname = hostname
        self.streams = streams
        self.directory = directory
        self.command = command
        self.environment = environment


def pack_order(order: Order) -> bytes:
    """Return an order as bytes of which no proper beginning is an order.

    Nothing in an order can contain a NUL, so fields end with one; the first counts them all.

    Raises:
        ValueError: something in the order does contain a NUL, or a variable's name is unusable.
            The message holds no value.
    """
    if any(not name or b"=" in name for name in order.environment):
        raise ValueError("an environment variable's name is empty or contains '='")
    fields = [
        order.hostname,
        b"1" if order.streams else b"0",
        order.directory,
        b"%d" % len(order.command),
        *order.command,
        *(name + b"=" + value for name, value in order.environment.items()),
    ]
    if any(b"\0" in field for field in fields):
        raise ValueError("the command, its directory or its environment contains a NUL")
    return b"\0".join([b"%d" % len(fields), *fields, b""])


def unpack_order(data: bytes) -> Order | None:
    """Return the order, or None if it was cut short."""
    count, *fields = data.split(b"\0")
    if not count.isdigit() or len(fields) != int(count) + 1:
        return None
    hostname, streams, directory, arguments = fields[:4]
    end = 4 + int(arguments)
    environment = dict(field.split(b"=", 1) for field in fields[end:-1])
    return Order(hostname, streams == b"1", directory, fields[4:end], environment)


# --- what `spool` uses too -------------------------------------------------------------------


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file description, or return False if another one has it."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _whole_file())
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def is_locked(descriptor: int) -> bool:
    """Tell whether another open file description has the lock, without touching it."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _whole_file())
    return bool(struct.unpack("hhqqi", answer)[0] != fcntl.F_UNLCK)


def _whole_file() -> bytes:
    return struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def stat_fields(pid: int) -> "Sequence[bytes]":
    """Return a process's /proc stat from field 3 (its state) on; see proc(5).

    Raises:
        FileNotFoundError, ProcessLookupError: there is no such process.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        # Field 2, the name, is in parentheses and may itself contain spaces and parentheses.
        return file.read().rpartition(b")")[2].split()


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot (field 22)."""
    return int(stat_fields(pid)[19])


def boot_id() -> str:
    """Return the id of this boot of the host."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def write_record(name: str, fields: "Mapping[str, object]") -> bytes:
    """Make a record in the current folder durable: it is there wholly, or not at all."""
    text = os.fsencode("".join(f"{key} {value}\n" for key, value in fields.items()))
    with open(f"{name}.tmp", "wb", opener=_private) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{name}.tmp", name)
    sync_folder(".")
    return text


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- the keeper ------------------------------------------------------------------------------


def keep(order: Order, lock: int, report: int) -> None:
    """Start the command, tell the agent, and see the command to its end."""
    try:
        child, record = _start(order, (lock, report))
    except Refused as error:
        text = write_record(REFUSED, {"format": FORMAT, "reason": error})
        _tell(report, REFUSED, text)
        return
    except (Doubt, OSError) as error:
        _tell(report, DOUBT, os.fsencode(f"reason {error}\n"))
        return
    _tell(report, EXEC, record)
    _see_it_end(child)
    if not order.directory:
        _clear_temporary_directory()


def _start(order: Order, ours: "Sequence[int]") -> tuple[int, bytes]:
    for name in (EXEC, EXIT, REFUSED):
        if os.path.lexists(name):
            raise Doubt(f"this key was launched before: there is a record '{name}'")
    worker = _locked(WORKER_LOCK, os.O_RDWR)
    output = _locked(OUTPUT, os.O_WRONLY | os.O_APPEND)
    if not order.directory:
        os.makedirs(TEMPORARY_DIRECTORY, 0o700, exist_ok=True)
    gate, gatekeeper = os.pipe()
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        _become(order, gate, mouth, worker, output, forget=(*ours, gatekeeper, ear))
    for descriptor in (gate, mouth, worker, output):
        os.close(descriptor)
    try:
        _hear_ready(child, ear)
        record = _commit(order, child)
    except BaseException:
        os.close(gatekeeper)
        os.waitpid(child, 0)
        raise
    # If somebody has killed the child at the gate, the exit record will say by which signal.
    _say(gatekeeper, _OPEN)
    if failure := _read_all(ear):
        os.waitpid(child, 0)
        raise Refused(os.fsdecode(failure))
    os.close(ear)
    return child, record


def _locked(name: str, flags: int) -> int:
    descriptor = os.open(name, flags | os.O_CREAT, 0o600)
    if not try_lock(descriptor):
        raise Doubt(f"{name} is held, though nothing was started under this key")
    return descriptor


def _hear_ready(child: int, ear: int) -> None:
    said = os.read(ear, 4096)
    if not said:
        raise Doubt(f"the child {child} died before it was ready")
    if said != _READY:
        raise Refused(os.fsdecode(said))


def _commit(order: Order, child: int) -> bytes:
    """Pass the commit point."""
    # First, so that a power failure can't take the folder after the command was started.
    sync_folder("..")
    return write_record(
        EXEC,
        {
            "format": FORMAT,
            "pid": child,
            "start_time": start_time(child),
            "boot_id": boot_id(),
            "keeper_pid": os.getpid(),
            "keeper_start_time": start_time(os.getpid()),
            "hostname": os.fsdecode(order.hostname),
            "stream_output": int(order.streams),
            "started_at": f"{time.time():.3f}",
        },
    )


def _tell(report: int, kind: str, text: bytes) -> None:
    # If the agent is gone: what it would have been told is on disk or has not happened.
    _say(report, kind.encode() + b"\n" + text)


def _say(descriptor: int, words: bytes) -> None:
    """Write the one thing there is to say and close; that nobody listens any more is no error."""
    try:
        os.write(descriptor, words)
    except BrokenPipeError:
        return
    finally:
        os.close(descriptor)


def _see_it_end(child: int) -> None:
    _, status, used = os.wait4(child, 0)
    record = {
        "format": FORMAT,
        "exit_code": os.waitstatus_to_exitcode(status),
        "ended_at": f"{time.time():.3f}",
        "user_seconds": f"{used.ru_utime:.3f}",
        "system_seconds": f"{used.ru_stime:.3f}",
        "max_rss_kib": used.ru_maxrss,
    }
    pause = 1.0
    while True:
        try:
            write_record(EXIT, record)
        except FileNotFoundError:
            # Somebody deleted the launch folder; there is nobody left to tell.
            return
        except OSError as error:
            # A full disk may get room. Until then the held lock says that this is not over.
            print(f"pluperfect keeper: the exit record must wait: {error}", file=sys.stderr)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        else:
            break


def _clear_temporary_directory() -> None:
    """Remove what the command worked in, unless it failed: then somebody may want to look.

    What is kept goes with the launch folder, when that is removed.
    """
    with open(EXIT, "rb") as file:
        if b"exit_code 0\n" not in file.readlines():
            return
    try:
        _remove_tree(TEMPORARY_DIRECTORY)
    except OSError:
        # A descendant still writes there, or made it unreadable; it goes with the folder.
        return


def _remove_tree(path: str) -> None:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_tree(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(path)


# --- the child -------------------------------------------------------------------------------


def _become(
    order: Order, gate: int, mouth: int, worker: int, output: int, *, forget: "Sequence[int]"
) -> "NoReturn":
    """Become the command, once the gate opens. A failure is told by `mouth`, which exec closes."""
    try:
        # A session of its own: it can be signalled as a whole without the keeper.
        os.setsid()
        for number in (*_ENDING_SIGNALS, *_PYTHON_IGNORES):
            signal(number, SIG_DFL)
        for descriptor in forget:
            os.close(descriptor)
        os.dup2(output, 1)
        os.dup2(output, 2)
        enter(order.directory or os.fsencode(TEMPORARY_DIRECTORY))
        program = find(order.command[0], order.environment.get(b"PATH"))
        os.write(mouth, _READY)
        if os.read(gate, 1) == _OPEN:
            # Out of the way of scripts that use low numbers for themselves (`exec 3>file`).
            fcntl.fcntl(worker, fcntl.F_DUPFD, _COMMANDS_LOCK)
            execute(program, order.command, order.environment)
    except Exception as error:
        # Whatever it is, the keeper's own code must not go on in the child.
        os.write(mouth, os.fsencode(str(error) or type(error).__name__)[:4000])
    finally:
        os._exit(127)


def enter(directory: bytes) -> None:
    """Change to the working directory.

    Raises:
        Refused: it does not exist, is not a directory, or can't be entered.
    """
    try:
        os.chdir(directory)
    except FileNotFoundError:
        raise Refused(f"working directory {_quote(directory)} does not exist") from None
    except NotADirectoryError:
        raise Refused(f"working directory {_quote(directory)} is not a directory") from None
    except OSError as error:
        why = error.strerror
        raise Refused(f"working directory {_quote(directory)} can't be entered: {why}") from None


def find(name: bytes, path: bytes | None) -> bytes:
    """Return the program to execute, looked up as execvp(3) does, in the job's own PATH.

    Raises:
        Refused: there is none, or it is not executable.
    """
    if b"/" in name:
        candidates = [name]
    else:
        folders = os.fsencode(os.defpath) if path is None else path
        # An empty entry in a PATH is the working directory.
        candidates = [(folder or b".") + b"/" + name for folder in folders.split(b":")]
    not_executable = None
    for candidate in candidates:
        if os.path.isdir(candidate) or not os.path.exists(candidate):
            continue
        if os.access(candidate, os.X_OK):
            return candidate
        not_executable = not_executable or candidate
    if not_executable is not None:
        raise Refused(f"not executable: {_quote(not_executable)}")
    if b"/" in name and os.path.isdir(name):
        raise Refused(f"not executable: {_quote(name)} is a directory")
    raise Refused(f"command not found: {_quote(name)}")


def execute(
    program: bytes, command: "Sequence[bytes]", environment: "Mapping[bytes, bytes]"
) -> None:
    """Replace this process by the program.

    Raises:
        Refused: the kernel would not.
    """
    try:
        os.execve(program, list(command), environment)  # noqa: S606 - no shell is the point
    except FileNotFoundError:
        # The file itself was found a moment ago.
        raise Refused(f"the interpreter that {_quote(program)} names was not found") from None
    except OSError as error:
        raise Refused(f"{_quote(program)} can't be executed: {error.strerror}") from None


def _quote(name: bytes) -> str:
    return repr(os.fsdecode(name))


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 65536):
        parts.append(part)
    return b"".join(parts)


def main() -> None:
    """Keep one command; the arguments are described above."""
    _, _folder, lock, report = sys.argv
    for number in _ENDING_SIGNALS:
        signal(number, SIG_IGN)
    for descriptor in (int(lock), int(report)):
        os.set_inheritable(descriptor, False)
    order = unpack_order(_read_all(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    if order is None:
        _tell(int(report), DOUBT, b"reason the order was cut short\n")
        return
    keep(order, int(lock), int(report))


if __name__ == "__main__":
    main()
