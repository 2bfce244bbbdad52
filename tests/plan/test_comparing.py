"""Settings side by side: means and their intervals, the Pareto front, what is recommended, and the table to paste."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from dumbwaiter.config import ScalingSettings
from dumbwaiter.plan import picture, report
from dumbwaiter.plan.actuation import KedaSettings, LocalSettings, Machines, Native, as_rendered
from dumbwaiter.plan.comparing import (
    Generated,
    Recorded,
    Result,
    compare,
    contenders,
    figures_of,
    pareto,
    recommended,
)
from dumbwaiter.plan.services import Curve, Inputs
from dumbwaiter.plan.simulation import Outcome, Setting, World
from dumbwaiter.plan.statistics import Mean, mean_of, student
from dumbwaiter.plan.toml_block import toml_of
from dumbwaiter.plan.trying import Grid, settings
from dumbwaiter.policies.scaling import Rules

RULES = Rules(max_replicas=9, min_replicas=1, cold_start=12.0)
PLAIN = Inputs(Curve(each=0.1))


def result(name, cost, late, half=0.0, setting=None, spread=0.0):
    nothing = Mean(0.0, 0.0)
    return Result(
        setting=setting or Setting(name, RULES),
        cost=Mean(cost, spread),
        hours=Mean(cost, spread),
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


def test_what_costs_less_than_that_and_may_meet_it_is_a_contender():
    unsure, less = result("unsure", 1, 0.009, half=0.005), result("less", 0.5, 0.009, half=0.005)
    others = [result("bad", 0.1, 0.5), result("sure", 2, 0.0), result("dearer", 3, 0.009, half=0.005)]
    assert contenders([unsure, *others, less], others[1], goal=0.01) == [less, unsure]


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
    tried = settings(grid, replace(RULES, cold_start=1.0), LocalSettings())
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


WORK = Grid(signals=("work",), spare=(1.0,))


def drained(grid, base):
    return [one.rules.drain_target for one in settings(grid, base, LocalSettings())]


@pytest.mark.parametrize(("cold_start", "tried"), [(1.0, [2.0, 5.0, 20.0]), (12.0, [5.0, 20.0]), (20.0, [5.0])])
def test_drain_targets_within_a_cold_start_are_tried_once_as_the_one_that_is_set(cold_start, tried):
    assert drained(WORK, replace(RULES, cold_start=cold_start)) == tried


def test_what_is_set_stays_even_if_it_is_not_among_those_to_try():
    assert drained(WORK, replace(RULES, cold_start=130.0, drain_target=8.0)) == [8.0]


def test_a_single_drain_target_within_a_cold_start_stays_as_it_is():
    assert drained(replace(WORK, drain_target=(2.0, 2.0, 20.0)), RULES) == [2.0, 20.0]


def test_where_what_is_set_does_something_else_the_longest_that_does_the_same_stays():
    assert drained(WORK, replace(RULES, drain_target=20.0)) == [5.0, 20.0]
    assert drained(replace(WORK, drain_target=(3.0, 2.0)), replace(RULES, drain_target=20.0)) == [3.0]


def test_drain_targets_that_are_tried_once_make_no_difference():
    source = Generated("mmpp2", PLAIN, 30.0, 300.0)
    tried = [Setting(f"{one}", replace(RULES, spare=0.0, drain_target=one)) for one in (0.5, 5.0, 12.0, 60.0)]
    world = World(PLAIN.curve, Machines(load=RULES.cold_start))
    half, five, twelve, more = compare(source, tried, world, seeds=[1, 2], late_after=1.0, processes=1)
    assert half.per_seed == five.per_seed == twelve.per_seed
    assert more.per_seed != twelve.per_seed


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
    assert [(row[0], row[1]) for row in rows] == [("*", "cheap"), ("", "bad"), ("*>", "dear")]
    assert rows[0][4] == "50.00 ± 0.00 %"
    assert rows[0][7] == "never"
    assert [row[0] for row in report.rows(tried, tried[1])] == ["*", ">", "*"]


def test_where_nothing_meets_the_goal_no_row_is_recommended():
    tried = [result("dear", 9, 0.2), result("cheap", 1, 0.5)]
    assert [row[0] for row in report.rows(tried, None)] == ["*", "*"]


@pytest.mark.parametrize(
    ("value", "half", "shown"),
    [
        (0.031249, 0.00042, "0.0312 ± 0.0004"),
        (1.944, 0.94, "1.94 ± 0.94"),
        (9.999, 0.1, "10.0 ± 0.1"),
        (43.21, None, "43.2"),
        (12_345.6, 789.0, "12,346 ± 789"),
        (0.0, 0.0, "0.00 ± 0.00"),
        (1e-300, None, "0.000000000"),
    ],
)
def test_money_and_hours_have_three_digits_that_count(value, half, shown):
    one = result("x", value, 0.0, spread=half)
    ((_, _, hours, cost, *_),) = report.rows([one], None)
    assert hours == cost == shown
    assert shown.startswith(report.three_digits(value))


def test_data_can_be_encoded_as_json_even_what_never_ended():
    tried = [result("a", 1, 0.5), result("k", 2, 0.1, setting=Setting("k", Native(2.0), KedaSettings()))]
    said = msgspec.json.decode(msgspec.json.encode(report.data(tried, tried[1], None, facts={"trace": "t"})))
    assert said["trace"] == "t"
    assert [one["p99"]["mean"] for one in said["settings"]] == [None, None]
    assert said["settings"][1]["signal"] == "native"
    assert said["recommended"] == {"name": "k", "meets_goal": False, "toml": None}


def test_the_table_to_paste_is_in_the_data_where_it_meets_the_goal():
    (one,) = tried = [result("a", 1, 0.0)]
    toml = report.data(tried, one, toml_of(one.setting, model="cats"), facts={})["recommended"]["toml"]
    assert toml.startswith("[models.cats.scaling]\n")


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
        assert all(said in text for said in ("cost of all workers for the whole trace", "at the bottom: none"))
        picture.draw(path, tried, chosen=tried[0], late_after=30.0, goal=0.01, title="a title")
        assert path.read_text() == text, "the same figures make the same file"


def texts_of(path, results, chosen, goal=0.01):
    picture.draw(path, results, chosen=chosen, late_after=30.0, goal=goal, title="a title")
    return [text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())]


def test_those_of_the_front_have_numbers_that_the_legend_names(tmp_path):
    tried = [result("dear", 9, 0.001), result("bad", 5, 0.6), result("cheap", 1, 0.5), result("twin", 1, 0.5)]
    texts = texts_of(tmp_path / "plan.svg", tried, tried[0])
    assert {"1", "2"} < set(texts)
    names = [one for one in texts if re.match("cheap|dear|bad|twin", one)]
    assert names == ["cheap = twin", "dear"]
    assert {"Pareto front", "goal: at most 1 %", "recommended: 2", "bars: 95 % confidence"} < set(texts)


def test_what_is_recommended_is_named_even_beside_the_front(tmp_path):
    tried = [result("unsure", 1, 0.009, half=0.009), result("sure", 2, 0.0095)]
    texts = texts_of(tmp_path / "plan.svg", tried, tried[1])
    assert {"unsure", "sure", "recommended: 2"} < set(texts)


def test_where_nothing_meets_the_goal_the_picture_recommends_nothing(tmp_path):
    tried = [result("a", 1, 0.5), result("b", 2, 0.2)]
    texts = texts_of(tmp_path / "plan.svg", tried, tried[1])
    assert {"goal: at most 1 %,", "which none is certain to meet"} < set(texts)
    assert not any("recommended" in one for one in texts)


@pytest.mark.parametrize("count", [1, 60])
def test_the_legend_is_beside_the_picture_and_within_the_paper(tmp_path, count):
    tried = [result(f"a rather long name of a setting, number {one}", one + 1, 0.9 / (one + 1)) for one in range(count)]
    path = tmp_path / "plan.svg"
    picture.draw(path, tried, chosen=tried[-1], late_after=30.0, goal=0.0, title="many")
    paper = [float(side) for side in re.search(r'viewBox="0 0 (\S+) (\S+)"', path.read_text()).groups()]
    legend = path.read_text().partition('<g id="legend_1">')[2]
    places = [(float(x), float(y)) for x, y in re.findall(r"translate\((\S+) (\S+)\)", legend)]
    assert len(places) > count
    assert max(y for _, y in places) < paper[1]
    axes = re.findall(r'clipPath id="[^"]*">\s*<rect x="(\S+)" y="\S+" width="(\S+)"', path.read_text())
    assert min(x for x, _ in places) > max(float(x) + float(width) for x, width in axes)
