"""What the Accept header of a request says. Pure."""

from __future__ import annotations


def quality(accept: str, media_type: str) -> float:
    """How welcome *media_type* is by name or by family (RFC 9110, 12.5.1): 0 to 1; ``*/*`` does not count."""
    best = 0.0
    family = media_type.partition("/")[0] + "/*"
    for offer in accept.split(","):
        name, *parameters = (part.strip().lower() for part in offer.split(";"))
        if name in (media_type, family):
            weights = [p[2:] for p in parameters if p.startswith("q=")]
            best = max(best, _weight(weights[0]) if weights else 1.0)
    return best


def _weight(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0
