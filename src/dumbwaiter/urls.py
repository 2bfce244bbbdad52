"""URLs of brokers and blob stores as they may be printed and logged. Pure."""

from __future__ import annotations

import re

#: Their addresses are paths, in which an @ or a ? may stand for itself.
_PATHS = frozenset({"file", "memory", "sqlite"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?")
# A password that nobody percent-encoded may hold any of / ? # and @. So behind a colon all is hidden up to the last @:
# rather a part of a path too much than a secret.
_USERINFO = re.compile(r"[^/?#@]*:.*@|[^/?#]*@", re.DOTALL)


def shown(url: str) -> str:
    """*url* without what may be secret in it: user name and password, and the values behind a ``?``.

    ``amqp://user:password@host/path?key=value`` is shown as ``amqp://host/path?…``.
    """
    scheme, rest = _parts(url)
    if not scheme:
        return url
    place, mark, _ = rest.partition("?")
    return f"{scheme}{place}{'?…' if mark else ''}"


def without_user(url: str) -> str:
    """*url* without user name and password, all else kept: the same for all who use one place, whoever they are.

    ``amqp://user:password@host/path?key=value`` becomes ``amqp://host/path?key=value``.
    """
    return "".join(_parts(url))


def _parts(url: str) -> tuple[str, str]:
    """Scheme and what follows the user's part; of a URL that has no such part, nothing and all of it."""
    scheme = _SCHEME.match(url)
    if scheme is None or (scheme[1].lower() in _PATHS and (scheme[2] is None or url.startswith("/", scheme.end()))):
        return "", url
    userinfo = _USERINFO.match(url, scheme.end())
    return scheme[0], url[userinfo.end() if userinfo else scheme.end() :]
