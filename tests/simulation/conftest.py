"""What every simulation has to hold: whatever its daemons wrote can be lived again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from events.memory import MemoryStore
from replay.reexecution.execution import reexecute
from tests.simulation import world
from tests.unit.reexecuted import recordings


@pytest.fixture(autouse=True)
def _what_was_written_can_be_lived_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the daemon's code append again what it has appended in the test's world."""
    stores: list[MemoryStore] = []

    def remembered(*about: Any) -> MemoryStore:
        stores.append(MemoryStore(*about))
        return stores[-1]

    monkeypatch.setattr(world, "MemoryStore", remembered)
    yield
    for store in stores:
        for recording in recordings(store.read_all()):
            assert reexecute(recording, lambda _step: None).divergence is None
