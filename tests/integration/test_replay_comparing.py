"""`replay diff` and `replay check` as a person runs them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import attrs
import pytest

from events.archive import compact
from events.lifecycle import Effect, Verdict
from events.log import Record
from events.notices import RunLeftAlone
from events.observations import CommandRefused, LaunchUncertain, RequestFailed
from events.observations import InfrastructureResolved as Resolved
from events.places import LOG_NAME
from events.sqlite import SqliteStore
from tests.integration.test_replay_cli import good, refused, replay
from tests.samples.edited import altered, rewrite, with_fields
from tests.samples.make_sample import (
    Happening,
    Recorder,
    Run,
    SettableClock,
    claimed_and_launched,
    good_run,
    still_running,
    tell_everything,
)

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "tests" / "samples" / "v0.1.0.sqlite"


def record(path: Path, *stories: list[Happening]) -> Path:
    """Write a log of some stories, one after the other in time."""
    clock = SettableClock()
    store = SqliteStore.open(path, clock)
    recorder = Recorder(store, clock)
    recorder.start_agent("boot 1")
    for seconds, run, observation in sorted((h for s in stories for h in s), key=lambda h: h[0]):
        clock.seconds = seconds
        recorder.observe(run.stream, observation)
    store.close()
    return path


def found(*arguments: object) -> dict[str, Any]:
    """Run a command that finds something, and return what it tells machines."""
    done = replay(*arguments, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def told(*arguments: object) -> str:
    """Run a command that finds something, and return what it tells people."""
    done = replay(*arguments)
    assert (done.returncode, done.stderr) == (1, "")
    return done.stdout


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that tells every story there is. Not to be changed."""
    path = tmp_path_factory.mktemp("night") / LOG_NAME
    clock = SettableClock()
    store = SqliteStore.open(path, clock)
    tell_everything(Recorder(store, clock))
    store.close()
    return path


@pytest.fixture
def log(night: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copy(night, tmp_path / "copy.sqlite"))


def position_of(log: Path, run: str, type_: str) -> int:
    steps = json.loads(good("show", "--json", log, run))["steps"]
    return int(next(step["position"] for step in steps if step["type"] == type_))


# --- diff: two submissions -------------------------------------------------------------------


def test_diff_tells_why_one_run_failed_to_launch_and_the_other_did_not(night: Path) -> None:
    lines = told("diff", night, "nightly-report", "quiet-lynx").splitlines()

    assert "Both were claimed and resolved alike." in lines
    assert (
        "nightly-report's launch was refused: no such command: /opt/flows/bin/nightly;"
        " quiet-lynx's command started." in lines
    )
    assert "They were given another deployment, flow, queue and command." in lines
    assert (
        "nightly-report ended FAILED (to launch); quiet-lynx ended EXITED"
        " (exit 0 · run COMPLETED)." in lines
    )
    given = lines.index("what they were given")
    assert "  command     A  /opt/flows/bin/nightly --date 2026-11-24" in lines[given:]
    assert "   … 7 same steps: RunOffered to InfrastructureResolved" in lines


def test_diff_does_not_count_what_is_expected_to_differ(tmp_path: Path) -> None:
    runs = [attrs.evolve(Run("early-lynx"), ordinal=n) for n in (1, 2)]
    log = record(tmp_path / LOG_NAME, good_run(runs[0], 1.0), good_run(runs[1], 50.0, pid=6006))

    done = replay("diff", log, "early-lynx/1", "early-lynx/2")

    assert done.returncode == 0
    assert "They went alike: nothing differs but ids, times, pids and names." in done.stdout
    assert "   … 16 same steps: RunOffered to OutcomeSettled" in done.stdout
    steps = found("diff", "--all", log, "early-lynx/1", "early-lynx/2")["steps"]
    paths = {field["path"] for step in steps for field in step["fields"]}
    assert {"$.transition_id", "$.launch_key", "$.infrastructure_pid", "$.ordinal"} <= paths


def with_env(run: Run, at: float, **env: str | None) -> list[Happening]:
    """Return a good run that is launched with an environment."""
    return [
        (seconds, run, attrs.evolve(seen, env=env) if isinstance(seen, Resolved) else seen)
        for seconds, run, seen in good_run(run, at)
    ]


def test_diff_tells_that_a_secret_differs_without_knowing_it(tmp_path: Path) -> None:
    run = Run("early-lynx")
    one = with_env(run, 1.0, DB_URL="aaaa", SAME="cccc", PREFECT__FLOW_RUN_ID="1111")
    again = attrs.evolve(run, ordinal=2)
    other = with_env(again, 50.0, DB_URL="bbbb", SAME="cccc", PREFECT__FLOW_RUN_ID="2222")
    log = record(tmp_path / LOG_NAME, one, other)

    comparison = found("diff", log, "early-lynx/1", "early-lynx/2")

    assert comparison["settings"] == [{"name": "env DB_URL", "a": "aaaa", "b": "bbbb"}]
    assert "The value of DB_URL differs." in comparison["explanation"]


def test_diff_tells_in_which_state_the_slower_one_was_slow(night: Path) -> None:
    lines = told("diff", night, "quiet-lynx", "slow-mole").splitlines()

    assert "  discovered      34 ms     31.0 s  B took 31.0 s longer, 912 times as long" in lines


def test_diff_aligns_what_is_the_same_after_a_detour(night: Path) -> None:
    steps = found("diff", night, "quiet-lynx", "slow-mole")["steps"]

    alone = [step["b"]["type"] for step in steps if step["a"] is None]
    assert alone == ["RequestFailed", "EffectDeferred", "RunRead"]
    after = [step for step in steps if step["a"] and step["a"]["type"] == "CommandStarted"]
    assert [step["same"] for step in after] == [True]


def test_diff_alone_compares_with_the_nearest_of_the_deployment_that_went_well(
    tmp_path: Path,
) -> None:
    deployed = [Run("load"), *(attrs.evolve(Run("load"), ordinal=n) for n in (2, 3))]
    broken = [
        *claimed_and_launched(deployed[1], 200.0, 6000)[:3],
        (200.3, deployed[1], CommandRefused("no such command: /x")),
        (200.4, deployed[1], deployed[1].reported("CRASHED")),
    ]
    log = record(
        tmp_path / LOG_NAME,
        good_run(deployed[0], 1.0),
        good_run(Run("stranger"), 190.0),
        broken,
        good_run(deployed[2], 900.0),
    )

    comparison = found("diff", log, "load/2")

    assert comparison["a"]["stream"] == deployed[1].stream
    assert comparison["b"]["stream"] == deployed[2].stream
    assert found("diff", log, "load/1")["b"]["stream"] == deployed[1].stream


def test_diff_of_a_run_without_a_neighbour_says_so(night: Path) -> None:
    said = refused(2, "diff", night, "nightly-report")

    assert "no submission of the same deployment or queue went otherwise" in said


def on_a_terminal(columns: int, *arguments: object) -> str:
    """Return what a terminal of so many columns shows, without the colours."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "replay", *map(str, arguments)]
    environment = os.environ | {"TZ": "UTC", "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        # The end of a terminal whose other side is closed is an error.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65536):
                shown += part
        os.close(ours)
    assert process.returncode == 1
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")


def test_diff_puts_two_submissions_beside_each_other_where_there_is_room(night: Path) -> None:
    wide = on_a_terminal(160, "diff", night, "nightly-report", "quiet-lynx").splitlines()
    narrow = on_a_terminal(100, "diff", night, "nightly-report", "quiet-lynx").splitlines()

    (line,) = [line for line in wide if "CommandRefused" in line]
    left, right = line.split(" │ ")
    assert "CommandRefused  no such command: /opt/flows/bin/nightly" in left
    assert right.endswith("CommandStarted  runs as batch-7:5001")
    assert max(map(len, wide)) <= 160
    assert any(line.startswith("A      34") and "CommandRefused" in line for line in narrow)
    assert any(line.startswith("B      22") and "CommandStarted" in line for line in narrow)


def test_diff_with_too_many_or_no_names_is_a_usage_error(night: Path) -> None:
    assert "this command takes [LOG] A [B], or LOG_A LOG_B" in refused(2, "diff")
    assert "this command takes" in refused(2, "diff", night, "a", "b", "c")
    assert "--run is for two logs" in refused(2, "diff", night, "a", "b", "--run", "x")


# --- diff: two logs --------------------------------------------------------------------------


def test_diff_of_a_log_and_its_backup_names_where_the_backup_ends(
    night: Path, tmp_path: Path
) -> None:
    backup, lynx = tmp_path / "backup.sqlite", Run("late-lynx")
    shutil.copy(night, backup)
    grown = Path(shutil.copy(night, tmp_path / LOG_NAME))
    store = SqliteStore.open(grown)
    last, tip = store.last_position(), store.tip()
    recorder = Recorder(store, SettableClock(1000.0))
    for _seconds, _run, seen in claimed_and_launched(lynx, 1000.0, 7000):
        recorder.observe(lynx.stream, seen)
    store.close()

    difference = found("diff", backup, grown)

    assert difference["relation"] == "a_is_older"
    assert difference["shared_position"] == last == 196
    assert difference["shared_hash"] == tip.hash.hex()
    assert difference["only_in_b"]["first"] == [{"stream": lynx.stream, "run": "late-lynx"}]
    assert difference["alike"] == 12
    assert "the same log, and B goes on where A ends" in told("diff", backup, grown)
    assert good("diff", night, backup).splitlines()[2] == "the same log, record by record"


def test_diff_names_the_position_from_which_two_copies_went_different_ways(
    night: Path, tmp_path: Path
) -> None:
    changed = Path(shutil.copy(night, tmp_path / LOG_NAME))
    rewrite(changed, altered("CommandRefused", error="permission denied"), rechain=True)
    at = position_of(night, "nightly-report", "CommandRefused")

    difference = found("diff", night, changed)

    assert (difference["relation"], difference["shared_position"]) == ("forked", at - 1)
    (kind,) = difference["kinds"]
    assert (kind["kind"], kind["count"]) == ("CommandRefused.error differs", 1)
    assert kind["first"][0]["position_a"] == at


def test_diff_of_two_different_logs_groups_what_differs_first(tmp_path: Path) -> None:
    lynx, toad, newt = Run("lynx"), Run("toad"), Run("newt")
    refusal = [
        *claimed_and_launched(toad, 5.0, 6000)[:3],
        (5.3, toad, CommandRefused("no such command")),
        (5.4, toad, toad.reported("CRASHED")),
    ]
    a = record(tmp_path / "a.sqlite", good_run(lynx, 1.0), good_run(toad, 5.0))
    b = record(tmp_path / "b.sqlite", good_run(lynx, 9.0, pid=77), refusal, still_running(newt, 3))

    difference = found("diff", a, b)

    assert (difference["relation"], difference["alike"]) == ("strangers", 1)
    assert (difference["only_in_a"]["count"], difference["only_in_b"]["count"]) == (0, 1)
    (kind,) = difference["kinds"]
    assert (kind["kind"], kind["count"]) == ("CommandStarted in A, CommandRefused in B", 1)
    assert kind["first"][0]["run"] == "toad"
    lines = told("diff", a, b, "--run", "toad").splitlines()
    assert "A's command started; B's launch was refused: no such command." in lines


def test_diff_of_a_log_and_the_archive_of_a_part_of_it_does_not_take_it_for_a_loss(
    night: Path, tmp_path: Path
) -> None:
    backup = Path(shutil.copy(night, tmp_path / "backup.sqlite"))
    log = Path(shutil.copy(night, tmp_path / LOG_NAME))
    archive = compact(log, tmp_path / "archive", "2027-01-01").archive

    lines = good("diff", log, backup).splitlines()

    assert "2 submissions are in both and went alike" in lines
    elsewhere = "can't be compared: one of the files has them elsewhere, by its own account"
    assert f"10 {elsewhere}" in lines
    # The two that are open began after the archive's last record, which is its end.
    difference = found("diff", archive, backup)
    assert (difference["relation"], difference["alike"]) == ("parts", 10)
    assert (difference["only_in_a"]["count"], difference["only_in_b"]["count"]) == (0, 2)


# --- check: another version of the decider ---------------------------------------------------


def checkout(folder: Path, *edits: tuple[str, str, str]) -> Path:
    """Return a folder with a version of `events` in which texts are replaced."""
    shutil.copytree(ROOT / "events", folder / "events")
    for module, before, after in edits:
        path = folder / "events" / module
        source = path.read_text()
        assert before in source
        path.write_text(source.replace(before, after))
    return folder


def test_check_without_a_change_finds_nothing(night: Path) -> None:
    said = good("check", night)

    assert re.fullmatch(
        r"same  12 submissions, 82 decisions made again in [\d.]+ s: none would differ\n", said
    )


def test_check_against_the_same_rules_finds_nothing_and_leaves_the_checkout_alone(
    night: Path, tmp_path: Path
) -> None:
    folder = checkout(tmp_path / "other")
    shutil.rmtree(folder / "events" / "__pycache__", ignore_errors=True)
    before = sorted(folder.rglob("*"))

    said = good("check", night, "--against", folder)

    assert said.splitlines()[0] == f"decided by {folder}"
    assert "none would differ" in said
    assert sorted(folder.rglob("*")) == before


def test_check_against_another_message_names_just_the_field(night: Path, tmp_path: Path) -> None:
    before = "Flow run could not be submitted to infrastructure"
    folder = checkout(tmp_path / "other", ("outcomes.py", before, "It was not launched"))

    report = found("check", night, "--against", folder)

    (kind,) = report["kinds"]
    assert (kind["kind"], kind["count"]) == ("OutcomeProposed.message differs", 1)
    assert kind["first"][0]["run"] == "nightly-report"
    (example,) = kind["examples"]
    assert example["fields"][0]["path"] == "$.message"
    assert example["fields"][0]["decided"].startswith("It was not launched: no such command")
    assert not example["departs"]


def test_check_against_another_delay_counts_every_decision_that_has_it(
    night: Path, tmp_path: Path
) -> None:
    folder = checkout(tmp_path / "other", ("decider.py", "0.75 + 0.5", "0.5 + 0.5"))

    report = found("check", night, "--against", folder, "--show", "2")

    (kind,) = report["kinds"]
    assert (kind["kind"], kind["count"]) == ("EffectDeferred.delay_seconds differs", 4)
    assert (report["differing"], report["submissions_differing"]) == (4, 3)
    assert len(kind["examples"]) == 2


def test_check_against_another_verdict_tells_where_that_leads(night: Path, tmp_path: Path) -> None:
    row = "(State.EXITED, Standing.RUNS_AS_OURS): Rule("
    settled = "(State.EXITED, Standing.RUNS_AS_OURS): _SETTLED, (State.PENDING, Standing.OTHER): "
    folder = checkout(tmp_path / "other", ("recovery.py", row, f"{settled}Rule("))

    report = found("check", night, "--against", folder)

    (kind,) = report["kinds"]
    assert kind["kind"] == "OutcomeSettled instead of OutcomeProposed"
    assert kind["ends"] == [{"state": "exited", "owed": [], "closed": True, "count": 1}]
    path = kind["examples"][0]["path"]
    assert [step["decided"] for step in path] == [[], [], [], []]
    # The later observations are no longer owed, and are not counted as further differences.
    assert report["differing"] == 1
    lines = told("check", night, "--against", folder).splitlines()
    assert "    it would have ended EXITED" in lines
    assert "    recorded: EXITED  killed by SIGKILL · reported Crashed" in lines


def test_check_against_a_decider_that_breaks_names_the_observation(
    night: Path, tmp_path: Path
) -> None:
    guard = '    if seen.status == "WAIT":'
    bug = f'    if seen.status == "ABORT":\n        raise KeyError(seen.status)\n{guard}'
    folder = checkout(tmp_path / "other", ("decider.py", guard, bug))

    said = told("check", night, "--against", folder)

    assert "KeyError is raised instead of PendingRefused  at 42 of shy-heron" in said
    assert "    instead   KeyError: 'ABORT'" in said


def test_check_against_a_version_that_does_not_know_an_event_says_what_it_can_not_read(
    night: Path, tmp_path: Path
) -> None:
    every = "in vars(module).items()\n"
    folder = checkout(
        tmp_path / "other", ("codec.py", every, f"{every[:-1]} if name != 'CommandRefused'\n")
    )

    report = found("check", night, "--against", folder)

    assert report["differing"] == 0
    assert report["unreadable"]["type"] == "CommandRefused"
    # With the one after it in the same stream, about which nothing can be said any more.
    assert report["unreadable"]["observations"] == 2
    assert "no such event in this release" in report["unreadable"]["reason"]


def test_check_against_an_older_layout_in_which_the_fold_was_the_deciders(
    night: Path, tmp_path: Path
) -> None:
    folder = checkout(tmp_path / "other")
    events = folder / "events"
    fold = (events / "submission.py").read_text().replace("from __future__ import annotations", "")
    (events / "submission.py").unlink()
    (events / "_fold.py").write_text("from __future__ import annotations\n" + fold)
    for module in ("decider.py", "outcomes.py", "recovery.py"):
        source = (events / module).read_text().replace("events.submission", "events._fold")
        if module == "decider.py":
            names = "Submission, launch_key, what_next"
            source = source.replace(f"PROPOSALS, {names}", f"PROPOSALS, {names}, evolve")
        (events / module).write_text(source)

    assert "none would differ" in good("check", night, "--against", folder)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source distribution has no history")
def test_check_against_the_first_decider_there_was_reads_the_log_of_0_1_0(tmp_path: Path) -> None:
    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout

    first = git("log", "--format=%H", "--", "events/decider.py").decode().split()[-1]
    with tarfile.open(fileobj=io.BytesIO(git("archive", first, "events"))) as archive:
        archive.extractall(tmp_path, filter="data")

    assert "none would differ" in good("check", KEPT, "--against", tmp_path)


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("recovery.py", "def (", "events/recovery.py, line 1: SyntaxError: invalid syntax"),
        ("outcomes.py", "import nowhere", "events/outcomes.py, line 1: ModuleNotFoundError: No"),
        ("decider.py", "", "AttributeError: module 'events.decider' has no attribute 'decide'"),
        ("decider.py", "import os; os._exit(7)", "its process ended with status 7"),
    ],
)
def test_check_against_a_broken_checkout_says_what_is_wrong_and_where(
    night: Path, tmp_path: Path, module: str, source: str, reason: str
) -> None:
    folder = checkout(tmp_path / "other")
    (folder / "events" / module).write_text(source)

    said = refused(2, "check", night, "--against", folder)

    assert said.startswith(f"pluperfect replay: the decider in {folder} can't be used: {reason}")
    assert len(said.splitlines()) == 1


def test_check_against_what_is_no_checkout_is_refused(night: Path, tmp_path: Path) -> None:
    assert "there is no events/decider.py in it" in refused(
        2, "check", night, "--against", tmp_path
    )
    assert "does not exist" in refused(2, "check", night, "--against", tmp_path / "nowhere")


def test_check_is_not_confused_by_what_the_other_version_prints(
    night: Path, tmp_path: Path
) -> None:
    noise = "LONGEST_DELAY_SECONDS: Final = 60.0"
    loud = f"import sys; print('loud', flush=True); sys.stdout.write('!' * 100)\n{noise}"
    folder = checkout(tmp_path / "other", ("decider.py", noise, loud))

    assert "none would differ" in good("check", night, "--against", folder)


# --- check: one thing changed ----------------------------------------------------------------


def test_check_with_an_observation_left_out_tells_what_would_be_owed(night: Path) -> None:
    at = position_of(night, "brave-toad", "ProposalAnswered")

    report = found("check", night, "--drop", at)

    assert (report["submissions"], report["differing"]) == (1, 1)
    (kind,) = report["kinds"]
    assert kind["kind"] == "no PendingAccepted, ResolutionStarted"
    assert kind["examples"][0]["shown"] is None
    assert kind["ends"][0] == {
        "state": "discovered", "owed": ["propose_pending"], "closed": False, "count": 1,
    }  # fmt: skip
    said = told("check", night, "--drop", at)
    assert (
        "    it would be DISCOVERED, owing to claim the run: the log can't tell what the world"
        " would have answered\n" in said
    )


def test_check_with_another_answer_tells_what_would_have_followed(night: Path) -> None:
    at = position_of(night, "quiet-lynx", "ProposalAnswered")
    other = '{"status": "ABORT", "state_type": null, "transition_id": null, "reason": "not you"}'

    report = found("check", night, "--replace", f"{at}={other}")

    (kind,) = report["kinds"]
    assert kind["kind"] == "PendingRefused instead of PendingAccepted, ResolutionStarted"
    assert kind["ends"][0]["state"] == "aborted"
    decided = kind["examples"][0]["decided"]
    assert [each["fields"]["reason"] for each in decided] == ["ABORT: not you"]


def test_check_with_another_observation_in_its_place(night: Path) -> None:
    at = position_of(night, "quiet-lynx", "CommandStarted")
    other = '{"type": "CommandRefused", "error": "no such command"}'

    report = found("check", night, "--replace", f"{at}={other}")

    (kind,) = report["kinds"]
    assert kind["kind"] == "SubmissionFailed, OutcomeProposed instead of LaunchConfirmed"
    assert kind["examples"][0]["shown"]["type"] == "CommandRefused"


def test_check_with_an_observation_replaced_by_itself_finds_nothing(night: Path) -> None:
    at = position_of(night, "quiet-lynx", "CommandEnded")

    assert "none would differ" in good("check", night, "--replace", f'{at}={{"exit_code": 0}}')


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--drop", "99999"], "there is no record at position 99999"),
        (["--drop", "4"], "position 4 holds RunDiscovered, which is no observation"),
        (["--replace", "6"], "'6' is no replacement: write 120='{\"status\": \"ABORT\"}'"),
        (["--replace", "6={"], "what follows 6= is no JSON"),
        (["--replace", "6=[]"], "what follows 6= is no JSON object"),
        (["--replace", '6={"stat": "ABORT"}'], "ProposalAnswered has no field 'stat'; it has eff"),
        (["--replace", '6={"effect": "fly"}'], "it would be no ProposalAnswered: invalid value"),
        (["--replace", '6={"type": "RunDiscovered"}'], "'RunDiscovered' is no observation; there"),
        (
            ["--replace", '6={"type": "CommandRefused"}'],
            "it would be no CommandRefused: required f",
        ),
        (
            ["--drop", "6", "--run", "brave-toad"],
            f"position 6 belongs to {Run('quiet-lynx').stream}",
        ),
        (["--max-late", "soon"], "'soon' is no duration"),
    ],
)
def test_check_refuses_a_change_that_can_not_be_made(
    night: Path, options: list[str], reason: str
) -> None:
    assert reason in " ".join(refused(2, "check", night, *options).split())


# --- check: another setting ------------------------------------------------------------------


def uncertain(run: Run, at: float) -> list[Happening]:
    """Return a launch of which nobody can tell whether it happened."""
    return [
        *claimed_and_launched(run, at, 1)[:3],
        (at + 1.0, run, LaunchUncertain("the keeper did not say")),
        (at + 1.1, run, run.evidence(Verdict.NO_EVIDENCE, "the spool was replaced")),
        (at + 1.2, run, run.reported("CRASHED")),
    ]


def test_check_with_another_on_uncertain_finds_the_launches_it_decides(tmp_path: Path) -> None:
    log = record(tmp_path / LOG_NAME, good_run(Run("lynx"), 1.0), uncertain(Run("mole"), 2.0))

    report = found("check", log, "--on-uncertain", "relaunch")

    (kind,) = report["kinds"]
    assert kind["kind"] == "LaunchRepeated instead of SubmissionFailed, OutcomeProposed"
    assert (kind["count"], kind["first"][0]["run"]) == (1, "mole")
    assert kind["ends"][0]["owed"] == ["read_run"]
    assert "none would differ" in good("check", log, "--on-uncertain", "crash")


def test_check_with_another_max_late_finds_the_runs_that_would_be_left_alone(
    tmp_path: Path,
) -> None:
    log = record(tmp_path / LOG_NAME, good_run(Run("prompt"), 5.0), good_run(Run("late"), 3000.0))
    store = SqliteStore.open(log, SettableClock(4000.0))
    recorder = Recorder(store, SettableClock(4000.0))
    recorder.versions["agent"] = store.version_of("agent")
    recorder.post(RunLeftAlone(Run("forgotten").flow_run_id, "forgotten", 900.0))
    store.close()

    report = found("check", log, "--max-late", "20m")

    (kind,) = report["kinds"]
    assert kind["kind"] == "RunLeftAlone instead of RunDiscovered, PendingProposed"
    assert [place["run"] for place in kind["first"]] == ["late"]
    assert kind["ends"] == [{"state": "absent", "owed": [], "closed": False, "count": 1}]
    (claimed,) = [notices for notices in report["notices"] if notices["count"]]
    assert claimed["kind"] == "claimed instead of RunLeftAlone"
    assert claimed["first"][0]["words"].startswith("forgotten, late by 15 m")


def test_check_with_another_overdue_after_finds_whom_it_would_be_said_of(tmp_path: Path) -> None:
    slow = Run("slow")
    away = RequestFailed(Effect.PROPOSE_PENDING, "read timed out", True, 0.5)
    stuck: list[Happening] = [(1.0, slow, slow.offered()), (200.0, slow, away)]
    log = record(tmp_path / LOG_NAME, stuck, good_run(Run("lynx"), 190.0))

    report = found("check", log, "--overdue-after", "1m")

    assert report["differing"] == 0
    (said,) = [notices for notices in report["notices"] if notices["count"]]
    assert (said["kind"], said["count"]) == ("SubmissionOverdue in addition", 1)
    assert said["first"][0]["about"] == slow.stream
    assert "none would differ" in good("check", log, "--overdue-after", "5m")


# --- check: any log --------------------------------------------------------------------------


def test_check_of_the_kept_log_of_release_0_1_0_finds_nothing() -> None:
    assert "none would differ" in good("check", KEPT)


def test_check_finds_a_recorded_decision_that_is_now_another_wherever_it_is(log: Path) -> None:
    def both(records: list[Record]) -> list[Record]:
        return [
            with_fields(r, reason="other") if r.type == "EffectDeferred" else r for r in records
        ]

    rewrite(log, both, rechain=True)

    report = found("check", log)

    assert report["kinds"][0]["kind"] == "EffectDeferred.reason differs"
    assert report["differing"] == report["kinds"][0]["count"] == 5
    assert found("check", log, "--run", "slow-mole")["differing"] == 1


def test_what_is_not_json_ends_neither_check_nor_diff_in_a_traceback(log: Path) -> None:
    def broken(records: list[Record]) -> list[Record]:
        kinds = ("EvidenceFound", "OutcomeSettled")
        return [attrs.evolve(r, data="{") if r.type in kinds else r for r in records]

    rewrite(log, broken, rechain=True)

    report = found("check", log, "--on-uncertain", "relaunch")
    assert report["unreadable"]["type"] == "EvidenceFound"
    assert "OutcomeSettled.answer, OutcomeSettled.server_state differ" in {
        kind["kind"] for kind in report["kinds"]
    }
    assert "patient-crane" in told("diff", log, "patient-crane", "lucky-newt")


def test_check_of_an_event_of_a_newer_release_says_so(log: Path) -> None:
    def newer(records: list[Record]) -> list[Record]:
        return [attrs.evolve(r, type="CommandPaused") if r.position == 34 else r for r in records]

    rewrite(log, newer, rechain=True)

    assert "holds CommandPaused of schema 1" in refused(3, "check", log)


@pytest.mark.parametrize("command", [["diff", "x", "y"], ["check"]])
def test_what_is_no_log_is_refused_in_a_line(command: list[str], tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a log\n" * 100)
    name, *rest = command

    said = refused(3, name, text, *rest)

    assert "not a SQLite file" in said
    assert len(said.splitlines()) == 1
