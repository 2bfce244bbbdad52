"""The admin REST interface, for whoever gave its address: counts and settings, which the protocol does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urljoin

import httpx
import msgspec

from dumbwaiter.brokers.pulsar.location import Location
from dumbwaiter.brokers.pulsar.names import SUBSCRIPTION
from dumbwaiter.errors import BrokerUnavailableError

_PATIENCE = 5.0
_REDIRECTS = 3
"""Every server answers for its own topics, and names the one that does for others."""


class Backlog(msgspec.Struct, frozen=True):
    """Of one topic: how many messages are not acknowledged, how many of those are with a consumer, and how many the
    server keeps back until they are due.
    """

    unacknowledged: int
    held: int
    kept_back: int

    @property
    def ready(self) -> int:
        """How many wait for a consumer. The counts are not of one moment."""
        return max(0, self.unacknowledged - self.held - self.kept_back)


class _Subscription(msgspec.Struct, rename="camel"):
    msg_backlog: int = 0
    unacked_messages: int = 0
    msg_delayed: int = 0


class _TopicStats(msgspec.Struct):
    subscriptions: dict[str, _Subscription] = {}


class Admin:
    """The interface at *location*'s ``admin``."""

    def __init__(self, location: Location, base: str) -> None:
        self._base = base
        self._namespace = f"{location.tenant}/{location.namespace}"
        headers = {} if location.token is None else {"Authorization": f"Bearer {location.token}"}
        auth = None if location.username is None else (location.username, location.password)
        verify: Any = location.ca_certs or location.verify
        self._client = httpx.AsyncClient(headers=headers, auth=auth, timeout=_PATIENCE, verify=verify)

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()

    async def backlog(self, topic: str) -> Backlog:
        """Of the subscription that all consumers of *topic* share. Raises BrokerUnavailableError."""
        path = topic.replace("://", "/")
        content = await self._get(f"/admin/v2/{path}/stats?getPreciseBacklog=true")
        stats = self._read(content, _TopicStats)
        subscription = stats.subscriptions.get(SUBSCRIPTION, _Subscription())
        return Backlog(subscription.msg_backlog, subscription.unacked_messages, subscription.msg_delayed)

    async def backlogs(self, topics: Sequence[str]) -> list[Backlog]:
        """Of each of *topics*."""
        return [await self.backlog(topic) for topic in topics]

    async def policies(self) -> dict[str, Any]:
        """The settings of the namespace; what is missing is as the server's own configuration says."""
        content = await self._get(f"/admin/v2/namespaces/{self._namespace}")
        policies: dict[str, Any] = self._read(content, dict[str, Any])
        return policies

    async def version(self) -> str:
        """The server's."""
        return (await self._get("/admin/v2/brokers/version")).decode(errors="replace").strip().strip('"')

    def _read(self, content: bytes, kind: Any) -> Any:
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            raise BrokerUnavailableError(
                f"{self._base} does not answer as Pulsar's admin interface does: {error}"
            ) from None

    async def _get(self, path: str) -> bytes:
        url = self._base + path
        try:
            answer = await self._client.get(url)
            for _ in range(_REDIRECTS):
                if answer.is_redirect:
                    url = urljoin(url, answer.headers["location"])
                    answer = await self._client.get(url)
        except httpx.HTTPError as error:
            raise BrokerUnavailableError(
                f"cannot ask {self._base}: {str(error) or type(error).__name__}; look at ?admin= and whether it runs"
            ) from error
        if answer.status_code != httpx.codes.OK:
            raise BrokerUnavailableError(
                f"{self._base} answers {answer.status_code} to GET {path.partition('?')[0]}; "
                "see the rights that docs/brokers/pulsar.md names"
            )
        return answer.content
