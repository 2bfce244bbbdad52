"""What a tenant verifies its webhooks with, for that tenant alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.gateway.http.sending import json_headers

if TYPE_CHECKING:
    from dumbwaiter.gateway.access.callers import Access
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.signing import SigningKey


class WebhookSecret:
    """Shows callers that *access* lets in the secret that *signing* has for their tenant."""

    def __init__(self, access: Access, signing: SigningKey) -> None:
        self._access = access
        self._signing = signing

    async def show(self, exchange: Exchange) -> None:
        """``GET /v1/webhooks/default/secret``."""
        await exchange.read_nothing()
        caller = await self._access.admit(exchange.scope)
        body = msgspec.json.encode({"key": self._signing.webhook_secret(caller.tenant)}) + b"\n"
        await exchange.respond(200, [*json_headers(body), (b"cache-control", b"no-store")], body)
