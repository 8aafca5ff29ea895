"""`python -m replay` as a person runs it, on logs that the real decider and store have written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest

from events.log import Record
from events.sqlite import SqliteStore
from tests.samples.edited import altered, first, rewrite
from tests.samples.make_sample import Recorder, Run, SettableClock, tell_everything

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "tests" / "samples" / "v0.1.0.sqlite"
LYNX, TOAD, OTTER = Run("quiet-lynx"), Run("brave-toad"), Run("ancient-otter")

Finished = subprocess.CompletedProcess[str]


def replay(*arguments: object, **environment: str) -> Finished:
    """Run a command; whatever it prints, it never prints a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "replay", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"TZ": "UTC"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    return done


def good(*arguments: object, **environment: str) -> str:
    done = replay(*arguments, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(status: int, *arguments: object) -> str:
    done = replay(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    return done.stderr


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory whose log tells every story there is. Not to be changed."""
    state = tmp_path_factory.mktemp("state")
    clock = SettableClock()
    store = SqliteStore.open(state / "events.sqlite", clock)
    tell_everything(Recorder(store, clock))
    store.close()
    return state


@pytest.fixture
def log(night: Path, tmp_path: Path) -> Path:
    """A copy of that log, to be changed."""
    return Path(shutil.copy(night / "events.sqlite", tmp_path / "copy.sqlite"))


# --- list ------------------------------------------------------------------------------------


def test_list_tells_each_submission_in_one_line_newest_first(night: Path) -> None:
    heading, *lines = good("list", night).splitlines()

    assert heading.split() == ["BEGAN", "RUN", "ID", "QUEUE", "TOOK", "STATE"]
    expected = [
        ("quiet-lynx", "exited     exit 0 · run COMPLETED"),
        ("brave-toad", "or give it none to use the agent's default"),
        ("nightly-report", "failed     to launch: no such command: /opt/flows/bin/nightly"),
        ("shy-heron", "cannot transition to a PENDING state."),
        ("ancient-otter", "exited     exit 0 · reported Crashed"),
        ("slow-mole", "exited     exit 0 · run COMPLETED"),
        ("patient-crane", "exited     exit 0 · run COMPLETED"),
        ("lucky-newt", "exited     exit 0 · run COMPLETED"),
        ("hungry-bear", "exited     killed by SIGKILL · reported Crashed"),
        ("ancient-otter/2", "exited     exit 0 · run COMPLETED"),
        ("große-日本-run", "started    runs as batch-7:5007"),
        ("unlucky-ant", "(the spool can't be read: Input/output error)"),
    ]
    for line, (name, ending) in zip(lines, reversed(expected), strict=False):
        assert line.split()[2] == name
        assert line.endswith(ending)
    assert lines[len(expected) :] == [
        "",
        "12 submissions of 11 runs: 5 exited well, 2 exited badly, 2 never launched, 2 open,"
        " 1 not ours   times: UTC",
    ]


def test_list_takes_the_log_as_well_as_the_folder_that_holds_it(night: Path) -> None:
    assert good("list", night / "events.sqlite") == good("list", night)


def test_list_shows_times_in_the_zone_of_the_reader(night: Path) -> None:
    told = good("list", night, TZ="Asia/Kolkata")

    assert "2026-11-24 07:30:01  quiet-lynx" in told
    assert told.endswith("times: IST (UTC+0530)\n")


def test_list_for_machines_prints_an_object_a_line(night: Path) -> None:
    objects = [json.loads(line) for line in good("list", "--json", night).splitlines()]

    by_stream = {each["stream"]: each for each in objects}
    assert len(by_stream) == 12
    toad = by_stream[TOAD.stream]
    assert (toad["run_name"], toad["state"], toad["open"]) == ("brave-toad", "failed", False)
    assert toad["began"] == "2026-11-24T02:00:01.100000+00:00"
    ant = by_stream[Run("unlucky-ant").stream]
    assert (ant["owed"], ant["deferred"]["delay_seconds"]) == (["examine"], 2.0)
    assert by_stream[Run("lucky-newt").stream]["recoveries"] == 1


# --- show ------------------------------------------------------------------------------------


def test_show_tells_why_a_run_failed_and_each_step_to_it(night: Path) -> None:
    lines = good("show", night, "brave-toad").splitlines()

    assert lines[0] == f"brave-toad  {TOAD.stream}  queue default"
    assert lines[1].startswith("FAILED  to resolve: the deployment's infrastructure document")
    assert lines[2] == (
        "2026-11-24 02:00:01.100, closed after 121 ms:"
        " discovered 31 ms, resolving 59 ms, failed 31 ms"
    )
    steps = [line for line in lines[5:] if line.split() and line.split()[0].isdigit()]
    assert [int(line.split()[0]) for line in steps] == [9, 10, 11, 12, 13, 14, 15, 16, 17, 20, 21]
    assert "02:00:01.131     +31 ms              ProposalAnswered         ACCEPT" in steps[3]
    assert steps[4].split() == ["13", "PENDING", "└", "PendingAccepted", "it", "is", "ours"]
    assert steps[7].split() == ["16", "FAILED", "└", "SubmissionFailed", "to", "resolve:", "…"]
    assert lines[-2:] == ["closed: nothing is owed", "times: UTC"]


def test_show_tells_what_is_owed_and_what_it_waits_for(night: Path) -> None:
    lines = good("show", night, "unlucky-ant").splitlines()

    assert lines[1].startswith("LAUNCHING")
    assert lines[-2] == (
        "owed  to examine the evidence of the launch after a wait of 2.00 s (the spool can't be"
        " read: Input/output error)"
    )


def test_show_tells_of_the_agent_that_took_over(night: Path) -> None:
    told = good("show", night, "lucky-newt")

    assert "taken over by a new agent once · launch found not to have happened once" in told
    assert "the agent before is gone · now pluperfect 0.1.0, process 4002 on batch-7" in told
    assert "never ran · no exec record, and both locks are free" in told


@pytest.mark.parametrize(
    "run",
    [
        str(OTTER.flow_run_id) + "/2",
        str(OTTER.flow_run_id)[:6] + "/2",
        OTTER.flow_run_id.hex.upper() + "/2",
        "ancient-otter/2",
    ],
)
def test_show_finds_a_submission_by_id_prefix_and_name(night: Path, run: str) -> None:
    told = json.loads(good("show", "--json", night, run))

    assert told["stream"] == attrs.evolve(OTTER, ordinal=2).stream


@pytest.mark.parametrize("run", [str(OTTER.flow_run_id), "ancient-otter", ""])
def test_show_lists_the_candidates_when_there_are_several(night: Path, run: str) -> None:
    run = run or str(OTTER.flow_run_id)[:4]
    second = attrs.evolve(OTTER, ordinal=2)

    said = refused(2, "show", night, run)

    assert f"{run!r} could be any of 2 submissions:" in said
    assert f"  {OTTER.stream}  ancient-otter  2026-11-24 02:00:05  exited  exit 0 · rep" in said
    assert f"  {second.stream}  ancient-otter  2026-11-24 02:02:10  exited  exit 0 · run" in said


def test_show_of_an_unknown_run_names_those_that_are_similar(night: Path) -> None:
    said = refused(2, "show", night, "quiet-lynks")

    assert "none has that name (similar: quiet-lynx)" in said
    assert len(said.splitlines()) == 1


def test_show_agent_tells_what_happened_to_the_agent(night: Path) -> None:
    lines = good("show", night, "agent").splitlines()

    assert lines[0] == "the agent's own notices"
    assert "process 4002 on batch-7" in lines[4]
    assert lines[4].endswith("2 open to recover")


def test_show_full_leaves_no_field_out(night: Path) -> None:
    told = good("show", "--full", night, "quiet-lynx")

    assert f"     scheduled_state_id  {LYNX.scheduled}\n" in told
    assert "     env.PREFECT_API_URL  5d41402abc4b2a76\n" in told
    assert "     command[2]  prefect.engine\n" in told
    assert "version 1 · schema 1 · 2026-11-24T02:00:01.000000+00:00 · hash " in told


def test_show_for_machines_holds_every_step_with_what_was_owed_then(night: Path) -> None:
    told = json.loads(good("show", "--json", night, "quiet-lynx"))

    assert told["submission"]["state"] == "exited"
    steps = told["steps"]
    assert [step["version"] for step in steps] == list(range(1, len(steps) + 1))
    launch = next(step for step in steps if step["type"] == "LaunchRequested")
    assert (launch["kind"], launch["state"], launch["owed"]) == (
        "transition",
        "launching",
        ["launch"],
    )
    assert launch["event"]["command"][-1] == "prefect.engine"


def test_text_from_a_log_can_not_forge_a_line(log: Path) -> None:
    forged = "no\n 99  02:00:00.000  RunDiscovered\x1b[2J"
    rewrite(log, altered("ResolutionFailed", error=forged), rechain=True)

    told = good("show", log, "brave-toad")

    assert "no\\n 99  02:00:00.000  RunDiscovered\\x1b[2J" in told
    assert "\x1b" not in told


# --- verify ----------------------------------------------------------------------------------


def test_verify_says_in_one_line_that_a_log_is_sound(night: Path) -> None:
    said = good("verify", night)

    assert said.startswith("sound  196 records, 12 submissions, 82 decisions made again in ")
    assert len(said.splitlines()) == 1


def diverged(log: Path) -> tuple[str, dict[str, Any]]:
    people, machines = replay("verify", log), replay("verify", "--json", log)
    assert (people.returncode, people.stderr) == (1, "")
    assert (machines.returncode, machines.stderr) == (1, "")
    found: dict[str, Any] = json.loads(machines.stdout)["divergence"]
    return people.stdout, found


def test_verify_names_an_altered_record(log: Path) -> None:
    rewrite(log, altered("LaunchRequested", name="evil"), rechain=False)

    told, found = diverged(log)

    assert (found["kind"], found["position"], found["type"]) == ("chain", 19, "LaunchRequested")
    assert told.startswith("chain fails at position 19\n  LaunchRequested (stream ")


def test_verify_names_event_and_field_of_a_decision_that_would_now_be_another(log: Path) -> None:
    rewrite(log, altered("LaunchRequested", command=["/bin/rm"]), rechain=True)

    told, found = diverged(log)

    assert (found["kind"], found["stream"]) == ("decision", LYNX.stream)
    assert found["fields"][0] == {
        "path": "$.command[0]",
        "recorded": "/bin/rm",
        "decided": "/opt/flows/venv/bin/python",
    }
    assert (
        "    $.command[0]\n"
        "      recorded  '/bin/rm'\n"
        "      decided   '/opt/flows/venv/bin/python'\n"
    ) in told
    assert f"see it in its place: replay show {log} {LYNX.stream}" in told


def remove(type_: str) -> Callable[[list[Record]], list[Record]]:
    return lambda records: [r for r in records if r is not first(records, type_)]


def test_verify_names_the_place_of_a_missing_record(log: Path) -> None:
    rewrite(log, remove("LaunchConfirmed"), rechain=False)

    told, found = diverged(log)

    assert (found["kind"], found["stream"]) == ("chain", None)
    assert f"chain fails at position {found['position']}\n  missing: " in told


def test_verify_finds_an_open_submission_that_recovery_would_overlook(log: Path) -> None:
    connection = apsw.Connection(str(log))
    ant = Run("unlucky-ant").stream
    connection.execute("DELETE FROM open_streams WHERE stream = ?", (ant,))
    connection.close()

    _told, found = diverged(log)

    assert (found["kind"], found["stream"]) == ("shape", ant)


def test_verify_finds_a_file_that_is_broken_in_the_middle(log: Path) -> None:
    content = bytearray(log.read_bytes())
    content[3 * 4096 : 20 * 4096] = b"\xff" * (17 * 4096)
    log.write_bytes(content)

    done = replay("verify", log)

    assert done.returncode == 1
    assert "damaged" in done.stderr or "the file is damaged" in done.stdout


# --- other logs ------------------------------------------------------------------------------


def test_the_kept_log_of_release_0_1_0_is_still_read_and_still_decided_alike(
    tmp_path: Path,
) -> None:
    before = KEPT.read_bytes()

    assert good("verify", KEPT).startswith("sound  196 records, 12 submissions, 82 decisions")
    assert "12 submissions of 11 runs" in good("list", KEPT)
    assert "closed: nothing is owed" in good("show", KEPT, "quiet-lynx")

    assert KEPT.read_bytes() == before
    assert sorted(KEPT.parent.glob(f"{KEPT.name}-*")) == []


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "events.sqlite"
    SqliteStore.open(path).close()
    return path


def test_an_empty_log_is_listed_and_sound(empty: Path) -> None:
    assert good("list", empty) == "no such submissions in this log\n"
    assert good("list", "--json", empty) == ""
    assert good("verify", empty).startswith("sound  0 records, 0 submissions, 0 decisions")
    assert "none has that name" in refused(2, "show", empty, "any")


@pytest.mark.parametrize("command", [("list",), ("show", "any"), ("verify",)])
def test_what_is_no_log_is_refused_in_a_line(command: tuple[str, ...], tmp_path: Path) -> None:
    name, *rest = command
    foreign = tmp_path / "foreign.sqlite"
    connection = apsw.Connection(str(foreign))
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    text = tmp_path / "notes.txt"
    text.write_text("not a log\n" * 100)

    for path, reason in (
        (foreign, "another program's"),
        (text, "not a SQLite file"),
        (tmp_path / "nothing", "no such file"),
        (tmp_path, "events.sqlite can't be read as a pluperfect log: there is no such file"),
    ):
        said = refused(3, name, path, *rest)
        assert reason in said
        assert len(said.splitlines()) == 1


def test_an_event_of_a_newer_release_is_no_damage_and_the_rest_is_shown(log: Path) -> None:
    def newer(records: list[Record]) -> list[Record]:
        target = first(records, "CommandEnded")
        return [attrs.evolve(r, schema=2) if r is target else r for r in records]

    rewrite(log, newer, rechain=True)

    said = refused(3, "verify", log)
    assert "holds CommandEnded of schema 2" in said
    assert "use a newer one" in said
    shown = good("show", log, "patient-crane") + good("show", log, "ancient-otter/1")
    assert "can't decode a CommandEnded record of schema 2" in shown
    assert "closed: nothing is owed" in shown


def test_a_bad_option_and_a_missing_argument_are_usage_errors(night: Path) -> None:
    assert "No such option" in refused(2, "list", "--fast", night)
    assert "this command takes [LOG] RUN" in refused(2, "show")


def test_without_a_log_it_is_that_of_the_users_agent(night: Path, tmp_path: Path) -> None:
    told = good("show", "brave-toad", PLUPERFECT_STATE=str(night))

    assert told == good("show", night, "brave-toad")
    assert replay("list", HOME=str(tmp_path), XDG_STATE_HOME="", PLUPERFECT_STATE="").stderr == (
        f"pluperfect replay: there is no log at {tmp_path}/.local/state/pluperfect/events.sqlite;"
        " name one: an agent's state directory, its events.sqlite, or an archive\n"
    )


# --- a log that is being written -------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from events.sqlite import SqliteStore
from tests.samples.make_sample import Recorder, Run, SettableClock, good_run
clock = SettableClock()
recorder = Recorder(SqliteStore.open(Path(sys.argv[1]), clock), clock)
recorder.start_agent("boot 1")
number = 0
while True:
    run = Run(f"run-{number}")
    for seconds, _run, observation in good_run(run, float(number)):
        clock.seconds = seconds
        recorder.observe(run.stream, observation)
    number += 1
    if number == 20:
        print("going", flush=True)
"""


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Path]:
    """A log that another process writes to, as fast as it can."""
    path = tmp_path / "living.sqlite"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "going\n"
    yield path
    assert writer.poll() is None, "it was disturbed by the readers"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()


def test_a_log_that_is_being_written_is_read_without_disturbing_the_writer(living: Path) -> None:
    first_verdict = json.loads(good("verify", "--json", living))
    listed = good("list", "--json", living).splitlines()
    shown = json.loads(good("show", "--json", living, "run-7"))
    second_verdict = json.loads(good("verify", "--json", living))

    assert first_verdict["sound"]
    assert second_verdict["sound"]
    assert second_verdict["records"] > first_verdict["records"]
    assert len(listed) >= 20
    assert shown["submission"]["open"] is False


# --- as a tool among others ------------------------------------------------------------------


def test_a_reader_that_goes_away_ends_it_quietly(night: Path) -> None:
    log = night / "events.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-m", "replay", "show", "--full", log, "quiet-lynx"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()

    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), said) == (-signal.SIGPIPE, b"")


PROBE = """
import sys
from replay.cli import main
main(sys.argv[1:], standalone_mode=False)
print(sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def imported_by(*arguments: object) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stderr.replace("'", '"')))


@pytest.mark.parametrize(
    "command", [("list",), ("show", "quiet-lynx"), ("verify",), ("show", "--full", "quiet-lynx")]
)
def test_no_command_needs_the_daemon_or_the_network(night: Path, command: Sequence[str]) -> None:
    name, *rest = command

    loaded = imported_by(name, night, *rest)

    assert {"replay", "events"} <= loaded
    assert not loaded & {"agent", "trio", "httpx", "h11", "anyio", "ssl"}


def test_help_loads_nothing_heavy() -> None:
    loaded = imported_by("--help") | imported_by("verify", "--help")

    assert not loaded & {"apsw", "orjson", "rich", "attr", "cattrs", "pendulum"}


def test_help_documents_the_exit_statuses() -> None:
    for command in ((), ("list",), ("show",), ("verify",)):
        told = " ".join(good(*command, "--help").split())
        assert "Exit status: 0 fine; 1 something was found (verify: damage or a divergence;" in told
