"""Transfer codings: chunked in HTTP/1.1, and no other. Pure.

Whoever stands in front of the gateway and reads another coding differently sees other requests in the same bytes.
Source: RFC 9112, section 6.1.
"""

from __future__ import annotations

from dumbwaiter.gateway.http.problems import Problem

CODING = b"transfer-encoding"


def fault_of_coding(value: bytes, http_version: str) -> Problem | None:
    """What is wrong with *value* of the header Transfer-Encoding in a request of *http_version*; None if nothing is."""
    if http_version == "1.0":
        detail = "HTTP/1.0 knows no Transfer-Encoding; send a Content-Length"
        return Problem(status=400, code="invalid-http", detail=detail)
    if value.strip().lower() != b"chunked":
        detail = "of transfer codings this gateway knows chunked alone"
        return Problem(status=501, code="unknown-transfer-coding", detail=detail)
    return None
