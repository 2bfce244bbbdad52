"""No host and no tenant has more places than its share, and whoever finds none comes back when there may be one."""

from __future__ import annotations

from dumbwaiter.courier.hosts import Hosts, Tenants


def test_a_host_has_so_many_places_and_others_have_their_own():
    hosts = Hosts(2)
    assert [hosts.take("a", now=0.0), hosts.take("a", now=1.0), hosts.take("a", now=2.0)] == [True, True, False]
    assert hosts.take("b", now=2.0)
    hosts.release("a", began=0.0, now=3.0)
    assert hosts.take("a", now=3.0)
    assert not hosts.take("a", now=3.0)


def test_those_who_find_no_place_come_back_one_after_the_other():
    hosts = Hosts(1)
    hosts.take("a", now=0.0)
    delays = [hosts.turn("a", now=0.0) for _ in range(5)]
    assert delays == sorted(delays)
    assert len(set(delays)) == 5


def test_the_longer_a_host_takes_or_is_silent_the_later_they_come_back():
    quick, slow, silent = Hosts(1), Hosts(1), Hosts(1)
    for hosts, seconds in ((quick, 0.01), (slow, 10.0)):
        for _ in range(10):
            hosts.take("a", now=0.0)
            hosts.release("a", began=0.0, now=seconds)
        hosts.take("a", now=seconds)
    silent.take("a", now=0.0)
    assert quick.turn("a", now=0.01) < 0.1
    assert slow.turn("a", now=10.0) > 5.0
    assert silent.turn("a", now=10.0) > 5.0


def test_hosts_of_long_ago_are_forgotten():
    hosts = Hosts(1)
    for number in range(5000):
        hosts.take(str(number), now=float(number))
        hosts.release(str(number), began=float(number), now=float(number))
    assert len(hosts) <= 1001


def test_a_line_that_somebody_waits_in_is_not_forgotten_with_the_others():
    hosts = Hosts(1)
    hosts.take("awaited", now=0.0)
    delay = max(hosts.turn("awaited", now=0.0) for _ in range(100))
    hosts.release("awaited", began=0.0, now=0.0)
    for number in range(2000):
        hosts.take(str(number), now=0.0)
        hosts.release(str(number), began=0.0, now=0.0)
    assert len(hosts) <= 1002
    hosts.take("awaited", now=0.0)
    assert hosts.turn("awaited", now=0.0) > delay, "whoever comes next goes to the end of the line"


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


def test_a_tenant_without_a_place_comes_back_later_and_what_it_gives_back_unused_teaches_nothing():
    tenants = Tenants(3)
    taken_by(tenants, "a")
    delays = [tenants.turn("a", now=0.0) for _ in range(3)]
    assert delays == sorted(set(delays))
    tenants.give_back("a", began=0.0)
    assert tenants.take("a", is_first_try=True, now=5.0)
