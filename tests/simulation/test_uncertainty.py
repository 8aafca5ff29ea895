"""Several agents, and evidence that is gone: what can't be proved is never guessed."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
import trio
from trio.testing import MockClock

from events.lifecycle import ClaimMisplaced, LaunchRepeated, OnUncertain
from tests.simulation.world import EPOCH, SimulatedWorld, simulated_world


async def claim_late(world: SimulatedWorld, run: str, *states: str) -> None:
    """Let another agent bring the run through some states between our poll and our claim."""

    def meanwhile(request: object) -> None:
        url = str(getattr(request, "url", ""))
        if url.endswith(f"/flow_runs/{run}/set_state") and states:
            world.fault = None
            for state in states:
                world.state.set_state(run, {"type": state, "name": state.title()}, force=False)

    world.fault = meanwhile


@pytest.mark.parametrize("ending", ["COMPLETED", "FAILED", "CRASHED"])
@pytest.mark.parametrize("flavour", ["2.20", "3"])
async def test_a_run_that_another_agent_has_finished_is_not_launched_and_is_given_back(
    autojump_clock: MockClock, ending: str, flavour: str
) -> None:
    async with simulated_world(flavour=flavour) as world:
        run = world.schedule(world.deployment())
        await claim_late(world, run, "PENDING", "RUNNING", ending)
        async with world.agent():
            await world.until(lambda: ClaimMisplaced in map(type, world.events(run)))
            await world.until(lambda: world.submission(run).is_closed)

        assert world.processes.launches == []
        assert world.state_of(run) == ending


@pytest.mark.parametrize("ending", ["COMPLETED", "FAILED", "CRASHED"])
@pytest.mark.parametrize("place", [1, 2])
async def test_a_late_claim_is_given_back_rightly_when_the_servers_history_is_out_of_order(
    autojump_clock: MockClock, ending: str, place: int
) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        await claim_late(world, run, "PENDING", ending)

        def came_in_early(request: httpx.Request, _response: httpx.Response) -> None:
            history = world.state.history[run]
            if request.url.path.endswith("set_state") and len(history) == 4:
                # Ours is the last that took effect, but its request came before the other agent's.
                others = history[:3]
                others.insert(place, history[3])
                for second, state in enumerate(others):
                    state["timestamp"] = (EPOCH + timedelta(seconds=second)).isoformat()

        world.spoil = came_in_early
        async with world.agent():
            await world.until(lambda: ClaimMisplaced in map(type, world.events(run)))
            await world.until(lambda: world.submission(run).is_closed)
            await trio.sleep(100)

        assert world.processes.launches == []
        assert world.state_of(run) == ending


async def test_a_launch_without_evidence_is_reported_as_crashed(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = await stranded_launch(world)
        async with world.agent():
            await world.until(lambda: world.submission(run).is_closed)

        assert world.processes.launches == []
        assert world.state_of(run) == "CRASHED"


async def test_a_launch_without_evidence_is_launched_again_if_that_is_wanted(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = await stranded_launch(world)
        async with world.agent(on_uncertain=OnUncertain.RELAUNCH):
            await world.until(lambda: world.submission(run).is_closed)

        assert world.processes.launches == [run]
        assert LaunchRepeated in map(type, world.events(run))
        assert world.state_of(run) == "COMPLETED"


async def test_a_run_that_became_running_meanwhile_is_not_launched_again(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = await stranded_launch(world)
        world.state.set_state(run, {"type": "RUNNING"}, force=False)
        async with world.agent(on_uncertain=OnUncertain.RELAUNCH):
            await world.until(lambda: world.submission(run).is_closed)

        assert world.processes.launches == []
        assert world.state_of(run) == "RUNNING"


async def stranded_launch(world: SimulatedWorld) -> str:
    """Kill an agent while it launches a run, and replace the spool; return the run."""
    run = world.schedule(world.deployment())
    world.processes.hangs = True
    async with world.agent():
        await world.until(lambda: world.submission(run).launch is not None)
    world.processes.hangs = False
    world.processes.evidence_id = "a new spool"
    await trio.sleep(1)
    return run
