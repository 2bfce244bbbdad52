"""Times that Kubernetes is told come from what was measured."""

from __future__ import annotations

import pytest
from projects import only_model, project

from dumbwaiter.config import ScalingSettings
from dumbwaiter.deploy import leaving
from dumbwaiter.deploy.kubernetes import times
from dumbwaiter.deploy.models import Measured
from dumbwaiter.policies.leaving import SHARE_FOR_BATCH


def kitchen(measured=None, table=None, **changes):
    scaling = ScalingSettings(max_replicas=4, **changes.pop("scaling", {}))
    models = only_model(scaling=scaling, **changes)
    return project(models=models, measured={"resnet": measured} if measured else None, **(table or {}))


def model(measured=None, **changes):
    return kitchen(measured, **changes).models[0]


def test_a_batch_and_a_load_fit_into_the_part_of_the_grace_for_which_a_worker_waits():
    found = leaving.grace(model(Measured(load_seconds=20.0, long_batch=60.0)), 25.0)
    assert found * SHARE_FOR_BATCH >= 80.0
    assert found == 100


def test_the_grace_of_the_settings_is_the_least():
    assert leaving.grace(model(Measured(long_batch=0.5)), 25.0) == 25


def test_while_nothing_was_measured_a_batch_may_take_all_that_the_model_may():
    assert leaving.grace(model(timeout=40.0), 25.0) == 50


@pytest.mark.parametrize(("notice", "grace"), [(None, 100), (200.0, 100), (30.0, 25), (2.0, 1)])
def test_on_a_node_that_is_taken_back_a_worker_leaves_before_it(notice, grace):
    assert leaving.grace(model(Measured(load_seconds=20.0, long_batch=60.0)), 25.0, notice) == grace


def test_the_notice_of_gpu_nodes_is_no_matter_of_models_on_the_cpu():
    of = project(notice=30.0)
    assert {one.name: times.notice(of, one) for one in of.models} == {"resnet": 30.0, "Text.Embedding": None}


def test_what_loads_has_not_told_how_long_its_batches_take():
    assert leaving.grace(model(Measured(load_seconds=20.0), timeout=40.0), 25.0) == 50


@pytest.mark.parametrize(
    ("measured", "told", "boot", "cold"),
    [
        (None, None, {}, 120.0),
        (Measured(load_seconds=30.0, start_seconds=2.0), None, {}, 152.0),
        (Measured(load_seconds=30.0, start_seconds=2.0), None, {"boot": 300.0}, 332.0),
        (Measured(load_seconds=30.0, start_seconds=2.0), None, {"boot": 0.0}, 32.0),
        (Measured(load_seconds=30.0), 200.0, {}, 200.0),
        (None, 0.0, {}, 0.0),
    ],
)
def test_a_cold_start_is_what_was_told_or_else_the_nodes_boot_and_what_was_measured(measured, told, boot, cold):
    of = kitchen(measured, boot, scaling={"cold_start": told})
    assert times.cold_start(of, of.models[0]) == cold


def test_keda_waits_for_nodes_too():
    of = kitchen(Measured(load_seconds=30.0), {"boot": 300.0})
    found = times.of_keda(of, of.models[0])
    assert (found.cooldown, found.window) == (330, 990)
    assert times.first_cooldown(of, of.models[0]) == 660


def test_a_roll_out_waits_for_as_long_as_loading_may_take():
    of = kitchen()
    assert times.progress_deadline(of, of.models[0], 1800.0) > 1800
