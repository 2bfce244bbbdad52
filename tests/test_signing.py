"""Ids prove themselves; webhook secrets are one per tenant; other keys, tenants and texts prove nothing."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.signing import PredictionId, SigningKey, created_at

KEY = SigningKey(b"0123456789abcdef0123456789abcdef")
NOW = 1_795_000_000.123
TENANTS = st.none() | st.text()
MODELS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", fullmatch=True)


@given(MODELS, TENANTS, st.integers(0, 4_000_000_000_000))
def test_an_id_tells_its_model_and_its_time_to_the_same_key_and_tenant(model, tenant, millis):
    id_ = KEY.new_id(model, tenant, now=millis / 1000)
    assert KEY.read_id(id_, tenant) == PredictionId(model, millis / 1000)
    assert created_at(id_) == millis / 1000


@given(MODELS, TENANTS, TENANTS)
def test_an_id_of_another_tenant_is_none(model, mine, theirs):
    id_ = KEY.new_id(model, mine, now=NOW)
    assert (KEY.read_id(id_, theirs) is not None) == (mine == theirs)


def test_an_id_of_another_key_is_none():
    id_ = KEY.new_id("cats", None, now=NOW)
    assert SigningKey(b"x" * 32).read_id(id_, None) is None


def test_no_character_of_an_id_can_be_changed():
    id_ = KEY.new_id("cats", None, now=NOW)
    for place in range(len(id_)):
        for other in "0av.z-":
            changed = id_[:place] + other + id_[place + 1 :]
            assert changed == id_ or KEY.read_id(changed, None) is None


@given(st.text())
def test_any_other_text_is_none(text):
    assert KEY.read_id(text, None) is None


@pytest.mark.parametrize("text", ["", ".", "x" * 5000, "../results", "\u0660" * 42 + ".cats", "0" * 42 + ".", "0" * 42])
def test_hostile_texts_are_none(text):
    assert KEY.read_id(text, None) is None
    assert created_at(text) is None


def test_ids_sort_by_time_and_never_repeat():
    ids = [KEY.new_id("cats", None, now=NOW + step) for step in range(100)]
    assert ids == sorted(ids)
    assert len({KEY.new_id("cats", None, now=NOW) for _ in range(1000)}) == 1000


def test_an_id_fits_into_urls_and_blob_keys():
    id_ = KEY.new_id("Resnet-50_v2.1", "tenant", now=NOW)
    assert set(id_) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def test_each_tenant_has_a_webhook_secret_of_its_own():
    secrets = {KEY.webhook_secret(tenant) for tenant in (None, "", "None", "a", "b")}
    assert len(secrets) == 5
    assert KEY.webhook_secret("a") == SigningKey(b"0123456789abcdef0123456789abcdef").webhook_secret("a")
    assert len(base64.b64decode(KEY.webhook_secret("a").removeprefix("whsec_"))) == 32


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="at least 32 bytes, not 31"):
        SigningKey(b"x" * 31)
