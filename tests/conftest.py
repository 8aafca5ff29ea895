"""Real servers for the tests that name them, one of each version for the whole session.

`any_server` runs a test against all of them and against the stand-in in both its flavours.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings

from tests import servers
from tests.rest import Rest
from tests.servers import RealServer

# A slow machine is no fault of what is tested; speed is for benchmarks.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say how long `pytest -m soak` plays simulations."""
    parser.addoption("--soak-seconds", default="60", help="how long `-m soak` goes on")


@pytest.fixture(scope="session")
def prefect2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A real Prefect 2.20 server."""
    server = servers.start("2.20", tmp_path_factory.mktemp("prefect2"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def prefect3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A real Prefect 3.x server."""
    server = servers.start("3", tmp_path_factory.mktemp("prefect3"))
    yield server
    server.stop()


@contextmanager
def _standin(flavour: str) -> Iterator[str]:
    """Serve the stand-in from a process of its own, which ends when the tests do."""
    command = [sys.executable, "-m", "agent.standin", "--flavour", flavour, "--until-eof"]
    # Far from UTC, so that a time without an offset that is taken for a local one shows.
    environment = os.environ | {"TZ": "Asia/Tokyo"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, "the stand-in did not start"
        yield url


@pytest.fixture(scope="session")
def standin2() -> Iterator[str]:
    """The URL of a stand-in that plays Prefect 2.20, over real HTTP."""
    with _standin("2.20") as url:
        yield url


@pytest.fixture(scope="session")
def standin3() -> Iterator[str]:
    """The URL of a stand-in that plays Prefect 3, over real HTTP."""
    with _standin("3") as url:
        yield url


@pytest.fixture(
    scope="session",
    params=[
        "stand-in-2.20",
        "stand-in-3",
        pytest.param("prefect-2.20", marks=pytest.mark.real),
        pytest.param("prefect-3", marks=pytest.mark.real),
    ],
)
def any_server(request: pytest.FixtureRequest) -> Iterator[Rest]:
    """A server of either kind and either generation, ready to be asked."""
    match request.param:
        case "stand-in-2.20":
            url, flavour = request.getfixturevalue("standin2"), "2.20"
        case "stand-in-3":
            url, flavour = request.getfixturevalue("standin3"), "3"
        case "prefect-2.20":
            url, flavour = request.getfixturevalue("prefect2").url, "2.20"
        case _:
            url, flavour = request.getfixturevalue("prefect3").url, "3"
    rest = Rest(url, flavour)
    yield rest
    rest.close()
