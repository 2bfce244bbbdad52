"""Who is on a device and what they hold: what has no seat is found, and the dead count until their memory is back."""

from __future__ import annotations

import contextlib

import pytest
from sharing_parts import GIB, MIB, ScriptedDevice

from dumbwaiter.devices.ledger import Ledger
from dumbwaiter.devices.sharing.census import FORGIVEN, LOOK_EVERY, Census
from dumbwaiter.policies.admission import IDLE, LOADING, LONGEST_QUARANTINE, PARKING, PROBING, RUNNING, Seat


class Desk:
    """A device, its ledger, and those who sit there. Moments are seconds from the first look on."""

    def __init__(self, folder, stack, **device):
        self.path = folder / "ledgers" / "gpu"
        self.device = ScriptedDevice(**device)
        self.census = Census(self.device)
        self._stack = stack
        self._ledger = self._opened()

    def _opened(self):
        ledger = Ledger.open(self.path, device="gpu", capacity=self.device.capacity, record=Seat)
        self._stack.callback(ledger.close)
        return ledger

    def sit(self, **record):
        """Somebody with such a record; close() is its death."""
        ledger = self._opened()
        with ledger.turn() as turn:
            turn.take_seat(Seat(model="m", **record))
        return ledger

    def says(self, ledger, **record):
        with ledger.turn() as turn:
            turn.write(Seat(model="m", **record))

    def spoil(self, ledger):
        """Make the record of its seat unreadable."""
        with ledger.turn() as turn:
            turn._slots.put(ledger.seat.place, b"\x80nonsense")

    def take(self, now=0.0, census=None, **how):
        with self._ledger.turn() as turn:
            return (census or self.census).take(turn, now, **how)

    def seated(self):
        """The places of those who are not forgotten."""
        with self._ledger.turn() as turn:
            return [place for place, _ in turn.living + turn.orphaned] + [one.place for one in turn.unknown]


@pytest.fixture
def desk(tmp_path):
    with contextlib.ExitStack() as stack:
        yield Desk(tmp_path, stack)


# --- what has no seat ---------------------------------------------------------------------------------------------


def test_on_an_empty_device_all_that_is_used_is_outside(desk):
    desk.device.in_use = 3 * GIB
    device, seats = desk.take()
    assert (device.name, device.capacity, device.outside) == ("gpu", 8 * GIB, 3 * GIB)
    assert (seats, device.quarantined) == ({}, {})


def test_while_all_are_idle_outside_is_what_no_seat_says(desk):
    desk.sit(resident=2 * GIB)
    desk.sit(resident=1 * GIB)
    desk.device.in_use = 5 * GIB
    device, seats = desk.take()
    assert device.outside == 2 * GIB
    assert sorted(seat.resident for seat in seats.values()) == [1 * GIB, 2 * GIB]


def test_a_batch_that_takes_what_it_was_granted_is_not_outside(desk):
    desk.sit(resident=2 * GIB, granted=1 * GIB, doing=RUNNING)
    desk.device.in_use = 3 * GIB
    assert desk.take()[0].outside == 0


def test_of_a_batch_that_has_not_taken_its_grant_yet_nothing_is_made_of_the_rest(desk):
    desk.device.in_use = 1 * GIB
    assert desk.take()[0].outside == 1 * GIB
    desk.sit(resident=2 * GIB, granted=4 * GIB, doing=RUNNING)
    desk.device.in_use = 3 * GIB
    assert desk.take(LOOK_EVERY)[0].outside == 1 * GIB


def test_what_is_used_beyond_all_grants_is_outside_also_while_somebody_is_busy(desk):
    desk.sit(resident=2 * GIB, granted=1 * GIB, doing=RUNNING)
    desk.device.in_use = 5 * GIB
    assert desk.take()[0].outside == 2 * GIB


def test_outside_is_never_more_than_the_living_surely_leave_of_what_is_used(desk):
    desk.device.in_use = 4 * GIB
    desk.take()
    desk.sit(resident=2 * GIB, granted=1 * GIB, doing=RUNNING)
    desk.device.in_use = 3 * GIB
    assert desk.take(LOOK_EVERY)[0].outside == 1 * GIB


def test_what_may_be_a_busy_ones_activation_is_in_doubt_until_all_are_idle_and_then_looked_at_at_once(desk):
    busy = desk.sit(resident=2 * GIB)
    desk.device.in_use = 5 * GIB
    device, _ = desk.take()
    assert (device.outside, device.doubtful) == (3 * GIB, 0)
    desk.says(busy, resident=2 * GIB, granted=2 * GIB, doing=RUNNING)
    desk.device.in_use = 4 * GIB  # the stranger has left
    device, _ = desk.take(LOOK_EVERY)
    assert (device.outside, device.doubtful) == (2 * GIB, 2 * GIB)
    desk.says(busy, resident=2 * GIB)
    desk.device.in_use = 2 * GIB
    device, _ = desk.take(LOOK_EVERY + 0.001)
    assert (device.outside, device.doubtful) == (0, 0)


def test_the_doubt_of_one_that_waits_is_everybodys_and_of_one_that_does_not_nobodys(desk):
    desk.sit(resident=1 * GIB, outside=2 * GIB, doubtful=2 * GIB, asked_at=0.0, looked_at=0.0)
    desk.sit(resident=1 * GIB, outside=2 * GIB, doubtful=3 * GIB)
    desk.device.in_use = 4 * GIB
    assert desk.take()[0].doubtful == 2 * GIB


@pytest.mark.parametrize(
    ("record", "outside"),
    [
        ({"resident": 3 * GIB, "doing": LOADING}, 2 * GIB),  # perhaps nothing of it is loaded yet
        ({"resident": 3 * GIB, "granted": GIB, "doing": PROBING}, 2 * GIB),
        ({"resident": 3 * GIB, "parked": GIB, "doing": PARKING}, 2 * GIB),  # perhaps two thirds are gone already
        ({"resident": 3 * GIB, "parked": GIB, "doing": IDLE}, 1 * GIB),
    ],
)
def test_who_loads_or_parks_may_have_taken_none_of_it_yet_or_have_given_it_back(desk, record, outside):
    desk.device.in_use = 2 * GIB
    assert desk.take()[0].outside == 2 * GIB
    desk.sit(**record)
    desk.device.in_use = 4 * GIB if record["doing"] == IDLE else 3 * GIB
    assert desk.take(LOOK_EVERY)[0].outside == outside


def test_what_a_probe_takes_of_the_reserve_is_not_outside(desk):
    desk.sit(granted=7 * GIB, doing=PROBING)
    desk.device.in_use = 7 * GIB + 200 * MIB
    assert desk.take()[0].outside == 0


def test_at_the_first_look_others_are_believed_who_have_seen_the_device_quiet(desk):
    desk.sit(resident=1 * GIB, granted=3 * GIB, doing=RUNNING, outside=2 * GIB)
    desk.device.in_use = 4 * GIB
    assert desk.take()[0].outside == 2 * GIB


def test_all_count_with_the_most_that_anybody_says_is_outside(desk):
    desk.device.in_use = 1 * GIB
    assert desk.take()[0].outside == 1 * GIB
    other = desk.sit(outside=2 * GIB)
    assert desk.take()[0].outside == 2 * GIB
    assert desk.census.outside == 1 * GIB, "and says what it has seen itself"
    desk.says(other, outside=0)
    assert desk.take()[0].outside == 1 * GIB


def test_a_difference_that_is_noise_is_not_said(desk):
    desk.device.in_use = 1 * GIB
    desk.take()
    desk.device.in_use = 1 * GIB + FORGIVEN
    assert desk.take(LOOK_EVERY)[0].outside == 1 * GIB
    desk.device.in_use += 1
    assert desk.take(2 * LOOK_EVERY)[0].outside == 1 * GIB + FORGIVEN + 1


def test_the_device_is_asked_now_and_then_while_nobody_is_dead(desk):
    for now in (0.0, 0.1, 0.5 * LOOK_EVERY, LOOK_EVERY, 1.5 * LOOK_EVERY):
        desk.take(now)
    assert desk.device.looks == 2


def test_while_the_device_does_not_tell_what_was_known_stays_and_that_is_said_once(desk, caplog):
    desk.device.in_use = 1 * GIB
    desk.take()
    desk.device.in_use = None
    assert desk.take(LOOK_EVERY)[0].outside == 1 * GIB
    assert desk.take(2 * LOOK_EVERY)[0].outside == 1 * GIB
    assert caplog.text.count("what is in use of gpu cannot be told: the driver does not answer") == 1
    desk.device.in_use = 2 * GIB
    assert desk.take(3 * LOOK_EVERY)[0].outside == 2 * GIB


# --- the dead -----------------------------------------------------------------------------------------------------


def test_what_a_dead_one_held_counts_until_it_is_free_and_then_its_seat_is(desk):
    desk.sit(resident=2 * GIB, granted=1 * GIB, doing=RUNNING).close()
    desk.device.in_use = 3 * GIB
    device, seats = desk.take(5.0)
    assert device.quarantined == {0: 5.0}
    assert (seats[0].resident, seats[0].granted, seats[0].doing) == (3 * GIB, 0, IDLE)
    assert device.outside == 0
    desk.device.in_use = 1 * GIB
    device, seats = desk.take(5.01)
    assert device.quarantined == {0: 5.0}
    assert seats[0].resident == 1 * GIB
    desk.device.in_use = 0
    device, seats = desk.take(5.02)
    assert (device.quarantined, seats, desk.seated()) == ({}, {}, [])


def test_remains_that_are_noise_do_not_keep_a_dead_one_from_being_forgotten(desk):
    desk.sit(resident=2 * GIB).close()
    desk.device.in_use = FORGIVEN
    assert desk.take()[0].quarantined == {}
    assert desk.seated() == []


def test_the_dead_share_what_is_left_of_what_is_used(desk):
    for dead in (desk.sit(resident=2 * GIB), desk.sit(resident=2 * GIB)):
        dead.close()
    desk.sit(resident=1 * GIB)
    desk.device.in_use = 4 * GIB
    _, seats = desk.take()
    assert [seat.resident for _, seat in sorted(seats.items())] == [2 * GIB, 1 * GIB, 1 * GIB]


def test_a_living_one_that_loads_does_not_hide_that_the_dead_one_is_gone(desk):
    desk.sit(resident=2 * GIB).close()
    desk.sit(resident=1 * GIB, doing=LOADING)
    desk.device.in_use = 2 * GIB
    assert desk.take()[0].quarantined == {0: 0.0}, "nobody knows whose it is"
    desk.device.in_use = FORGIVEN
    assert desk.take()[0].quarantined == {}


def test_while_the_device_does_not_tell_a_dead_one_counts_with_all_it_held(desk):
    desk.sit(resident=2 * GIB, granted=1 * GIB, doing=RUNNING).close()
    desk.device.in_use = None
    device, seats = desk.take()
    assert device.quarantined == {0: 0.0}
    assert (seats[0].resident, seats[0].granted) == (2 * GIB, 1 * GIB)


def test_what_does_not_come_back_is_outside_in_the_end(desk, caplog):
    desk.sit(resident=2 * GIB).close()
    desk.device.in_use = 2 * GIB
    desk.take()
    assert list(desk.take(LONGEST_QUARANTINE - 0.1)[0].quarantined) == [0]
    device, seats = desk.take(LONGEST_QUARANTINE)
    assert (device.outside, device.quarantined, seats) == (2 * GIB, {}, {})
    assert desk.seated() == []
    assert "2048 MiB of gpu that a dead process of model m held are in use 10 s after its death" in caplog.text


def test_only_while_all_are_idle_for_only_then_it_is_known_how_much_that_is(desk):
    desk.sit(resident=2 * GIB).close()
    desk.device.in_use = 2 * GIB
    desk.take()
    busy = desk.sit(resident=1 * GIB, granted=1 * GIB, doing=RUNNING)
    desk.device.in_use = 4 * GIB
    [since] = desk.take(2 * LONGEST_QUARANTINE)[0].quarantined.values()
    assert since > LONGEST_QUARANTINE, "so it is not taken to have leaked yet"
    desk.says(busy, resident=1 * GIB)
    desk.device.in_use = 3 * GIB
    device, _ = desk.take(2 * LONGEST_QUARANTINE)
    assert (device.outside, device.quarantined) == (2 * GIB, {})


def test_or_while_only_this_one_is_not_which_knows_that_it_uses_nothing(desk):
    desk.sit(resident=2 * GIB).close()
    desk.device.in_use = 3 * GIB
    mine = desk.sit(resident=1 * GIB, granted=4 * GIB, doing=RUNNING)
    desk.take(empty=mine.seat.place)
    device, seats = desk.take(LONGEST_QUARANTINE, empty=mine.seat.place)
    assert (device.outside, device.quarantined) == (2 * GIB, {})
    assert seats[mine.seat.place].granted == 4 * GIB, "it holds that all the same"


def test_who_has_no_seat_to_say_so_leaves_it_to_others(desk):
    desk.sit(resident=2 * GIB).close()
    desk.device.in_use = 2 * GIB
    desk.take(is_seated=False)
    assert list(desk.take(LONGEST_QUARANTINE, is_seated=False)[0].quarantined) == [0]


def test_others_learn_at_once_of_what_one_has_given_up_on(desk):
    """Also while somebody is busy, so that it cannot be seen."""
    other = Census(desk.device)
    desk.sit(resident=2 * GIB).close()
    desk.device.in_use = 2 * GIB
    desk.take()
    desk.take(census=other)
    assert desk.take(LONGEST_QUARANTINE)[0].outside == 2 * GIB
    desk.sit(outside=desk.census.outside, granted=4 * GIB, doing=RUNNING)
    assert desk.take(LONGEST_QUARANTINE, census=other)[0].outside == 2 * GIB
    assert other.outside == 2 * GIB


def test_where_memory_is_free_before_the_locks_are_the_dead_are_forgotten_at_once(tmp_path):
    with contextlib.ExitStack() as stack:
        desk = Desk(tmp_path, stack, frees_late=False, in_use=6 * GIB)
        desk.sit(resident=2 * GIB).close()
        device, seats = desk.take()
        assert (device.quarantined, seats, desk.seated()) == ({}, {}, [])


# --- records that cannot be read ----------------------------------------------------------------------------------


def test_while_a_living_one_cannot_be_read_all_is_blurred_and_outside_stays(desk):
    desk.device.in_use = 1 * GIB
    desk.take()
    assert not desk.census.is_blurred
    somebody = desk.sit(resident=2 * GIB)
    desk.spoil(somebody)
    desk.device.in_use = 3 * GIB
    assert desk.take(LOOK_EVERY)[0].outside == 1 * GIB
    assert desk.census.is_blurred
    desk.says(somebody, resident=2 * GIB)
    desk.take(2 * LOOK_EVERY)
    assert not desk.census.is_blurred


def test_a_dead_one_that_cannot_be_read_may_hold_all_that_nobody_else_does(desk):
    desk.sit(resident=1 * GIB)
    somebody = desk.sit(resident=2 * GIB)
    desk.spoil(somebody)
    somebody.close()
    desk.device.in_use = 4 * GIB
    device, seats = desk.take()
    assert not desk.census.is_blurred
    assert device.quarantined == {1: 0.0}
    assert seats[1].resident == 3 * GIB
    desk.device.in_use = 1 * GIB
    assert desk.take()[0].quarantined == {}
