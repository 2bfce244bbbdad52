"""What is planned is what ``dumbwaiter deploy kubernetes`` makes of the same settings, and the settings as they are."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from msgspec import structs

from dumbwaiter.blobs.profiles import ServiceProfile
from dumbwaiter.cli import plan as command
from dumbwaiter.config import KubernetesSettings, ModelSettings, ScalingSettings, Settings
from dumbwaiter.deploy.kubernetes import project_of, rendered
from dumbwaiter.deploy.models import Measured
from dumbwaiter.errors import ConfigError
from dumbwaiter.plan.actuation import KedaSettings, LocalSettings, Native
from dumbwaiter.plan.planning import AS_SET, planned
from dumbwaiter.policies.scaling import Rules
from dumbwaiter.policies.service_times import Bucket, ServiceTimes

SCALING = ScalingSettings(
    min_replicas=1, max_replicas=8, scale_in_after=400.0, idle_after=77.0, messages_each=3.0, look_every=7.0
)


def settings_with(scaling=SCALING, **table):
    return Settings(
        broker="redis://redis:6379/0",
        blobs="s3://kitchen/blobs",
        models={"cats": ModelSettings(target="cats:Cats", scaling=scaling)},
        kubernetes=KubernetesSettings(**{"image": "registry.example.com/kitchen:1.4", **table}),
    )


def profile_of(_settings, model):
    times = ServiceTimes(buckets={12: Bucket(0.25, 40.0, time.time())})
    return ServiceProfile(model=model, times=times, load_seconds=18.0, start_seconds=2.0)


def planned_by(settings, *arguments):
    words = ["--generate", "poisson", "--duration", "10m", "--model", "cats", *arguments]
    given = command.plan.make_context("plan", words).params
    return planned(given, settings, profile_of)


def scaled_object(settings):
    project = project_of(settings, {"cats": Measured(load_seconds=18.0, start_seconds=2.0)})
    (found,) = (one.object for one in rendered(project) if one.object["kind"] == "ScaledObject")
    return found["spec"]


def rendered_numbers(settings):
    spec = scaled_object(settings)
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    (up,) = behavior["scaleUp"]["policies"]
    trigger = spec["triggers"][0]["type"]
    assert up["value"] == spec["maxReplicaCount"], "no limit"
    return (
        spec["pollingInterval"],
        spec["cooldownPeriod"],
        behavior["scaleDown"]["stabilizationWindowSeconds"],
        trigger,
    )


def planned_numbers(setting):
    rules, place = setting.rules, setting.place
    assert (place.up_percent, place.up_pods) == (None, None), "no limit"
    ours = "external-push" if place.push else "metrics-api"
    trigger = "redis-streams" if isinstance(rules, Native) else ours
    return place.polling_interval, place.cooldown, place.stabilization, trigger


def test_what_a_vanished_worker_held_is_planned_to_come_back_when_its_lock_runs_out():
    settings = structs.replace(settings_with(), lock_duration=45.0)
    assert planned_by(settings, "--spot-kills", "1", "--notice", "0s").world.kills.lock == 45.0


def test_what_broker_and_network_add_is_planned_with_and_told():
    ready = planned_by(settings_with(), "--transit", "80ms")
    assert (ready.world.transit, ready.facts["transit"]) == (0.08, 0.08)


@pytest.mark.parametrize("trigger", ["external-push", "metrics-api", "native"])
@pytest.mark.parametrize("cold_start", [None, 31.0, 200.0])
def test_keda_as_it_is_set_is_keda_as_it_is_rendered(trigger, cold_start):
    scaling = structs.replace(SCALING, cold_start=cold_start, min_replicas=1)
    settings = settings_with(scaling, trigger=trigger, polling_interval=8.5, boot=90.0)
    now, *_ = planned_by(settings, "--on", "keda", "--signal", "messages").settings
    assert now.name == AS_SET
    assert planned_numbers(now) == rendered_numbers(settings)
    rules = now.rules
    assert (rules.min_replicas, rules.max_replicas) == (1, 8)
    assert rules.cold_start == (110.0 if cold_start is None else cold_start)
    assert isinstance(rules, Native) is (trigger == "native")
    assert rules.messages_each == 3.0


def test_what_is_tried_under_keda_is_what_would_be_rendered_if_it_were_pasted():
    settings = settings_with(trigger="metrics-api", polling_interval=8.5)
    plan = planned_by(settings, "--on", "keda", "--signal", "work,native", "--boot", "2m", "--idle-after", "10s")
    pasted = settings_with(structs.replace(SCALING, cold_start=140.0, idle_after=10.0), trigger="metrics-api")
    pasted = structs.replace(pasted, kubernetes=structs.replace(pasted.kubernetes, polling_interval=8.5))
    polling, cooldown, window, _ = rendered_numbers(pasted)
    assert (polling, cooldown, window) == (9, 140, 420)
    for one in plan.settings[1:]:
        assert one.place == KedaSettings(polling, cooldown, stabilization=window, up_percent=None, up_pods=None)
        assert one.rules.cold_start == 140.0


def test_what_is_said_of_keda_goes_before_what_would_be_rendered_but_not_for_what_is_set():
    words = ("--cooldown", "33s", "--no-push", "--limits", "--polling-interval", "3,4", "--stabilization", "5")
    now, *tried = planned_by(settings_with(), "--on", "keda", "--signal", "age", *words).settings
    usual = KedaSettings(cooldown=33.0, stabilization=5.0)
    assert {one.place for one in tried} == {replace(usual, polling_interval=3.0), replace(usual, polling_interval=4.0)}
    assert planned_numbers(now) == rendered_numbers(settings_with())


@pytest.mark.parametrize(("told", "expected"), [(None, 20.0), (1.5, 1.5)])
def test_on_this_machine_the_settings_are_as_they_are(told, expected):
    settings = settings_with(structs.replace(SCALING, cold_start=told))
    words = ("--boot", "50s", "--min-replicas", "2", "--max-replicas", "5", "--idle-after", "1s", "--signal", "age")
    now, *tried = planned_by(settings, *words).settings
    assert now.place == LocalSettings(look_every=7.0)
    assert now.rules == Rules(
        max_replicas=8, min_replicas=1, scale_in_after=400.0, idle_after=77.0, messages_each=3.0, cold_start=expected
    )
    assert tried
    for one in tried:
        assert one.rules == replace(
            now.rules, signal="age", age_target=one.rules.age_target, min_replicas=2, max_replicas=5,
            idle_after=1.0, cold_start=70.0,
        )  # fmt: skip


def test_a_trigger_of_kedas_takes_whole_numbers_only():
    settings = settings_with(ScalingSettings())
    plan = planned_by(settings, "--on", "keda", "--signal", "native", "--messages-each", "0.5,1,2.5,4")
    assert [one.rules.messages_each for one in plan.settings] == [1.0, 4.0]
    with pytest.raises(ConfigError, match="whole numbers"):
        planned_by(settings, "--on", "keda", "--signal", "native", "--messages-each", "0.5")
