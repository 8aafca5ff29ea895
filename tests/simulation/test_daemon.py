"""The whole daemon on a virtual clock: what a user can rely on, one behaviour a test."""

from __future__ import annotations

import httpx
import pytest
import trio
from trio.testing import MockClock

from agent.daemon import OnStop
from events.chain import first_damage
from events.lifecycle import (
    EffectDeferred,
    LaunchConfirmed,
    LaunchRequested,
    LaunchVoided,
    OutcomeProposed,
    OutcomeSettled,
    PendingRefused,
    RecoveryStarted,
    State,
    SubmissionCancelled,
)
from events.notices import PollingFailed, PollingResumed, QueueCreated, QueuePaused, QueueResumed
from tests.simulation.world import AGENT_ID, QUEUE, Command, SimulatedWorld, simulated_world


def closed(world: SimulatedWorld, *runs: str) -> bool:
    return all(world.store.streams(f"{run}/") for run in runs) and all(
        world.submission(run).is_closed for run in runs
    )


async def test_a_scheduled_run_is_claimed_launched_and_seen_through(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "COMPLETED"
    assert world.processes.launches == [run]
    assert world.state.runs[run]["infrastructure_pid"] == "host:1000"
    assert first_damage(world.store.read_all(), AGENT_ID) is None


async def test_a_missing_queue_is_created_and_said(autojump_clock: MockClock) -> None:
    async with simulated_world() as world, world.agent():
        await world.until(lambda: world.count("POST", "get_runs") > 0)
    assert world.state.queue_named(QUEUE)["name"] == QUEUE
    assert QueueCreated(QUEUE) in world.notices()


async def test_a_paused_queue_is_said_and_left_alone_until_it_is_resumed(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        queue = world.state.queue_named(QUEUE)
        queue["is_paused"] = True
        async with world.agent():
            await world.until(lambda: QueuePaused(QUEUE) in world.notices())
            await trio.sleep(60)
            assert world.state_of(run) == "SCHEDULED"
            queue["is_paused"] = False
            await world.until(lambda: closed(world, run))
    assert QueueResumed(QUEUE) in world.notices()
    assert world.notices().count(QueuePaused(QUEUE)) == 1


async def test_a_queue_that_fails_does_not_hide_the_others_runs(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        world.queues = ("broken", QUEUE)

        def fault(request: httpx.Request) -> httpx.Response | None:
            return httpx.Response(500) if "broken" in request.url.path else None

        world.fault = fault
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "COMPLETED"


async def test_queues_are_found_by_prefix(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        world.queues, world.prefixes = (), ("def",)
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "COMPLETED"


async def test_no_more_runs_are_claimed_than_the_limit_allows(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        deployment = world.deployment()
        runs = [world.schedule(deployment) for _ in range(5)]
        async with world.agent(limit=2):
            await world.until(lambda: len(world.processes.launches) == 2)
            claimed = [run for run in runs if world.state_of(run) != "SCHEDULED"]
            assert len(claimed) == 2
            await world.until(lambda: closed(world, *runs))
    assert sorted(world.processes.launches) == sorted(runs)


async def test_a_burst_is_launched_without_waiting_for_the_next_poll(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        deployment = world.deployment()
        runs = [world.schedule(deployment) for _ in range(40)]
        async with world.agent():
            await world.until(lambda: len(world.processes.launches) == 40, within_seconds=5)
        assert sorted(world.processes.launches) == sorted(runs)
        # 40 runs of one deployment share their reads, poll by poll.
        assert world.count("GET", "/deployments/") <= 10


async def test_a_run_claimed_by_another_agent_is_left_alone(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())

        def fault(request: httpx.Request) -> None:
            if request.url.path.endswith("set_state") and world.state_of(run) == "SCHEDULED":
                world.state.set_state(run, {"type": "PENDING"}, force=False)

        world.fault = fault
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.submission(run).state is State.ABORTED
    assert world.processes.launches == []


async def test_a_lost_answer_to_the_claim_is_settled_by_reading_the_run(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        lost: list[httpx.Request] = []

        def spoil(request: httpx.Request, _response: httpx.Response) -> None:
            if request.url.path.endswith("set_state") and not lost:
                lost.append(request)
                raise httpx.ReadTimeout("the answer was lost")

        world.spoil = spoil
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "COMPLETED"
    assert world.processes.launches == [run]


async def test_a_claim_is_never_repeated_over_a_run_that_another_agent_finished(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())

        def fault(request: httpx.Request) -> None:
            # Our request is lost; meanwhile somebody else runs the whole run.
            if request.url.path.endswith("set_state") and world.state_of(run) == "SCHEDULED":
                for state in ("PENDING", "RUNNING", "COMPLETED"):
                    world.state.set_state(run, {"type": state}, force=False)
                raise httpx.ConnectError("lost before the server")

        world.fault = fault
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "COMPLETED"
    assert world.processes.launches == []


async def test_a_deployment_that_is_gone_fails_the_run_in_words(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        deployment = world.deployment()
        run = world.schedule(deployment)
        del world.state.deployments[deployment["id"]]
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "FAILED"
    message = world.state.runs[run]["state"]["message"]
    assert message == f"Submission failed. deployment {deployment['id']} no longer exists"


async def test_an_unknown_block_type_fails_the_run_in_words(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        block = world.state.add(
            world.state.blocks,
            {
                "name": "cloud",
                "data": {},
                "block_type": {"slug": "ecs-task"},
                "block_schema": {"fields": {}},
            },
        )
        run = world.schedule(world.deployment(infrastructure_document_id=block["id"]))
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "FAILED"
    assert "'ecs-task'" in world.state.runs[run]["state"]["message"]


async def test_a_command_that_is_not_there_crashes_the_run_in_words(
    autojump_clock: MockClock,
) -> None:
    refused = Command(refuses="command not found: 'pyhton'")
    async with simulated_world(lambda _run: refused) as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "CRASHED"
    assert "command not found: 'pyhton'" in world.state.runs[run]["state"]["message"]


async def test_a_trouble_that_passes_does_not_fail_the_run(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        tries: list[httpx.Request] = []

        def fault(request: httpx.Request) -> httpx.Response | None:
            if "/deployments/" in request.url.path and len(tries) < 20:
                tries.append(request)
                return httpx.Response(500)
            return None

        world.fault = fault
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "COMPLETED"
    assert any(isinstance(event, EffectDeferred) for event in world.events(run))


async def test_a_failure_is_owed_until_the_server_has_answered(autojump_clock: MockClock) -> None:
    refused = Command(refuses="no such command")
    async with simulated_world(lambda _run: refused) as world:
        run = world.schedule(world.deployment())
        down: list[httpx.Request] = []

        def fault(request: httpx.Request) -> None:
            if down or b"CRASHED" in request.content:
                down.append(request)
                if trio.current_time() < 600:
                    raise httpx.ConnectError("the server is away")

        world.fault = fault
        async with world.agent():
            await world.until(lambda: bool(down))
            await trio.sleep(300)
        # That agent is dead; the next one owes it all the same.
        assert world.state_of(run) == "PENDING"
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "CRASHED"


@pytest.mark.parametrize("exit_code", [0, 1, -9])
async def test_a_command_that_ends_before_running_is_reported_crashed(
    exit_code: int, autojump_clock: MockClock
) -> None:
    async with simulated_world(lambda _run: Command(states=(), exit_code=exit_code)) as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "CRASHED"
    assert f"status code {exit_code}" in world.state.runs[run]["state"]["message"]


async def test_a_command_that_dies_while_running_is_reported_crashed(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world(lambda _run: Command(states=("RUNNING",), exit_code=-9)) as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "CRASHED"


async def test_a_flow_that_failed_by_itself_keeps_its_own_state(autojump_clock: MockClock) -> None:
    failing = Command(states=("RUNNING", "FAILED"), exit_code=1)
    async with simulated_world(lambda _run: failing) as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "FAILED"
    assert not any(isinstance(event, OutcomeProposed) for event in world.events(run))


async def test_a_cancelling_run_whose_command_ended_becomes_cancelled(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world(lambda _run: Command(states=("RUNNING", "CANCELLING"))) as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "CANCELLED"


async def test_a_rescheduled_run_is_a_new_submission_after_the_old_one_ended(
    autojump_clock: MockClock,
) -> None:
    commands = [Command(states=("RUNNING", "SCHEDULED"), exit_code=1), Command()]
    async with simulated_world(lambda _run: commands.pop(0)) as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: len(world.store.streams(f"{run}/")) == 2)
            await world.until(lambda: world.submission(run, 2).is_closed)
    assert world.state_of(run) == "COMPLETED"
    assert world.processes.launches == [run, run]
    assert len(set(world.processes.commands)) == 2


@pytest.mark.parametrize("seconds", [x / 200 for x in range(0, 24)])
async def test_an_agent_killed_at_any_moment_of_a_launch_is_recovered(
    seconds: float, autojump_clock: MockClock
) -> None:
    async with simulated_world() as world:
        deployment = world.deployment()
        runs = [world.schedule(deployment) for _ in range(3)]
        async with world.agent():
            await trio.sleep(seconds)
        async with world.agent():
            await world.until(lambda: closed(world, *runs))
    assert [world.state_of(run) for run in runs] == ["COMPLETED"] * 3
    assert sorted(world.processes.launches) == sorted(runs)


async def test_a_command_that_outlived_its_agent_is_adopted_and_its_status_kept(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world(lambda _run: Command(seconds=60, exit_code=7)) as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: world.submission(run).state is State.STARTED)
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.processes.launches == [run]
    exited = world.submission(run).exited
    assert exited is not None
    assert exited.exit_code == 7


async def test_a_command_that_ended_while_no_agent_lived_is_reported(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world(lambda _run: Command(states=(), seconds=30, exit_code=3)) as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: world.submission(run).state is State.STARTED)
        await trio.sleep(600)
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "CRASHED"
    assert "3" in world.state.runs[run]["state"]["message"]


async def test_a_run_cancelled_while_the_agent_was_down_is_not_launched(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())

        def fault(request: httpx.Request) -> None:
            if "/deployments/" in request.url.path:
                raise httpx.ConnectError("resolution hangs")

        world.fault = fault
        async with world.agent():
            await world.until(lambda: world.state_of(run) == "PENDING")
        world.fault = None
        world.state.set_state(run, {"type": "CANCELLED"}, force=True)
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.processes.launches == []
    assert any(isinstance(event, SubmissionCancelled) for event in world.events(run))


async def test_a_run_deleted_while_the_agent_was_down_is_given_up(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world(lambda _run: Command(seconds=30)) as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: world.submission(run).state is State.STARTED)
        del world.state.runs[run]
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.submission(run).state is State.EXITED


async def test_polling_outlives_an_outage_of_an_hour(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        deployment = world.deployment()

        def fault(_request: httpx.Request) -> None:
            if 60 < trio.current_time() < 3660:
                raise httpx.ConnectError("away")

        world.fault = fault
        async with world.agent():
            await trio.sleep(3600)
            run = world.schedule(deployment)
            await world.until(lambda: closed(world, run), within_seconds=300)
    notices = [type(notice) for notice in world.notices()]
    assert notices.count(PollingFailed) == 1
    assert notices.count(PollingResumed) == 1


async def test_a_403_is_outlived_too(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())

        def fault(_request: httpx.Request) -> httpx.Response | None:
            return httpx.Response(403) if trio.current_time() < 900 else None

        world.fault = fault
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "COMPLETED"


async def test_stopping_leaves_what_runs_and_finishes_what_was_claimed(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world(lambda _run: Command(seconds=600)) as world:
        deployment = world.deployment()
        runs = [world.schedule(deployment) for _ in range(3)]
        async with world.agent() as daemon:
            await world.until(lambda: any(world.state_of(run) == "PENDING" for run in runs))
            daemon.stop("test")
            await trio.sleep(5)
            states = [world.submission(run).state for run in runs if world.events(run)]
            assert set(states) == {State.STARTED}
            assert len(daemon.drivers) == 0 or all(d.is_resting for d in daemon.drivers.values())


async def test_stopping_can_wait_for_what_runs(autojump_clock: MockClock) -> None:
    async with simulated_world(lambda _run: Command(seconds=60)) as world:
        run = world.schedule(world.deployment())
        async with world.agent(on_stop=OnStop.WAIT) as daemon:
            await world.until(lambda: world.state_of(run) == "PENDING")
            daemon.stop("test")
            await world.until(lambda: closed(world, run))
    assert world.state_of(run) == "COMPLETED"


async def test_run_once_sees_everything_through(autojump_clock: MockClock) -> None:
    async with simulated_world() as world:
        deployment = world.deployment()
        runs = [world.schedule(deployment) for _ in range(3)]
        async with world.agent(run_once=True) as daemon:
            await world.until(lambda: closed(world, *runs))
            await trio.sleep(1)
            assert daemon.drivers == {}
            assert world.count("POST", "get_runs") == 1


async def test_runs_are_taken_the_prefetch_time_before_they_are_due(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment(), in_seconds=100)
        async with world.agent(prefetch_seconds=30):
            await world.until(lambda: world.state_of(run) != "SCHEDULED")
            assert 60 < trio.current_time() < 90


async def test_the_log_never_holds_a_secret(autojump_clock: MockClock) -> None:
    canary = "canary-5up3r-s3cr3t"
    async with simulated_world() as world:
        block = world.state.add(
            world.state.blocks,
            {
                "name": "with-a-secret",
                "data": {"env": {"API_TOKEN": canary}, "command": ["run", f"--token={canary}"]},
                "block_type": {"slug": "process"},
                "block_schema": {"fields": {"secret_fields": ["env.API_TOKEN"]}},
            },
        )
        run = world.schedule(world.deployment(infrastructure_document_id=block["id"]))
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.processes.specs[0].env["API_TOKEN"] == canary
    assert not any(canary in record.data for record in world.store.read_all())


async def test_a_launch_in_the_log_without_evidence_is_made_again_under_the_same_key(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())

        world.processes.hangs = True
        async with world.agent():
            await world.until(
                lambda: any(isinstance(e, LaunchRequested) for e in world.events(run))
            )
        world.processes.hangs = False
        async with world.agent():
            await world.until(lambda: closed(world, run))
    kinds = [type(event) for event in world.events(run)]
    assert kinds.count(LaunchVoided) == 1
    assert kinds.count(RecoveryStarted) == 1
    assert kinds.count(LaunchConfirmed) == 1
    assert world.processes.launches == [run]


async def test_a_refused_run_that_stays_scheduled_is_not_claimed_at_every_poll(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())

        def fault(request: httpx.Request) -> httpx.Response | None:
            if not request.url.path.endswith("set_state"):
                return None
            state = world.state.runs[run]["state"]
            refusal = {"status": "ABORT", "state": state, "details": {"type": "abort_details"}}
            return httpx.Response(200, json=refusal)

        world.fault = fault
        async with world.agent():
            await trio.sleep(100)
    claims = world.count("POST", "set_state")
    assert 2 <= claims <= 4
    assert any(isinstance(event, PendingRefused) for event in world.events(run))


async def test_a_run_that_is_already_being_submitted_is_skipped(autojump_clock: MockClock) -> None:
    async with simulated_world(lambda _run: Command(states=(), seconds=60)) as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: world.submission(run).state is State.STARTED)
            # Somebody reschedules it while its command still runs.
            world.state.set_state(run, {"type": "SCHEDULED"}, force=True)
            await trio.sleep(30)
            assert world.store.streams(f"{run}/") == [f"{run}/1"]


async def test_an_outcome_that_needs_no_report_is_settled_by_reading(
    autojump_clock: MockClock,
) -> None:
    async with simulated_world() as world:
        run = world.schedule(world.deployment())
        async with world.agent():
            await world.until(lambda: closed(world, run))
    assert world.events(run)[-1] == OutcomeSettled("the run is Completed", "COMPLETED")
