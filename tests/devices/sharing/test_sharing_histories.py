"""Many histories of several workers on one device: over-committed never, everybody served, no busy loop."""

from __future__ import annotations

import logging

import pytest
import sharing_workers
from sharing_parts import BrokenRuleError, Switches
from sharing_seeds import run_seed, run_seeds

from dumbwaiter.devices.sharing.tenancy import Tenancy
from dumbwaiter.policies import admission

pytestmark = pytest.mark.anyio

#: Those of a normal run, and those that `make test-faults` goes through besides.
FEW = [range(first, first + 200) for first in range(0, 1200, 200)]
MANY = [range(first, first + 800) for first in range(1200, 20_000, 800)]


@pytest.fixture(autouse=True)
def is_quiet():
    """What befalls models in histories is logged, thousands of times."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seeds", FEW, ids=str)
async def test_every_history_keeps_all_rules(seeds):
    run_seeds(seeds)


@pytest.mark.trial
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seeds", MANY, ids=str)
async def test_so_do_many_more(seeds):
    run_seeds(seeds)


async def test_workers_that_have_nothing_to_do_hardly_look():
    for seed in range(1_000_000, 1_000_020):
        before = run_seed(seed).steps
        outcome = run_seed(seed, idle=20.0)
        workers = 8
        assert outcome.steps - before <= 20.0 * 6.0 * workers


async def test_histories_have_all_that_can_befall_workers():
    outcome = run_seeds(range(300))
    assert min(outcome.orders[order] for order in ("empty", "park", "wake", "retire")) > 50
    assert outcome.prolonged + outcome.gone_on > 200
    assert outcome.revoked > 50
    assert outcome.deaths > 50
    assert outcome.deaths_in_orders > 20
    assert outcome.cancelled > 20
    assert outcome.leaks > 1
    assert outcome.longest > 0.1, "the bound is of some use"


async def test_a_seed_always_makes_the_same_history():
    def history(seed):
        lines = []
        run_seed(seed, trace=lines.append)
        return lines

    assert history(7) == history(7) != history(8)


async def test_a_history_that_broke_a_rule_tells_how_to_replay_it():
    broken = broken_rules(range(100), switches=Switches(gives_back_unemptied=True))
    assert "replay: python tests/devices/sharing/sharing_seeds.py" in broken[0]


# --- what is wrong is noticed -------------------------------------------------------------------------------------


def broken_rules(seeds, **settings):
    """What the histories of *seeds* break."""
    broken = []
    for seed in seeds:
        try:
            run_seed(seed, **settings)
        except BrokenRuleError as error:
            broken.append(str(error))
    return broken


async def test_who_gives_back_before_its_cache_is_emptied_over_commits_the_device():
    broken = broken_rules(range(100), switches=Switches(gives_back_unemptied=True))
    assert len(broken) > 5
    assert all("over-committed" in text for text in broken)


async def test_who_forgets_the_dead_before_their_memory_is_free_does_so_too():
    broken = broken_rules(range(300), switches=Switches(forgets_the_dead=True))
    assert broken
    assert all("over-committed" in text for text in broken)


async def test_if_nobody_heeds_who_lacks_room_somebody_waits_for_ever(monkeypatch):
    monkeypatch.setattr(admission, "who_lacks_room", lambda *_: None)
    assert any("has got nothing" in text for text in broken_rules(range(60)))


async def test_if_nobody_parks_somebody_waits_for_ever(monkeypatch):
    monkeypatch.setattr(admission, "ought_to_park", lambda *_: None)
    assert any("has got nothing" in text for text in broken_rules(range(60)))


async def test_if_no_look_into_a_queue_is_ended_somebody_waits_for_long(monkeypatch):
    monkeypatch.setattr(Tenancy, "_revoke", lambda *_: None)
    monkeypatch.setattr(sharing_workers, "_RECEIVE_WAIT", 1000.0)
    assert any("has got nothing" in text for text in broken_rules(range(100)))


async def test_if_somebody_looks_without_end_that_is_noticed():
    broken = broken_rules(range(10), switches=Switches(hurries=True))
    assert all("looks again and again" in text for text in broken)
    assert len(broken) == 10


async def test_if_what_a_load_came_with_is_given_back_two_oust_each_other_for_ever(monkeypatch):
    monkeypatch.setattr(Tenancy, "_serve_owed", lambda *_: False)
    assert any("has got nothing" in text for text in broken_rules([800, 1141]))


async def test_if_whoever_is_ended_forgets_its_turn_it_comes_before_all_others(monkeypatch):
    newcomer = Tenancy.newcomer

    def of_no_past(tenancy, wall):
        tenancy._tag = tenancy._clock = 0.0
        return newcomer(tenancy, wall)

    monkeypatch.setattr(Tenancy, "newcomer", of_no_past)
    assert any("has got nothing" in text for text in broken_rules([4, 48, 89, 144]))
