"""The kill loop of `tests.bench.kill_loop`, short: zero lost and zero twice on real servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.kill_loop import KillLoop, Plan, describe
from tests.servers import RealServer

pytestmark = pytest.mark.real


@pytest.fixture(params=["2.20", "3"])
def server(request: pytest.FixtureRequest) -> RealServer:
    """A real server of each version."""
    name = {"2.20": "prefect2", "3": "prefect3"}[request.param]
    found: RealServer = request.getfixturevalue(name)
    return found


def test_agents_killed_in_a_loop_lose_no_run_and_launch_none_twice(
    server: RealServer, tmp_path: Path
) -> None:
    plan = Plan(runs=40, kills=6, seed=1, restarts=1)
    figures = KillLoop(server, tmp_path / "loop", plan).run()
    assert not figures.faults, describe(figures)
    assert figures.restarts == 1
    assert figures.recovered > 0, "no kill met a submission under way"


def test_keepers_killed_with_their_agents_cost_no_second_launch(
    server: RealServer, tmp_path: Path
) -> None:
    plan = Plan(runs=30, kills=8, seed=2, kill_keepers=True)
    figures = KillLoop(server, tmp_path / "loop", plan).run()
    assert not figures.faults, describe(figures)


def test_two_agents_on_one_queue_never_launch_a_run_twice(
    server: RealServer, tmp_path: Path
) -> None:
    plan = Plan(runs=40, kills=6, seed=3, agents=2)
    figures = KillLoop(server, tmp_path / "loop", plan).run()
    assert not figures.faults, describe(figures)
