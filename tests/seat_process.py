"""A process that has a seat at a device's ledger: ``seat_process.py LEDGER DEVICE CAPACITY``, its record on stdin.

At the end of stdin it gives the seat up.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from dumbwaiter.devices.ledger import Ledger
from dumbwaiter.policies.admission import Seat

GIB = 2**30
DEVICE, CAPACITY = "GPU-1", 8 * GIB


class Seated:
    """Such a process, seen from the test. Use it with ``with``; at the end it is killed."""

    def __init__(self, path, seat, *, device=DEVICE, capacity=CAPACITY):
        command = [sys.executable, __file__, str(path), device, str(capacity)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(msgspec.json.encode(seat).decode() + "\n")
        self.process.stdin.flush()
        self.place = int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.process.stdin.close()
        self.process.stdout.close()

    def leave(self):
        """Have it give up its seat, and end."""
        self.process.stdin.close()
        self.process.wait()

    def kill(self):
        """kill -9, and wait for the end."""
        self.process.kill()
        self.process.wait()


def sit(path: Path, device: str, capacity: int) -> None:
    seat = msgspec.json.decode(sys.stdin.readline(), type=Seat)
    ledger = Ledger.open(path, device=device, capacity=capacity, record=Seat)
    with ledger.turn() as turn:
        place = turn.take_seat(seat).place
    sys.stdout.write(f"{place}\n")
    sys.stdout.flush()
    sys.stdin.read()
    with ledger.turn() as turn:
        turn.leave()


if __name__ == "__main__":
    sit(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
