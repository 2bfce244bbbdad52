"""What a broker object makes of a ledger's records as they come. Neither server of the tests can delete records, so
that a ledger begins with a snapshot is shown here with records made by hand.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from dumbwaiter.brokers.kafka.events import Complete, Part, Seen, Take, encode
from dumbwaiter.brokers.kafka.ledger import Ledger, snapshot
from dumbwaiter.brokers.kafka.replica import SNAPSHOT_EVERY, Replica
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.policies.lanes import NORMAL

pytestmark = pytest.mark.anyio


class Record:
    def __init__(self, offset, value):
        self._offset, self._value = offset, value

    def offset(self):
        return self._offset

    def value(self):
        return self._value

    def timestamp(self):
        return (2, 1000)


def replica(**more):
    link = SimpleNamespace(
        location=SimpleNamespace(prefix="dumbwaiter", shown="kafka://here"),
        suspect=lambda: None,
        require_up=lambda: None,
    )
    takes = {"owner": "me.", "spawn": lambda work: work.close(), "stray": lambda *_: None} | more
    return Replica("q", link, SimpleNamespace(leave=lambda *_: None), **takes)


EVENTS = [Seen([(NORMAL, 0, 0, 3)]), Take("a.1", 1, 9000, []), Take("b.1", 1, 9000, []), Complete("a.2", ["a.1.1.0"])]


def records(events, first=0):
    return [Record(first + i, encode(event)) for i, event in enumerate(events)]


def counts(one):
    counts = one.known.counts(1000)
    return (counts.ready, counts.locked)


async def test_a_ledger_is_read_from_its_first_record():
    one = replica()
    one._begin(0)
    one._feed(records(EVENTS))
    assert counts(one) == (1, 1)


@pytest.mark.parametrize("between", [0, 1, 2])
async def test_a_ledger_whose_beginning_was_deleted_is_read_from_its_snapshot(between):
    """Others may have written while the snapshot was on its way; what it does not hold is applied after it."""
    whole = Ledger()
    for offset, event in enumerate(EVENTS[: 4 - between]):
        whole.apply(offset, 1000, event)
    at = 4 - between
    kept = [Record(offset, encode(EVENTS[offset])) for offset in range(at, 4)]
    one = replica()
    one._begin(at)
    one._feed([*kept, Record(4, encode(snapshot(whole, at))), Record(5, encode(Take("c.1", 9, 9000, [])))])
    assert counts(one) == (0, 2)


async def test_a_snapshot_that_is_older_than_what_was_deleted_is_of_no_use():
    one = replica()
    one._begin(3)
    one._feed([*records(EVENTS[3:], first=3), Record(4, encode(snapshot(Ledger(), 2)))])
    with pytest.raises(BrokerUnavailableError, match=r"dumbwaiter\.q\.ledger"):
        one.known  # noqa: B018 - it raises


async def test_a_gap_in_a_ledger_is_not_passed_over():
    one = replica()
    one._begin(0)
    one._feed([*records(EVENTS[:2]), *records(EVENTS[3:], first=3)])
    assert one.ledger is None


async def test_a_ledger_that_begins_anew_is_read_anew():
    one = replica()
    one._begin(0)
    one._feed(records(EVENTS))
    one._feed(records([Seen([(NORMAL, 0, 0, 7)])]))
    assert counts(one) == (7, 0)


async def test_what_a_call_took_that_does_not_wait_any_more_goes_back():
    stray = []
    one = replica(owner="a.", stray=lambda _, taken: stray.extend(taken))
    one._begin(0)
    one._feed(records(EVENTS[:3]))
    assert [taken.token for taken in stray] == ["a.1.1.0"]


async def test_what_a_take_got_whose_replica_was_closed_meanwhile_goes_back_and_nothing_else():
    stray = []
    one = replica(unsure={"a.1"}, stray=lambda _, taken: stray.extend(taken))
    one._begin(0)
    one._feed(records(EVENTS[:3]))
    assert [taken.token for taken in stray] == ["a.1.1.0"]


async def test_an_event_that_cannot_be_applied_is_passed_over(monkeypatch, caplog):
    def fail(*_):
        raise KeyError(7)

    one = replica()
    one._begin(0)
    one.known._doing[Take] = fail
    one._feed(records(EVENTS[:2]))
    one._feed(records([Seen([(NORMAL, 0, 0, 5)])], first=2))
    assert counts(one) == (5, 0)
    assert "cannot be applied" in caplog.text


async def test_a_snapshot_that_was_not_written_by_us_is_passed_over(caplog):
    false = snapshot(Ledger(), 4)
    false.state.parts["lane"] = Part(0, 0, set())
    one = replica()
    one._begin(4)
    one._feed(records([false, snapshot(Ledger(), 4)], first=4))
    assert counts(one) == (0, 0)
    assert "cannot be read" in caplog.text


async def test_after_many_events_somebody_writes_a_snapshot():
    spawned = []
    one = replica(spawn=lambda work: (spawned.append(work), work.close()))
    one._begin(0)
    one._feed(records([Seen([])] * (2 * SNAPSHOT_EVERY + 2)))
    assert len(spawned) >= 1


async def test_whoever_waits_learns_that_the_brokers_are_away():
    one = replica()
    future = asyncio.get_running_loop().create_future()
    one._waiting["me.1"] = future
    one.fail(BrokerUnavailableError("away"))
    with pytest.raises(BrokerUnavailableError):
        await future
