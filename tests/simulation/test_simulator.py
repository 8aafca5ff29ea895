"""Many worlds in which everything goes wrong, and what holds in each of them all the same.

A failure prints its seed, the few faults that it takes, and the command that shows it again.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.faults import Fault, Kind, parse, written
from tests.simulation.simulator import Outcome, shrink, simulate

FIXED_SEEDS = range(600)
FRESH_SEEDS = 400
CALM_SEEDS = (9, 24)
"""One agent and two, each with a long life; their own faults are left out where they are used."""


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """Agents that are killed a thousand times have much to say."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def expect_sound(outcome: Outcome) -> Outcome:
    if outcome.broken:
        smallest = shrink(outcome)
        pytest.fail("\n".join([*smallest.broken, "shows it again:", smallest.replay_command]))
    return outcome


def test_nothing_is_lost_and_nothing_launched_twice_under_the_fixed_seeds() -> None:
    kills: Counter[str] = Counter()
    descriptors = os.listdir("/proc/self/fd")
    for seed in FIXED_SEEDS:
        kills.update(expect_sound(simulate(seed)).kills)

    assert os.listdir("/proc/self/fd") == descriptors
    # A simulation in which nobody is killed shows nothing.
    assert set(kills) == {
        "at an await point",
        "before an append",
        "in an append",
        "after an append",
        "by a reboot",
    }


def test_nothing_is_lost_and_nothing_launched_twice_under_fresh_seeds() -> None:
    first = int.from_bytes(os.urandom(6))
    for seed in range(first, first + FRESH_SEEDS):
        expect_sound(simulate(seed))


@pytest.mark.soak
def test_nothing_is_lost_and_nothing_launched_twice_for_as_long_as_asked(
    pytestconfig: pytest.Config,
) -> None:
    ends = time.monotonic() + float(pytestconfig.getoption("--soak-seconds"))
    seed = int.from_bytes(os.urandom(6))
    while time.monotonic() < ends:
        expect_sound(simulate(seed))
        seed += 1


@pytest.mark.parametrize("seed", [3, 11, 1003])
def test_the_same_seed_gives_the_same_logs_byte_for_byte(seed: int) -> None:
    first, second = simulate(seed), simulate(seed)

    assert first.logs == second.logs
    assert any(first.logs)
    assert first.logs != simulate(seed + 1).logs


def test_a_schedule_survives_being_written_down() -> None:
    schedule = list(simulate(1003).schedule)

    assert parse(written(schedule)) == schedule


@pytest.mark.parametrize("seed", CALM_SEEDS)
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.KILL_AT_STEP, 0),
        (Kind.KILL_BEFORE_APPEND, 0),
        (Kind.KILL_IN_APPEND, 0),
        (Kind.KILL_IN_APPEND, 1),
        (Kind.KILL_AFTER_APPEND, 0),
        (Kind.DISK_FULL_AT_APPEND, 0),
        (Kind.DISK_ERROR_AT_APPEND, 0),
        (Kind.DISK_ERROR_AT_APPEND, 1),
    ],
)
def test_every_moment_of_a_life_is_survived(kind: Kind, value: int, seed: int) -> None:
    """Each await point and each append of agents that bring a few runs to their ends."""
    calm = expect_sound(simulate(seed, []))
    moments = calm.steps if kind is Kind.KILL_AT_STEP else calm.appends
    for agent in range(len(calm.logs)):
        for at in range(1, moments + 1):
            expect_sound(simulate(seed, [Fault(kind, agent, at, value)]))


def test_a_failure_is_reduced_to_the_faults_that_it_takes() -> None:
    needed = Fault(Kind.KILL_AT_STEP, 0, 20, 0)
    schedule = [Fault(Kind.REQUEST_LOST, 0, 30, 0), needed, Fault(Kind.CLOCK_JUMPS, 0, 9, 60)]

    def fails(faults: list[Fault]) -> Outcome:
        broken = ["it fails"] if needed in faults else []
        return Outcome(0, faults, broken, [], {}, 0, 0)

    smallest = shrink(fails(schedule), again=fails)

    assert smallest.schedule == [needed]
    assert str(needed) in smallest.replay_command
