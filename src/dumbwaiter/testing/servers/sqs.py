"""Emulators of Amazon's SQS."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from types import MappingProxyType

from dumbwaiter.testing.servers.local import HOST, LocalServer, free_port, made, program_beside

REGION = "eu-central-1"


class SqsServer(LocalServer):
    """An emulator of SQS, which keeps all in its memory: ``ministack`` or ``moto``."""

    keeps_data = False
    # Any credentials will do; but none must be looked for elsewhere.
    client_environment = MappingProxyType(
        {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    )

    def __init__(self, program: str, folder: Path) -> None:
        folder = made(folder)
        port = free_port()
        self.endpoint = f"http://{HOST}:{port}"
        self.url = f"sqs://{REGION}?endpoint={self.endpoint}"
        environment = os.environ.copy()
        if program == "ministack":
            command = [program_beside("ministack", "ministack")]
            environment |= {"GATEWAY_PORT": str(port), "BIND_HOST": HOST, "SERVICES": "sqs"}
            # In its answers a queue has the address under which it was asked for.
            environment |= {"MINISTACK_REGION": REGION, "STATE_DIR": str(folder), "PERSIST_STATE": "0"}
            environment["TMPDIR"] = str(folder)  # it leaves a file with its process id there
        else:
            command = [program_beside("moto_server", "moto[server]"), "-H", HOST, "-p", str(port)]
        super().__init__(command, port, folder / f"{program}-{port}.log")
        self._environment = environment

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1.0):
            return True
        return False
