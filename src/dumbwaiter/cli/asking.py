"""The client of ``dumbwaiter submit``, ``result`` and ``cancel``: straight over the broker, or through a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from dumbwaiter.cli.connect import connected
from dumbwaiter.cli.options import current_settings, given_flags
from dumbwaiter.client import AsyncClient
from dumbwaiter.message import is_url

if TYPE_CHECKING:
    from dumbwaiter.blobs import BlobStore

F = TypeVar("F", bound=Callable[..., Any])
_URL, _KEY = "dumbwaiter.gateway", "dumbwaiter.api-key"


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

    Raises click.UsageError when a gateway and a broker are named at once.
    """
    meta = click.get_current_context().meta
    url: str | None = meta.get(_URL)
    if url is None:
        async with connected(current_settings()) as (broker, store), AsyncClient(broker, blobs=store) as client:
            yield Asking(client, store)
        return
    named = [name for name, _, _ in given_flags() if name in {"--broker", "--blobs"}]
    if named:
        raise click.UsageError(f"--gateway and {named[0]} exclude each other: a gateway knows its own broker")
    async with AsyncClient(url, api_key=meta.get(_KEY)) as client:
        yield Asking(client, None)


def _remember_url(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None and not is_url(value):
        raise click.BadParameter(f"{value!r} is no URL; write it like http://127.0.0.1:8080", ctx, parameter)
    ctx.meta[_URL] = value


def _remember_key(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    ctx.meta[_KEY] = value
