"""PyYAML: the one file that imports it."""

from __future__ import annotations

import functools

from dumbwaiter.errors import MissingExtraError

try:
    import yaml
except ModuleNotFoundError as error:
    raise MissingExtraError("yaml", "deploy", "pyyaml") from error

_LONGEST = 1_000_000


@functools.lru_cache(maxsize=4096, typed=True)
def scalar(value: str | float | bool | None) -> str:
    """A scalar on one line, quoted where it would read as something else."""
    # Within quotes of this kind alone a line break can be written on one line.
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    text: str = yaml.safe_dump(value, default_style=style, width=_LONGEST, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
