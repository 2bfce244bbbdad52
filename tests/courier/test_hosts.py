"""No host has more places than its share, and whoever finds none comes back when there may be one."""

from __future__ import annotations

from dumbwaiter.courier.hosts import Hosts


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
