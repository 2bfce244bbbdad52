"""A double of Azure Service Bus, written by us from its protocol's documents: never a test against Azure.

It speaks AMQP 1.0 over a real socket (amqp.py, operations.py) and the management endpoint's Atom XML over HTTP
(atom.py), so that the vendor's own client works with it. Not built: topics, sessions, deferring, transactions,
duplicate detection, time to live, deletion on idle, and TLS.
"""

from __future__ import annotations

import importlib.util
import socket
import sys
from contextlib import suppress
from pathlib import Path

from dumbwaiter.testing.servers.local import HOST, LocalServer, MissingServerError, free_port, made

KEY, SECRET = "RootManageSharedAccessKey", "a-secret-of-tests"
LESSER_KEY = "worker-sendlisten"
"""A key that may send and listen, but not manage; its secret is the same."""


class ServicebusServer(LocalServer):
    """The double as a process. Its data lies in *folder*, and is there after a restart."""

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("proton") is None:
            raise MissingServerError(
                "python-qpid-proton", "pip install python-qpid-proton (it is compiled: apt-get install gcc python3-dev)"
            )
        folder = made(folder)
        port, self.management_port = free_port(), free_port()
        keys = (f"{KEY}={SECRET}", f"{LESSER_KEY}={SECRET}")
        module = (sys.executable, "-m", "dumbwaiter.testing.servers.servicebus")
        super().__init__(
            (*module, str(folder), str(port), str(self.management_port), *keys), port, folder / f"server-{port}.log"
        )
        self.url = self.url_at(port)

    def url_at(self, port: int, *, key: str = KEY) -> str:
        """A broker's URL for it at *port*, with *key*."""
        options = f"emulator=true&management_port={self.management_port}"
        return f"servicebus://{key}:{SECRET}@{HOST}:{port}?{options}"

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((HOST, self.management_port), timeout=1.0):
            return self._said(b"AMQP\x03\x01\x00\x00").startswith(b"AMQP")
        return False
