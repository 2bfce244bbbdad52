"""How long a caller is willing to wait: ``Prefer: wait=n`` (RFC 7240). Pure."""

from __future__ import annotations

from collections.abc import Iterable


def patience_of(prefer: Iterable[str], *, default: float, maximum: float) -> float:
    """Seconds to wait, from the values of all Prefer headers; *default* when none says ``wait``.

    The first ``wait`` counts. It is bounded to 1 second below and *maximum* above; a malformed one is ignored, as the
    RFC asks.
    """
    for header in prefer:
        for preference in header.split(","):
            name, _, value = preference.partition(";")[0].partition("=")
            if name.strip().lower() == "wait":
                seconds = value.strip().strip('"').strip()
                if not (seconds.isascii() and seconds.isdigit()):
                    return default
                # Ten digits are three centuries: int() of a longer text would only burn time.
                return min(max(float(int(seconds[:10])), 1.0), maximum)
    return default
