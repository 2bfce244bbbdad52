"""Certificates that a broker's URL names: they lie in the image's pods, not on the machine that renders. Pure."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import unquote

from dumbwaiter.deploy.places import CERTIFICATES
from dumbwaiter.errors import ConfigError


def without_files(url: str, *options: str) -> tuple[str, dict[str, str]]:
    """*url* without those of its *options* that name files, and by option the key in the Secret with certificates.

    Raises ConfigError for a file that lies elsewhere.
    """
    place, _, query = url.partition("?")
    kept, keys = [], {}
    for part in filter(None, re.split("&", query)):
        name, _, value = part.partition("=")
        if name in options:
            path = PurePosixPath(unquote(value))
            if str(path.parent) != CERTIFICATES:
                raise ConfigError(
                    f"{name}={value!r} in the broker's URL: KEDA has no such file; put it into a Secret, write its name"
                    f" as kubernetes.certificates, and {name}={CERTIFICATES}/{path.name}"
                )
            keys[name] = path.name
        else:
            kept.append(part)
    return f"{place}{'?' if kept else ''}{'&'.join(kept)}", keys
