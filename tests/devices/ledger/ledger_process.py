"""A process of its own for the tests of the ledger: ``ledger_process.py VERB PATH [ARGUMENT]``. It says what it did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from dumbwaiter.devices.ledger import Ledger
from dumbwaiter.devices.ledger.errors import LedgerBusyError
from dumbwaiter.devices.ledger.seats import adopt

DEVICE, CAPACITY = "GPU-1", 8_000_000_000


class Holding(msgspec.Struct, frozen=True):
    """What a seat says in these tests; *check* is seven times *count* in every record that was written as a whole."""

    owner: int = 0
    count: int = 0
    check: int = 0
    note: str = ""


def holding(count: int, note: str = "") -> Holding:
    return Holding(os.getpid(), count, 7 * count, note)


def opened(path: Path, *, patience: float = 30.0) -> Ledger[Holding]:
    return Ledger.open(path, device=DEVICE, capacity=CAPACITY, record=Holding, patience=patience)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def seated(path: Path) -> Ledger[Holding]:
    """A ledger in which this process has a seat, which it says."""
    ledger = opened(path)
    with ledger.turn() as turn:
        place = turn.take_seat(holding(1)).place
    say("seat", place)
    return ledger


def hold(path: Path) -> None:
    """Sit until the end; on a line, write another record."""
    ledger = seated(path)
    for number, _ in enumerate(sys.stdin, 2):
        with ledger.turn() as turn:
            turn.write(holding(number))
        say("wrote", number)


def stop(path: Path) -> None:
    """Stop in the midst of a turn, until somebody continues it."""
    with opened(path).turn():
        say("inside")
        os.kill(os.getpid(), signal.SIGSTOP)
    say("left")
    sys.stdin.readline()


def hurry(path: Path) -> None:
    """Try to open the ledger while somebody else's turn lasts, and say what that is told."""
    try:
        opened(path, patience=0.05)
    except LedgerBusyError as error:
        say(error)


def fork(path: Path) -> None:
    """Sit, and leave a forked child behind that does nothing."""
    ledger = seated(path)
    child = os.fork()
    if child == 0:
        say("child", os.getpid())
        signal.pause()
    ledger.ring([0])
    sys.stdin.readline()


def bequeath(path: Path, inside: str = "") -> None:
    """Sit, and hand the seat to a child, too; then wait, perhaps inside a turn."""
    ledger = seated(path)
    fd = ledger.seat.fileno()
    child = subprocess.Popen([sys.executable, __file__, "keep", str(fd)], pass_fds=[fd], stdout=subprocess.PIPE)
    say("child", child.pid)
    say("child", int(child.stdout.readline()))
    if inside:
        with ledger.turn() as turn:
            turn.write(holding(2))
            say("inside")
            sys.stdin.readline()
    sys.stdin.readline()


def keep(fd: Path) -> None:
    """Keep an inherited seat, and leave a forked child behind, which must not."""
    adopt(int(str(fd)))
    child = os.fork()
    if child:
        say(child)
    signal.pause()


def churn(path: Path) -> None:
    """Take seats, write, ring and leave, until killed."""
    ledger = opened(path)
    count = 0
    while True:
        with ledger.turn() as turn:
            turn.take_seat(holding(count))
            for orphan, _ in turn.orphaned:
                turn.forget(orphan)
        for _ in range(20):
            count += 1
            with ledger.turn() as turn:
                turn.write(holding(count, "x" * (count % 300)))
                wrong = [record for _, record in turn.living + turn.orphaned if record.check != 7 * record.count]
                if wrong or turn.unknown:
                    path.with_name("wrong").write_text(f"{wrong} {turn.unknown}")
            ledger.ring(range(4))
        with ledger.turn() as turn:
            turn.leave()


def add(path: Path) -> None:
    """Sit, and add 1 to a number that lies beside the ledger, 50 times, each in a turn of its own; then stay."""
    ledger = opened(path)
    total = path.with_name("total")
    with ledger.turn() as turn:
        turn.take_seat(holding(0))
    for count in range(1, 51):
        with ledger.turn() as turn:
            before = int(total.read_text()) if total.exists() else 0
            turn.write(holding(count))
            total.write_text(str(before + 1))
    signal.pause()


def nursery(path: Path, verb: str) -> None:
    """For each line, a forked child that does *verb*: it starts far sooner than a process of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                VERBS[verb](path)
            finally:
                os._exit(1)
        say("child", child)


VERBS = {one.__name__: one for one in (hold, stop, hurry, fork, bequeath, keep, churn, add, nursery)}

if __name__ == "__main__":
    VERBS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
