"""The ledger as a pure function of its events."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from dumbwaiter.brokers.kafka.events import (
    Abandon,
    Bury,
    Complete,
    Postpone,
    Purge,
    Redrive,
    Renew,
    Seen,
    Snapshot,
    Take,
    decode,
    encode,
)
from dumbwaiter.brokers.kafka.ledger import Counts, Ledger, snapshot
from dumbwaiter.policies.lanes import HIGH, LOW, NORMAL

SECOND = 1000


class Book:
    """A ledger, and who writes to it: *time* is the broker's."""

    def __init__(self, messages: int = 0) -> None:
        self.ledger = Ledger()
        self.offset = 0
        self.time = 0
        if messages:
            self.write(Seen([(NORMAL, 0, 0, messages)]))

    def write(self, event):
        outcome = self.ledger.apply(self.offset, self.time, event)
        self.offset += 1
        return outcome

    def take(self, limit=1, length=10 * SECOND):
        return self.write(Take("op", limit, length, []))

    def counts(self):
        counts = self.ledger.counts(self.time)
        return (counts.ready, counts.locked, counts.delayed, counts.dead)


def test_messages_are_given_in_the_order_of_their_offsets_and_once():
    book = Book(messages=3)
    assert [one.position[2] for one in book.take(2) + book.take(2) + book.take(2)] == [0, 1, 2]


def test_a_lock_that_ended_gives_the_message_to_the_next_and_its_count_is_raised():
    book = Book(messages=1)
    (first,) = book.take()
    book.time = 10 * SECOND
    (second,) = book.take()
    assert (second.position, second.count) == (first.position, 2)
    assert book.write(Complete("op", [first.token])) == [first.token]
    assert book.write(Complete("op", [second.token])) == []


def test_a_settlement_that_comes_after_the_lock_ended_is_refused_although_nobody_has_taken_the_message():
    book = Book(messages=1)
    (held,) = book.take()
    book.time = 10 * SECOND
    for event in (
        Complete("op", [held.token]),
        Abandon("op", [held.token], 0, True),
        Renew("op", [held.token], SECOND),
    ):
        assert book.write(event) == [held.token]
    assert book.counts() == (1, 0, 0, 0)


def test_a_renewed_lock_does_not_end_at_its_first_end():
    book = Book(messages=1)
    (held,) = book.take()
    book.time = 9 * SECOND
    assert book.write(Renew("op", [held.token], 10 * SECOND)) == []
    book.time = 18 * SECOND
    assert book.take() == []
    book.time = 19 * SECOND
    assert len(book.take()) == 1


def test_time_never_goes_back():
    book = Book(messages=1)
    book.take()
    book.time = 10 * SECOND
    book.write(None)
    book.time = 0
    assert len(book.take()) == 1


def test_an_uncounted_abandon_takes_the_count_back_and_a_counted_one_does_not():
    book = Book(messages=1)
    for counted, count in ((False, 1), (True, 1), (True, 2), (False, 3)):
        (held,) = book.take()
        assert held.count == count
        book.write(Abandon("op", [held.token], 0, counted))
    assert book.take()[0].count == 3


def test_an_abandoned_message_comes_back_before_those_behind_it():
    book = Book(messages=3)
    (held,) = book.take()
    book.write(Abandon("op", [held.token], 0, True))
    assert [one.position[2] for one in book.take(3)] == [0, 1, 2]


def test_a_delay_ends_by_the_brokers_time():
    book = Book(messages=1)
    (held,) = book.take()
    book.write(Abandon("op", [held.token], 5 * SECOND, True))
    assert book.counts() == (0, 0, 1, 0)
    assert book.take() == []
    assert book.ledger.next_change() == 5 * SECOND
    book.time = 5 * SECOND
    assert book.counts() == (1, 0, 0, 0)
    assert len(book.take()) == 1


def test_what_was_sent_with_a_delay_is_passed_over_until_then():
    book = Book()
    book.write(Postpone([(NORMAL, 0, 0), (NORMAL, 0, 2)], 5 * SECOND))
    assert book.counts() == (1, 0, 2, 0)
    assert [one.position[2] for one in book.take(3)] == [1]
    book.time = 5 * SECOND
    assert [one.position[2] for one in book.take(3)] == [0, 2]
    assert book.counts() == (0, 3, 0, 0)


def test_a_delay_that_comes_too_late_changes_nothing():
    book = Book(messages=1)
    book.take()
    book.write(Postpone([(NORMAL, 0, 0)], 5 * SECOND))
    assert book.counts() == (0, 1, 0, 0)


def test_a_burial_that_is_refused_makes_no_dead_letter():
    book = Book(messages=1)
    (held,) = book.take()
    book.time = 10 * SECOND
    assert book.write(Bury("op", [(held.token, 7)])) == [held.token]
    assert book.ledger.dead == {}


def test_dead_letters_are_redriven_fresh_and_purged_once():
    book = Book(messages=2)
    one, two = book.take(2)
    book.write(Bury("op", [(one.token, 4), (two.token, 5)]))
    assert book.counts() == (0, 0, 0, 2)
    assert book.write(Redrive("op", [4, 99])) == 1
    assert book.write(Purge("op", None)) == 1
    assert book.write(Purge("op", None)) == 0
    (again,) = book.take(2)
    assert (again.position, again.count) == ((3, 0, 4), 1)


def test_nothing_is_buried_where_copies_may_be_deleted_already():
    """Whoever cuts the ledger says so in it first, and a burial that comes later is refused by all alike."""
    book = Book(messages=3)
    one, two, three = book.take(3)
    book.write(Bury("op", [(two.token, 6)]))
    book.write(snapshot(book.ledger, book.offset))
    assert book.write(Bury("op", [(one.token, 5), (three.token, 7)])) == [one.token]
    assert sorted(book.ledger.dead) == [6, 7]
    assert book.counts() == (0, 1, 0, 2)


def test_what_was_purged_is_not_needed_any_more():
    book = Book(messages=1)
    (held,) = book.take()
    book.write(Bury("op", [(held.token, 6)]))
    book.write(Purge("op", None))
    assert book.ledger.floors()[3, 0] == 7


def test_completing_twice_is_known_and_a_token_that_never_was_is_lost():
    book = Book(messages=1)
    (held,) = book.take()
    for _ in range(2):
        assert book.write(Complete("op", [held.token])) == []
    assert book.write(Complete("op", ["ff.0"])) == ["ff.0"]


def test_of_full_lanes_the_low_one_gets_its_share():
    book = Book()
    book.write(Seen([(lane, 0, 0, 100) for lane in (HIGH, NORMAL, LOW)]))
    served = Counter(one.position[0] for one in book.take(80))
    assert served == {HIGH: 50, NORMAL: 20, LOW: 10}


def test_all_partitions_of_a_lane_are_served():
    book = Book()
    book.write(Seen([(NORMAL, partition, 0, 10) for partition in range(4)]))
    served = Counter(one.position[1] for one in book.take(16))
    assert set(served) == {0, 1, 2, 3}
    assert len(book.take(100)) == 24


def test_what_is_not_kept_any_more_is_not_given():
    book = Book()
    taken = book.write(Take("op", 9, SECOND, [(NORMAL, 0, 5, 8)]))
    assert [one.position[2] for one in taken] == [5, 6, 7]


def test_a_token_of_a_ledger_that_was_deleted_is_none_in_the_next_one():
    tokens = []
    for op in ("mine.1", "yours.1"):
        book = Book(messages=1)
        (taken,) = book.write(Take(op, 1, SECOND, []))
        tokens.append(taken.token)
    assert tokens[0] != tokens[1]
    assert book.write(Complete("mine.2", [tokens[0]])) == [tokens[0]]
    assert book.counts() == (0, 1, 0, 0)


def test_whoever_sends_says_nothing_of_the_first_that_are_kept():
    book = Book(messages=2)
    book.write(Seen([(NORMAL, 0, 9**9, 3)]))
    assert len(book.take(9)) == 3


def test_an_event_with_numbers_that_cannot_be_is_none():
    assert decode(encode(Postpone([(7, 0, 0)], 0))) is None
    for lane, partition, end in ((7, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 0, -1), (0, 0, 1 << 62)):
        for event in (
            Seen([(lane, partition, 0, end)]),
            Postpone([(lane, partition, end)], 0),
            Take("op", 1, 1, [(lane, partition, 0, end)]),
        ):
            assert decode(encode(event)) is None


def test_nothing_below_a_floor_is_needed():
    book = Book(messages=4)
    held = book.take(3)
    book.write(Complete("op", [held[0].token, held[2].token]))
    assert book.ledger.floors()[NORMAL, 0] == 1
    book.write(Bury("op", [(held[1].token, 9)]))
    assert book.ledger.floors() == {(NORMAL, 0): 3, (3, 0): 9}


def test_messages_that_only_the_asker_knows_of_are_counted():
    book = Book(messages=2)
    assert book.ledger.counts(0, [(NORMAL, 0, 0, 5), (LOW, 0, 3, 4)]) == Counts(6, 0, 0, 0)
    assert book.ledger.has_ready(0, [])


def test_what_is_no_event_is_passed_over():
    assert decode(b"garbage") is None
    assert decode(None) is None
    book = Book(messages=1)
    assert book.write(decode(b"\x91\xa5other")) == 0
    assert len(book.take()) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["seen", "take", "complete", "abandon", "delay", "bury", "redrive", "purge", "renew", "postpone"]
        ),
        st.integers(0, 9),
        st.integers(0, 4 * SECOND),
    ),
    max_size=60,
)


def _event(book, held, name, number):
    tokens = [one.token for one in held[: number % 3 + 1]]
    end = book.ledger.counts(book.time).ready + 1000 * 0 + number
    return {
        "seen": Seen([(number % 3, number % 2, 0, end + number)]),
        "take": Take("op", number, 3 * SECOND, []),
        "complete": Complete("op", tokens),
        "abandon": Abandon("op", tokens, 0, number % 2 == 0),
        "delay": Abandon("op", tokens, 2 * SECOND, True),
        "bury": Bury("op", [(token, 100 + book.offset * 10 + i) for i, token in enumerate(tokens)]),
        "redrive": Redrive("op", None if number % 2 else list(book.ledger.dead)[:1]),
        "purge": Purge("op", None),
        "renew": Renew("op", tokens, 3 * SECOND),
        "postpone": Postpone([(number % 3, number % 2, number)], book.time + 2 * SECOND),
    }[name]


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(0, 59))
def test_no_message_is_held_twice_and_a_ledger_from_a_snapshot_goes_on_alike(steps, cut):
    book, other, held = Book(), None, []
    for i, (name, number, later) in enumerate(steps):
        if i == cut:
            read = decode(encode(snapshot(book.ledger, book.offset)))
            assert isinstance(read, Snapshot)
            other = Ledger.restored(read.state)
        book.time += later
        event = _event(book, held, name, number)
        offset = book.offset
        outcome = book.write(event)
        if other is not None:
            assert other.apply(offset, book.time, decode(encode(event))) == outcome
            assert encode(snapshot(other, 0)) == encode(snapshot(book.ledger, 0))
        if name == "take":
            held = outcome + held
        where = Counter(lock.position for lock in book.ledger.state().locks.values())
        where.update(position for lane in book.ledger.state().ready for _, _, position in lane)
        where.update(position for _, position, _ in book.ledger.state().delayed)
        assert all(times == 1 for times in where.values()), "a message is in two states"
