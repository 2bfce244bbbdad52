"""The values that travel: ids sort by time, and nothing can be changed on the way."""

from __future__ import annotations

import os
import re
import time
import warnings

import msgspec
import pytest

from dumbwaiter.message import (
    LONGEST_ID,
    DeadLetter,
    Delivery,
    Failure,
    Message,
    QueueStats,
    Timings,
    is_message_id,
    is_model_name,
    is_queue_name,
    is_url,
    new_id,
)


def test_ids_are_unique_and_carry_the_time():
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)
    assert all(before <= int(one[:12], 16) <= after for one in ids)


def test_a_forked_process_makes_ids_of_its_own():
    new_id()
    readable, writable = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # other tests have left threads, and the child does not need them
        child = os.fork()
    if child == 0:
        os.write(writable, "".join(new_id()[12:] for _ in range(100)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(readable, 4096).decode()
    assert {theirs[start : start + 20] for start in range(0, 2000, 20)}.isdisjoint({new_id()[12:] for _ in range(300)})
    os.close(readable)
    os.close(writable)


def test_ids_sort_by_their_time(monkeypatch):
    ids = []
    for millisecond in (0, 9, 10, 255, 256, 1_800_000_000_000):
        monkeypatch.setattr(time, "time_ns", lambda now=millisecond: now * 1_000_000)
        ids.append(new_id())
    assert ids == sorted(ids)


def test_each_message_has_its_own_id_and_extensions():
    first, second = Message(), Message()
    assert first.id != second.id
    assert first.extensions == {}
    assert first.extensions is not second.extensions


def test_a_reply_address_that_is_a_url_goes_to_a_courier():
    assert is_url("https://example.com/hook")
    assert is_url("HTTP://example.com")
    assert not is_url("sqlite-inbox:7f3a")
    assert not is_url("httpsinbox")


@pytest.mark.parametrize("name", ["a", "7", "infer", "Resnet-50_v2.1", "a-", "x" * 80])
def test_a_name_for_a_queue_is_one_on_every_broker(name):
    assert is_queue_name(name)


@pytest.mark.parametrize("name", ["", ".a", "-a", "_a", "a b", "a/b", "a:b", "a\n", "a*", "naïve", "٣", "x" * 81])
def test_other_names_are_refused(name):
    assert not is_queue_name(name)


@pytest.mark.parametrize(
    "value",
    [
        Message(),
        Delivery(message=Message(), queue="q", lock_token="t", locked_until=0.0, delivery_count=1),
        DeadLetter(key="1", message=Message(), queue="q", reason="r", detail="", delivery_count=1, dead_at=0.0),
        QueueStats(ready=0, locked=0, delayed=0, dead=0, oldest_age=0.0),
        QueueStats(ready=1, locked=0, delayed=0, dead=0, oldest_age=None),
        Failure(code="c", message="m"),
        Timings(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_cannot_be_changed_and_comes_back_from_json(value):
    with pytest.raises(AttributeError, match="immutable"):
        setattr(value, value.__struct_fields__[0], None)
    assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value
    with pytest.raises(TypeError, match="positional"):
        type(value)("positional")


@pytest.mark.parametrize(
    ("text", "can_be"),
    [("r1", True), ("order 17/ä", True), ("x" * LONGEST_ID, True), ("x" * (LONGEST_ID + 1), False)]
    + [(text, False) for text in ("", "a\nb", "a\0", "\udc80")],
)
def test_an_id_that_is_asked_about_is_printable_and_not_endless(text, can_be):
    assert is_message_id(text) == can_be


def test_a_models_name_is_none_of_the_systems_own_queues():
    assert is_model_name("dumbwaiter")
    assert not is_model_name("dumbwaiter.webhooks")
