"""A process that stops in the midst of its turn at a ledger: ``turn_holder.py LEDGER``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from dumbwaiter.devices.ledger import Ledger
from dumbwaiter.policies.admission import Seat

if __name__ == "__main__":
    with Ledger.look(Path(sys.argv[1]), record=Seat).turn():
        sys.stdout.write("inside\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGSTOP)
