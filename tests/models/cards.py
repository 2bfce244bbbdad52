"""What parking moves tensors from: a CUDA card, or host memory that counts as one."""

from __future__ import annotations

import torch

from dumbwaiter.models.parking.transfer import Transfer


class Card(Transfer):
    """Counts what is copied and allocated, has no more than *capacity* bytes, and fails when it is told to."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(torch)
        self.device = torch.device(device)
        self.capacity: int | None = None
        self.in_use = 0
        self.copied = 0
        self.host_nbytes: list[int] = []
        self.steps: list[str] = []
        self.fails_at: tuple[str, int] | None = None
        """The name of a step, and at the how many-th of them."""
        self.error: BaseException = RuntimeError("injected")

    def put(self, value):
        """A module or tensor on this card."""
        return value.to(self.device)

    def moves(self, storage):
        return storage.device.type == self.device.type

    def host_bytes(self, nbytes):
        self._step("host_bytes")
        self.host_nbytes.append(nbytes)
        return super().host_bytes(nbytes)

    def allocate(self, storage, nbytes):
        self._step("allocate")
        assert not storage.nbytes(), "this would take the memory twice"
        if self.capacity is not None and self.in_use + nbytes > self.capacity:
            raise torch.OutOfMemoryError(f"{nbytes} bytes do not fit")
        super().allocate(storage, nbytes)
        self.in_use += nbytes
        self.bytes_of(storage).fill_(0xA5)  # memory comes with what others left in it

    def release(self, storage):
        self._step("release")
        if self.capacity is not None:
            self.in_use -= storage.nbytes()
        super().release(storage)

    def copy(self, source, target):
        self._step("copy")
        self.copied += source.numel()
        super().copy(source, target)

    def synchronize(self, storages):
        self._step("synchronize")
        if self.device.type == "cuda":
            super().synchronize(storages)

    def _step(self, name):
        self.steps.append(name)
        if self.fails_at == (name, self.steps.count(name)):
            raise self.error
