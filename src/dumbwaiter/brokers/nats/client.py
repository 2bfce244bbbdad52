"""nats-py's client, but one that looks at the server's first words before it says its own."""

from __future__ import annotations

import re
from typing import Any

import nats.errors
from nats.aio.client import Client

_VERSION = re.compile(r"\d+\.\d+(\.|$)")


class CarefulClient(Client):
    """Sends nothing, and so no password, to a server that it would not talk to.

    With *must_encrypt* that is one without TLS: nats-py upgrades a connection only if the server asks for it, and goes
    on in plain text if not, whatever the URL says.
    """

    def __init__(self, *, must_encrypt: bool) -> None:
        super().__init__()
        self._must_encrypt = must_encrypt

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection:
            self._check(info)
        try:
            await super()._process_info(info, initial_connection)
        except (AttributeError, TypeError, ValueError) as error:
            raise nats.errors.Error(f"it says of its cluster what no NATS says: {error}") from error

    def _check(self, info: dict[str, Any]) -> None:
        """Raises nats.errors.Error unless *info*, the server's greeting, says what is needed."""
        payload = info.get("max_payload")
        if not _VERSION.match(str(info.get("version"))) or not isinstance(payload, int) or payload <= 0:
            raise nats.errors.Error("it does not say which version of NATS it is, and what it takes; is it one?")
        if self._must_encrypt and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise nats.errors.Error(
                    "it speaks no TLS, so nothing was sent to it; configure tls {} there, or write nats:// without "
                    "certificates if plain text will do"
                )
            info["tls_required"] = True  # the client looks at this, and not at what the server leaves to it
