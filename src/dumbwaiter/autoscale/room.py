"""How many workers of a model the memory of its device has room for, by what one of them was measured to take."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from dumbwaiter.devices.contract import Device
from dumbwaiter.devices.footprint_store import FootprintStore
from dumbwaiter.devices.inspection import DeviceReport, inspect_ledger
from dumbwaiter.devices.opening import open_device
from dumbwaiter.devices.sharing import Terms, footprint_key, ledger_path
from dumbwaiter.errors import MissingExtraError
from dumbwaiter.policies.footprints import activation


@dataclass(frozen=True, slots=True)
class Room:
    """The memory of a device has room for *fits* workers of a model in all; *seated* of it hold some, whoever keeps
    them: also those that are about to leave, or dead with their memory not seen free.
    """

    fits: int
    seated: int


class DeviceRoom:
    """Room on the device of the workers on *terms*; *name* is its name. Where none is shared there is no bound."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.name = ""

    def look(self) -> Room | None:
        """How many workers fit, and are there; None where nobody can tell or nothing bounds them. It blocks for some
        I/O.

        Raises DumbwaiterError when the device cannot be asked.
        """
        terms = self._terms
        device = _shared(terms.device)
        if device is None:
            return None
        with contextlib.closing(device):
            self.name = device.name
            need = self._need(device)
            path = ledger_path(terms.ledgers, device.name)
            if need is None or not path.exists():
                return None
            report = inspect_ledger(path)
            fits = workers_that_fit(report, terms.model, need)
            return None if fits is None else Room(fits, seated_in(report, terms.model))

    def _need(self, device: Device) -> int | None:
        terms = self._terms
        if terms.footprint is not None:
            return terms.footprint
        known = FootprintStore(terms.footprints).load(footprint_key(terms, device))
        if known is None:
            return None
        return known.full + (activation(known, 1, time.time()) or 0)


def workers_that_fit(report: DeviceReport, model: str, need: int) -> int | None:
    """How many workers of *model*, *need* bytes each, fit beside what others hold; None while nobody can tell. Pure.

    What others could give back is not counted on: a second worker is no reason to push another model out.
    """
    if report.limit is None or need <= 0 or any(seat.resident is None for seat in report.seats):
        return None
    held = sum((seat.resident or 0) + (seat.granted or 0) for seat in report.seats if seat.model != model)
    return max(0, report.limit - held) // need


def seated_in(report: DeviceReport, model: str) -> int:
    """How many workers of *model* have a place there, in whatever state. Pure."""
    return sum(seat.model == model for seat in report.seats)


def _shared(address: str) -> Device | None:
    if address == "none":
        return None
    try:
        device = open_device(address)
    except MissingExtraError:
        if address != "auto":
            raise
        return None
    if address == "auto" and device.kind == "host":
        device.close()
        return None
    return device
