"""What users of the agents before us suffered from; docs/user-pain.md has every case."""

from __future__ import annotations

import httpx
import pytest
import trio
from trio.testing import MockClock

from events.lifecycle import OutcomeProposed, State
from events.notices import RunLeftAlone, SubmissionOverdue
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


async def test_runs_that_are_later_than_the_operator_wants_are_left_alone(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        deployment = world.deployment()
        ancient = world.schedule(deployment, in_seconds=-14 * 24 * HOUR)
        recent = world.schedule(deployment, in_seconds=-0.5 * HOUR)
        async with world.agent(max_late_seconds=HOUR):
            await world.until(lambda: closed(world, recent))
            await trio.sleep(600)

        assert world.processes.launches == [recent]
        assert world.state_of(ancient) == "SCHEDULED"
        left = [n for n in world.notices() if isinstance(n, RunLeftAlone)]
        assert [str(notice.flow_run_id) for notice in left] == [ancient]


async def test_without_a_bound_late_runs_are_launched(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        ancient = world.schedule(world.deployment(), in_seconds=-14 * 24 * HOUR)
        async with world.agent():
            await world.until(lambda: closed(world, ancient))

        assert world.processes.launches == [ancient]


async def test_a_submission_that_does_not_get_on_is_said_once(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        world.processes.hangs = True
        async with world.agent():
            await trio.sleep(1800)

        overdue = [n for n in world.notices() if isinstance(n, SubmissionOverdue)]
        assert [(n.submission, n.state) for n in overdue] == [(f"{run}/1", State.LAUNCHING)]
        assert overdue[0].seconds >= 300


@pytest.mark.parametrize("moment", range(1, 40, 3))
async def test_a_log_restored_from_an_older_copy_launches_nothing_twice(
    moment: int, autojump_clock: MockClock
) -> None:
    async with simulated_world(lambda _run: Command(seconds=10.0)) as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: world.store.last_position() >= moment or closed(world, run))
            older = world.store.crash_copy()
            await world.until(lambda: closed(world, run))
        world.store = older
        async with world.agent():
            await trio.sleep(120)

        assert world.processes.launches == [run]
        assert world.state_of(run) == "COMPLETED"
        assert not [s for s in world.store.open_streams() if s.startswith(run)]


async def test_a_run_that_is_offered_while_its_command_lives_is_not_polled_for_without_pause(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world(lambda _run: Command(seconds=60.0)) as world:
        deployment = world.deployment()
        run = world.schedule(deployment)
        async with world.agent(limit=2):
            await world.until(lambda: world.submission(run).state is State.STARTED)
            world.state.set_state(run, {"type": "SCHEDULED"}, force=True)
            before = world.count("POST", "/get_runs")
            other = world.schedule(deployment)
            await trio.sleep(30)

        assert world.count("POST", "/get_runs") - before < 12
        assert other in world.processes.launches, "and it does not hide others"
