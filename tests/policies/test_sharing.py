"""No host and no tenant has more places than its share, and whoever finds none comes back when there may be one."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.sharing import LONGEST_TURN, Hosts, Tenants, turn


def take(hosts, host, tenant="t", *, now, is_first_try=True):
    return hosts.take(host, tenant, is_first_try=is_first_try, now=now)


def test_a_host_has_so_many_places_and_others_have_their_own():
    hosts = Hosts(2)
    assert [take(hosts, "a", name, now=0.0) for name in ("t", "u", "v")] == [True, True, False]
    assert take(hosts, "b", "v", now=0.0)
    hosts.release("a", "t", began=0.0, now=1.0)
    assert take(hosts, "a", "v", now=1.0)
    assert not take(hosts, "a", "t", now=1.0)


def test_tenants_share_a_host_so_that_the_next_one_finds_a_place_although_others_hang():
    hosts = Hosts(16)
    counts = [sum(take(hosts, "a", tenant, now=0.0) for _ in range(40)) for tenant in ("t", "u", "v")]
    assert counts == [8, 4, 2]
    assert take(hosts, "a", "new", now=0.0)


def test_whoever_finds_no_place_waits_behind_its_own_alone():
    hosts = Hosts(1)
    take(hosts, "a", "t", now=0.0)
    behind = max(hosts.turn("a", "t", now=0.0) for _ in range(100))
    assert not take(hosts, "a", "new", now=0.0)
    assert hosts.turn("a", "new", now=0.0) < behind / 10


def test_whoever_holds_none_comes_back_at_the_pace_at_which_others_give_places_back():
    hosts = Hosts(2)
    assert take(hosts, "a", "t", now=0.0)
    assert take(hosts, "a", "u", now=0.0)
    assert not take(hosts, "a", "new", now=8.0)
    assert hosts.turn("a", "new", now=8.0) == 4.0


def test_those_who_find_no_place_come_back_one_after_the_other():
    hosts = Hosts(1)
    take(hosts, "a", now=0.0)
    delays = [hosts.turn("a", "t", now=0.0) for _ in range(5)]
    assert delays == sorted(delays)
    assert len(set(delays)) == 5


def test_the_longer_a_host_takes_or_is_silent_the_later_they_come_back():
    quick, slow, silent = Hosts(1), Hosts(1), Hosts(1)
    for hosts, seconds in ((quick, 0.01), (slow, 10.0)):
        for _ in range(10):
            take(hosts, "a", now=0.0)
            hosts.release("a", "t", began=0.0, now=seconds)
        take(hosts, "a", now=seconds)
    take(silent, "a", now=0.0)
    assert quick.turn("a", "t", now=0.01) < 0.1
    assert slow.turn("a", "t", now=10.0) > 5.0
    assert silent.turn("a", "t", now=10.0) > 5.0


def test_hosts_of_long_ago_are_forgotten():
    hosts = Hosts(1)
    for number in range(5000):
        take(hosts, str(number), now=float(number))
        hosts.release(str(number), "t", began=float(number), now=float(number))
    assert len(hosts) <= 1001


def test_tenants_of_long_ago_are_forgotten():
    tenants = Tenants(1, remembered=10)
    for number in range(500):
        assert tenants.take(str(number), is_first_try=True, now=float(number))
        tenants.release(str(number), began=float(number), now=float(number))
    assert len(tenants) <= 11


def test_a_line_that_somebody_waits_in_is_not_forgotten_with_the_others():
    hosts = Hosts(1)
    take(hosts, "awaited", now=0.0)
    delay = max(hosts.turn("awaited", "t", now=0.0) for _ in range(100))
    hosts.release("awaited", "t", began=0.0, now=0.0)
    for number in range(2000):
        take(hosts, str(number), now=0.0)
        hosts.release(str(number), "t", began=0.0, now=0.0)
    assert len(hosts) <= 1002
    take(hosts, "awaited", now=0.0)
    assert hosts.turn("awaited", "t", now=0.0) > delay, "whoever comes next goes to the end of the line"


def taken_by(tenants, tenant, *, is_first_try=True):
    """How many places *tenant* gets when it takes all that it can."""
    count = 0
    while tenants.take(tenant, is_first_try=is_first_try, now=0.0):
        count += 1
    return count


def test_however_many_tenants_hang_the_next_one_finds_a_place():
    tenants = Tenants(64)
    shares = [taken_by(tenants, str(number)) for number in range(5)]
    assert shares[0] == 32
    assert shares == sorted(shares, reverse=True)
    assert min(shares) > 0


def test_a_single_place_is_everybodys_in_turn():
    tenants = Tenants(1)
    assert taken_by(tenants, "a") == 1
    assert taken_by(tenants, "b") == 0
    tenants.release("a", began=0.0, now=1.0)
    assert taken_by(tenants, "b") == 1


def test_later_tries_leave_places_for_first_ones():
    tenants = Tenants(8)
    assert sum(taken_by(tenants, str(number), is_first_try=False) for number in range(8)) == 6
    assert taken_by(tenants, "new") > 0


def test_however_many_are_known_to_hang_they_leave_places_for_others():
    tenants = Tenants(16)
    hanging = [str(number) for number in range(20)]
    for tenant in hanging:
        assert tenants.take(tenant, is_first_try=True, now=0.0)
        tenants.release(tenant, began=0.0, now=15.0)
    assert sum(taken_by(tenants, tenant) for tenant in hanging) == 12
    assert taken_by(tenants, "new") == 2


def test_one_that_is_silent_for_long_is_known_to_hang_before_its_try_has_ended():
    tenants = Tenants(4)
    assert tenants.take("a", is_first_try=True, now=0.0)
    assert tenants.take("b", is_first_try=True, now=0.0)
    assert tenants.take("c", is_first_try=True, now=0.0)
    assert not tenants.take("b", is_first_try=True, now=10.0)
    assert tenants.take("new", is_first_try=True, now=10.0)


def test_a_tenant_that_hung_and_is_quick_again_is_one_of_the_others_again():
    tenants = Tenants(4)

    def post(seconds):
        assert tenants.take("a", is_first_try=True, now=0.0)
        tenants.release("a", began=0.0, now=seconds)

    def finds_the_last_place():
        for other in ("b", "c", "d"):
            assert tenants.take(other, is_first_try=True, now=0.0)
        found = tenants.take("a", is_first_try=True, now=0.0)
        for name in ("b", "c", "d", *(["a"] if found else [])):
            tenants.give_back(name, began=0.0)
        return found

    assert finds_the_last_place()
    post(15.0)
    assert not finds_the_last_place()
    for _ in range(5):
        post(0.01)
    assert finds_the_last_place()


def test_a_tenant_without_a_place_comes_back_later_and_what_it_gives_back_unused_teaches_nothing():
    tenants = Tenants(3)
    taken_by(tenants, "a")
    delays = [tenants.turn("a", now=0.0) for _ in range(3)]
    assert delays == sorted(set(delays))
    tenants.give_back("a", began=0.0)
    assert tenants.take("a", is_first_try=True, now=5.0)


@given(st.lists(st.floats(0.0, 30.0), min_size=1, max_size=50), st.floats(0.001, 15.0))
def test_those_who_wait_for_a_host_come_back_one_after_the_other(arrivals, each):
    end, now, due = 0.0, 0.0, []
    for pause in arrivals:
        now += pause
        delay, end = turn(end, now, each=each)
        assert 0 < delay <= LONGEST_TURN
        due.append((now + delay, delay))
    for (earlier, first), (later, second) in itertools.pairwise(due):
        if max(first, second) < LONGEST_TURN:
            assert later - earlier >= each * 0.999
