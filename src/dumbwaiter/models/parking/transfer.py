"""What parking asks of torch: the way between a device's memory and the host's.

Storages are torch.UntypedStorage, bytes are one-dimensional tensors of uint8. The tests have storages on the CPU for
a device's, and on a card too where there is one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Transfer:
    """Between CUDA devices (AMD's too: torch calls them the same) and pinned host memory."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch

    def moves(self, storage: Any) -> bool:
        """Whether *storage* is on a device whose memory is to be given back."""
        return bool(storage.device.type == "cuda")

    def host_bytes(self, nbytes: int) -> Any:
        """New bytes in host memory. Pinned, which copies several times as fast; plain where no more can be pinned."""
        torch = self.torch
        try:
            return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=True)
        except RuntimeError:
            return torch.empty(nbytes, dtype=torch.uint8, device="cpu")

    def allocate(self, storage: Any, nbytes: int) -> None:
        """Give an emptied *storage* its memory again. Raises torch.OutOfMemoryError."""
        storage.resize_(nbytes)

    def release(self, storage: Any) -> None:
        """Empty *storage*: its memory goes to torch's cache."""
        storage.resize_(0)

    def bytes_of(self, storage: Any) -> Any:
        """What is in *storage*; no copy."""
        torch = self.torch
        return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)

    def copy(self, source: Any, target: Any) -> None:
        """Begin to copy bytes to as many bytes; done after the next synchronize()."""
        target.copy_(source, non_blocking=True)

    def synchronize(self, storages: Iterable[Any]) -> None:
        """Wait until the devices of *storages* have done all that was asked of them. Raises what went wrong there."""
        for device in {storage.device for storage in storages}:
            self.torch.cuda.synchronize(device)
