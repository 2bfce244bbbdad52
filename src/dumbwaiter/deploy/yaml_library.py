"""PyYAML: the one file that imports it."""

from __future__ import annotations

import functools
import re

from dumbwaiter.errors import MissingExtraError

try:
    import yaml
except ModuleNotFoundError as error:
    raise MissingExtraError("yaml", "deploy", "pyyaml") from error

_LONGEST = 1_000_000
_NUMBER_TO_OTHERS = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0[box][0-9a-fA-F_]+|[ynYN]")
"""What Kubernetes' own reader takes for a number or a truth value, and PyYAML for a text."""


@functools.lru_cache(maxsize=4096, typed=True)
def scalar(value: str | float | bool | None) -> str:
    """A scalar on one line, quoted where it would read as something else."""
    # Within quotes of this kind alone a line break can be written on one line.
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    if isinstance(value, str) and _NUMBER_TO_OTHERS.fullmatch(value):
        style = "'"
    text: str = yaml.safe_dump(value, default_style=style, width=_LONGEST, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
