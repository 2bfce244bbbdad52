"""Settings side by side: means and their intervals, the Pareto front, what is recommended, and the table to paste."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from dumbwaiter.config import ScalingSettings
from dumbwaiter.plan import picture, report
from dumbwaiter.plan.actuation import KedaSettings, LocalSettings, Machines, Native, as_rendered
from dumbwaiter.plan.comparing import Generated, Recorded, Result, compare, figures_of, pareto, recommended
from dumbwaiter.plan.services import Curve, Inputs
from dumbwaiter.plan.simulation import Outcome, Setting, World
from dumbwaiter.plan.statistics import Mean, mean_of, student
from dumbwaiter.plan.toml_block import toml_of
from dumbwaiter.plan.trying import Grid, settings
from dumbwaiter.policies.scaling import Rules

RULES = Rules(max_replicas=9, min_replicas=1, cold_start=12.0)
PLAIN = Inputs(Curve(each=0.1))


def result(name, cost, late, half=0.0, setting=None):
    nothing = Mean(0.0, 0.0)
    return Result(
        setting=setting or Setting(name, RULES),
        cost=Mean(cost, half),
        hours=Mean(cost, half),
        p50=nothing,
        p95=nothing,
        p99=Mean(math.inf, None),
        late=Mean(late, half),
        most=nothing,
        ordered=nothing,
        per_seed=(),
    )


def names(results):
    return [one.setting.name for one in results]


def test_a_mean_has_students_interval():
    mean = mean_of([1.0, 2.0, 3.0, 4.0])
    assert (mean.mean, mean.half) == (2.5, pytest.approx(3.182 * math.sqrt(5 / 3) / 2))
    assert mean_of([7.0]) == Mean(7.0, None)
    with pytest.raises(ValueError, match="no values"):
        mean_of([])


def test_nineteen_intervals_in_twenty_hold_the_truth():
    rng = np.random.default_rng(4)
    samples = rng.exponential(1.0, (4_000, 30)).mean(axis=1).reshape(400, 10)
    holds = [abs(mean.mean - 1.0) <= mean.half for mean in map(mean_of, samples.tolist())]
    assert np.mean(holds) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (9, 2.262), (40, 2.021), (100, 1.984), (1000, 1.962)])
def test_the_quantiles_of_students_t(freedom, quantile):
    assert student(freedom) == pytest.approx(quantile, rel=0.003)


def test_the_front_holds_what_nothing_else_beats_at_once():
    tried = [result("dear", 9, 0.0), result("bad", 5, 0.3), result("mid", 4, 0.1), result("cheap", 1, 0.5)]
    assert names(pareto(tried)) == ["cheap", "mid", "dear"]


def test_of_two_of_one_cost_the_less_late_is_on_the_front():
    assert names(pareto([result("a", 1, 0.2), result("b", 1, 0.1)])) == ["b"]


def test_what_costs_more_and_is_as_late_is_not_on_it():
    assert names(pareto([result("a", 1, 0.2), result("b", 2, 0.2)])) == ["a"]


def test_the_cheapest_that_meets_the_goal_for_certain_is_recommended():
    tried = [result("unsure", 1, 0.009, half=0.005), result("sure", 2, 0.004, half=0.005), result("dear", 3, 0.0)]
    assert recommended(tried, goal=0.01) == (tried[1], True)


def test_where_nothing_meets_it_the_least_late_is():
    tried = [result("a", 1, 0.5), result("b", 3, 0.2), result("c", 2, 0.2)]
    chosen, is_good = recommended(tried, goal=0.01)
    assert (chosen.setting.name, is_good) == ("c", False)


def test_what_never_ended_is_late():
    outcome = Outcome(np.array([1.0, 2.0, np.nan, 4.0]), 7200.0, 3, 4, 10.0)
    figures = figures_of(outcome, late_after=3.0)
    assert (figures.hours, figures.late, figures.p50) == (2.0, 0.5, 2.0)
    assert math.isinf(figures_of(Outcome(np.full(3, np.nan), 1.0, 1, 1, 1.0), 3.0).p99)


# --- running ---


def test_all_settings_meet_the_same_requests_whatever_the_number_of_processes():
    source = Generated("poisson", PLAIN, 5.0, 120.0)
    tried = [Setting("a", RULES), Setting("b", replace(RULES, signal="messages")), Setting("again", RULES)]
    world = World(PLAIN.curve, Machines(load=2.0))
    one = compare(source, tried, world, seeds=[1, 2, 3], late_after=1.0, price=2.0, processes=1)
    two = compare(source, tried, world, seeds=[1, 2, 3], late_after=1.0, price=2.0, processes=2)
    assert [one.per_seed for one in one] == [one.per_seed for one in two]
    assert one[0].per_seed == one[2].per_seed
    assert one[0].per_seed != one[1].per_seed
    assert one[0].cost.mean == pytest.approx(2.0 * one[0].hours.mean)
    assert len(set(one[0].per_seed)) == 3


def test_a_recorded_trace_is_the_same_for_every_seed():
    trace = Generated("poisson", PLAIN, 5.0, 60.0).trace(1)
    assert Recorded(trace).trace(1) is Recorded(trace).trace(2)


# --- what is tried ---


def test_every_combination_is_tried():
    grid = Grid(("work", "messages", "age"), (2.0, 5.0), (1.0, 2.0, 3.0), (1.0, 2.0), (5.0,))
    tried = settings(grid, RULES, LocalSettings())
    assert len(tried) == 2 * 3 + 2 + 1
    assert len(set(names([result("", 1, 1, setting=one) for one in tried]))) == len(tried)
    assert {one.rules.signal for one in tried} == {"work", "messages", "age"}
    assert all(one.rules.max_replicas == 9 for one in tried)


def test_kedas_own_values_multiply_what_is_tried_and_its_triggers_need_it():
    grid = Grid(("native",), messages_each=(1.0, 5.0), polling_interval=(5.0, 30.0), stabilization=(60.0, 300.0))
    tried = settings(grid, RULES, KedaSettings())
    assert len(tried) == 8
    assert "polled 5 s, window 60 s" in tried[0].name
    assert {(one.place.polling_interval, one.place.stabilization) for one in tried} == {
        (polling, window) for polling in (5.0, 30.0) for window in (60.0, 300.0)
    }
    assert settings(grid, RULES, LocalSettings()) == []


# --- what is printed ---


@pytest.mark.parametrize("setting", settings(Grid(("work", "messages", "age", "native")), RULES, KedaSettings())[::3])
def test_the_table_to_paste_is_read_as_what_was_tried(setting):
    table = read(toml_of(setting))
    rules = setting.rules
    assert (table.min_replicas, table.max_replicas) == (1, 9)
    if isinstance(rules, Native):
        assert (table.signal, table.messages_each) == ("messages", rules.messages_each)
        used = ()
    else:
        assert table.signal == rules.signal
        used = {"work": ("drain_target", "spare"), "messages": ("messages_each",), "age": ("age_target",)}[rules.signal]
    assert table.cold_start == rules.cold_start == 12.0
    for name in (*used, "scale_in_after", "idle_after"):
        assert getattr(table, name) == getattr(rules, name)


def read(text):
    from dumbwaiter.config.units import parse_duration

    table = tomllib.loads(text)["scaling"]
    spans = {name for name, one in table.items() if isinstance(one, str) and name != "signal"}
    plain = {name: parse_duration(one) if name in spans else one for name, one in table.items()}
    return msgspec.convert(plain, ScalingSettings)


def test_a_models_table_has_its_name():
    assert toml_of(Setting("x", RULES), model="cats").startswith("[models.cats.scaling]\n")


@pytest.mark.parametrize(
    ("rules", "push", "trigger"),
    [(RULES, True, "external-push"), (RULES, False, "metrics-api"), (Native(2.0), True, "native")],
)
def test_for_keda_the_block_says_who_tells_it_how_many(rules, push, trigger):
    text = toml_of(Setting("x", rules, as_rendered(rules, polling_interval=7.0, push=push)))
    assert tomllib.loads(text)["kubernetes"] == {"trigger": trigger, "polling_interval": "7s"}
    assert "rendered" not in text, "nothing was planned otherwise"


def test_what_was_planned_otherwise_than_it_is_rendered_is_told():
    text = toml_of(Setting("x", RULES, KedaSettings(polling_interval=0.5)))
    assert "pollingInterval 0.5, rendered 1" in text
    assert "cooldownPeriod 300, rendered 60" in text
    assert "limits of scaleUp, rendered none" in text
    assert "stabilizationWindowSeconds" not in text


def test_rows_come_by_cost_and_mark_the_front_and_the_chosen():
    tried = [result("dear", 9, 0.0), result("bad", 5, 0.6), result("cheap", 1, 0.5)]
    rows = report.rows(tried, tried[0])
    assert [(row[0], row[1]) for row in rows] == [("*", "cheap"), ("", "bad"), (">", "dear")]
    assert rows[0][4] == "50.00 ± 0.00 %"
    assert rows[0][7] == "never"


def test_data_can_be_encoded_as_json_even_what_never_ended():
    tried = [result("a", 1, 0.5), result("k", 2, 0.1, setting=Setting("k", Native(2.0), KedaSettings()))]
    said = msgspec.json.decode(
        msgspec.json.encode(report.data(tried, tried[1], is_good=False, model=None, facts={"trace": "t"}))
    )
    assert said["trace"] == "t"
    assert [one["p99"]["mean"] for one in said["settings"]] == [None, None]
    assert said["settings"][1]["signal"] == "native"
    assert said["recommended"]["meets_goal"] is False


@pytest.mark.parametrize("suffix", picture.SUFFIXES)
def test_the_picture_is_drawn_and_says_what_was_chosen(tmp_path, suffix):
    path = tmp_path / f"plan{suffix}"
    tried = [
        result("work one", 4, 0.02, half=0.01),
        result("keda", 9, 0.0, setting=Setting("keda", Native(2.0), KedaSettings())),
    ]
    picture.check(path)
    picture.draw(path, tried, chosen=tried[0], late_after=30.0, goal=0.01, title="a title")
    data = path.read_bytes()
    assert len(data) > 5_000
    if suffix == ".svg":
        text = data.decode()
        assert all(said in text for said in ("work one", "a title", "later than 30 s", "queue length"))
        picture.draw(path, tried, chosen=tried[0], late_after=30.0, goal=0.01, title="a title")
        assert path.read_text() == text, "the same figures make the same file"
