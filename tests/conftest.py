"""Real servers for the tests that name them, one of each version for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers
from tests.servers import RealServer


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
