"""From terms to an admission: opens the device, its ledger and what is known of the model."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from dumbwaiter.devices import opening
from dumbwaiter.devices.admission import Admission, Unlimited
from dumbwaiter.devices.contract import Device
from dumbwaiter.devices.footprint_store import FootprintStore, device_key, key_of
from dumbwaiter.devices.ledger import Ledger
from dumbwaiter.devices.sharing.ledger_admission import LedgerAdmission
from dumbwaiter.devices.sharing.terms import Terms
from dumbwaiter.devices.sharing.turns import Decide
from dumbwaiter.errors import MissingExtraError
from dumbwaiter.policies import admission
from dumbwaiter.policies.admission import Seat

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def open_admission(terms: Terms, *, decide: Decide = admission.decide) -> AsyncIterator[Admission]:
    """The admission of a worker on *terms*, until it leaves. *decide* is for trials: who may run instead of the policy.

    Raises ConfigError, MissingExtraError, DeviceError and LedgerError.
    """
    device = _shared_device(terms.device)
    if device is None:
        yield Unlimited()
        return
    try:
        shared = await asyncio.to_thread(_opened, terms, device, decide)
    except BaseException:
        device.close()
        raise
    try:
        yield shared
    finally:
        await shared.close()


def ledger_path(folder: Path, device: str) -> Path:
    """Where in the *folder* of ledgers that of the *device* of that name lies."""
    return folder / f"{device}.ledger"


def _shared_device(address: str) -> Device | None:
    if address == "none":
        return None
    try:
        device = opening.open_device(address)
    except MissingExtraError as error:
        if address != "auto":
            raise
        _log.warning("the GPU's memory is not shared out among models, for %s; or say so with --device none", error)
        return None
    if address == "auto" and device.kind == "host":
        device.close()
        return None
    return device


def footprint_key(terms: Terms, device: Device) -> str:
    """Under which what the model of *terms* takes of *device* is kept."""
    return key_of(
        model=terms.model,
        target=terms.target,
        weights=terms.weights,
        project=Path(terms.project),
        parameters=terms.parameters,
        device=device_key(device),
    )


def _opened(terms: Terms, device: Device, decide: Decide) -> LedgerAdmission:
    path, key = ledger_path(terms.ledgers, device.name), footprint_key(terms, device)
    ledger = Ledger.open(path, device=device.name, capacity=device.capacity, record=Seat)
    return LedgerAdmission(terms, device, ledger, FootprintStore(terms.footprints), key, decide=decide)
