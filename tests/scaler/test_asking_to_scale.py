"""Whatever a trigger's metadata say, it is a wish that can be decided on, or it is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dumbwaiter.config import ModelSettings, ScalingSettings, Settings
from dumbwaiter.demand import rules_of
from dumbwaiter.errors import BlobError, BrokerUnavailableError, ConfigError, SignalUnknownError
from dumbwaiter.policies.scaling import History, Look, decide
from dumbwaiter.scaler.asking import MOST, asked, trigger
from dumbwaiter.scaler.refusing import LONGEST_DETAIL, refusal_of

SETTINGS = Settings(
    scaling=ScalingSettings(drain_target=7.0),
    models={"cats": ModelSettings(scaling=ScalingSettings(drain_target=3.0, max_replicas=4))},
)
NAMES = st.sampled_from(["model", "boot", *ScalingSettings.__struct_fields__]) | st.text(max_size=10)
NUMBERS = st.floats().map(str) | st.integers().map(str) | st.floats().map(lambda value: f"{value}h")
WORDS = st.sampled_from(["work", "age", "messages", "nan", "inf", "-inf", "1e400", "5s", "1_0", " 3 ", "٣", "true"])
TINY = f"0.{'0' * 318}1s"
LOOK = Look(waiting=1000, in_flight=3, oldest_age=1e6, arrived=50, seconds_each=100.0, ready=2, starting=1)


@given(st.dictionaries(NAMES, WORDS | NUMBERS | st.text(max_size=20), max_size=4), st.booleans())
@example({"drain_target": TINY}, True)
@example({"signal": "messages", "messages_each": "1e-320"}, True)
@example({"signal": "age", "age_target": TINY}, True)
@example({"spare": "1e308"}, True)
@example({"max_replicas": "9" * 400}, True)
@example({"boot": "9" * 400}, True)
def test_any_metadata_are_refused_or_can_be_decided_on(metadata, is_named):
    wish = asked_or_refused({**metadata, "model": "cats"} if is_named else metadata)
    if isinstance(wish, ConfigError):
        assert refusal_of(wish).grpc == "INVALID_ARGUMENT"
        assert len(refusal_of(wish).detail) <= LONGEST_DETAIL
    else:
        assert not any(isinstance(value, float) and math.isnan(value) for value in vars_of(wish.scaling))
        assert {wish: True}[wish]
        _, decision = decide(History(), LOOK, rules_of(wish.scaling, None, boot=wish.boot), 1.0)
        assert 1 <= decision.raw <= MOST


def asked_or_refused(metadata):
    try:
        return asked(metadata, SETTINGS)
    except ConfigError as error:
        return error


def vars_of(scaling):
    return [getattr(scaling, name) for name in scaling.__struct_fields__]


def test_what_is_not_said_is_as_the_models_own_table_says_or_else_the_common_one():
    cats = asked({"model": "cats", "max_replicas": "9"}, SETTINGS)
    assert (cats.scaling.drain_target, cats.scaling.max_replicas, cats.is_configured) == (3.0, 9, True)
    owls = asked({"model": "owls"}, SETTINGS)
    assert (owls.scaling.drain_target, owls.scaling.max_replicas, owls.is_configured) == (7.0, None, False)


def test_the_same_wish_is_equal_however_it_is_written():
    wishes = {asked({"model": "cats", "drain_target": text}, SETTINGS) for text in ("60", "60s", "1m", "60.0")}
    assert len(wishes) == 1


def test_a_refusal_names_the_place_that_was_asked():
    with pytest.raises(ConfigError, match=r"^/v1/scale/cats: scaling\.spare: expected a number from 0 to 1000, not"):
        asked({"model": "cats", "spare": "-1"}, SETTINGS, where="/v1/scale/cats")


def test_how_long_a_node_takes_is_no_setting_of_scaling_and_none_unless_it_is_said():
    """What workers measure comes on top, so the cold start itself stays open."""
    assert asked({"model": "cats"}, SETTINGS).boot == 0.0
    cats = asked({"model": "cats", "boot": "2m"}, SETTINGS)
    assert (cats.boot, cats.scaling) == (120.0, SETTINGS.models["cats"].scaling)
    with pytest.raises(ConfigError, match=r"^scalerMetadata: kubernetes\.boot: expected a duration such as"):
        asked({"model": "cats", "boot": "soon"}, SETTINGS)
    with pytest.raises(
        ConfigError, match=r"^scalerMetadata: kubernetes\.boot: expected a duration .*, at most 365d, not"
    ):
        asked({"model": "cats", "boot": "9999999999"}, SETTINGS)


def test_a_trigger_says_how_many_workers_a_pod_has():
    assert trigger({"model": "cats"}) == ({"model": "cats"}, 1)
    assert trigger({"model": "cats", "workers_each": "4"}) == ({"model": "cats"}, 4)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "two", "9" * 400, "1001", "٣", "²"])
def test_a_number_of_workers_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match=r"^scalerMetadata: workers_each: expected a whole number from 1 to 1000"):
        trigger({"model": "cats", "workers_each": text})


def test_the_page_has_no_pods_and_takes_no_number_of_their_workers():
    with pytest.raises(ConfigError, match=r"unknown name 'workers_each'"):
        asked({"model": "cats", "workers_each": "2"}, SETTINGS, where="/v1/scale/cats")


@pytest.mark.parametrize(
    ("error", "grpc", "status"),
    [
        (BrokerUnavailableError("gone"), "UNAVAILABLE", 503),
        (BlobError("full"), "UNAVAILABLE", 503),
        (SignalUnknownError("the age", "age"), "FAILED_PRECONDITION", 503),
        (ConfigError("what?"), "INVALID_ARGUMENT", 400),
        (ZeroDivisionError("secret"), "INTERNAL", 500),
    ],
)
def test_each_error_has_its_status(error, grpc, status):
    refusal = refusal_of(error)
    assert (refusal.grpc, refusal.status) == (grpc, status)
    assert "secret" not in refusal.detail
