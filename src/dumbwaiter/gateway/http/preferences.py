"""What a caller prefers: ``Prefer: wait=n`` and ``Prefer: respond-async`` (RFC 7240). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from dumbwaiter.gateway.http.problems import Headers


class Preferences(msgspec.Struct, frozen=True, gc=False):
    """*wait*: how many seconds the caller would wait (None: it does not say); *respond_async*: whether it need not."""

    wait: float | None = None
    respond_async: bool = False

    def patience(self, *, default: float, maximum: float, least: float = 1.0) -> float:
        """Seconds to wait: *default* when the caller does not say, else bounded to *least* and *maximum*."""
        return default if self.wait is None else min(max(self.wait, least), maximum)


INDIFFERENT = Preferences()


def preferences_of(prefer: Iterable[str]) -> Preferences:
    """The preferences in the values of all Prefer headers.

    The first ``wait`` counts, in whole seconds; a malformed one is ignored, as the RFC asks.
    """
    wait: float | None = None
    wait_was_said = respond_async = False
    for header in prefer:
        for preference in header.split(","):
            name, _, value = preference.partition(";")[0].partition("=")
            match name.strip().lower():
                case "respond-async":
                    respond_async = True
                case "wait" if not wait_was_said:
                    wait_was_said = True
                    seconds = value.strip().strip('"').strip()
                    if seconds.isascii() and seconds.isdigit():
                        # Ten digits are three centuries: int() of a longer text would only burn time.
                        wait = float(int(seconds[:10]))
    return Preferences(wait, respond_async)


def applied(preferences: Preferences, waited: float, *, deferred: bool = False) -> Headers:
    """The Preference-Applied header of a response, or none: those of *preferences* alone that it honours.

    *waited* is how many seconds the response may have taken, which is less than was preferred where the gateway has a
    limit; *deferred* says that it did not wait for the end.
    """
    names: list[bytes] = []
    if deferred and preferences.respond_async:
        names.append(b"respond-async")
    if waited and preferences.wait is not None:
        names.append(b"wait=%d" % int(waited))
    return [(b"preference-applied", b", ".join(names))] if names else []
