"""Properties that a producer wrote and nobody can decode: read as Unreadable, so that one message is bad and no more.

The library raises where it decodes a frame, which ends the connection; the message is delivered again to the next one,
and ends that too. RabbitMQ itself looks at none of it. So the library's table of decoders gets ones that never raise;
who else uses that table in this process would have lost a connection where it now sees an Unreadable.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from pamqp import decode
from pamqp.commands import Basic

UNREADABLE = "unreadable"
"""The header under which headers stand that cannot be decoded."""

_Decoder: TypeAlias = Callable[[bytes], tuple[int, Any]]
_FAULTS = (ValueError, ArithmeticError, LookupError, OSError, RecursionError, struct.error)
_SHOWN = 1000


class Unreadable(str):
    """What stands for a value that cannot be decoded, as far as it can be shown."""

    __slots__ = ()


def install() -> None:
    """Have the library decode so, in this whole process. More than once is no more."""
    decode.METHODS.update(shortstr=_short_string, timestamp=_timestamp, table=_table)


def fault_of(properties: Basic.Properties) -> str | None:
    """Why *properties* cannot be read; None if they can."""
    faults = [name for name, value in properties if isinstance(value, Unreadable)]
    if isinstance((properties.headers or {}).get(UNREADABLE), Unreadable):
        faults.append("headers")
    if not faults:
        return None
    named = ", ".join(faults)
    return f"AMQP 0-9-1 allows no such value for {named}: a short string is UTF-8, a timestamp is in seconds"


def _tolerant(strict: _Decoder, length_of: Callable[[bytes], int], stand_in: Callable[[bytes], Any]) -> _Decoder:
    """As *strict*; where that raises, the *stand_in* for the bytes as far as *length_of* says."""

    def decoded(value: bytes) -> tuple[int, Any]:
        try:
            return strict(value)
        except _FAULTS:
            length = length_of(value)
            return length, stand_in(value[:length])

    return decoded


def _shown(value: bytes) -> Unreadable:
    return Unreadable(value[:_SHOWN].decode(errors="backslashreplace"))


_short_string = _tolerant(
    decode.short_str, lambda value: 1 + int.from_bytes(value[:1], "big"), lambda value: _shown(value[1:])
)
_timestamp = _tolerant(decode.timestamp, lambda _: 8, lambda value: Unreadable(int.from_bytes(value, "big")))
_table = _tolerant(
    decode.field_table,
    lambda value: 4 + int.from_bytes(value[:4], "big"),
    lambda value: {UNREADABLE: _shown(value[4:])},
)
