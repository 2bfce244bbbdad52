"""What is read from the server's answers."""

from __future__ import annotations

import pytest

from dumbwaiter.brokers.nats.examining import (
    of_account,
    of_cluster,
    of_consumers,
    of_replicas,
    of_server,
    of_store,
    of_stream,
    of_syncing,
)
from dumbwaiter.brokers.nats.stats import counts

CONFIG = {
    "name": "dumbwaiter+q",
    "storage": "file",
    "discard": "old",
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "num_replicas": 3,
}
LANES = ("high", "normal", "low", "again")


def levels(findings):
    return [finding.level for finding in findings]


def test_what_is_in_no_lane_waits_for_its_time():
    stream = {"state": {"messages": 7, "subjects": {"d.high.q": 2, "d.again.q": 3}}}
    assert counts(stream, {"high": {"num_ack_pending": 1}, "again": {"num_ack_pending": 3}}) == (1, 4, 2)


def test_an_empty_queue_has_no_subjects():
    assert counts({"state": {"messages": 0}}, {}) == (0, 0, 0)


def test_answers_of_different_moments_give_no_count_below_zero():
    stream = {"state": {"messages": 1, "subjects": {"d.high.q": 2}}}
    assert counts(stream, {"high": {"num_ack_pending": 5}}) == (0, 2, 0)


def test_a_stream_on_three_disks_is_well():
    assert of_stream("q", CONFIG, replicas=3) == []
    assert of_replicas([CONFIG]).level == "ok"


def test_streams_on_one_disk_are_noted_together():
    finding = of_replicas([CONFIG | {"name": f"stream{i}", "num_replicas": 1} for i in range(6)])
    assert finding.level == "note"
    assert "stream3 and 2 more" in finding.text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"storage": "memory"}, ["danger"]),
        ({"max_msgs": 5}, ["danger"]),
        ({"max_bytes": 5}, ["danger"]),
        ({"max_age": 5}, ["danger"]),
        ({"num_replicas": 1}, ["warning"]),
    ],
)
def test_a_stream_that_may_lose_messages_is_not(change, expected):
    findings = of_stream("q", CONFIG | change, replicas=3)
    assert levels(findings) == expected
    assert all(finding.remedy for finding in findings if finding.level != "ok")


def test_replicas_that_a_single_server_cannot_make_are_a_danger():
    assert of_cluster(None, replicas=1) is of_cluster("cluster", replicas=3) is None
    assert of_cluster(None, replicas=3).level == "danger"


def test_syncing_rarely_is_a_danger_on_one_server_and_worth_a_note_on_three():
    varz = {"jetstream": {"config": {"sync_interval": 120 * 10**9}}}
    assert of_syncing(varz, replicas=1).level == "danger"
    assert of_syncing(varz, replicas=3).level == "note"
    varz["jetstream"]["config"]["sync_always"] = True
    assert of_syncing(varz, replicas=1).level == "ok"


def test_an_account_that_is_nearly_full_is_warned_of():
    assert levels(of_account({"storage": 10, "limits": {"max_storage": -1}})) == ["ok"]
    assert levels(of_account({"storage": 10, "limits": {"max_storage": 100}})) == ["ok"]
    assert levels(of_account({"storage": 80, "limits": {"max_storage": 100}})) == ["warning"]


def test_a_server_that_is_nearly_full_is_warned_of():
    assert of_store({}) == []
    for used, level in ((10, "ok"), (80, "warning")):
        varz = {"jetstream": {"config": {"max_storage": 100}, "stats": {"storage": used}}}
        assert levels(of_store(varz)) == [level]


def test_a_server_without_schedules_is_noted():
    assert levels(of_server((2, 11), "2.11.4", 1024)) == ["note", "ok"]
    assert levels(of_server((2, 12), "2.12.0", 1024)) == ["ok", "ok"]


def test_consumers_that_are_as_they_were_made_give_nothing_to_say():
    consumers = {lane: {"config": {"ack_wait": 30 * 10**9, "max_deliver": -1}} for lane in LANES}
    assert of_consumers("q", consumers, lock_duration=30.0) == []
    assert levels(of_consumers("q", consumers, lock_duration=10.0)) == ["note"]


def test_a_queue_whose_lock_is_shorter_than_ours_is_warned_of():
    consumers = {lane: {"config": {"ack_wait": 2 * 10**9}} for lane in LANES}
    (finding,) = of_consumers("q", consumers, lock_duration=60.0)
    assert (finding.level, "stands still for 2 s" in finding.text) == ("warning", True)
    assert of_consumers("q", consumers, lock_duration=1.0) == []


def test_a_consumer_that_gives_up_on_messages_is_a_danger():
    consumers = {lane: {"config": {"ack_wait": 30 * 10**9, "max_deliver": 3}} for lane in LANES[:2]}
    assert levels(of_consumers("q", consumers, lock_duration=30.0)) == ["danger", "danger", "note", "note"]
