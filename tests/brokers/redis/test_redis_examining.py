"""What doctor is told of servers that are configured well and badly."""

from __future__ import annotations

import msgspec
import pytest
from servers import RedisServer, redis_program, valkey_program

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.findings import worst
from dumbwaiter.brokers.redis.examining import Facts, findings_of, require_version
from dumbwaiter.errors import BrokerUnavailableError

INFO = {"redis_version": "7.0.15", "role": "master", "connected_slaves": "0", "aof_enabled": "1"}
SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "save": "",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
    "min-replicas-to-write": "0",
}


def found(subject: str, *, info: dict[str, str] | None = None, settings: dict[str, str] | None = None):
    facts = Facts(info={**INFO, **(info or {})}, settings={**SETTINGS, **(settings or {})})
    return next((one for one in findings_of(facts) if one.subject == subject), None)


@pytest.mark.parametrize(
    ("settings", "level", "said"),
    [
        ({}, "ok", "before it is confirmed"),
        ({"appendfsync": "everysec"}, "warning", "the last second"),
        ({"appendfsync": "no"}, "warning", "often 30 seconds"),
        ({"no-appendfsync-on-rewrite": "yes"}, "warning", "rewritten"),
        ({"appendonly": "no", "save": "3600 1"}, "danger", "since the last snapshot"),
        ({"appendonly": "no"}, "danger", "no snapshots"),
    ],
)
def test_durability_is_told_by_the_append_only_file(settings, level, said):
    finding = found("durability", settings=settings)
    assert finding.level == level
    assert said in finding.text
    assert bool(finding.remedy) == (level != "ok")


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({}, "ok"),
        ({"maxmemory": "1048576"}, "ok"),
        ({"maxmemory-policy": "allkeys-lru", "maxmemory": "1048576"}, "danger"),
        ({"maxmemory-policy": "allkeys-random"}, "danger"),
        ({"maxmemory-policy": "volatile-lru"}, "warning"),
    ],
)
def test_a_policy_that_evicts_queues_is_a_danger(settings, level):
    assert found("memory", settings=settings).level == level


@pytest.mark.parametrize(
    ("info", "settings", "level"),
    [
        ({}, {}, "note"),
        ({"connected_slaves": "2"}, {}, "warning"),
        ({"connected_slaves": "2"}, {"min-replicas-to-write": "1"}, "note"),
        ({"role": "slave", "master_host": "10.0.0.1"}, {}, "danger"),
    ],
)
def test_replicas_that_nobody_waits_for_are_a_warning(info, settings, level):
    assert found("replication", info=info, settings=settings).level == level


def test_a_disk_that_failed_and_a_cluster_are_told():
    assert found("disk", info={"aof_last_write_status": "err"}).level == "danger"
    assert found("disk") is None
    assert found("cluster", info={"cluster_enabled": "1"}).level == "warning"
    assert found("cluster") is None


def test_what_may_not_be_read_is_not_guessed():
    facts = Facts(info={**INFO, "maxmemory_policy": "allkeys-lru", "maxmemory": "0"}, settings=None)
    assert not facts.is_durable
    levels = {one.subject: one.level for one in findings_of(facts)}
    assert levels["durability"] == "warning"
    assert levels["memory"] == "danger"
    off = msgspec.structs.replace(facts, info={**facts.info, "aof_enabled": "0"})
    assert {one.subject: one.level for one in findings_of(off)}["durability"] == "danger"


def test_every_finding_that_wants_a_change_says_which():
    facts = Facts(
        info={**INFO, "connected_slaves": "1", "cluster_enabled": "1", "rdb_last_bgsave_status": "err"},
        settings={**SETTINGS, "appendonly": "no", "maxmemory-policy": "allkeys-lfu"},
    )
    assert all(one.remedy for one in findings_of(facts) if one.level in {"warning", "danger"})


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7", "4", ""])
def test_a_server_that_is_too_old_is_refused_with_its_version(version):
    with pytest.raises(BrokerUnavailableError, match=r"6\.2") as caught:
        require_version(Facts(info={"redis_version": version}, settings=None), "redis://h")
    assert version in str(caught.value)


@pytest.mark.parametrize("version", ["6.2.0", "7.0.15", "10.1"])
def test_a_server_that_is_new_enough_is_taken(version):
    require_version(Facts(info={"redis_version": version}, settings=None), "redis://h")


@pytest.mark.anyio
@pytest.mark.parametrize("program", [redis_program, valkey_program])
async def test_live_servers_are_told_apart(program, tmp_path):
    expected = {
        RedisServer.DURABLE: (True, "note"),
        ("--appendonly", "yes", "--appendfsync", "everysec"): (False, "warning"),
        ("--appendonly", "no", "--maxmemory-policy", "allkeys-lru"): (False, "danger"),
    }
    for number, (settings, (is_durable, level)) in enumerate(expected.items()):
        server = RedisServer(program(), tmp_path / str(number), *settings)
        server.start()
        try:
            async with open_broker(server.url) as broker:
                assert broker.capabilities.durable == is_durable
                findings = await broker.examine()
                assert worst(findings) == level, findings
        finally:
            server.stop()
