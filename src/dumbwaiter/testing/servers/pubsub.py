"""Google's emulator of Pub/Sub."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path
from types import MappingProxyType

from dumbwaiter.testing.servers.local import HOST, LocalServer, MissingServerError, free_port, made

_PROGRAM = "cloud-pubsub-emulator"
_ROOTS = ("/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", "/opt/google-cloud-sdk", "~/google-cloud-sdk")


def pubsub_program() -> str:
    """Google's emulator, from its own package or as `gcloud` installs it. Raises MissingServerError.

    No package index has it, so that a machine may well be without.
    """
    places = [Path(root).expanduser() / "platform/pubsub-emulator/bin" / _PROGRAM for root in _ROOTS]
    if gcloud := shutil.which("gcloud"):
        places.append(Path(gcloud).resolve().parent.parent / "platform/pubsub-emulator/bin" / _PROGRAM)
    found = shutil.which(_PROGRAM) or next((str(place) for place in places if place.is_file()), None)
    if found is None:
        remedy = (
            "`gcloud components install pubsub-emulator`, or google-cloud-cli-pubsub-emulator of Google's apt server"
        )
        raise MissingServerError(_PROGRAM, remedy, is_in_an_index=False)
    if shutil.which("java") is None:
        raise MissingServerError("java", "apt-get install default-jre-headless")
    return found


class PubsubServer(LocalServer):
    """Google's emulator, which keeps all in its memory."""

    keeps_data = False
    client_environment = MappingProxyType({})

    def __init__(self, folder: Path) -> None:
        folder = made(folder)
        port = free_port()
        self.url = f"pubsub://a-project?emulator={HOST}:{port}"
        # Its second port stands for IAM; two emulators of one machine must not want the same one.
        command = [pubsub_program(), f"--host={HOST}", f"--port={port}", f"--iam_port={free_port()}"]
        super().__init__(command, port, folder / f"pubsub-{port}.log")
        self._environment = os.environ | {"JAVA_OPTS": "-XX:+UseSerialGC -Xmx512m"}

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1.0):
            return True
        return False
