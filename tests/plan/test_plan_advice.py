"""What the results are taken to say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dumbwaiter.plan import advice
from dumbwaiter.plan.actuation import Machines
from dumbwaiter.plan.advice import Wish, verdict
from dumbwaiter.plan.comparing import Figures, Generated, Recorded, Result, recommended
from dumbwaiter.plan.services import Curve, Inputs
from dumbwaiter.plan.simulation import Setting, World
from dumbwaiter.plan.statistics import mean_of
from dumbwaiter.plan.traces import in_order
from dumbwaiter.policies.scaling import Rules

WISH = Wish(0.01, 30.0)
TRACE = Recorded(in_order("t", np.arange(100.0), np.full(100, 0.2), np.ones(100, dtype=np.int64)))
MADE_UP = Generated("poisson", Inputs(Curve(each=0.2)), 5.0, 60.0)
WORLD = World(Curve(each=0.2), Machines(boot=20.0, load=5.0))


def result(*lateness, most=3, name="work", cost=1.0):
    seeds = [Figures(1.0, 0.1, 0.1, 0.1, late, most, 5) for late in lateness]
    one = mean_of([1.0] * len(lateness))
    fields = dict.fromkeys(("cost", "hours", "p50", "p95", "p99", "most", "ordered"), one)
    fields["cost"] = mean_of([cost] * len(lateness))
    setting = Setting(name, Rules(max_replicas=4))
    return Result(setting=setting, late=mean_of(list(lateness)), per_seed=tuple(seeds), **fields)


def said(one, source=TRACE, world=WORLD):
    return verdict([one], one, WISH, source, world, is_good=False)


def test_where_all_workers_were_there_more_are_advised_and_nothing_else():
    text = said(result(0.2, 0.3, most=4))
    assert "It had all of its 4 workers in 2 of 2 runs: raise --max-replicas." in text
    assert "--boot" not in text


def test_where_workers_come_later_than_answers_may_that_is_said_too():
    text = said(result(0.2, 0.3, most=4), world=replace(WORLD, machines=Machines(boot=120.0)))
    assert "raise --max-replicas. A worker takes 130 s to come: shorten --boot or --load" in text


def test_where_only_the_interval_is_too_wide_more_runs_are_advised():
    one = result(0.0, 0.015)
    assert one.late.mean < WISH.goal < one.late.upper
    assert "the intervals are too wide. Give more --seeds or a longer --duration." in said(one, MADE_UP)
    assert said(one).endswith("Give more --seeds.")
    assert "--boot" not in said(one)


def test_else_it_is_the_time_that_workers_take_to_come():
    text = said(result(0.2, 0.3))
    assert "the least late is: work. A worker takes 25 s to come: shorten --boot or --load" in text
    assert "--max-replicas" not in text


def test_a_model_that_is_too_slow_by_itself_is_named():
    slow = replace(TRACE.recorded, each=np.where(np.arange(100) < 10, 31.0, 0.2))
    text = said(result(0.2, 0.3, most=4), Recorded(slow))
    assert text.endswith("The model itself takes longer than that for 10 % of the inputs: raise --late.")


def test_so_is_one_that_is_too_slow_with_what_broker_and_network_add():
    text = said(result(0.2, 0.3, most=4), world=replace(WORLD, transit=29.9))
    assert text.endswith("The model and the --transit take longer than that for 100 % of the inputs: raise --late.")


def recommendation(*results, source=MADE_UP):
    chosen, is_good = recommended(results, goal=WISH.goal)
    return verdict(results, chosen, WISH, source, WORLD, is_good=is_good)


def test_what_is_recommended_is_the_cheapest_that_is_certain():
    text = recommendation(result(0.0, 0.0, cost=2.0), result(0.0, 0.0, name="dear", cost=3.0))
    assert text == "The cheapest that is certain to have at most 1 % of the answers later than 30 s is: work."


def test_of_one_run_nothing_is_called_certain():
    text = recommendation(result(0.0, cost=2.0), result(0.0, name="dear", cost=3.0), source=TRACE)
    assert text == (
        "The cheapest that had at most 1 % of the answers later than 30 s is: work. It is one run: others may differ."
    )


def test_what_is_cheaper_and_may_be_good_enough_is_told_with_what_would_decide_it():
    sure, unsure = result(0.0, 0.0, name="sure", cost=3.0), result(0.0, 0.015, cost=1.944)
    assert unsure.late.mean < WISH.goal < unsure.late.upper
    bad, dearer = result(0.2, 0.3, name="bad", cost=1.0), result(0.0, 0.015, name="dearer", cost=4.0)
    text = recommendation(sure, unsure, bad, dearer)
    more = "work (1.94) costs less and may have it too: more --seeds or a longer --duration would tell."
    assert text.endswith(f" is: sure. {more}")
    assert recommendation(sure, unsure, source=TRACE).endswith("may have it too: more --seeds would tell.")


def test_of_several_that_are_cheaper_and_may_be_the_cheapest_is_named_and_the_others_are_counted():
    sure = result(0.0, 0.0, name="sure", cost=3.0)
    text = recommendation(sure, result(0.0, 0.015, name="second", cost=2.0), result(0.0, 0.015, name="first", cost=0.5))
    assert "is: sure. first (0.500) and 1 more cost less and may have it too: more --seeds" in text


def test_the_table_of_a_model_takes_the_place_of_its_own():
    assert advice.heading("cats") == "For dumbwaiter.toml, in place of the table of cats if it is there already:"


def test_few_requests_are_told_by_all_seeds_where_they_are_made_up():
    assert advice.warnings(MADE_UP, 100, 10) == []
    assert "take a longer --duration" in advice.warnings(MADE_UP, 99, 10)[0]
    assert "take a longer TRACE" in advice.warnings(TRACE, 100, 10)[0]
