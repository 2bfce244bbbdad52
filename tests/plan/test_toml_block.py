"""What plan prints to be pasted is what the settings' own reader takes."""

from __future__ import annotations

import math
import tomllib
from dataclasses import fields, replace
from itertools import product

import pytest

from dumbwaiter.config import ScalingSettings, load_settings, parse_duration
from dumbwaiter.demand import rules_of
from dumbwaiter.plan.actuation import KedaSettings, LocalSettings, Native
from dumbwaiter.plan.simulation import Setting
from dumbwaiter.plan.toml_block import toml_of
from dumbwaiter.plan.trying import Grid, settings
from dumbwaiter.policies.scaling import Rules

NAMES = [
    *("cats", "a.b", "text-embedding", "with space", "größe", "", "1.5", 'say "so"', "it's", "[x]", "a#b", "=", "\\"),
    *("two\nlines", "\t", "\x00", "\x7f", "\u2028", "猫", "a.scaling]\nmax_replicas=1"),
]
NUMBERS = [0.001, 0.1 + 0.2, 1.0, 7.5, 12.0, 86_400.0, 1_234_567.891, 1e7, 1e16, 1e22, 5e-324, 1.7e308, math.inf]
_OF = {"work": ("drain_target", "spare", "age_target"), "messages": ("messages_each",), "age": ("age_target",)}


def pasted(tmp_path, setting, *, model=None):
    file = tmp_path / "dumbwaiter.toml"
    file.write_text(toml_of(setting, model=model), encoding="utf-8")
    loaded = load_settings(file, environ={})
    return loaded.scaling if model is None else loaded.models[model].scaling


@pytest.mark.parametrize("model", NAMES)
def test_a_model_of_any_name_is_the_one_that_is_set(model):
    table = tomllib.loads(toml_of(Setting("x", Rules(max_replicas=7, spare=4.5)), model=model))
    assert list(table["models"]) == [model]
    assert (table["models"][model]["scaling"]["max_replicas"], table["models"][model]["scaling"]["spare"]) == (7, 4.5)


def all_as(number, signal):
    """A setting in which all that *signal* needs is *number*."""
    names = (*_OF[signal], "scale_in_after", "idle_after", "cold_start")
    rules = replace(Rules(max_replicas=3, signal=signal), **dict.fromkeys(names, number))
    return rules, Setting("x", rules, LocalSettings(look_every=number))


@pytest.mark.parametrize(("signal", "number"), list(product(_OF, NUMBERS)))
def test_every_number_has_all_of_its_digits(signal, number):
    table = tomllib.loads(toml_of(all_as(number, signal)[1]))["scaling"]
    for name in (*_OF[signal], "scale_in_after", "idle_after", "look_every"):
        assert (parse_duration(table[name]) if isinstance(table[name], str) else float(table[name])) == number


@pytest.mark.parametrize(("signal", "number"), list(product(_OF, [one for one in NUMBERS if 0.001 <= one <= 1000.0])))
def test_every_setting_comes_back_as_it_was(tmp_path, signal, number):
    rules, setting = all_as(number, signal)
    scaling = pasted(tmp_path, setting)
    assert replace(rules_of(scaling, None), cold_start=number) == rules
    assert number <= scaling.cold_start <= number + 0.1
    assert scaling.look_every == number


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1.696881329997268, "1.7s"), (1.1, "1.1s"), (0.3, "0.3s"), (12.0, "12s")]
)
def test_a_cold_start_is_in_tenths_of_a_second_rounded_up(seconds, shown):
    assert f'\ncold_start = "{shown}"  # as planned with' in toml_of(
        Setting("x", Rules(max_replicas=3, cold_start=seconds))
    )


def test_a_cold_start_that_nobody_told_is_left_to_be_measured(tmp_path):
    text = toml_of(Setting("x", Rules(max_replicas=3, cold_start=1.696881329997268)), is_start_told=False)
    assert '\n# cold_start = "1.7s"  # as planned with; without this line it is measured' in text
    file = tmp_path / "dumbwaiter.toml"
    file.write_text(text)
    assert load_settings(file, environ={}).scaling.cold_start is None


def test_no_setting_is_forgotten():
    told = {name for names in _OF.values() for name in names}
    told |= {"signal", "min_replicas", "max_replicas", "scale_in_after", "idle_after", "cold_start"}
    assert told == {one.name for one in fields(Rules)} == set(ScalingSettings.__struct_fields__) - {"look_every"}


@pytest.mark.parametrize("most", [1, 10, 999_999, 1_000_000, 123_456_789, 2**31])
def test_whole_numbers_are_whole(most):
    table = tomllib.loads(toml_of(Setting("x", Rules(max_replicas=most, min_replicas=most))))["scaling"]
    assert (table["min_replicas"], table["max_replicas"]) == (most, most)
    assert type(table["max_replicas"]) is int


@pytest.mark.parametrize("place", [LocalSettings(), KedaSettings(), KedaSettings(polling_interval=1e7, cooldown=0.1)])
def test_all_that_is_tried_can_be_pasted(tmp_path, place):
    grid = Grid(signals=("work", "messages", "age", "native"), polling_interval=(1.0, 1e7))
    for one in settings(grid, Rules(max_replicas=20), place):
        scaling = pasted(tmp_path, one, model="a.b")
        assert scaling.signal == ("messages" if isinstance(one.rules, Native) else one.rules.signal)
        if isinstance(one.rules, Native):
            assert scaling.messages_each == one.rules.messages_each
        assert "e+" not in toml_of(one)
