"""The peek-lock state machine against a model of plain lists, and its edges one by one. The clock is a number."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dumbwaiter.brokers import memory_queue
from dumbwaiter.brokers.memory_queue import REMEMBER_SECONDS, MemoryQueue
from dumbwaiter.errors import DeadLetterNotFoundError
from dumbwaiter.message import DeadLetter, Delivery, Message

IDS = st.sampled_from("abcdefgh")
DURATIONS = st.sampled_from([1, 5, 30])
DELAYS = st.sampled_from([0, 0, 2, 10])
OWNERS = st.sampled_from(["anna", "ben"])


@dataclass
class Entry:
    """A message in the model. *token* is the lock that can still settle it; *due* is when a delay or lock ends."""

    message: Message
    since: float
    place: str = "ready"
    due: float = 0.0
    token: str | None = None
    owner: str | None = None
    count: int = 0
    reason: tuple[str, str, float] = ("", "", 0.0)


class QueueMachine(RuleBasedStateMachine):
    """Every rule does the same to the queue and to the model, and compares what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000
        self.queue = MemoryQueue("q", salt="salt.")
        self.line: list[Entry] = []  # in order of arrival
        self.dead: list[Entry] = []  # in order of death
        self.gone: dict[str, int] = {}
        self.deliveries: list[Delivery] = []  # all that were ever handed out
        self.tokens: set[str] = set()

    # --- the model ---

    def tick(self) -> None:
        for entry in self.line:
            if entry.place != "ready" and entry.due <= self.now:
                entry.place = "ready"

    def present(self, id_: str) -> bool:
        return any(entry.message.id == id_ for entry in self.line + self.dead)

    def held_by(self, delivery: Delivery) -> Entry | None:
        """The entry that *delivery* may still settle: nobody has taken it since."""
        return next((entry for entry in self.line if entry.token == delivery.lock_token), None)

    def put_back(self, entry: Entry, delay: int) -> None:
        entry.token = entry.owner = None
        entry.place, entry.due = ("delayed", self.now + delay) if delay else ("ready", 0.0)

    def some(self, data: st.DataObject, letters: list[DeadLetter]) -> list[str] | None:
        keys = st.sampled_from([letter.key for letter in letters] + ["unknown"])
        return data.draw(st.none() | st.lists(keys, max_size=4), label="keys")

    # --- the rules ---

    @rule(seconds=st.sampled_from([0, 1, 1, 2, 4, 5, 30, 599, 600]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(batch=st.lists(st.tuples(IDS, st.integers(-1, 1)), max_size=4), delay=DELAYS)
    def send(self, batch, delay):
        messages = [Message(id=id_, priority=priority) for id_, priority in batch]
        self.queue.send(messages, delay=delay, now=self.now)
        self.gone = {id_: until for id_, until in self.gone.items() if until > self.now}
        for message in messages:
            if not self.present(message.id) and message.id not in self.gone:
                self.line.append(Entry(message, self.now + delay))
                self.put_back(self.line[-1], delay)

    @rule(most=st.integers(0, 3), duration=DURATIONS, owner=OWNERS)
    def take(self, most, duration, owner):
        self.tick()
        ready = [entry for entry in self.line if entry.place == "ready"]
        ready.sort(key=lambda entry: (-entry.message.priority, entry.since))  # stable: then by arrival
        taken = self.queue.take(most, lock_duration=duration, owner=owner, now=self.now)
        assert [one.message for one in taken] == [entry.message for entry in ready[:most]]
        for delivery, entry in zip(taken, ready, strict=False):
            entry.place, entry.due, entry.owner, entry.token = "locked", self.now + duration, owner, delivery.lock_token
            entry.count += 1
            assert (delivery.delivery_count, delivery.locked_until) == (entry.count, entry.due)
            assert delivery.queue == "q"
            assert delivery.lock_token not in self.tokens, "a token is never used twice"
            self.tokens.add(delivery.lock_token)
            self.deliveries.append(delivery)

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data())
    def complete(self, data):
        delivery = data.draw(st.sampled_from(self.deliveries))
        entry = self.held_by(delivery)
        done = self.queue.complete(delivery, now=self.now)
        if entry is None:
            assert done is not self.present(delivery.message.id), "gone is fine, held by another is not"
        else:
            assert done
            self.line.remove(entry)
            self.gone[entry.message.id] = self.now + REMEMBER_SECONDS

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data(), delay=DELAYS, counted=st.booleans())
    def abandon(self, data, delay, counted):
        delivery = data.draw(st.sampled_from(self.deliveries))
        entry = self.held_by(delivery)
        done = self.queue.abandon(delivery, delay=delay, counted=counted, now=self.now)
        assert done is (entry is not None)
        if entry is not None:
            entry.count -= not counted
            self.put_back(entry, delay)

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data())
    def dead_letter(self, data):
        delivery = data.draw(st.sampled_from(self.deliveries))
        entry = self.held_by(delivery)
        why = ("reason", f"detail {self.now}", self.now + 0.5)
        done = self.queue.dead_letter(delivery, reason=why[0], detail=why[1], now=self.now, dead_at=why[2])
        assert done is (entry is not None)
        if entry is not None:
            self.line.remove(entry)
            entry.reason = why
            self.dead.append(entry)

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data(), duration=DURATIONS)
    def renew(self, data, duration):
        self.tick()
        delivery = data.draw(st.sampled_from(self.deliveries))
        entry = self.held_by(delivery)
        renewed = self.queue.renew(delivery, lock_duration=duration, now=self.now)
        if entry is None or entry.place != "locked":
            assert renewed is None
            return
        entry.due = self.now + duration
        assert (renewed.lock_token, renewed.locked_until) == (entry.token, entry.due)
        assert (renewed.message, renewed.delivery_count) == (entry.message, entry.count)

    @rule(owner=OWNERS)
    def release(self, owner):
        self.queue.release(owner, now=self.now)
        for entry in self.line:
            if entry.place == "locked" and entry.owner == owner:
                self.put_back(entry, 0)
                entry.count -= 1

    @rule(data=st.data())
    def redrive(self, data):
        letters = self.queue.dead_letters(1000)
        keys = self.some(data, letters)
        chosen = self.take_dead(keys, letters)
        assert self.queue.redrive(keys, now=self.now) == len(chosen)
        self.line += [Entry(entry.message, self.now) for entry in chosen]

    @rule(data=st.data())
    def purge(self, data):
        letters = self.queue.dead_letters(1000)
        keys = self.some(data, letters)
        chosen = self.take_dead(keys, letters)
        assert self.queue.purge(keys) == len(chosen)

    def take_dead(self, keys: list[str] | None, letters: list[DeadLetter]) -> list[Entry]:
        by_key = {letter.key: entry for letter, entry in zip(letters, self.dead, strict=True)}
        chosen = [by_key[key] for key in (by_key if keys is None else dict.fromkeys(keys)) if key in by_key]
        self.dead = [entry for entry in self.dead if entry not in chosen]
        return chosen

    # --- what must hold after each step ---

    @invariant()
    def the_counts_are_true(self):
        self.tick()
        stats = self.queue.stats(now=self.now)
        counts = {place: [e for e in self.line if e.place == place] for place in ("ready", "locked", "delayed")}
        assert {place: getattr(stats, place) for place in counts} == {place: len(es) for place, es in counts.items()}
        assert stats.dead == len(self.dead)
        assert stats.oldest_age == max((self.now - entry.since for entry in counts["ready"]), default=0)

    @invariant()
    def positions_are_the_order_of_serving(self):
        self.tick()
        ready = [entry for entry in self.line if entry.place == "ready"]
        ready.sort(key=lambda entry: (-entry.message.priority, entry.since))
        expected = {entry.message.id: min(place, 3) for place, entry in enumerate(ready)}
        found = {id_: self.queue.position(id_, limit=3, now=self.now) for id_ in "abcdefgh"}
        assert found == dict.fromkeys("abcdefgh") | expected

    @invariant()
    def dead_letters_are_told_oldest_first(self):
        letters = self.queue.dead_letters(1000)
        assert [(one.message, one.reason, one.detail, one.dead_at, one.delivery_count) for one in letters] == [
            (entry.message, *entry.reason, entry.count) for entry in self.dead
        ]
        assert len({letter.key for letter in letters}) == len(letters)
        assert self.queue.dead_letters(1) == letters[:1]
        for place, letter in enumerate(letters):
            assert self.queue.dead_letters(2, after=letter.key) == letters[place + 1 : place + 3]

    @invariant()
    def the_next_event_is_known(self):
        dues = [entry.due for entry in self.line if entry.place != "ready"]
        assert self.queue.next_event() == min(dues, default=None)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


# --- edges, one by one ---


def filled(*ids: str, **message) -> MemoryQueue:
    queue = MemoryQueue("q")
    queue.send([Message(id=id_, **message) for id_ in ids], delay=0, now=0)
    return queue


def take(queue: MemoryQueue, most: int = 10, *, now: float, lock_duration: float = 10) -> list[Delivery]:
    return queue.take(most, lock_duration=lock_duration, owner=None, now=now)


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


def test_a_lock_ends_at_its_very_moment():
    queue = filled("a")
    take(queue, now=0)
    assert take(queue, now=9.999) == []
    assert ids(take(queue, now=10)) == ["a"]


def test_a_lock_that_ran_out_settles_while_nobody_has_taken_the_message_since():
    queue = filled("a", "b")
    first, second = take(queue, now=0)
    assert queue.renew(first, lock_duration=10, now=20) is None
    assert queue.complete(first, now=20)
    assert ids(take(queue, now=20)) == ["b"]
    assert not queue.complete(second, now=20)


def test_a_message_abandoned_late_is_handed_out_once():
    queue = filled("a")
    (delivery,) = take(queue, now=0)
    assert take(queue, 0, now=20) == []
    assert queue.abandon(delivery, delay=0, counted=True, now=20)
    assert ids(take(queue, now=20)) == ["a"]
    assert queue.stats(now=20).ready == 0


def test_an_abandoned_message_keeps_its_place_and_its_age():
    queue = filled("a", "b")
    (delivery,) = take(queue, 1, now=1)
    queue.abandon(delivery, delay=0, counted=False, now=2)
    assert queue.stats(now=5).oldest_age == 5
    again = take(queue, now=5)
    assert ids(again) == ["a", "b"]
    assert [one.delivery_count for one in again] == [1, 1]


@pytest.mark.parametrize("delay", [0, -5])
def test_no_delay_is_at_once(delay):
    queue = MemoryQueue("q")
    queue.send([Message(id="a")], delay=delay, now=7)
    assert queue.stats(now=7).oldest_age == 0
    assert ids(take(queue, now=7)) == ["a"]


def test_the_id_of_a_dead_letter_is_kept_out_and_a_redriven_one_is_still_here():
    queue = filled("a")
    (delivery,) = take(queue, now=0)
    queue.dead_letter(delivery, reason="r", detail="", now=0, dead_at=0)
    queue.send([Message(id="a")], delay=0, now=1)
    assert queue.redrive(None, now=1) == 1
    assert ids(take(queue, now=1)) == ["a"]
    assert not queue.complete(delivery, now=1), "a token from before the redrive settles nothing"


def test_a_purged_id_is_forgotten():
    queue = filled("a")
    (delivery,) = take(queue, now=0)
    queue.dead_letter(delivery, reason="r", detail="", now=0, dead_at=0)
    assert queue.purge(None) == 1
    queue.send([Message(id="a")], delay=0, now=1)
    assert ids(take(queue, now=1)) == ["a"]


@pytest.mark.parametrize("key", ["", "0", "01", "-1", "1.5", "٣", "no key", "9" * 5000])
def test_what_is_no_key_of_a_dead_letter_leads_nowhere_and_moves_nothing(key):
    queue = filled("a")
    (delivery,) = take(queue, now=0)
    queue.dead_letter(delivery, reason="r", detail="", now=0, dead_at=0)
    with pytest.raises(DeadLetterNotFoundError, match="in queue 'q'; see: dumbwaiter dead-letters list q"):
        queue.dead_letters(10, after=key)
    assert queue.redrive([key], now=1) == queue.purge([key]) == 0


def test_only_so_many_ids_of_the_gone_are_remembered(monkeypatch):
    monkeypatch.setattr(memory_queue, "REMEMBER_COUNT", 3)
    names = list("abcde")
    queue = filled(*names)
    for delivery in take(queue, now=0):
        queue.complete(delivery, now=0)
    queue.send([Message(id=id_) for id_ in names], delay=0, now=1)
    assert ids(take(queue, now=1)) == ["a", "b"], "the oldest are forgotten first"


def test_no_dead_letters_are_told_where_none_are_asked_for():
    queue = filled("a")
    (delivery,) = take(queue, now=0)
    queue.dead_letter(delivery, reason="r", detail="", now=0, dead_at=0)
    assert queue.dead_letters(0) == queue.dead_letters(-1) == []


def test_tokens_of_two_queues_differ_by_their_salt():
    tokens = []
    for salt in ("x.", "y."):
        queue = MemoryQueue("q", salt=salt)
        queue.send([Message()], delay=0, now=0)
        tokens += [one.lock_token for one in take(queue, now=0)]
    assert len(set(tokens)) == 2
