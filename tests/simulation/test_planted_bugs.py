"""The simulator finds every bug that was planted, within a few seconds' worth of seeds."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.simulator import simulate

ENOUGH_SEEDS = 600


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_planted_bug_is_found(mutant: Mutant) -> None:
    with mutant():
        found = any(simulate(seed).broken for seed in range(ENOUGH_SEEDS))

    assert found, mutant.__doc__
