"""Many histories of several models on one device: over-committed never, stuck never, no wait longer than was said."""

from __future__ import annotations

import pytest
from admission_parts import BrokenRuleError, Switches
from admission_simulation import article, backlogged, run_seed

from dumbwaiter.policies import admission
from dumbwaiter.policies.admission import bounding, deciding

#: Of 20,000 seeds the first half; the other is in test_admission_simulation_more.py.
PARTS = [range(first, first + 2500) for first in range(0, 10_000, 2500)]


@pytest.mark.parametrize("seeds", PARTS, ids=str)
def test_every_history_keeps_all_rules(seeds):
    for seed in seeds:
        run_seed(seed)


def test_so_does_every_long_one():
    for seed in range(1_000_000, 1_000_050):
        run_seed(seed, events=400)


def test_histories_have_all_that_can_befall_models():
    outcomes = [run_seed(seed) for seed in range(400)]
    assert sum(outcome.evictions for outcome in outcomes) > 100
    assert sum(outcome.backfills for outcome in outcomes) > 100
    assert sum(outcome.crashes for outcome in outcomes) > 20
    assert sum(outcome.leaks for outcome in outcomes) > 0
    assert sum(outcome.hangs for outcome in outcomes) > 10
    assert sum(outcome.errors for outcome in outcomes) > 5
    assert max(max(outcome.waits_over_bound, default=0.0) for outcome in outcomes) > 0.5, "the bound is of some use"


def test_a_seed_always_makes_the_same_history():
    def history(seed):
        lines = []
        run_seed(seed, trace=lines.append)
        return lines

    assert history(7) == history(7) != history(8)


def test_a_history_that_broke_a_rule_tells_how_to_replay_it():
    with pytest.raises(BrokenRuleError, match=r"seed 3: .*over-committed.*admission_simulation\.py 3 events=18"):
        run_seed(3, switches=Switches(ignores_reserve=True))


# --- the article's case -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dominated_by", ["weights", "activation", "both"])
def test_networks_of_3_and_6_gb_share_8_gb(dominated_by):
    outcome = article(dominated_by=dominated_by).run(events=10**6, until=120.0)
    assert outcome.batches["big"] > 100
    assert outcome.batches["small"] > 1000
    assert max(outcome.waits_over_bound) < 1.0


def test_when_both_stay_loaded_only_their_batches_alternate():
    outcome = article(dominated_by="activation").run(events=10**6, until=120.0)
    assert outcome.evictions == 0
    assert outcome.used["big"] == pytest.approx(outcome.used["small"], rel=0.1)


@pytest.mark.parametrize("dominated_by", ["weights", "activation", "both"])
def test_with_first_fit_the_big_one_starves(dominated_by):
    outcome = article(dominated_by=dominated_by, switches=Switches(first_fit=True)).run(events=10**6, until=120.0)
    assert "big" not in outcome.batches
    assert outcome.batches["small"] > 4000


# --- shares -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_backlogged_models_share_by_their_weights(workers):
    weights = {"a": 1.0, "b": 2.0, "c": 4.0}
    world = backlogged(weights, need=0.6, seconds={"a": 0.1, "b": 0.05, "c": 0.2}, workers=workers)
    used = world.run(events=10**6, until=100.0).used
    share = {name: gb_seconds / weights[name] for name, gb_seconds in used.items()}
    # Start-time fair queueing: of any two, one is ahead by no more than a batch of each, whatever the time.
    batch = {seat.model: admission.charge(seat, seat.need, seat.seconds) for seat in world.seats.values()}
    for one in weights:
        for other in weights:
            assert abs(share[one] - share[other]) <= batch[one] + batch[other]


def test_models_that_run_beside_each_other_do_so_too():
    weights = {"a": 1.0, "b": 2.0, "c": 4.0}
    world = backlogged(weights, need=0.3, seconds={"a": 0.1, "b": 0.05, "c": 0.2}, workers=3)
    used = world.run(events=10**6, until=200.0).used
    share = {name: gb_seconds / weights[name] for name, gb_seconds in used.items()}
    assert max(share.values()) == pytest.approx(min(share.values()), rel=0.02)


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


def test_without_the_reserve_the_device_is_over_committed():
    broken = broken_rules(range(100), switches=Switches(ignores_reserve=True))
    assert len(broken) > 20
    assert all("over-committed" in text for text in broken)


def test_evicting_busy_ones_takes_the_weights_from_under_a_batch():
    broken = broken_rules(range(100), switches=Switches(evicts_busy=True))
    assert len(broken) > 5
    assert all("was parked while it ran" in text for text in broken)


def test_if_those_behind_may_delay_the_head_it_waits_too_long(monkeypatch):
    monkeypatch.setattr(deciding._Line, "_delays", lambda *_: False)
    with pytest.raises(BrokenRuleError, match=r"its bound was"):
        article(dominated_by="activation").run(events=10**6, until=120.0)


def test_if_nobody_parks_somebody_waits_for_ever(monkeypatch):
    monkeypatch.setattr(admission, "ought_to_park", lambda *_: None)
    assert any("nothing will ever happen" in text for text in broken_rules(range(100)))


def test_if_no_poller_yields_somebody_waits_for_ever(monkeypatch):
    monkeypatch.setattr(admission, "ought_to_yield", lambda *_: None)
    assert any("nothing will ever happen" in text for text in broken_rules(range(200)))


def test_the_bound_would_be_too_short_without_the_turns_of_others(monkeypatch):
    monkeypatch.setattr(bounding, "turns_before", lambda *_: 0)
    assert any("its bound was" in text for text in broken_rules(range(200)))
