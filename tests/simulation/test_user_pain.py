"""What users of the agents before us suffered from; docs/user-pain.md has every case."""

from __future__ import annotations

import httpx
import pytest
import trio
from trio.testing import MockClock

from events.lifecycle import OutcomeProposed, State
from tests.simulation.test_daemon import closed
from tests.simulation.world import Command, simulated_world

HOUR = 3600.0


async def test_ten_runs_under_way_when_the_agent_dies_do_not_stay_pending(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        deployment = world.deployment()
        runs = [world.schedule(deployment) for _ in range(10)]
        world.processes.hangs = True
        async with world.agent():
            await world.until(lambda: all(world.state_of(run) == "PENDING" for run in runs))
        world.processes.hangs = False
        async with world.agent():
            await world.until(lambda: closed(world, *runs))
    assert [world.state_of(run) for run in runs] == ["COMPLETED"] * 10
    assert sorted(world.processes.launches) == sorted(runs)


@pytest.mark.parametrize("stage", ["get_runs", "set_state", "/deployments/", "/flow_runs/"])
async def test_a_server_that_is_away_at_any_stage_strands_no_run_behind_a_limit_of_one(
    stage: str, autojump_clock: MockClock
) -> None:
    async with simulated_world() as world:
        deployment = world.deployment()
        runs = [world.schedule(deployment) for _ in range(3)]
        until = 0.0

        def fault(request: httpx.Request) -> None:
            nonlocal until
            if not until and stage in request.url.path:
                until = trio.current_time() + 600
            if until and trio.current_time() < until:
                raise httpx.ConnectError("refused", request=request)

        world.fault = fault
        async with world.agent(limit=1):
            await world.until(lambda: closed(world, *runs))
        assert until, "the server was never away"
    assert sorted(world.processes.launches) == sorted(runs)
    assert all(world.state_of(run) == "COMPLETED" for run in runs)


async def test_a_server_and_an_agent_that_restart_together_strand_no_run(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world(lambda _run: Command(seconds=30)) as world:
        deployment = world.deployment()
        runs = [world.schedule(deployment) for _ in range(3)]
        async with world.agent(limit=1):
            await world.until(lambda: len(world.processes.launches) == 1)

        def away(request: httpx.Request) -> None:
            raise httpx.ConnectError("refused", request=request)

        world.fault = away
        async with world.agent(limit=1):
            await trio.sleep(300)
            world.fault = None
            await world.until(lambda: closed(world, *runs))
    assert sorted(world.processes.launches) == sorted(runs)
    assert all(world.state_of(run) == "COMPLETED" for run in runs)


async def test_a_run_in_two_queues_at_once_is_launched_once(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        world.state.create_queue("other")
        world.queues = ("default", "other")
        offered: list[object] = []

        def spoil(request: httpx.Request, response: httpx.Response) -> httpx.Response | None:
            if not request.url.path.endswith("get_runs"):
                return None
            if not offered and response.json():
                offered.extend(response.json())
            return httpx.Response(200, json=offered)

        world.spoil = spoil
        async with world.agent():
            await world.until(lambda: closed(world, run))
            await trio.sleep(60)
    assert world.processes.launches == [run]
    assert world.state_of(run) == "COMPLETED"


async def test_a_run_rescheduled_while_its_command_lives_is_not_launched_beside_it(
    autojump_clock: MockClock,
) -> None:
    commands = [Command(states=("RUNNING", "SCHEDULED", "SCHEDULED"), seconds=100), Command()]
    async with simulated_world(lambda _run: commands.pop(0)) as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: world.state_of(run) == "SCHEDULED" and not world.submission(
                run).is_closed and world.submission(run).state is State.STARTED)  # fmt: skip
            first = next(iter(world.processes.commands.values()))
            while not first.ended.is_set():
                assert len(world.processes.launches) == 1
                await trio.sleep(1)
            await world.until(lambda: len(world.store.streams(f"{run}/")) == 2)
            await world.until(lambda: world.submission(run, 2).is_closed)
    assert world.processes.launches == [run, run]


async def test_infrastructure_that_is_slow_to_start_is_not_called_crashed(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world(lambda _run: Command(seconds=HOUR)) as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: closed(world, run), within_seconds=5 * HOUR)
    assert world.state_of(run) == "COMPLETED"
    assert not [e for e in world.events(run) if isinstance(e, OutcomeProposed)]
