"""The other half of the histories of test_admission_simulation.py, in a file of its own: two can run at once."""

from __future__ import annotations

import pytest
from admission_simulation import run_seed

PARTS = [range(first, first + 2500) for first in range(10_000, 20_000, 2500)]


@pytest.mark.parametrize("seeds", PARTS, ids=str)
def test_every_history_keeps_all_rules(seeds):
    for seed in seeds:
        run_seed(seed)
