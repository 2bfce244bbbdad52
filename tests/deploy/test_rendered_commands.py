"""What the containers are told to run runs, with their settings and variables, and their probes see it.

There is no cluster: each command is a process of this machine, with the folders of the image and its volumes in a
temporary one, over a real Redis server.
"""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest
from projects import settings as some_settings

from dumbwaiter.config import ModelSettings, ScalingSettings
from dumbwaiter.deploy import places
from dumbwaiter.deploy.kubernetes import project_of, rendered
from dumbwaiter.testing import eventually
from dumbwaiter.testing.servers import RedisServer, free_port, redis_program
from processes import environment, make_project

pytestmark = pytest.mark.anyio

PLACES = (places.CERTIFICATES, places.SETTINGS, places.STATE, places.LEDGERS, places.BLOBS, places.PROJECT)


class Node:
    """Runs containers of rendered Deployments. Ports and folders of theirs are others here."""

    def __init__(self, folder, of, broker):
        self._folder = folder
        self._broker = broker
        self._objects = {(one.object["kind"], one.object["metadata"]["name"]): one.object for one in rendered(of)}
        self.ports = {port: free_port() for port in (places.GATEWAY_PORT, places.SCALER_PORT, places.SCALER_HTTP_PORT)}
        make_project(self._here_folder(places.PROJECT))
        text = self._objects["ConfigMap", "settings"]["data"]["dumbwaiter.toml"]
        self._here_folder(places.SETTINGS).joinpath("dumbwaiter.toml").write_text(self._here(text))
        self.running = []

    def container(self, name):
        (found,) = self._objects["Deployment", name]["spec"]["template"]["spec"]["containers"]
        return found

    def run(self, name):
        """Start the container of the Deployment *name*."""
        process = subprocess.Popen(self._command(self.container(name)["command"]), **self._circumstances(name))
        self.running.append(process)
        return process

    def probe(self, name, kind):
        """Whether the probe *kind* of the Deployment *name* passes."""
        found = self.container(name)[f"{kind}Probe"]
        if "exec" in found:
            return subprocess.call(self._command(found["exec"]["command"]), **self._circumstances(name)) == 0
        page = found["httpGet"]
        try:
            return httpx.get(f"http://127.0.0.1:{self.ports[page['port']]}{page['path']}").is_success
        except httpx.TransportError:
            return False

    def execute(self, name, *arguments):
        circumstances = self._circumstances(name) | {"stdout": subprocess.PIPE, "text": True}
        return subprocess.run(self._command(["dumbwaiter", *arguments]), check=True, **circumstances).stdout

    def _command(self, words):
        assert words[0] == "dumbwaiter"
        return [sys.executable, "-m", *words]

    def _circumstances(self, name):
        variables = {one["name"]: self._here(one["value"]) for one in self.container(name)["env"] if "value" in one}
        ports = dict(zip(("GATEWAY__PORT", "SCALER__GRPC_PORT", "SCALER__HTTP_PORT"), self.ports.values(), strict=True))
        variables |= {f"DUMBWAITER_{key}": str(port) for key, port in ports.items()}
        variables["DUMBWAITER_BROKER"] = self._broker
        if "DUMBWAITER_HEARTBEAT" in variables:  # in a folder of each container's own
            variables["DUMBWAITER_HEARTBEAT"] = str(self._folder / f"{name}.beat")
        return {
            "cwd": self._here(self.container(name)["workingDir"]),
            "env": environment(**{key: value for key, value in variables.items() if key not in {"HOME", "TMPDIR"}}),
            "stderr": subprocess.DEVNULL,
        }

    def _here(self, text):
        for place in PLACES:
            text = text.replace(place, str(self._folder / place.strip("/").replace("/", "-")))
        return text

    def _here_folder(self, place):
        folder = self._folder / place.strip("/").replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def stop(self):
        for process in self.running:
            process.terminate()
        return [process.wait(timeout=60) for process in self.running]


@pytest.fixture
def node(tmp_path):
    server = RedisServer(redis_program(), tmp_path / "redis")
    server.start()
    models = {"shout": ModelSettings(target="light:Shout", device="none", scaling=ScalingSettings(max_replicas=2))}
    of = project_of(some_settings("redis", models=models, blobs="file:/blobs", storage="blobs"))
    node = Node(tmp_path, of, server.url)
    try:
        yield node
    finally:
        codes = node.stop()
        server.stop()
    assert codes == [0] * len(codes)


@pytest.mark.timeout(180)
async def test_all_of_it_serves_a_caller(node):
    for name in ("courier", "worker-shout", "scaler"):
        node.run(name)
        for kind in ("startup", "liveness", "readiness"):
            await eventually(lambda name=name, kind=kind: node.probe(name, kind), within=60.0)
    key = node.execute("courier", "keys", "create", "--name", "first").strip()
    node.run("gateway")
    for kind in ("startup", "liveness", "readiness"):
        await eventually(lambda kind=kind: node.probe("gateway", kind), within=60.0)
    port = node.ports[places.GATEWAY_PORT]
    async with httpx.AsyncClient(timeout=30.0) as client:
        answer = await client.post(
            f"http://127.0.0.1:{port}/v1/models/shout/predictions",
            content="hello",
            headers={"Authorization": f"Bearer {key}", "Content-Type": "text/plain"},
        )
        assert answer.json()["output"] == "HELLO"
        page = await client.get(f"http://127.0.0.1:{node.ports[places.SCALER_HTTP_PORT]}/v1/scale/shout")
        assert page.json()["desired"] >= 0
