"""Which project and endpoint, by the broker's URL. Credentials never stand there. Pure."""

from __future__ import annotations

import os
import re

import msgspec

from dumbwaiter.brokers.url_options import read_options
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

OPTIONS = ("prefix", "emulator", "endpoint")
DEFAULT_PREFIX = "dumbwaiter"
GOOGLE = "pubsub.googleapis.com:443"
_FORM = "pubsub://my-project?option=value"
_PROJECT = re.compile(r"(?:[a-z0-9.-]{1,60}:)?[a-z][a-z0-9-]{0,29}")
_PREFIX = re.compile(r"(?!goog)[A-Za-z][A-Za-z0-9-]{0,19}")
_PLACE = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}")


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """A *project*; *place* is the host and port that is asked; the *prefix* of all names. *is_emulator*: without
    encryption and credentials. *shown* is what may be printed of it all.
    """

    project: str
    place: str
    is_emulator: bool
    prefix: str
    shown: str


def location_of(url: str) -> Location:
    """What *url* says: ``pubsub://my-project?emulator=127.0.0.1:8085``. Raises ConfigError, naming the fault."""
    if not url.startswith("pubsub://"):
        raise ConfigError(f"not the address of Pub/Sub: {shown(url)!r}; write {_FORM}")
    start, _, query = url.removeprefix("pubsub://").partition("?")
    project = start.rstrip("/")
    if "@" in start:
        raise ConfigError(
            f"{shown(url)!r} holds credentials, which must not stand there: set GOOGLE_APPLICATION_CREDENTIALS, "
            "or give the machine a service account"
        )
    if not _PROJECT.fullmatch(project):
        raise ConfigError(f"{project!r} in {shown(url)!r} is no id of a Google Cloud project; write {_FORM}")
    options = read_options(query, OPTIONS, url)
    prefix = options.get("prefix", DEFAULT_PREFIX)
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(
            f"prefix={prefix!r} in {shown(url)!r} cannot begin names: use a letter, and letters, digits and '-' behind "
            "it (at most 20, and not 'goog' first)"
        )
    place, is_emulator = _place(url, options)
    return Location(project=project, place=place, is_emulator=is_emulator, prefix=prefix, shown=shown(url))


def _place(url: str, options: dict[str, str]) -> tuple[str, bool]:
    if "emulator" in options and "endpoint" in options:
        raise ConfigError(f"{shown(url)!r} names an emulator and an endpoint; it can be one of them")
    if "endpoint" in options:
        return _checked(url, "endpoint", _with_port(options["endpoint"]), "europe-west1-pubsub.googleapis.com"), False
    emulator = options.get("emulator", os.environ.get("PUBSUB_EMULATOR_HOST"))
    if emulator:
        return _checked(url, "emulator", emulator, "127.0.0.1:8085"), True
    return GOOGLE, False


def _with_port(place: str) -> str:
    return place if ":" in place else f"{place}:443"


def _checked(url: str, option: str, place: str, example: str) -> str:
    if not _PLACE.fullmatch(place) or not 0 < int(place.rpartition(":")[2]) < 65536:
        raise ConfigError(f"{option} of {shown(url)!r} is {place!r}; it must be a host and a port, such as {example}")
    return place
