"""Run the double: python -m dumbwaiter.testing.servers.servicebus FOLDER PORT MANAGEMENT_PORT NAME=SECRET...

A NAME that ends in ``-sendlisten`` is a key without the claim Manage.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from dumbwaiter.testing.servers.local import HOST
from dumbwaiter.testing.servers.servicebus.amqp import AmqpEndpoint
from dumbwaiter.testing.servers.servicebus.atom import AtomEndpoint
from dumbwaiter.testing.servers.servicebus.store import Store
from dumbwaiter.testing.servers.servicebus.tokens import Key


def main(folder: str, port: str, management_port: str, *keys: str) -> None:
    """Serve until killed."""
    known = {
        name: Key(secret, not name.endswith("-sendlisten")) for name, _, secret in (k.partition("=") for k in keys)
    }
    store = Store(Path(folder) / "servicebus.sqlite")
    management = AtomEndpoint(store, known, HOST, int(management_port))
    threading.Thread(target=management.serve_forever, daemon=True).start()
    AmqpEndpoint(store, known, HOST, int(port)).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
