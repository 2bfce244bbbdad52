"""RabbitMQ."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from dumbwaiter.testing.servers.local import HOST, START_SECONDS, LocalServer, MissingServerError, free_port, made


def rabbitmq_program() -> str:
    """The real rabbitmq-server: not Debian's wrapper, which would change the user. Raises MissingServerError."""
    program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    found = str(program) if program.exists() else shutil.which("rabbitmq-server")
    if found is None:
        raise MissingServerError("rabbitmq-server", "apt-get install rabbitmq-server")
    return found


class RabbitmqServer(LocalServer):
    """One node; *settings* are further lines of its rabbitmq.conf. It takes 5 to 12 seconds to start."""

    start_seconds = 3 * START_SECONDS

    def __init__(self, folder: Path, *settings: str) -> None:
        folder = made(folder)
        port, self._epmd_port, distribution = free_port(), free_port(), free_port()
        super().__init__((rabbitmq_program(),), port, folder / f"server-{port}.log")
        self.url = f"amqp://guest:guest@{HOST}:{port}"
        self.node = f"rmq{port}@localhost"
        self.environment = {**os.environ, **_rabbitmq_variables(folder, self.node, port, distribution)}
        self.environment |= {"HOME": str(folder), "ERL_EPMD_PORT": str(self._epmd_port), "ERL_EPMD_ADDRESS": HOST}
        self.environment |= {"ERL_CRASH_DUMP": str(folder / "erl_crash.dump")}
        self._environment = self.environment
        self._name_server: subprocess.Popen[bytes] | None = None
        basics = (f"listeners.tcp.1 = {HOST}:{port}", "loopback_users = none", "log.console = true")
        lines = (*basics, "disk_free_limit.absolute = 50MB", *settings, "")
        (folder / "rabbitmq.conf").write_text("\n".join(lines))
        (folder / "plugins").write_text("[].")

    def start(self) -> None:
        program = shutil.which("epmd") or "epmd"
        self._name_server = self._spawn((program, "-port", str(self._epmd_port), "-address", HOST))
        super().start()

    def stop(self) -> None:
        super().stop()
        if self._name_server is not None:
            self._name_server.kill()
            self._name_server.wait()
            self._name_server = None

    def control(self, *command: str) -> str:
        """What rabbitmqctl says to *command*."""
        program = Path(self.program).with_name("rabbitmqctl")
        done = subprocess.run(  # noqa: S603 - as above
            (str(program), "-q", "-n", self.node, *command), env=self.environment, capture_output=True, check=False
        )
        assert done.returncode == 0, f"rabbitmqctl {command} failed: {done.stderr.decode()}{done.stdout.decode()}"
        return done.stdout.decode()

    def _answers(self) -> bool:
        # It listens last of all; to a client that speaks of no protocol that it knows it says which it wants.
        return self._said(b"AMQP\x00\x00\x00\x00").startswith(b"AMQP")


def _rabbitmq_variables(folder: Path, node: str, port: int, distribution: int) -> dict[str, str]:
    here = {
        "NODENAME": node,
        "NODE_PORT": str(port),
        "DIST_PORT": str(distribution),
        "CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "MNESIA_BASE": str(folder / "mnesia"),
        "LOG_BASE": str(folder / "log"),
        "PID_FILE": str(folder / "pid"),
        "CONF_ENV_FILE": "/dev/null",
        # Otherwise the node would leave a daemon of its own behind.
        "SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
    }
    # So its script becomes the server, rather than a parent after whose death the server would live on.
    return {f"RABBITMQ_{name}": value for name, value in here.items()} | {"RUNNING_UNDER_SYSTEMD": "true"}
