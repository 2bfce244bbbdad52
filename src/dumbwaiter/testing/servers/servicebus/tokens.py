"""Shared access signatures: who may ask, as Azure tells it by a key. Pure.

Source: https://learn.microsoft.com/azure/service-bus-messaging/service-bus-sas
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote_plus


class Key(NamedTuple):
    """A shared access key, and whether it has the claim Manage; Send and Listen it has."""

    secret: str
    manages: bool = True


def key_of(token: str, keys: Mapping[str, Key], *, now: float) -> Key | None:
    """The key that *token* was signed with; None when it is none of *keys*, or over."""
    kind, _, rest = token.partition(" ")
    fields = {name: value for name, _, value in (field.partition("=") for field in rest.split("&"))}
    key = keys.get(unquote_plus(fields.get("skn", "")))
    ends = fields.get("se", "")
    if kind != "SharedAccessSignature" or key is None or not ends.isdigit() or int(ends) < now:
        return None
    signed = hmac.new(key.secret.encode(), f"{fields.get('sr', '')}\n{ends}".encode(), hashlib.sha256)
    given = unquote_plus(fields.get("sig", ""))
    return key if hmac.compare_digest(base64.b64encode(signed.digest()).decode(), given) else None
