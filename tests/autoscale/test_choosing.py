"""Which workers one autoscaler starts and retires, also where others keep some."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.autoscale.choosing import HEARD_WITHIN, Change, Watch, change, doubt_of, free, least_loaded, others_of
from dumbwaiter.autoscale.fleet import Member
from dumbwaiter.autoscale.room import Room
from dumbwaiter.blobs.presence import WorkerStatus

NOW = 1000.0


def member(name: str, state: str = "ready", **facts) -> Member:
    return Member(name=name, state=state, **{"worker": f"id-{name}", **facts})


def status(worker: str, state: str = "ready", **facts) -> WorkerStatus:
    return WorkerStatus(**{"worker": worker, "model": "cats", "state": state, "announced_at": NOW, **facts})


def test_what_is_missing_is_started():
    assert change(3, [member("a")], [], []).start == 2
    assert change(3, [member("a")], [status("other")], []).start == 1
    assert change(1, [member("a")], [], []) == change(2, [member("a")], [status("other")], [])


def test_those_that_do_nothing_yet_leave_first_then_those_with_least_in_hand():
    own = [
        member("busy"),
        member("idle"),
        member("loads", "loading"),
        member("fails", "failing"),
        member("new", "starting"),
    ]
    said = [status("id-busy", in_hand=9), status("id-idle", in_hand=0)]
    assert change(0, own, [], said).retire == ("fails", "new", "loads", "idle", "busy")
    assert change(3, own, [], said).retire == ("fails", "new")


def test_while_one_fails_no_other_is_started_for_it_would_fail_too():
    made = change(5, [member("a", "failing", reason="cannot load 'x'\nTraceback"), member("b")], [], [])
    assert (made.start, made.retire) == (0, ())
    assert made.held == "a fails, and another one would too: cannot load 'x'"


def test_after_one_that_failed_the_next_one_has_to_be_ready_before_others_come():
    made = change(5, [], [], [], doubt="no weights")
    assert (made.start, made.held) == (1, "the last one has failed, so that one has to be ready first: no weights")
    assert change(5, [member("a", "loading")], [], [], doubt="no weights").start == 0
    assert change(1, [], [], [], doubt="no weights").start == 1
    fails = [member("a", "failing", reason="no weights\nTraceback"), member("b", "starting")]
    assert doubt_of(fails, "") == "no weights"
    assert doubt_of([member("b", "starting")], "no weights") == "no weights"
    assert doubt_of([], "no weights") == "no weights"
    assert doubt_of([*fails, member("c", "ready")], "no weights") == ""


def test_no_more_are_started_than_the_device_has_room_for_and_one_always_is():
    made = change(5, [member("a")], [], [], room=2, room_of="the memory of GPU-1 has room for 3")
    assert (made.start, made.held) == (2, "the memory of GPU-1 has room for 3")
    assert change(2, [member("a")], [], [], room=8, room_of="it").held == ""
    assert free(Room(3, seated=1), [member("a")], {"a"}) == 2
    assert free(Room(0, seated=0), [], ()) == 1
    assert free(Room(1, seated=2), [member("a"), member("b")], {"a", "b"}) == 0


def test_room_is_taken_by_those_of_others_by_those_that_leave_and_by_those_that_come():
    assert free(Room(1, seated=1), [], ()) == 0, "somebody else's, or one that was told to leave"
    assert free(Room(3, seated=1), [member("a", "starting")], ()) == 1
    assert free(Room(3, seated=1), [member("a"), member("b")], {"a"}) == 1, "b was ready after the room was seen"


def test_one_that_says_nothing_does_not_count_and_another_one_is_started_beside_it():
    hangs = member("a")
    assert change(1, [hangs], [], [], silent={"a"}, most=2).start == 1
    assert change(1, [hangs, member("b")], [], [], silent={"a"}, most=2) == Change()
    assert change(0, [hangs, member("b")], [], [status("id-b")], silent={"a"}, most=2).retire == ("b",)
    two = [hangs, member("b")]
    held = change(2, two, [], [], silent={"a", "b"}, most=2)
    assert (held.start, held.held) == (0, "2 of them are there and say nothing, so no others are tried")
    assert change(2, [*two, member("c")], [status("other")], [], silent={"a", "b"}, most=2) == Change()


def test_one_is_silent_when_it_is_missed_for_a_while_and_a_new_one_when_nobody_ever_heard_of_it():
    own, said = [member("a"), member("f", "failing"), member("s", "starting", worker="")], [status("id-a")]
    watch = Watch().after(own, said, 0.0)
    assert watch.silent(own, 0.0) == []
    watch = watch.after(own, [], 100.0)
    assert watch.silent(own, 100.0) == [], "all slept, and it will speak in a moment"
    watch = watch.after(own, [], 107.0)
    assert watch.silent(own, 107.0) == [own[0]]
    assert watch.after(own, said, 109.0).silent(own, 109.0) == []
    new = Watch().after(own, [], 0.0).after(own, [], 15.0)
    assert new.silent(own, 15.0) == []
    assert new.silent(own, 21.0) == [own[0]]


def test_two_autoscalers_do_not_retire_the_same_surplus():
    """One each, and one is enough: the newer one goes, and the other one's keeper sees that it is none of his."""
    ours, theirs = [member("a")], [member("b")]
    said = [status("id-a", started_at=1.0), status("id-b", started_at=2.0)]
    assert change(1, ours, [said[1]], said).retire == ()
    assert change(1, theirs, [said[0]], said).retire == ("b",)
    assert change(0, ours, [said[1]], said).retire == ("a",)


def test_of_ones_own_surplus_the_least_loaded_go_not_the_newest():
    own = [member("old"), member("new")]
    said = [status("id-old", started_at=1.0, in_hand=0), status("id-new", started_at=2.0, in_hand=5)]
    assert change(1, own, [], said).retire == ("old",)


def test_others_are_those_that_serve_or_will_and_were_heard_of_lately():
    said = [
        status("id-a"),
        status("gone"),
        status("theirs"),
        status("loads", "loading"),
        status("fails", "failing"),
        status("leaves", "draining"),
        status("silent"),
    ]
    silence = {"silent": HEARD_WITHIN + 1.0, "theirs": HEARD_WITHIN - 1.0}
    assert [one.worker for one in others_of(said, [member("a")], {"gone"}, silence)] == ["theirs", "loads"]


states = st.sampled_from(["starting", "loading", "ready", "failing", "draining"])
fleets = st.lists(st.tuples(states, st.integers(0, 100), st.floats(0, 1000)), max_size=12)


@given(st.integers(0, 20), fleets, fleets)
def test_both_together_come_to_what_is_desired_and_never_below(desired, ours, theirs):
    """Two autoscalers that see the same at the same moment, and nobody fails."""
    pools = []
    for name, fleet in (("a", ours), ("b", theirs)):
        own = [member(f"{name}{n}", "ready") for n in range(len(fleet))]
        said = [
            status(one.worker, in_hand=in_hand, started_at=at) for one, (_, in_hand, at) in zip(own, fleet, strict=True)
        ]
        pools.append((own, said))
    everyone = pools[0][1] + pools[1][1]
    retired = 0
    for (own, _), (_, others) in (pools, pools[::-1]):
        made = change(desired, own, others, everyone)
        retired += len(made.retire)
        assert made.start == max(0, desired - len(everyone))
    assert retired == max(0, len(everyone) - desired)


@given(fleets)
def test_the_order_of_retirement_is_one_of_all_members(fleet):
    own = [member(f"m{n}", state) for n, (state, _, _) in enumerate(fleet)]
    in_hand = {one.worker: count for one, (_, count, _) in zip(own, fleet, strict=True)}
    order = least_loaded(own, in_hand)
    assert sorted(one.name for one in order) == sorted(one.name for one in own)
    ready = [in_hand[one.worker] for one in order if one.state == "ready"]
    assert ready == sorted(ready)


def test_of_members_that_load_the_newest_is_retired_though_an_older_one_does_no_more():
    own = [member("old", "loading"), member("new", "loading"), member("busy")]
    assert change(2, own, [], [status("id-busy", in_hand=2)]).retire == ("new",)
