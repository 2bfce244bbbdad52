"""What a gateway needs, opened when it is first needed, and again when it no longer works."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.signing_key import load_signing_key
from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.products import product_of
from dumbwaiter.errors import BrokerError, ConfigError
from dumbwaiter.gateway.app import Gateway
from dumbwaiter.gateway.server import check_options
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import GatewaySettings, Settings
    from dumbwaiter.signing import SigningKey

RESTED = 10.0
"""After so many seconds without a request the broker is asked whether it is still there. A frozen process notices
nothing of what happens to its connections.
"""
WELL_WITHIN = 2.0
CLOSE_WITHIN = 2.0
#: Each is set by one cloud alone, and not by what imitates it on a developer's machine.
_CLOUDS = {"AWS_LAMBDA_FUNCTION_NAME": "AWS Lambda", "WEBSITE_INSTANCE_ID": "Azure Functions", "K_SERVICE": "Cloud Run"}
_IMITATIONS = ("AWS_SAM_LOCAL",)
_log = logging.getLogger("dumbwaiter.gateway")


class Opened(msgspec.Struct, frozen=True):
    """An open broker and store, and the key that signs ids."""

    broker: Broker
    store: BlobStore
    signing: SigningKey


class Backend:
    """The broker and the store of *settings*, for one event loop. Where the settings do not say otherwise callers need
    an API key, for whoever stands before a cloud's door comes from anywhere.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # The address is the cloud's affair; this one says that it is not loopback. So is the certificate.
        self.options: GatewaySettings = msgspec.structs.replace(
            settings.gateway,
            host="0.0.0.0",  # noqa: S104 - nobody listens there
            certfile=None,
            keyfile=None,
        )
        _tell_who_may_ask(self.options)
        self._opening = asyncio.Lock()
        self._opened: Opened | None = None
        self._closing = contextlib.AsyncExitStack()
        self._used_at = 0.0

    async def opened(self) -> Opened:
        """Open, and as far as can be told in working order.

        Raises ConfigError, BrokerError, BlobError; the next call tries again then.
        """
        async with self._opening:
            if self._opened is not None and not await self._is_well(self._opened):
                _log.info("the connection to %s has not outlasted the rest: opening another", self._where)
                await self._close()
            if self._opened is None:
                self._opened = await self._open()
            self._used_at = time.time()
            return self._opened

    def note_used(self) -> None:
        """A request has ended: the rest begins."""
        self._used_at = time.time()

    def gateway(self, opened: Opened, *, max_patience: float) -> Gateway:
        """A gateway over it, at which nobody waits for longer than *max_patience* seconds."""
        options = msgspec.structs.replace(
            self.options,
            max_patience=min(self.options.max_patience, max_patience),
            default_patience=min(self.options.default_patience, max_patience),
        )
        return Gateway(opened.broker, opened.store, options, signing=opened.signing, outbound=self._settings.outbound)

    async def close(self) -> None:
        """Close what is open. Twice is no error."""
        async with self._opening:
            await self._close()

    @property
    def _where(self) -> str:
        return shown(self._settings.broker)

    async def _open(self) -> Opened:
        settings = self._settings
        refuse_what_stays_here(settings, os.environ)
        async with contextlib.AsyncExitStack() as stack:
            broker = await stack.enter_async_context(open_broker(settings.broker, lock_duration=settings.lock_duration))
            store = open_store(settings.blobs)
            await store.check()
            await check_options(store, self.options, settings.outbound)
            signing = await load_signing_key(store, settings.gateway.signing_key)
            self._closing = stack.pop_all()
        return Opened(broker, store, signing)

    async def _is_well(self, opened: Opened) -> bool:
        # By the wall clock: the monotonic one may stand still while the process is frozen.
        if 0.0 <= time.time() - self._used_at < RESTED:
            return True
        try:
            async with asyncio.timeout(WELL_WITHIN):
                await opened.broker.check()
        except (BrokerError, TimeoutError):
            return False
        return True

    async def _close(self) -> None:
        self._opened, closing = None, self._closing.pop_all()
        try:
            async with asyncio.timeout(CLOSE_WITHIN):
                await closing.aclose()
        except (BrokerError, TimeoutError) as error:
            _log.debug("the connection to %s could not be closed: %s", self._where, error)


def _tell_who_may_ask(options: GatewaySettings) -> None:
    if options.needs_keys:
        return
    if options.public_url is None:
        _log.warning(
            'gateway.auth is "off" and gateway.public_url is not set: whoever calls this door by the name that the '
            "cloud gives it is refused (421), so set DUMBWAITER_GATEWAY__PUBLIC_URL to its address"
        )
    else:
        _log.warning('everybody who reaches %s may ask: gateway.auth is "off"', shown(options.public_url))


def refuse_what_stays_here(settings: Settings, environ: Mapping[str, str]) -> None:
    """Raises ConfigError in a cloud for a broker or a store that is a file of this instance: no worker would ever see
    what is accepted there, and it goes with the instance.
    """
    cloud = next((name for variable, name in _CLOUDS.items() if variable in environ), None)
    if cloud is None or any(variable in environ for variable in _IMITATIONS):
        return
    for name, url, stays in (
        ("broker", settings.broker, product_of(settings.broker).on_one_machine is not None),
        ("blobs", settings.blobs, settings.blobs.partition(":")[0] in {"file", "memory"}),
    ):
        if stays:
            raise ConfigError(
                f"{name} = {shown(url)!r} lies on this instance of {cloud}, where no worker sees it; "
                f"set DUMBWAITER_{name.upper()} to the URL of a service"
            )
