"""What is in hand: slots, bytes, grants and locks, from receive to settlement."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.devices.admission import Grant, Unlimited
from dumbwaiter.message import Delivery, Message
from dumbwaiter.worker.hand import NOWHERE, Hand, Held
from dumbwaiter.worker.recorder import SLOTS


def taken(hand: Hand, *bodies: bytes) -> list[Held]:
    deliveries = [
        Delivery(
            message=Message(body=body),
            queue="dish",
            lock_token=f"token-{number}",
            locked_until=time.monotonic() + 30,
            delivery_count=1,
        )
        for number, body in enumerate(bodies)
    ]
    return hand.take(deliveries, Grant(len(bodies), Unlimited()))


def ours(hand: Hand) -> list[Held]:
    return [held for held in hand if held.is_ours]


def test_locks_are_renewed_from_receive_until_the_settlement_is_on_its_way() -> None:
    hand = Hand()
    (held,) = taken(hand, b"soup")
    assert ours(hand) == [held]
    hand.assign(held)
    hand.leave_runner(held.slot)
    assert ours(hand) == [held], "its answer is being saved and told, which may take a while"
    held.closing = True
    assert ours(hand) == []
    hand.release(held)
    assert len(hand) == 0


def test_a_message_that_has_left_the_runner_does_not_drag_out_the_next_owner_of_its_slot() -> None:
    hand = Hand()
    first, second = taken(hand, b"1", b"2")
    hand.assign(first)
    slot = first.slot
    hand.leave_runner(slot)
    hand.assign(second)
    assert (first.slot, second.slot) == (NOWHERE, slot)
    assert list(hand) == [first, second]


@pytest.mark.parametrize("slots", [[0, 7], [0, 0]], ids=["unknown", "twice"])
def test_slots_that_make_no_sense_leave_the_hand_as_it_was(slots: list[int]) -> None:
    """A message that had left for a frame that then turned out to be nonsense would be held for ever."""
    hand = Hand()
    one, two = taken(hand, b"1", b"2")
    hand.assign(one)
    hand.assign(two)
    known = {0: one.slot, 7: NOWHERE}
    with pytest.raises(ValueError, match="cannot leave the runner"):
        hand.leave_runner_together([known[slot] for slot in slots])
    assert hand.slots == [one.slot, two.slot]
    assert hand.leave_runner_together(hand.slots) == [one, two]


def test_bodies_are_counted_while_the_runner_has_them_and_kept_by_nobody_else() -> None:
    hand = Hand()
    one, two = taken(hand, b"soup", b"pie")
    assert (hand.assign(one), hand.assign(two)) == (b"soup", b"pie")
    assert (one.body, two.body, hand.nbytes_in_runner) == (b"", b"", 7)
    hand.empty_runner()
    assert hand.nbytes_in_runner == 0


@given(st.lists(st.booleans(), max_size=60))
def test_no_two_messages_share_a_slot_and_none_is_lost(moves: list[bool]) -> None:
    hand = Hand()
    for put_in in moves:
        if put_in:
            hand.assign(taken(hand, b"x")[0])
        elif hand.slots:
            hand.leave_runner(hand.slots[0])
        assert len(set(hand.slots)) == hand.in_runner == hand.nbytes_in_runner
        assert hand.in_runner + hand.room == SLOTS
