"""What real daemons have written, in worlds in which everything goes wrong, is appended again.

And a daemon's code that is not the same any more is found out by logs of the one that was.
"""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import attrs
import pytest
import trio

from agent import submission as driving
from agent.infrastructure import prepare
from agent.prefect import models
from agent.prefect.client import PrefectClient
from agent.submission import SubmissionDriver
from events.lifecycle import Effect
from events.observations import Observation
from replay.reexecution.comparison import Divergence
from replay.reexecution.execution import reexecute
from replay.reexecution.recording import Recording
from tests.simulation import mutants
from tests.simulation.faults import BY_TIME, Fault, Kind
from tests.simulation.simulator import Outcome, simulate
from tests.unit.reexecuted import recordings

FIXED_SEEDS = range(150)
FRESH_SEEDS = 60
STORMY_SEEDS = range(60)

TELLING_SEEDS = (34, 51, 115, *range(12))
"""Seeds whose logs have a misplaced claim, a cancelled and a missing run, and a bit of all else."""


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def written_by(outcome: Outcome) -> Iterator[Recording]:
    for records in outcome.records:
        yield from recordings(records)


def expect_again(outcome: Outcome, types: Counter[str] | None = None) -> None:
    for recording in written_by(outcome):
        again = reexecute(recording, lambda _step: None)
        if not again.same:
            pytest.fail(f"{again.divergence}\nin {recording.stream} of\n{outcome.replay_command}")
        assert again.stood_in == 0, "the simulator's errors are the client's own"
        if types is not None:
            types.update(entry.record.type for entry in recording.entries)


def storm(seed: int) -> Outcome:
    """Play a seed with far more faults than it would draw, at the requests of one agent."""
    rng = random.Random(seed)
    kinds = [kind for kind in Kind if not kind.startswith(("disk", "kill_in", "kill_before"))]
    schedule = []
    for _ in range(14):
        kind = rng.choice(kinds)
        reach = 300 if kind in BY_TIME or kind is Kind.KILL_AT_STEP else 30
        schedule.append(Fault(kind, 0, rng.randrange(1, reach), rng.randrange(100)))
    return simulate(seed, schedule)


def test_what_simulated_daemons_have_written_is_appended_again() -> None:
    types: Counter[str] = Counter()
    for seed in FIXED_SEEDS:
        expect_again(simulate(seed), types)

    assert {
        "AgentRestarted",
        "ClaimMisplaced",
        "CommandRefused",
        "EvidenceFound",
        "InfrastructureAdopted",
        "LaunchUncertain",
        "LaunchVoided",
        "RequestFailed",
        "ResolutionFailed",
        "RunMissing",
        "SubmissionCancelled",
    } <= set(types), "too little has happened to show much"


def test_what_simulated_daemons_have_written_under_fresh_seeds_is_appended_again() -> None:
    first = int.from_bytes(os.urandom(6))
    for seed in range(first, first + FRESH_SEEDS):
        expect_again(simulate(seed))


def test_what_simulated_daemons_have_written_in_a_storm_is_appended_again() -> None:
    for seed in STORMY_SEEDS:
        expect_again(storm(seed))


# --- code that is not the same any more --------------------------------------------------------


@pytest.fixture(scope="module")
def written() -> Sequence[Recording]:
    """What sound daemons have written."""
    logging.disable(logging.CRITICAL)
    outcomes = [simulate(seed) for seed in TELLING_SEEDS] + [storm(seed) for seed in range(30)]
    return [recording for outcome in outcomes for recording in written_by(outcome)]


def first_divergence(written: Iterable[Recording]) -> Divergence | None:
    found = (reexecute(recording, lambda _step: None).divergence for recording in written)
    return next((each for each in found if each is not None), None)


@pytest.mark.parametrize(
    "mutant",
    # What the others do wrong is not about one submission, or is about a disk that fails.
    [
        mutant
        for mutant in mutants.MUTANTS
        if mutant not in (mutants.recovers_all_but_one_state, mutants.goes_on_when_the_log_does_not)
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_a_planted_bug_of_the_simulator_is_found(
    mutant: mutants.Mutant, written: Sequence[Recording]
) -> None:
    with mutant():
        assert first_divergence(written) is not None, mutant.__doc__


def does_not_wait() -> AbstractContextManager[Any]:
    async def at_once(_seconds: float) -> None:
        await trio.lowlevel.checkpoint()

    return mock.patch.object(trio, "sleep", at_once)


def waits_twice() -> AbstractContextManager[Any]:
    sleep = trio.sleep

    async def twice(seconds: float) -> None:
        await sleep(2 * seconds)

    return mock.patch.object(trio, "sleep", twice)


def reports_another_pid() -> AbstractContextManager[Any]:
    tell = PrefectClient.set_infrastructure_pid

    async def mutant(client: PrefectClient, flow_run_id: Any, pid: str) -> None:
        await tell(client, flow_run_id, f"{pid}0")

    return mock.patch.object(PrefectClient, "set_infrastructure_pid", mutant)


def forgets_a_label() -> AbstractContextManager[Any]:
    return mock.patch.object(prepare, "_labels", lambda run, _d, _f: {"prefect.io/x": run.name})


def misreads_the_servers_answer() -> AbstractContextManager[Any]:
    def reasonless(raw: dict[str, Any]) -> dict[str, Any]:
        return raw | {"reason": None, "delay_seconds": 1.0}

    converter = models._converter
    with mock.patch.dict(models._MODELS, {models.StateAnswer: reasonless}):
        return mock.patch.object(models, "_CONVERTER", converter())


def launches_something_else() -> AbstractContextManager[Any]:
    launch = SubmissionDriver._launch

    async def mutant(driver: SubmissionDriver) -> Observation:
        if driver._spec is not None:
            driver._spec = attrs.evolve(driver._spec, command=("true",))
        return await launch(driver)

    return mock.patch.dict(driving._EXECUTORS, {Effect.LAUNCH: mutant})


def is_never_done() -> AbstractContextManager[Any]:
    run = SubmissionDriver.run

    async def mutant(driver: SubmissionDriver) -> None:
        await run(driver)
        await driver.world.server.read_flow_run(driver.submission.run.flow_run_id)

    return mock.patch.object(SubmissionDriver, "run", mutant)


def gives_up_early() -> AbstractContextManager[Any]:
    async def mutant(_driver: SubmissionDriver) -> None:
        await trio.lowlevel.checkpoint()

    return mock.patch.object(SubmissionDriver, "run", mutant)


def breaks() -> AbstractContextManager[Any]:
    return mock.patch.object(SubmissionDriver, "_discharge", None)


@pytest.mark.parametrize(
    ("mutant", "problem"),
    [
        (does_not_wait, "too early"),
        (waits_twice, "after the time at which it was answered"),
        (reports_another_pid, "the reported pid is not as the log announces it"),
        (forgets_a_label, "the daemon records it otherwise"),
        (misreads_the_servers_answer, "the daemon records it otherwise"),
        (launches_something_else, "the launch is not as the log announces it"),
        (is_never_done, "here the daemon wants to read the run's state at the server"),
        (gives_up_early, "the daemon has nothing more to do here"),
        (breaks, "the daemon's code breaks: TypeError"),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)
def test_a_bug_in_the_driver_the_client_or_the_resolver_is_found(
    mutant: Callable[[], AbstractContextManager[Any]], problem: str, written: Sequence[Recording]
) -> None:
    with mutant():
        found = first_divergence(written)

    assert found is not None
    assert problem in found.problem
