"""``dumbwaiter keys create | list | rotate | revoke``."""

from __future__ import annotations

import asyncio
import math
import re
import time
from typing import TYPE_CHECKING, Any

import click

from dumbwaiter.blobs import open_store, shown
from dumbwaiter.blobs.keyring import (
    ApiKey,
    KeyNotFoundError,
    KeyReplacedError,
    expire_key,
    is_usable,
    load_key,
    load_keys,
    mint,
    revoke_key,
    save_key,
)
from dumbwaiter.cli.options import Command, Group, current_settings, json_option, settings_options
from dumbwaiter.cli.output import local_time, print_json, print_table
from dumbwaiter.config import parse_duration
from dumbwaiter.errors import ConfigError
from dumbwaiter.message import LONGEST_TENANT, is_tenant_name

if TYPE_CHECKING:
    from dumbwaiter.blobs import BlobStore

_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|min|h)")
_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_FASTEST = 1e6
"""Predictions a second; whoever means more means no limit."""
_LONGEST = 100 * 365 * 86400.0
_NEVER = math.inf


def _duration(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _lifetime(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Seconds above 0, infinite for ``never``; None: not said."""
    if value == "never":
        return _NEVER
    try:
        seconds = None if value is None else parse_duration(value)
    except ValueError:
        raise click.BadParameter(f"expected a duration such as 12h or 90d, or never, not {value!r}") from None
    if seconds is not None and not 0.0 < seconds <= _LONGEST:
        raise click.BadParameter(f"expected a duration above 0s and up to 36500d, or never, not {value!r}")
    return seconds


def _rate(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[float, float] | None:
    """``10/s``, ``60/min``, ``1000/h``: how many, in how many seconds."""
    if value is None:
        return None
    match = _RATE.fullmatch(value)
    if match is None or float(match[1]) <= 0.0:
        raise click.BadParameter(f"expected a rate such as 10/s, 60/min or 1000/h, not {value!r}")
    count, seconds = float(match[1]), _UNITS[match[2]]
    if count / seconds > _FASTEST:
        raise click.BadParameter(f"{value!r} is above {_FASTEST:.0f}/s; leave --rate out for no limit")
    return count, seconds


@click.group(cls=Group, synonyms={"add": "create", "new": "create", "delete": "revoke", "remove": "revoke"})
def keys() -> None:
    """API keys: who may ask a gateway, for which tenant, and how much.

    They lie in the blob store, of their secrets only hashes; all gateways of that store take them within seconds.

    Examples:
      dumbwaiter keys create --name ci --tenant acme --rate 10/s
      dumbwaiter keys list
      dumbwaiter keys rotate 0d5k2m8q1v7c
      dumbwaiter keys revoke 0d5k2m8q1v7c

    """


@keys.command(cls=Command, short_help="Make a key and print it, once.")
@click.option("--name", default="", metavar="TEXT", help="What the key is for, for you to know it by.")
@click.option("--tenant", metavar="TEXT", help="Whose it is: results are readable by their tenant only.")
@click.option("--rate", callback=_rate, metavar="N/UNIT", help="How many predictions: 10/s, 60/min or 1000/h.")
@click.option("--burst", type=click.IntRange(min=1), metavar="N", help="How many at once (default: N of --rate).")
@click.option("--in-flight", type=click.IntRange(min=1), metavar="N", help="How many may wait for their answer.")
@click.option(
    "--expires", callback=_lifetime, metavar="TIME", help="How long it is valid: 90d, or never (the default)."
)
@json_option
@settings_options
def create(
    name: str,
    tenant: str | None,
    rate: tuple[float, float] | None,
    burst: int | None,
    in_flight: int | None,
    expires: float | None,
    as_json: bool,
) -> None:
    """Make an API key and print it. It is shown this once: only a hash of it is stored.

    Callers send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`. A tenant may have several keys; keys without a
    tenant share one that has no name.

    Examples:
      dumbwaiter keys create --name laptop
      dumbwaiter keys create --name ci --tenant acme --rate 60/min --in-flight 100 --expires 90d

    """
    if tenant is not None and not is_tenant_name(tenant):
        raise click.UsageError(f"--tenant must have 1 to {LONGEST_TENANT} printable characters")
    if burst is not None and rate is None:
        raise click.UsageError("--burst goes with --rate")
    now = time.time()
    key, token = mint(
        tenant=tenant,
        name=name,
        now=now,
        expires_at=_end_of(expires, now),
        rate=None if rate is None else rate[0] / rate[1],
        burst=None if rate is None else float(burst or max(rate[0], 1.0)),
        in_flight=in_flight,
    )
    store = _store()
    asyncio.run(save_key(store, key))
    _show_token(key, token, store, as_json=as_json)


@keys.command("list", cls=Command, short_help="List them, the oldest first.")
@json_option
@settings_options
def list_(as_json: bool) -> None:
    """List the API keys, the oldest first, with their limits; expired ones too, until they are revoked.

    Examples:
      dumbwaiter keys list
      dumbwaiter keys list --json

    """
    store = _store()
    found = asyncio.run(load_keys(store))
    if as_json:
        print_json([_as_data(key) for key in found])
    elif not found:
        click.echo(f"no API keys in {shown(store.url)}")
    else:
        columns = ("key", "name", "tenant", "made", "expires", "rate", "in flight")
        print_table(columns, [_row(key) for key in found], right=("in flight",))


@keys.command(cls=Command, short_help="Replace a key by a new one.")
@click.argument("key")
@click.option(
    "--overlap",
    callback=_duration,
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the old one stays.",
)
@click.option(
    "--expires",
    callback=_lifetime,
    metavar="TIME",
    help="How long the new one is valid: 90d, or never (default: as long as KEY was made for).",
)
@json_option
@settings_options
def rotate(key: str, overlap: float, expires: float | None, as_json: bool) -> None:
    """Make a new key of the same tenant and limits as KEY, print it, and let KEY end after the overlap.

    The new one is valid for as long as KEY was when it was made: one of 90 days is followed by one of 90 days. A key is
    rotated once; whoever rotates it again is told which one took its place.

    Examples:
      dumbwaiter keys rotate 0d5k2m8q1v7c
      dumbwaiter keys rotate 0d5k2m8q1v7c --expires 30d
      dumbwaiter keys rotate 0d5k2m8q1v7c --overlap 0s

    """
    store = _store()
    new, token, old = asyncio.run(_rotate(store, _id_of(key), overlap, expires))
    _show_token(new, token, store, as_json=as_json, replaced=old)


@keys.command(cls=Command, short_help="End a key: gateways refuse it within seconds.")
@click.argument("key")
@json_option
@settings_options
def revoke(key: str, as_json: bool) -> None:
    """End KEY: gateways refuse it within seconds. What it asked for before is still answered.

    Examples:
      dumbwaiter keys revoke 0d5k2m8q1v7c

    """
    asyncio.run(revoke_key(_store(), _id_of(key)))
    if as_json:
        print_json({"revoked": _id_of(key)})
    else:
        click.echo(f"revoked {_id_of(key)}")


def _store() -> BlobStore:
    url = current_settings().blobs
    if url.startswith("memory:"):
        raise ConfigError(
            f"{shown(url)} lives within one process, so no gateway would see the key; name a store with --blobs"
        )
    return open_store(url)


async def _rotate(store: BlobStore, key_id: str, overlap: float, expires: float | None) -> tuple[ApiKey, str, ApiKey]:
    old = await load_key(store, key_id)
    if old.replaced_by is not None:
        raise KeyReplacedError(key_id, old.replaced_by)
    now = time.time()
    new, token = mint(
        tenant=old.tenant,
        name=old.name,
        now=now,
        expires_at=_end_of(_lifetime_of(old) if expires is None else expires, now),
        rate=old.rate,
        burst=old.burst,
        in_flight=old.in_flight,
    )
    await save_key(store, new)  # first, so that there is one that is valid at any time
    try:
        return new, token, await expire_key(store, key_id, at=now + overlap, replaced_by=new.id)
    except (KeyNotFoundError, KeyReplacedError):  # revoked or rotated meanwhile; nobody has seen the new one's token
        await revoke_key(store, new.id)
        raise


def _lifetime_of(key: ApiKey) -> float | None:
    return None if key.expires_at is None else key.expires_at - key.created_at


def _end_of(lifetime: float | None, now: float) -> float | None:
    return None if lifetime is None or lifetime == _NEVER else now + lifetime


def _id_of(text: str) -> str:
    """The id of a key, also when the whole of it was given."""
    return text.split("_")[1] if text.startswith("dw_") and text.count("_") == 2 else text


def _show_token(key: ApiKey, token: str, store: BlobStore, *, as_json: bool, replaced: ApiKey | None = None) -> None:
    if as_json:
        more = {} if replaced is None else {"replaced": _as_data(replaced)}
        print_json({**_as_data(key), "token": token, **more})
        return
    click.echo(token)
    click.echo(f"key {key.id} is shown this once; send it as: Authorization: Bearer {token[:18]}…", err=True)
    ends = "never expires" if key.expires_at is None else f"is valid until {local_time(key.expires_at)}"
    click.echo(f"key {key.id} {ends}; it lies in {shown(store.url)}, for the gateways of that store", err=True)
    if replaced is not None:
        click.echo(f"key {replaced.id} is valid until {local_time(replaced.expires_at or 0.0)}", err=True)


def _as_data(key: ApiKey) -> dict[str, Any]:
    """Everything but the hash, which nobody needs to see."""
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "usable": is_usable(key, now=time.time()),
        "rate": key.rate,
        "burst": key.burst,
        "in_flight": key.in_flight,
        "replaced_by": key.replaced_by,
    }


def _row(key: ApiKey) -> tuple[object, ...]:
    expires = "never"
    if key.expires_at is not None:
        expires = local_time(key.expires_at) if is_usable(key, now=time.time()) else "expired"
    return (
        key.id,
        key.name or "-",
        "-" if key.tenant is None else key.tenant,
        local_time(key.created_at),
        expires,
        "-" if key.rate is None else _rate_in_words(key),
        "-" if key.in_flight is None else key.in_flight,
    )


def _rate_in_words(key: ApiKey) -> str:
    rate = key.rate or 0.0
    unit = next((unit for unit in ("s", "min", "h") if rate * _UNITS[unit] >= 1.0), "h")
    return f"{rate * _UNITS[unit]:.4g}/{unit}, {key.burst or 1:.4g} at once"
