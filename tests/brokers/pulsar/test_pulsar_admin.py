"""Counts and findings by the admin interface, which pulsar-lite lacks: a double answers as Apache Pulsar should."""

from __future__ import annotations

import asyncio
import json
import secrets
from urllib.parse import urlsplit

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.findings import worst
from dumbwaiter.errors import BrokerUnavailableError

pytestmark = pytest.mark.anyio

WELL = {"persistence": {"bookkeeperEnsemble": 3, "bookkeeperWriteQuorum": 3, "bookkeeperAckQuorum": 2}}


class AdminDouble:
    """Answers GET with what stands in *answers*, by path."""

    def __init__(self) -> None:
        self.answers = {"/admin/v2/brokers/version": "4.0.1", "/admin/v2/namespaces/public/default": WELL}
        self.redirects: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _answer(self, reader, writer):
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = urlsplit(request.split()[1]).path
        token = next((line[22:] for line in request.split("\r\n") if line.startswith("Authorization: Bearer ")), None)
        self.asked.append((path, token))
        status, headers, body = "200 OK", "", b""
        if path in self.redirects:
            status, headers = "307 Temporary Redirect", f"Location: {self.redirects[path]}\r\n"
        elif path in self.answers:
            body = json.dumps(self.answers[path]).encode()
        else:
            status = "404 Not Found"
        head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    def count(self, broker, **topics):
        for part, (backlog, unacked, delayed) in topics.items():
            path = f"/admin/v2/persistent/{broker._names.base}.resnet.{part}/stats"
            subscription = {"msgBacklog": backlog, "unackedMessages": unacked, "msgDelayed": delayed, "type": "Shared"}
            self.answers[path] = {"msgRateIn": 0.5, "subscriptions": {"dumbwaiter": subscription, "other": {}}}


@pytest.fixture
async def admin():
    async with AdminDouble() as double:
        yield double


@pytest.fixture
async def broker(server, admin):
    async with open_broker(f"{server.url}?prefix=t{secrets.token_hex(6)}&admin={admin.url}&token=t0ken") as broker:
        await broker.create_queue("resnet")
        yield broker


async def test_counts_are_those_of_the_shared_subscription(broker, admin):
    assert broker.capabilities.counts_ready
    assert broker.capabilities.counts_locked
    admin.count(broker, high=(5, 2, 0), normal=(10, 0, 0), low=(1, 1, 0), delayed=(7, 0, 4))
    stats = await broker.stats("resnet")
    assert (stats.ready, stats.locked, stats.delayed, stats.dead) == (3 + 10 + 3, 3, 4, 0)
    assert {token for _, token in admin.asked} == {"t0ken"}


async def test_counts_of_different_moments_are_never_below_nothing(broker, admin):
    admin.count(broker, high=(0, 2, 0), normal=(1, 0, 0), low=(0, 0, 0), delayed=(0, 0, 2))
    stats = await broker.stats("resnet")
    assert (stats.ready, stats.locked, stats.delayed) == (1, 2, 2)


async def test_another_server_may_answer_for_a_topic(broker, admin):
    admin.count(broker, high=(1, 0, 0), normal=(0, 0, 0), low=(0, 0, 0), delayed=(0, 0, 0))
    path = f"/admin/v2/persistent/{broker._names.base}.resnet.high/stats"
    async with AdminDouble() as owner:
        owner.answers[path] = admin.answers[path]
        admin.redirects[path] = owner.url + path
        assert (await broker.stats("resnet")).ready == 1
        assert owner.asked == [(path, "t0ken")]


async def test_an_interface_that_refuses_is_an_error_and_no_count(broker):
    with pytest.raises(BrokerUnavailableError, match="404"):
        await broker.stats("resnet")


async def test_an_interface_that_is_something_else_is_an_error(broker, admin):
    for part in ("high", "normal", "low", "delayed"):
        admin.answers[f"/admin/v2/persistent/{broker._names.base}.resnet.{part}/stats"] = ["hello"]
    with pytest.raises(BrokerUnavailableError, match="does not answer as"):
        await broker.stats("resnet")


async def test_an_interface_that_is_down_is_an_error(server):
    async with open_broker(f"{server.url}?prefix=t{secrets.token_hex(6)}&admin=http://127.0.0.1:1") as broker:
        await broker.create_queue("resnet")
        with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1"):
            await broker.stats("resnet")


async def test_a_well_configured_namespace_is_ok(broker):
    findings = await broker.examine()
    assert worst(findings) == "note"  # what no setting changes
    assert any("2 of 3 copies" in finding.text for finding in findings)
    assert any("Pulsar 4.0.1" in finding.text for finding in findings)


@pytest.mark.parametrize(
    ("settings", "level", "word"),
    [
        ({"persistence": {"bookkeeperWriteQuorum": 1, "bookkeeperAckQuorum": 1}}, "warning", "set-persistence"),
        ({**WELL, "message_ttl_in_seconds": 3600}, "danger", "remove-message-ttl"),
        (
            {**WELL, "backlog_quota_map": {"destination_storage": {"policy": "consumer_backlog_eviction"}}},
            "danger",
            "set-backlog-quota",
        ),
    ],
)
async def test_a_badly_configured_namespace_is_told_with_the_line_to_change(broker, admin, settings, level, word):
    admin.answers["/admin/v2/namespaces/public/default"] = settings
    findings = await broker.examine()
    assert worst(findings) == level
    assert any(finding.level == level and word in finding.remedy for finding in findings)


async def test_without_the_interface_nothing_of_settings_is_guessed(server):
    async with open_broker(f"{server.url}?prefix=t{secrets.token_hex(6)}") as broker:
        await broker.create_queue("resnet")
        stats = await broker.stats("resnet")
        assert (stats.ready, stats.locked, stats.delayed, stats.dead) == (None, None, None, 0)
        assert not broker.capabilities.counts_ready
        (finding,) = [finding for finding in await broker.examine() if finding.subject == "durability"]
        assert (finding.level, "?admin=" in finding.remedy) == ("note", True)
