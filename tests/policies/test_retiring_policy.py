"""Whoever does no work is sent away first, then who has least to finish, and of equals the newest."""

from __future__ import annotations

from itertools import product

from dumbwaiter.policies.retiring import turn


def order(workers):
    """The names of *workers*, the oldest first, in the order in which they go."""
    turns = {name: turn(stage, in_hand=in_hand, place=place) for place, (name, stage, in_hand) in enumerate(workers)}
    return sorted(turns, key=turns.__getitem__)


def test_those_that_do_no_work_go_before_those_that_serve():
    stages = ["ready", "draining", "loading", "starting", "failing"]
    workers = [(stage, stage, 0 if stage == "ready" else 9) for stage in stages]
    assert order(workers) == ["failing", "starting", "loading", "draining", "ready"]


def test_of_those_that_serve_the_idle_go_first_however_old():
    assert order([("idle", "ready", 0), ("busy", "ready", 3), ("busier", "ready", 4)]) == ["idle", "busy", "busier"]


def test_of_those_that_load_the_newest_goes_as_it_is_the_farthest_from_serving():
    assert order([("old", "loading", 0), ("new", "loading", 0)]) == ["new", "old"]


def test_no_two_workers_have_the_same_turn():
    stages = ["failing", "starting", "loading", "draining", "ready"]
    turns = [turn(stage, in_hand=count, place=place) for stage, count, place in product(stages, range(3), range(3))]
    assert len(set(turns)) == len(turns)
