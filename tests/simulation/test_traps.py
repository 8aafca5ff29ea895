"""Traps of the agents before us that need a whole daemon to be shown; docs/traps.md lists all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import orjson
import pytest
import trio
from trio.testing import MockClock

from agent.infrastructure.launcher import LaunchInDoubt, ProcessSpec, Running
from events.lifecycle import EffectDeferred, OutcomeProposed, PidReported, State
from events.observations import InfrastructureResolved
from tests.simulation.test_daemon import closed
from tests.simulation.world import QUEUE, Command, ImaginedProcesses, simulated_world


async def test_a_failed_refresh_keeps_the_list_and_is_tried_at_the_next_poll(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        deployment = world.deployment()

        def fault(request: httpx.Request) -> httpx.Response | None:
            refreshing = "/work_queues/name/" in request.url.path
            return httpx.Response(500) if refreshing and trio.current_time() > 20 else None

        world.fault = fault
        async with world.agent():
            await trio.sleep(100)
            run = world.schedule(deployment)
            await world.until(lambda: closed(world, run), within_seconds=60)
    assert world.state_of(run) == "COMPLETED"


async def test_an_unexpected_error_in_one_run_is_not_the_others(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        deployment = world.deployment()
        bad, good = world.schedule(deployment), world.schedule(deployment)
        script = world.processes.script

        def broken(run: str) -> Command:
            if run == bad:
                raise ZeroDivisionError
            return script(run)

        world.processes.script = broken
        async with world.agent():
            await world.until(lambda: closed(world, good))
            world.processes.script = script
            await world.until(lambda: closed(world, bad))
    assert [world.state_of(run) for run in (bad, good)] == ["COMPLETED", "COMPLETED"]
    assert sorted(world.processes.launches) == sorted([bad, good])


async def test_a_stale_offer_of_a_run_in_hand_is_not_launched_again(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        kept: list[bytes] = []

        def spoil(request: httpx.Request, response: httpx.Response) -> httpx.Response | None:
            if not request.url.path.endswith("get_runs"):
                return None
            if len(response.content) > 2:
                kept.append(response.content)
            # A cache in between answers with what it once saw.
            content = kept[0] if kept else b"[]"
            return httpx.Response(200, content=content)

        world.spoil = spoil
        async with world.agent():
            await world.until(lambda: closed(world, run))
            await trio.sleep(100)
    assert world.processes.launches == [run]
    assert world.store.streams(f"{run}/") == [f"{run}/1"]
    assert world.state_of(run) == "COMPLETED"


async def test_a_late_failure_does_not_overwrite_what_the_run_has_become(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world(lambda _run: Command(refuses="no such command")) as world:
        run = world.schedule(world.deployment())

        def fault(request: httpx.Request) -> None:
            if b"CRASHED" in request.content and world.state_of(run) == "PENDING":
                # While the report is on its way and lost, a person sees to the run.
                world.state.set_state(run, {"type": "COMPLETED"}, force=True)
                raise httpx.ConnectError("lost")

        world.fault = fault
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "COMPLETED"


async def test_the_default_infrastructure_is_prepared_for_the_run(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: closed(world, run))
    (spec,) = world.processes.specs
    assert list(spec.command) == ["python", "-m", "prefect.engine"]
    assert spec.env["PREFECT__FLOW_RUN_ID"] == run
    assert spec.labels["prefect.io/flow-run-id"] == run


async def test_one_runs_environment_does_not_reach_the_next(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        first = world.schedule(world.deployment(job_variables={"env": {"ONLY_FIRST": "1"}}))
        async with world.agent():
            await world.until(lambda: closed(world, first))
            second = world.schedule(world.deployment())
            await world.until(lambda: closed(world, second))
    envs = {spec.env["PREFECT__FLOW_RUN_ID"]: spec.env for spec in world.processes.specs}
    assert envs[first]["ONLY_FIRST"] == "1"
    assert "ONLY_FIRST" not in envs[second]


async def test_a_launch_that_breaks_off_is_settled_by_its_evidence(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = ImaginedProcesses.launch

    async def launch_and_break_off(self: ImaginedProcesses, key: str, spec: ProcessSpec) -> Running:
        await launch(self, key, spec)
        raise LaunchInDoubt("the keeper went away")

    monkeypatch.setattr(ImaginedProcesses, "launch", launch_and_break_off)
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.processes.launches == [run]
    assert world.state_of(run) == "COMPLETED"


async def test_many_commands_are_watched_without_a_thread_each(autojump_clock: MockClock) -> None:
    async with simulated_world(lambda _run: Command(seconds=1000)) as world:
        deployment = world.deployment()
        runs = [world.schedule(deployment) for _ in range(100)]
        async with world.agent():
            await world.until(lambda: len(world.processes.launches) == 100, within_seconds=60)
            assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    assert sorted(world.processes.launches) == sorted(runs)


async def test_runs_of_all_queues_are_taken_by_their_due_time(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        other = world.state.create_queue("aaa")
        early, late = world.deployment(), world.deployment()
        late["work_queue_id"], late["work_queue_name"] = other["id"], "aaa"
        second = world.schedule(late, in_seconds=-10)
        first = world.schedule(early, in_seconds=-20)
        world.queues = ("aaa", QUEUE)
        async with world.agent(limit=1):
            await world.until(lambda: closed(world, first, second))
    assert world.processes.launches == [first, second]


async def test_the_servers_wait_is_recorded_and_kept(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        waited: list[float] = []

        def fault(request: httpx.Request) -> httpx.Response | None:
            if request.url.path.endswith("set_state") and not waited:
                waited.append(trio.current_time())
                answer = {
                    "status": "WAIT",
                    "state": world.state.runs[run]["state"],
                    "details": {"type": "wait_details", "delay_seconds": 20, "reason": "busy"},
                }
                return httpx.Response(200, json=answer)
            return None

        world.fault = fault
        async with world.agent():
            await world.until(lambda: world.state_of(run) != "SCHEDULED")
            assert trio.current_time() - waited[0] >= 20
    deferred = [e for e in world.events(run) if isinstance(e, EffectDeferred)]
    assert [(e.delay_seconds, e.reason) for e in deferred] == [(20, "busy")]


async def test_the_log_keeps_what_was_launched(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        variables = {"command": ["run", "it"], "env": {"COLOUR": "blue"}, "working_dir": "/srv"}
        run = world.schedule(world.deployment(job_variables=variables))
        async with world.agent():
            await world.until(lambda: closed(world, run))
    (resolved,) = [e for e in world.events(run) if isinstance(e, InfrastructureResolved)]
    assert resolved.command == ("run", "it")
    assert resolved.working_dir == "/srv"
    digest = resolved.env["COLOUR"]
    assert digest is not None
    assert "blue" not in digest


async def test_a_run_without_a_deployment_fails_in_words(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        world.state.runs[run]["deployment_id"] = None
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "FAILED"
    assert "no deployment" in world.state.runs[run]["state"]["message"]


async def test_the_infrastructure_pid_is_owed_until_the_server_has_it(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world(lambda _run: Command(seconds=500)) as world:
        run = world.schedule(world.deployment())

        def fault(request: httpx.Request) -> None:
            if request.method == "PATCH" and trio.current_time() < 400:
                raise httpx.ConnectError("away")

        world.fault = fault
        async with world.agent():
            await world.until(lambda: world.submission(run).state is State.STARTED)
        async with world.agent():
            await world.until(lambda: not world.submission(run).pid_owed)
            assert world.state.runs[run]["infrastructure_pid"] == "host:1000"
    assert sum(isinstance(e, PidReported) for e in world.events(run)) == 1


async def test_the_end_of_a_command_is_noticed_while_the_server_is_away(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world(lambda _run: Command(states=(), exit_code=5)) as world:
        run = world.schedule(world.deployment())

        def fault(_request: httpx.Request) -> None:
            if world.processes.launches and trio.current_time() < 1000:
                raise httpx.ConnectError("away")

        world.fault = fault
        async with world.agent():
            await world.until(lambda: world.submission(run).state is State.EXITED)
            assert trio.current_time() < 100
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "CRASHED"


async def test_the_end_of_an_adopted_command_is_noticed_while_the_server_does_not_take_its_pid(
    autojump_clock: MockClock,
) -> None:
    command = Command(states=(), seconds=60, exit_code=5)
    async with simulated_world(lambda _run: command) as world:
        run = world.schedule(world.deployment())

        def fault(_request: httpx.Request) -> None:
            if world.processes.launches and trio.current_time() < 1000:
                raise httpx.ConnectError("away")

        world.fault = fault
        async with world.agent():
            await world.until(lambda: world.submission(run).state is State.STARTED)
        async with world.agent():
            await world.until(lambda: world.submission(run).state is State.EXITED)
            assert trio.current_time() < 100
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "CRASHED"


def states_sent(requests: Sequence[httpx.Request]) -> list[Any]:
    return [orjson.loads(request.content)["state"]["type"] for request in requests]


async def test_a_report_is_sent_once_when_it_is_answered(autojump_clock: MockClock) -> None:
    async with simulated_world(lambda _run: Command(states=(), exit_code=5)) as world:
        run = world.schedule(world.deployment())
        sent: list[httpx.Request] = []

        def fault(request: httpx.Request) -> None:
            if request.url.path.endswith("set_state"):
                sent.append(request)

        world.fault = fault
        async with world.agent():
            await world.until(lambda: closed(world, run))
            await trio.sleep(100)
    assert states_sent(sent) == ["PENDING", "CRASHED"]
    assert sum(isinstance(e, OutcomeProposed) for e in world.events(run)) == 1


async def test_a_run_that_its_own_engine_retries_is_left_to_it(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())

        def spoil(request: httpx.Request, response: httpx.Response) -> httpx.Response | None:
            if not request.url.path.endswith("get_runs"):
                return None
            runs = orjson.loads(response.content)
            retrying = [
                found | {"empirical_policy": {"retry_type": "in_process"}} for found in runs
            ]
            return httpx.Response(200, json=retrying)

        world.spoil = spoil
        async with world.agent():
            await trio.sleep(100)
            assert world.state_of(run) == "SCHEDULED"
            world.spoil = None
            await world.until(lambda: closed(world, run))
    assert world.processes.launches == [run]
