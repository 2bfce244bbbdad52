"""The codes of all problems, once: status, and when to ask again. What is sent and what is documented come from here.

Pure data. A model may have codes of its own, which are 500. The tests hold this table, the sources and ``docs/rest.md``
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

RETRY_SOON, RETRY_LATER = 1, 5
"""Seconds until another try makes sense."""


class Code(msgspec.Struct, frozen=True, gc=False):
    """The *status* that a code comes with, and *retry_after* in seconds where it is always the same (None: it is not,
    or another try is no use). *of_worker*: answers and dead letters carry it too.
    """

    status: int
    retry_after: int | None = None
    of_worker: bool = False


_SOON, _LATER = Code(503, RETRY_SOON), Code(503, RETRY_LATER)

CODES: Mapping[str, Code] = {
    **dict.fromkeys(("empty-body", "invalid-json", "invalid-multipart", "invalid-http", "invalid-head"), Code(400)),
    **dict.fromkeys(
        ("invalid-tenant", "invalid-deadline", "invalid-priority", "invalid-idempotency-key", "call-too-large"),
        Code(400),
    ),
    **dict.fromkeys(("conflicting-deadline", "conflicting-priority"), Code(400)),
    **dict.fromkeys(("conflicting-tenant", "conflicting-idempotency-key", "conflicting-api-key"), Code(400)),
    **dict.fromkeys(("no-api-key", "unknown-api-key", "expired-api-key"), Code(401)),
    **dict.fromkeys(("foreign-tenant", "foreign-origin"), Code(403)),
    **dict.fromkeys(
        ("unknown-model", "unknown-prediction", "unknown-version", "no-output-yet", "not-found"), Code(404)
    ),
    **dict.fromkeys(("unknown-upload", "no-upload-yet"), Code(404)),
    "method-not-allowed": Code(405),
    "too-slow": Code(408),
    "idempotency-conflict": Code(409),
    "canceled": Code(409, of_worker=True),
    "prediction-expired": Code(410),
    **dict.fromkeys(("body-too-large", "too-many-parts"), Code(413)),
    **dict.fromkeys(("unsupported-media-type", "unsupported-encoding"), Code(415)),
    "unknown-host": Code(421),
    "bad-input": Code(422, of_worker=True),
    "forbidden-url": Code(422),
    **dict.fromkeys(("rate-limited", "quota-exceeded"), Code(429)),
    "head-too-large": Code(431),
    **dict.fromkeys(("model-error", "out-of-memory", "out-of-memory-killed"), Code(500, of_worker=True)),
    **dict.fromkeys(("claim-unreadable", "delivery-limit", "result-damaged"), Code(500, of_worker=True)),
    "internal-error": Code(500),
    "unknown-transfer-coding": Code(501),
    **dict.fromkeys(("runner-crashed", "runner-hung", "device-error"), Code(502, of_worker=True)),
    "answer-too-large": Code(502),
    "overloaded": Code(503),
    "model-failing": _LATER,
    **dict.fromkeys(("transient", "input-unreachable"), Code(503, RETRY_SOON, of_worker=True)),
    **dict.fromkeys(("shutting-down", "too-many-connections", "not-ready"), _SOON),
    **dict.fromkeys(("broker-unavailable", "blob-store-unavailable", "keys-unavailable"), _SOON),
    "unknown-signature": _LATER,
    "no-answer-in-time": Code(504),
    "deadline-exceeded": Code(504, of_worker=True),
}
"""Stable, and for programs."""


def by_status() -> dict[int, Sequence[str]]:
    """Each status with its codes."""
    statuses = sorted({code.status for code in CODES.values()})
    return {status: tuple(name for name, code in CODES.items() if code.status == status) for status in statuses}


def code_of_failure(name: str) -> Code:
    """How a failure with the code *name* is told; any other than a worker's own is the model's trouble."""
    code = CODES.get(name)
    return code if code is not None and code.of_worker else CODES["model-error"]
