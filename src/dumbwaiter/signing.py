"""Ids that prove themselves, and the secrets of webhooks: all from one key that the gateways and couriers share.

An id says when it was made and for which model; its signature covers the tenant too. So any gateway can tell an id that
was given out from an invented one, and whose it is, without looking anywhere.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets

import msgspec

from dumbwaiter.base32 import decode, encode

KEY_NBYTES = 32
_TIME, _RANDOM, _SIGNATURE = 6, 8, 12
_TOKEN_NCHARS = 42  # base32 of the three without padding: 26 bytes
_ID = re.compile(rf"([0-9a-v]{{{_TOKEN_NCHARS}}})\.([A-Za-z0-9][A-Za-z0-9._-]*)")

_UPLOAD_ID = re.compile(rf"[0-9a-v]{{{_TOKEN_NCHARS}}}")


class PredictionId(msgspec.Struct, frozen=True):
    """What an id says: the *model* and *created_at* (seconds since the Unix epoch, to the millisecond)."""

    model: str
    created_at: float


class SigningKey:
    """*secret*: at least KEY_NBYTES bytes that nobody else knows."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < KEY_NBYTES:
            raise ValueError(f"a signing key has at least {KEY_NBYTES} bytes, not {len(secret)}")
        self._secret = secret

    def new_id(self, model: str, tenant: str | None, *, now: float) -> str:
        """A fresh id of a prediction by *model* for *tenant*; ids sort by *now* (seconds since the Unix epoch)."""
        head = round(now * 1000).to_bytes(_TIME, "big") + secrets.token_bytes(_RANDOM)
        return f"{encode(head + self._signature(head, model, tenant))}.{model}"

    def read_id(self, id_: str, tenant: str | None) -> PredictionId | None:
        """What *id_* says when this key made it for *tenant*; None for any other text."""
        match = _ID.fullmatch(id_)
        if match is None:
            return None
        token, model = match[1], match[2]
        raw = decode(token)
        head, signature = raw[: _TIME + _RANDOM], raw[_TIME + _RANDOM :]
        # The last character has bits to spare: without the second look several texts would be one id.
        if not hmac.compare_digest(signature, self._signature(head, model, tenant)) or encode(raw) != token:
            return None
        return PredictionId(model, int.from_bytes(head[:_TIME], "big") / 1000)

    def new_upload_id(self, tenant: str | None, *, now: float) -> str:
        """A fresh id of an upload by *tenant*, made at *now* (seconds since the Unix epoch)."""
        head = round(now * 1000).to_bytes(_TIME, "big") + secrets.token_bytes(_RANDOM)
        return encode(head + self._upload_signature(head, tenant))

    def read_upload_id(self, id_: str, tenant: str | None) -> float | None:
        """When this key made *id_* for an upload by *tenant*; None for any other text."""
        if _UPLOAD_ID.fullmatch(id_) is None:
            return None
        raw = decode(id_)
        head, signature = raw[: _TIME + _RANDOM], raw[_TIME + _RANDOM :]
        if not hmac.compare_digest(signature, self._upload_signature(head, tenant)) or encode(raw) != id_:
            return None
        return int.from_bytes(head[:_TIME], "big") / 1000

    def webhook_secret(self, tenant: str | None) -> str:
        """The secret that signs webhooks to *tenant*, as Standard Webhooks writes one (``whsec_...``)."""
        return f"whsec_{base64.b64encode(self._digest(b'webhook', tenant)).decode()}"

    def _upload_signature(self, head: bytes, tenant: str | None) -> bytes:
        return self._digest(b"upload" + head, tenant)[:_SIGNATURE]

    def _signature(self, head: bytes, model: str, tenant: str | None) -> bytes:
        return self._digest(b"id" + head + model.encode() + b"/", tenant)[:_SIGNATURE]

    def _digest(self, purpose: bytes, tenant: str | None) -> bytes:
        whose = b"\0" if tenant is None else b"\1" + tenant.encode(errors="surrogatepass")
        return hmac.digest(self._secret, purpose + whose, "sha256")


def created_at(id_: str) -> float | None:
    """When the prediction *id_* was made, as it says itself, signed or not; None when it is not of that form."""
    match = _ID.fullmatch(id_)
    return None if match is None else int.from_bytes(decode(match[1])[:_TIME], "big") / 1000
