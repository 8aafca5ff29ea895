"""`python -m replay run` as a person runs it: on sound logs, edited ones, and at the debugger."""

from __future__ import annotations

import gzip
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from events.log import Record
from events.sqlite import SqliteStore
from tests.integration import test_status
from tests.integration.test_status import Scene, commands
from tests.samples.edited import altered, first, rewrite
from tests.samples.make_sample import (
    Recorder,
    Run,
    SettableClock,
    launching_with_a_wait,
    tell_everything,
)

scene = test_status.scene

ROOT = Path(__file__).parents[2]
LYNX = Run("quiet-lynx")

NIGHT = (
    "quiet-lynx",
    "brave-toad",
    "nightly-report",
    "shy-heron",
    "ancient-otter/1",
    "slow-mole",
    "patient-crane",
    "lucky-newt",
    "hungry-bear",
    "ancient-otter/2",
    "große-日本-run",
    "unlucky-ant",
)
"""Every submission that the sample log tells of."""

Finished = subprocess.CompletedProcess[str]


def replay(*arguments: object, given: str = "", **environment: str) -> Finished:
    """Run a command; whatever it prints, it never prints a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "replay", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"TZ": "UTC"} | environment,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def told(status: int, *arguments: object, **about: str) -> str:
    done = replay("run", *arguments, **about)
    assert (done.returncode, done.stderr) == (status, "")
    return done.stdout


def refused(status: int, *arguments: object) -> str:
    done = replay("run", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that tells every story there is. Not to be changed."""
    path = tmp_path_factory.mktemp("state") / "events.sqlite"
    clock = SettableClock()
    store = SqliteStore.open(path, clock)
    tell_everything(Recorder(store, clock))
    store.close()
    return path


@pytest.fixture
def log(night: Path, tmp_path: Path) -> Path:
    """A copy of that log, to be changed."""
    return Path(shutil.copy(night, tmp_path / "copy.sqlite"))


# --- the same ----------------------------------------------------------------------------------


@pytest.mark.parametrize("run", NIGHT)
def test_every_submission_of_a_night_is_lived_again_to_the_same_events(
    night: Path, run: str
) -> None:
    found = json.loads(told(0, "--json", night, run))

    recorded = json.loads(replay("show", "--json", night, run).stdout)["steps"]
    assert found["same"]
    assert [step["position"] for step in found["steps"]] == [s["position"] for s in recorded]
    assert all(step["same"] and step["now"] is None for step in found["steps"])


def test_it_tells_each_step_in_a_line_and_what_was_not_compared(night: Path) -> None:
    lines = told(0, night, "quiet-lynx").splitlines()

    assert lines[0] == f"quiet-lynx  {LYNX.stream}  queue default"
    assert lines[1] == (
        "the code of pluperfect 0.1.0 lives it again: recorded answers, virtual time"
    )
    steps = lines[3:19]
    assert [line.split()[0] for line in steps[:4]] == ["3", "4", "5", "6"]
    assert all(" same " in line for line in steps)
    assert " ".join(steps[3].split()) == (
        "6 02:00:01.034 +34 ms same ProposalAnswered ACCEPT · the run is PENDING"
    )
    assert lines[20].startswith("same  16 events appended again, 12.0 s of the agent's time in ")
    assert lines[21].strip() == (
        "2 values of environment variables are not in the log: placeholders stood in, and only"
        " names were compared"
    )


def test_an_error_that_no_answer_leads_to_is_marked_and_counted(night: Path) -> None:
    lines = told(0, night, "brave-toad").splitlines()

    (resolution,) = [line for line in lines if "ResolutionFailed" in line]
    assert resolution.endswith("use the agent's default (handed over as recorded)")
    assert "1 error handed over as recorded: no answer of a server or launcher is" in lines[-1]


def test_an_open_submission_is_lived_up_to_its_end(night: Path) -> None:
    ant = told(0, night, "unlucky-ant")
    watched = json.loads(told(0, "--json", night, "große-日本-run"))

    assert "the record ends here, before the daemon is to examine the evidence of the launch" in ant
    assert (watched["open"], watched["owed"]) == (True, ["watch"])


def test_hours_of_waiting_take_no_time_and_are_told(tmp_path: Path) -> None:
    """The wait of one run is put a day later; the test would not end if it were waited for."""
    clock, path = SettableClock(), tmp_path / "events.sqlite"
    store, run = SqliteStore.open(path, clock), Run("unlucky-ant")
    recorder = Recorder(store, clock)
    for number, (_seconds, _run, seen) in enumerate(launching_with_a_wait(run, 0.0)):
        clock.seconds = number * 86_400.0
        recorder.observe(run.stream, seen)
    store.close()

    assert "same  12 events appended again, 4 d 00 h of the agent's time" in told(0, path, run.name)


def test_an_archive_is_lived_again_like_the_log_it_came_from(night: Path, tmp_path: Path) -> None:
    archive = tmp_path / "night.sqlite.gz"
    archive.write_bytes(gzip.compress(night.read_bytes()))

    assert json.loads(told(0, "--json", archive, "lucky-newt"))["lives"] == 2


def test_what_a_real_agent_wrote_before_and_after_its_death_is_lived_again(scene: Scene) -> None:
    """On real clocks, with a real process, and while the second agent has the log open."""
    scene.schedule(name="brave-otter", exit_code=7)
    scene.agent.start()
    scene.until(lambda found: commands(found) == ["alive"])
    running = json.loads(told(0, "--json", scene.state, "brave-otter"))

    scene.agent.end(signal.SIGKILL)
    scene.agent.start()
    scene.let_go()
    scene.until(lambda found: found["agent"]["alive"] and not found["submissions"])
    ended = json.loads(told(0, "--json", scene.state, "brave-otter"))

    assert (running["open"], running["lives"]) == (True, 1)
    assert (ended["open"], ended["lives"], ended["stood_in"]) == (False, 2, 0)
    assert {"EvidenceFound", "OutcomeProposed"} <= {step["type"] for step in ended["steps"]}


# --- different ---------------------------------------------------------------------------------


def test_an_altered_decision_is_shown_with_its_field_and_ends_it(log: Path) -> None:
    rewrite(log, altered("LaunchConfirmed", pid=1), rechain=True)

    lines = told(1, log, "quiet-lynx").splitlines()

    at = lines.index("different at position 23 (LaunchConfirmed, version 10)")
    assert lines[at - 2].split() == ["23", "OTHER", "└", "LaunchConfirmed", "runs", "as", "batch-7:5001"]  # fmt: skip # noqa: E501
    assert [line.strip() for line in lines[at + 1 : at + 6]] == [
        "the daemon decides it otherwise",
        "$.pid",
        "recorded  1",
        "now       5001",
        "the 6 events that follow were not compared",
    ]


def test_a_difference_is_told_to_machines(log: Path) -> None:
    rewrite(log, altered("LaunchRequested", name="x\x1b[31m"), rechain=True)

    found = json.loads(told(1, "--json", log, "quiet-lynx"))

    assert (found["same"], found["events"]) == (False, 7)
    assert found["steps"][-1]["now"]["name"] == "quiet-lynx"
    assert found["divergence"] == {
        "problem": "the daemon decides it otherwise",
        "position": 19,
        "version": 8,
        "type": "LaunchRequested",
        "fields": [{"path": "$.name", "recorded": "x\x1b[31m", "now": "quiet-lynx"}],
    }
    assert "'x\\x1b[31m'" in told(1, log, "quiet-lynx").replace("\\\\", "\\")


def test_a_wait_that_is_too_short_in_the_record_is_found(log: Path) -> None:
    """After 164 the log says that it waited 1 s; the stamps now say 550 ms."""

    def earlier(records: list[Record]) -> list[Record]:
        return [
            attrs.evolve(r, monotonic_ns=r.monotonic_ns - 500_000_000)
            if 164 <= r.position <= 170 else r for r in records
        ]  # fmt: skip

    rewrite(log, earlier, rechain=True)

    said = told(1, log, "hungry-bear")
    assert "different at position 164 (RequestFailed, version 19)" in said
    assert "the daemon asks 450 ms after the time at which it was answered" in said


def test_an_observation_that_is_missing_is_shown_as_what_the_daemon_wants(log: Path) -> None:
    def without(records: list[Record]) -> list[Record]:
        lynx = [r for r in records if r.stream == LYNX.stream]
        kept = [r for r in lynx if r.type not in ("CommandStarted", "LaunchConfirmed")]
        causes = {r.version: number for number, r in enumerate(kept, 1)}
        return [
            attrs.evolve(r, position=number, version=number, cause=causes.get(r.cause or 0))
            for number, r in enumerate(kept, 1)
        ]

    rewrite(log, without, rechain=True)

    lines = told(1, log, "quiet-lynx").splitlines()
    at = lines.index("different at position 9 (PidAcknowledged, version 9)")
    assert lines[at + 1] == "  here the daemon wants to launch it"


PLANTED = """
import sys
from replay.cli import main
from tests.simulation.mutants import owes_nothing_for_a_command_that_never_was_running
with owes_nothing_for_a_command_that_never_was_running():
    main(sys.argv[1:])
"""


def test_a_daemon_that_has_become_another_is_found_out(night: Path) -> None:
    command = [sys.executable, "-c", PLANTED, "run", "--json", str(night), "ancient-otter/1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    fields = json.loads(done.stdout)["divergence"]["fields"]
    assert fields == [{"path": "type", "recorded": "OutcomeProposed", "now": "OutcomeSettled"}]


# --- at the debugger ---------------------------------------------------------------------------

STACKS = """
import json, os, sys

def record():
    frame, stack = sys._getframe(1), []
    recorded = frame.f_locals["recorded"]
    while frame:
        stack.append([frame.f_globals["__name__"], frame.f_code.co_name])
        frame = frame.f_back
    with open(os.environ["STACKS"], "a") as file:
        print(json.dumps([recorded.record.position, stack]), file=file)
"""


def stacks_at(event: str, log: Path, run: str, folder: Path) -> list[tuple[int, Sequence[str]]]:
    """Return where the debugger was called: before which position, and the frames from there."""
    (folder / "stacks.py").write_text(STACKS)
    out = folder / "stacks.jsonl"
    out.unlink(missing_ok=True)
    told(0, "--break-at", event, log, run, PYTHONBREAKPOINT="stacks.record",
         PYTHONPATH=str(folder), STACKS=str(out))  # fmt: skip
    found = [json.loads(line) for line in out.read_text().splitlines()]
    return [(at, [f"{module}.{name}" for module, name in stack]) for at, stack in found]


@pytest.mark.parametrize(
    ("event", "position", "code"),
    [
        ("ProposalAnswered", 6, "_propose_pending"),
        ("InfrastructureResolved", 18, "_resolve"),
        ("v9", 22, "_launch"),
        ("24", 24, "_report_pid"),
        ("CommandEnded", 65, "_watch"),
        ("RunRead", 67, "_read_run"),
        ("RunOffered", 3, "observe"),
        ("LaunchConfirmed", 23, "observe"),
    ],
)
def test_the_debugger_is_called_once_with_the_daemons_own_code_three_frames_up(
    night: Path, tmp_path: Path, event: str, position: int, code: str
) -> None:
    ((at, frames),) = stacks_at(event, night, "quiet-lynx", tmp_path)

    assert at == position
    assert frames[3] == f"agent.submission.{code}"


@pytest.mark.parametrize(
    ("event", "position", "code"),
    [("AgentRestarted", 107, "observe"), ("EvidenceFound", 109, "_examine")],
)
def test_the_debugger_is_called_in_the_life_of_a_later_agent(
    night: Path, tmp_path: Path, event: str, position: int, code: str
) -> None:
    ((at, frames),) = stacks_at(event, night, "lucky-newt", tmp_path)

    assert (at, frames[3]) == (position, f"agent.submission.{code}")


def test_pdb_shows_the_daemons_code_and_goes_on(night: Path) -> None:
    commands = "up 3\nwhere\np claim.transition_id\nc\n"

    said = told(0, "--break-at", "v4", night, "quiet-lynx", given=commands)

    before, _, after = said.partition("(Pdb) ")
    assert before.splitlines()[-3].startswith("the debugger: `up 3` is the daemon's code")
    assert "next  ProposalAnswered" in before
    assert "agent/submission.py" in after
    assert "-> answer = await self.world.server.set_state(" in after
    assert f"UUID('{LYNX.transition_id}')" in after
    assert "same  16 events appended again" in after


@pytest.mark.parametrize("commands", ["q\n", "up 3\nq\n", "r\nr\nr\nn\nq\n"])
@pytest.mark.parametrize("event", ["ProposalAnswered", "PendingAccepted", "RunDiscovered"])
def test_leaving_the_debugger_ends_it_without_a_verdict(
    night: Path, commands: str, event: str
) -> None:
    said = told(1, "--break-at", event, night, "quiet-lynx", given=commands)

    assert "left  the debugger ended it after" in said
    assert "different" not in said


def test_pdb_works_at_a_terminal(night: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "replay", "run", "--break-at", "v4", str(night), "quiet-lynx"],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"},
    ) as process:
        os.close(theirs)
        said, answered = b"", 0
        while True:
            try:
                said += os.read(ours, 4096)
            except OSError:
                break  # its end of the terminal is closed
            for command in (b"up 3\n", b"p effect\n", b"c\n")[answered:]:
                if said.count(b"(Pdb) ") > answered:
                    answered += 1
                    os.write(ours, command)
    os.close(ours)

    assert process.returncode == 0
    assert b"_propose_pending()" in said
    assert b"same  16 events appended again" in said


# --- what can't be executed --------------------------------------------------------------------


def test_a_break_at_something_that_is_not_there_is_refused(night: Path) -> None:
    said = refused(2, "--break-at", "LaunchVoided", night, "quiet-lynx")

    assert "has no event 'LaunchVoided'; it has positions 3 to 68, versions v1 to v16, and" in said


def test_the_agents_own_notices_are_no_submission(night: Path) -> None:
    assert "no submission that could be executed" in refused(2, night, "agent")


def test_an_event_of_a_newer_release_is_named_in_a_line(log: Path) -> None:
    def newer(records: list[Record]) -> list[Record]:
        target = next(r for r in records if r.type == "CommandEnded" and r.stream == LYNX.stream)
        return [attrs.evolve(r, schema=2) if r is target else r for r in records]

    rewrite(log, newer, rechain=True)

    said = refused(3, log, "quiet-lynx")
    assert "position 65 holds CommandEnded of schema 2, with which nothing can be executed:" in said
    assert "use a newer one" in said
    assert told(0, log, "brave-toad")


def test_an_unknown_event_can_not_write_to_the_terminal(log: Path) -> None:
    def unknown(records: list[Record]) -> list[Record]:
        target = first(records, "CommandEnded")
        return [attrs.evolve(r, type="Q\x07") if r is target else r for r in records]

    rewrite(log, unknown, rechain=True)

    assert "holds Q\\x07 of schema 1" in refused(3, log, "ancient-otter/1")


def test_a_stream_that_begins_in_its_middle_is_refused(log: Path) -> None:
    def beheaded(records: list[Record]) -> list[Record]:
        lynx = [r for r in records if r.stream == LYNX.stream][3:]
        return [attrs.evolve(r, position=n, version=n, cause=None) for n, r in enumerate(lynx, 1)]

    rewrite(log, beheaded, rechain=True)

    said = refused(3, log, LYNX.stream)
    assert "a submission begins with RunOffered and RunDiscovered, and this stream with" in said
