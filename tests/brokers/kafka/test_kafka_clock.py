"""What the clock of a ledger shows, as told from its records. *here* is a clock of ours that is never set."""

from __future__ import annotations

import pytest

from dumbwaiter.brokers.kafka.clock import FORGET_AFTER, LedgerClock

NOON = 1_764_000_000_000
HERE = 5_000


@pytest.fixture
def clock():
    """Guessed to be ten seconds ahead of what the ledger's clock, which shows NOON, really is."""
    return LedgerClock(guess=NOON + 10_000, here=HERE)


def test_before_any_record_it_is_our_clock_of_the_day(clock):
    assert clock.now(HERE + 7) == NOON + 10_007


def test_the_first_record_that_comes_says_better(clock):
    clock.note(NOON, HERE)
    assert clock.now(HERE + 7) == NOON + 7


def test_a_record_of_long_ago_says_nothing_but_that_it_is_not_earlier(clock):
    clock.note_old(NOON - 3_600_000, HERE)
    assert clock.now(HERE) == NOON + 10_000
    clock.note_old(NOON + 20_000, HERE)
    assert clock.now(HERE) == NOON + 20_000


def test_a_record_that_was_long_on_its_way_puts_it_back_only_after_a_minute(clock):
    clock.note(NOON, HERE)
    clock.note(NOON, HERE + 300)
    assert clock.now(HERE + 300) == NOON + 300
    later = HERE + FORGET_AFTER + 1
    clock.note(NOON, later)
    assert clock.now(later) == NOON


def test_a_record_that_came_sooner_puts_it_forward(clock):
    clock.note(NOON, HERE)
    clock.note(NOON + 1_000, HERE + 900)
    assert clock.now(HERE + 900) == NOON + 1_000


def test_a_record_of_ours_puts_it_back_at_once_to_what_it_can_be_at_most(clock):
    clock.note(NOON, HERE)
    clock.note_ours(NOON - 30_000, HERE + 1_000, HERE + 1_020)
    assert clock.now(HERE + 1_020) == NOON - 30_000 + 20


def test_a_record_of_ours_puts_it_forward_as_any_other(clock):
    clock.note(NOON, HERE)
    clock.note_ours(NOON + 30_000, HERE + 1_000, HERE + 1_020)
    assert clock.now(HERE + 1_020) == NOON + 30_000
