"""The client of ``dumbwaiter submit``, ``result`` and ``cancel``: straight over the broker, or through a gateway."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from dumbwaiter.cli.connect import connected
from dumbwaiter.cli.options import current_settings, given_config, given_flags
from dumbwaiter.client import AsyncClient
from dumbwaiter.errors import AccessError, PredictionOutOfReachError
from dumbwaiter.message import is_url

if TYPE_CHECKING:
    from dumbwaiter.blobs import BlobStore

F = TypeVar("F", bound=Callable[..., Any])
_URL, _KEY = "dumbwaiter.gateway", "dumbwaiter.api-key"
_PLACES = frozenset({"--broker", "--blobs"})


class Asking(NamedTuple):
    """An open client; *store* tells what the workers say of themselves, and is None behind a gateway."""

    client: AsyncClient
    store: BlobStore | None


def gateway_options(command: F) -> F:
    """--gateway and --api-key; read by asking()."""
    for option in (
        click.option(
            "--api-key",
            callback=_remember_key,
            expose_value=False,
            metavar="KEY",
            help="The gateway's API key; in DUMBWAITER_API_KEY nobody else on this machine can see it.",
        ),
        click.option(
            "--gateway",
            callback=_remember_url,
            expose_value=False,
            metavar="URL",
            help="Ask this gateway (http://…) instead of the broker.",
        ),
    ):
        command = option(command)
    return command


@asynccontextmanager
async def asking() -> AsyncIterator[Asking]:
    """The client, open: of the gateway if one is named, else of the broker in the settings.

    Raises click.UsageError when a gateway and a broker are named at once, or a key without a gateway, and within the
    block click.ClickException for an AccessError of a gateway that wants a key, or another one, and for a
    PredictionOutOfReachError.
    """
    meta = click.get_current_context().meta
    url: str | None = meta.get(_URL)
    if url is None:
        if meta.get(_KEY) is not None:
            raise click.UsageError("--api-key is for a gateway, and a broker asks for none; name a --gateway")
        async with connected(current_settings()) as (broker, store), AsyncClient(broker, blobs=store) as client:
            yield Asking(client, store)
        return
    named = [name for name, _, _ in given_flags() if name in _PLACES]
    if named:
        raise click.UsageError(f"--gateway and {named[0]} exclude each other: a gateway knows its own broker")
    try:
        async with AsyncClient(url, api_key=meta.get(_KEY)) as client:
            yield Asking(client, None)
    except AccessError as error:
        if error.status != HTTPStatus.UNAUTHORIZED:
            raise
        raise click.ClickException(f"{error}; set DUMBWAITER_API_KEY or --api-key") from None
    except PredictionOutOfReachError as error:
        raise click.ClickException(f"{error}; when it is back: {asked_again(error.id)}") from None


def asked_again(id_: str) -> str:
    """The command that asks again for the result of *id_*, in the way in which this command line asks."""
    return f"dumbwaiter result {shlex.join([*same_way(), '--wait', '60s', id_])}"


def is_through_gateway() -> bool:
    """Whether this command line names a gateway."""
    return click.get_current_context().meta.get(_URL) is not None


def same_way() -> list[str]:
    """The options of this command line that say whom it asks, for a command that is to ask the same."""
    url: str | None = click.get_current_context().meta.get(_URL)
    config = given_config()
    return [
        *(["--gateway", url] if url else []),
        *(["--config", config] if config else []),
        *(word for name, _, value in given_flags() if name in _PLACES for word in (name, value)),
    ]


def _remember_url(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None and not is_url(value):
        raise click.BadParameter(
            f"{value!r} must begin with http:// or https://, like http://127.0.0.1:8080", ctx, parameter
        )
    ctx.meta[_URL] = value


def _remember_key(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    ctx.meta[_KEY] = value
