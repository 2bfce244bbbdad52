"""Parks whatever torch tensors a model holds on a device."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dumbwaiter.models.parking.checksums import checked_nbytes, checksums
from dumbwaiter.models.parking.contract import Parking
from dumbwaiter.models.parking.finding import find_storages
from dumbwaiter.models.parking.host_copy import HostCopy
from dumbwaiter.models.parking.transfer import Transfer

_ALIGNED = 256


class Place(NamedTuple):
    """Where in the host's copy a storage of *nbytes* begins."""

    start: int
    nbytes: int


class Tensors(Parking):
    """Each storage's bytes go to the host once, and stay there when the model wakes: at the next time only those are
    copied that have changed since. So the model takes host memory of its weights' size, from its first parking on.

    A model that never imported torch has nothing to move, and torch is not imported for it.
    """

    def __init__(self, model: Any, transfer: Callable[[Any], Transfer] = Transfer) -> None:
        self._model = model
        self._make_transfer = transfer
        self._transfer: Transfer | None = None
        self._host: HostCopy | None = None
        self._sums: dict[Place, Any] = {}
        self._away: Sequence[tuple[Any, Place]] = ()

    @property
    def can_park(self) -> bool:
        return bool(self._away) or bool(self._find())

    def park(self) -> None:
        storages = [] if self._away else self._find()
        if not storages or self._transfer is None:
            return
        placed = _placed(storages)
        self._save(placed, self._transfer)
        # From here on wake() puts everything right, whatever of it was let go of.
        self._away = placed
        try:
            self._let_go(self._transfer)
        except BaseException:
            self.wake()
            raise

    def wake(self) -> None:
        if not self._away or self._transfer is None or self._host is None:
            return
        try:
            for storage, place in self._away:
                # Copies run while the next storage's memory is being allocated.
                if not storage.nbytes():
                    self._transfer.allocate(storage, place.nbytes)
                self._fetch(storage, place, self._transfer, self._host)
            self._transfer.synchronize(storage for storage, _ in self._away)
        except BaseException:
            with contextlib.suppress(Exception):  # what is wrong with the device is being raised already
                self._transfer.synchronize(storage for storage, _ in self._away)
            self._let_go(self._transfer)
            raise
        self._away = ()

    def _find(self) -> list[Any]:
        """Large ones first: a small one that comes and goes then moves the places of few others."""
        torch = sys.modules.get("torch")
        if torch is None:
            return []
        if self._transfer is None:
            self._transfer = self._make_transfer(torch)
        found = find_storages(self._model, torch, self._transfer.moves)
        return sorted(found, key=lambda storage: -storage.nbytes())

    def _save(self, placed: Sequence[tuple[Any, Place]], transfer: Transfer) -> None:
        if self._host is None:
            self._host = HostCopy(transfer.host_bytes)
        _, last = placed[-1]
        self._host.reserve(last.start + last.nbytes)
        transfer.synchronize(storage for storage, _ in placed)
        # None of the old ones counts any more: their places may be overwritten with parts of others.
        before, self._sums = self._sums, {}
        after = {}
        for storage, place in placed:
            data = transfer.bytes_of(storage)
            sums = checksums(transfer.torch, data)
            is_there = sums is not None and place in before and transfer.torch.equal(sums, before[place])
            self._store(data, place, checked_nbytes(place.nbytes) if is_there else 0, transfer, self._host)
            after[place] = sums
        transfer.synchronize(storage for storage, _ in placed)
        self._sums = {place: sums for place, sums in after.items() if sums is not None}

    def _store(self, data: Any, place: Place, begin: int, transfer: Transfer, host: HostCopy) -> None:
        for piece in host.pieces(place.start + begin, place.start + place.nbytes):
            transfer.copy(data[begin : begin + piece.numel()], piece)
            begin += piece.numel()

    def _fetch(self, storage: Any, place: Place, transfer: Transfer, host: HostCopy) -> None:
        data, begin = transfer.bytes_of(storage), 0
        for piece in host.pieces(place.start, place.start + place.nbytes):
            transfer.copy(piece, data[begin : begin + piece.numel()])
            begin += piece.numel()

    def _let_go(self, transfer: Transfer) -> None:
        for storage, _ in self._away:
            transfer.release(storage)


def _placed(storages: Sequence[Any]) -> list[tuple[Any, Place]]:
    placed, start = [], 0
    for storage in storages:
        place = Place(start, storage.nbytes())
        placed.append((storage, place))
        start += -(-place.nbytes // _ALIGNED) * _ALIGNED
    return placed
