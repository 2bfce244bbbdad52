"""What plan prints to be pasted is what the settings' own reader takes."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import product

import pytest

from dumbwaiter.config import ScalingSettings, load_settings
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
def test_a_model_of_any_name_is_the_one_that_is_set(tmp_path, model):
    scaling = pasted(tmp_path, Setting("x", Rules(max_replicas=7, spare=4.5)), model=model)
    assert (scaling.max_replicas, scaling.spare) == (7, 4.5)


@pytest.mark.parametrize(("signal", "number"), list(product(_OF, NUMBERS)))
def test_every_setting_comes_back_as_it_was(tmp_path, signal, number):
    names = (*_OF[signal], "scale_in_after", "idle_after", "cold_start")
    rules = replace(Rules(max_replicas=3, signal=signal), **dict.fromkeys(names, number))
    scaling = pasted(tmp_path, Setting("x", rules, LocalSettings(look_every=number)))
    assert rules_of(scaling, None) == rules
    assert scaling.look_every == number


def test_no_setting_is_forgotten():
    told = {name for names in _OF.values() for name in names}
    told |= {"signal", "min_replicas", "max_replicas", "scale_in_after", "idle_after", "cold_start"}
    assert told == {one.name for one in fields(Rules)} == set(ScalingSettings.__struct_fields__) - {"look_every"}


@pytest.mark.parametrize("most", [1, 10, 999_999, 1_000_000, 123_456_789, 2**31])
def test_whole_numbers_are_whole(tmp_path, most):
    scaling = pasted(tmp_path, Setting("x", Rules(max_replicas=most, min_replicas=most)))
    assert (scaling.min_replicas, scaling.max_replicas) == (most, most)


@pytest.mark.parametrize("place", [LocalSettings(), KedaSettings(), KedaSettings(polling_interval=1e16, cooldown=0.1)])
def test_all_that_is_tried_can_be_pasted(tmp_path, place):
    grid = Grid(signals=("work", "messages", "age", "native"), polling_interval=(1.0, 1e16))
    for one in settings(grid, Rules(max_replicas=20), place):
        scaling = pasted(tmp_path, one, model="a.b")
        assert scaling.signal == ("messages" if isinstance(one.rules, Native) else one.rules.signal)
        if isinstance(one.rules, Native):
            assert scaling.messages_each == one.rules.messages_each
        assert "e+" not in toml_of(one)
