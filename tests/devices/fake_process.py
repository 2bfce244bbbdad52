"""A process on a fake device: it does what it is told, line by line, and says in JSON how it went.

python fake_process.py ADDRESS [torch]

``hold N``, ``free`` (the last thing held), ``use N``, ``empty``, ``leak N``, ``break``, ``synchronize``, ``reserved``,
``fork``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from dumbwaiter.devices import fake
from dumbwaiter.devices.opening import open_allocator


class FakeProcess:
    """Such a process, seen from the test. Use it with ``with``; at the end it is killed."""

    def __init__(self, address, *arguments):
        command = [sys.executable, __file__, address, *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, **pipes)
        assert self.process.stdout.readline() == '"ready"\n'

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def tell(self, *words):
        """Give the order and do not wait."""
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def do(self, *words):
        """What came of it: a result, or the error as ``[type, text]``."""
        self.tell(*words)
        return self.read()

    def read(self):
        """The next thing that it says."""
        return json.loads(self.process.stdout.readline())

    def kill(self):
        """kill -9, and wait for the end."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def serve(address: str) -> None:
    allocator = open_allocator(address)
    holdings = []

    def use(nbytes):
        with fake.use(int(nbytes)):
            pass

    def fork():
        pid = os.fork()
        if not pid:
            say(attempt(lambda: allocator.take(1)))
            os.execvp("sleep", ["sleep", "20"])
        return ["pid", pid]

    orders = {
        "hold": lambda nbytes: holdings.append(fake.hold(int(nbytes))),
        "free": lambda: holdings.pop().free(),
        "use": use,
        "empty": allocator.empty_cache,
        "leak": lambda nbytes: fake.leak(int(nbytes)),
        "break": fake.break_context,
        "synchronize": allocator.synchronize,
        "reserved": allocator.reserved,
        "fork": fork,
    }
    say("ready")
    for line in sys.stdin:
        word, *arguments = line.split()
        say(attempt(lambda: orders[word](*arguments)))  # noqa: B023 - called at once


def attempt(act):
    """What *act* returns, or the error that it raises."""
    try:
        return act()
    except Exception as error:
        return [f"{type(error).__module__}.{type(error).__name__}", str(error)]


def say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if "torch" in sys.argv:
        import torch  # noqa: F401
    serve(sys.argv[1])
