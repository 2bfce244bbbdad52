"""Notices of the clouds that they take a machine, from metadata services on loopback that answer as theirs do."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import email.utils
import json
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from kitchen import QUEUE, kitchen

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.presence import workers_of
from dumbwaiter.brokers import open_broker
from dumbwaiter.config import WorkerSettings, load_settings
from dumbwaiter.errors import ConfigError
from dumbwaiter.message import Message
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.testing import eventually
from dumbwaiter.worker import run, spot_notices
from dumbwaiter.worker.run import run_worker
from dumbwaiter.worker.spot_notices import GCP_NOTICE, heed_notice
from http_servers import Asked, Server, response, serving

pytestmark = pytest.mark.anyio

NOT_FOUND = response(404)
NEVER = "Mon, 19 Sep 99999999999999999999 18:29:47 GMT"


def in_(seconds: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)


class Aws:
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-v2-how-it-works.html"""

    def __init__(self) -> None:
        self.taken_in: float | None = None
        self.token = "first"
        self.looks = 0

    async def answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(self._response(asked))

    def _response(self, asked: Asked) -> bytes:
        if (asked.method, asked.path) == ("PUT", "/latest/api/token"):
            known = 1 <= int(asked.headers["x-aws-ec2-metadata-token-ttl-seconds"]) <= 21_600
            return response(body=self.token.encode()) if known else response(400)
        if asked.headers.get("x-aws-ec2-metadata-token") != self.token:
            return response(401)
        if (asked.method, asked.path) != ("GET", "/latest/meta-data/spot/instance-action"):
            return response(400)
        self.looks += 1
        if self.taken_in is None:
            return NOT_FOUND
        said = {"action": "terminate", "time": in_(self.taken_in).strftime("%Y-%m-%dT%H:%M:%SZ")}
        return response(body=json.dumps(said).encode())


class Gcp:
    """https://cloud.google.com/compute/docs/metadata/querying-metadata"""

    def __init__(self) -> None:
        self.taken = asyncio.Event()
        self.looks = 0
        self.timeout = 60.0

    async def answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        url, query = urlsplit(asked.path), parse_qs(urlsplit(asked.path).query)
        if asked.headers.get("metadata-flavor") != "Google" or url.path != "/computeMetadata/v1/instance/preempted":
            writer.write(response(403))
            return
        self.looks += 1
        if query["wait_for_change"] == ["true"] and query["last_etag"] == [self._etag]:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(float(query["timeout_sec"][0]), self.timeout)):
                    await self.taken.wait()
        writer.write(response(body=b"TRUE" if self.taken.is_set() else b"FALSE", etag=self._etag))

    @property
    def _etag(self) -> str:
        return "411261ca6c9e4169" if self.taken.is_set() else "d0b4f3a3c5e3c1f2"


class Azure:
    """https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events"""

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []
        self.looks = 0

    async def answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        url, query = urlsplit(asked.path), parse_qs(urlsplit(asked.path).query)
        if asked.headers.get("metadata") != "true" or not query["api-version"]:
            writer.write(response(400))
        elif url.path == "/metadata/instance/compute/name" and query["format"] == ["text"]:
            writer.write(response(body=b"workers_3"))
        else:
            assert url.path == "/metadata/scheduledevents"
            self.looks += 1
            writer.write(response(body=json.dumps({"DocumentIncarnation": 1, "Events": self.events}).encode()))

    def event(self, machine: str, not_before: str, kind: str = "Preempt") -> dict[str, object]:
        about = {"ResourceType": "VirtualMachine", "Resources": [machine], "EventStatus": "Scheduled"}
        return {"EventId": "C7061BAC-AFDC", "EventType": kind, "NotBefore": not_before, **about}


@contextlib.asynccontextmanager
async def heeding(cloud: str, service: Aws | Gcp | Azure) -> AsyncIterator[tuple[Server, asyncio.Task[float]]]:
    async with serving(service.answer) as server:
        told: list[float] = []
        options = WorkerSettings(spot=cloud, spot_url=server.url("").rstrip("/"))
        task = asyncio.create_task(heed_notice(options, told.append))
        try:
            yield server, task
            if task.done() and not task.cancelled():
                assert told == [task.result()]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_AWS_EVERY", "_AZURE_EVERY", "_FIRST_BACK_OFF"):
        monkeypatch.setattr(spot_notices, name, 0.02)


async def test_aws_says_when_it_takes_the_machine() -> None:
    aws = Aws()
    async with heeding("aws", aws) as (server, task):
        await eventually(lambda: aws.looks > 3)
        assert not task.done()
        assert sum(asked.method == "PUT" for asked in server.asked) == 1, "one token is good for hours"
        aws.taken_in = 120.0
        assert 115.0 < await task < 121.0


async def test_a_token_that_aws_knows_no_more_is_renewed() -> None:
    aws = Aws()
    async with heeding("aws", aws) as (_, task):
        await eventually(lambda: aws.looks > 1)
        aws.token, aws.taken_in = "second", 60.0
        assert 55.0 < await task < 61.0


async def test_what_should_have_happened_by_now_leaves_no_time() -> None:
    aws = Aws()
    aws.taken_in = -5.0
    async with heeding("aws", aws) as (_, task):
        assert await task == 0.0


async def test_google_is_asked_to_answer_when_that_changes() -> None:
    gcp = Gcp()
    async with heeding("gcp", gcp) as (_, task):
        await eventually(lambda: gcp.looks == 2)
        gcp.taken.set()
        assert await task == GCP_NOTICE
    assert gcp.looks == 2, "the one that waited was answered"


async def test_google_is_asked_again_when_it_has_waited_long_enough() -> None:
    gcp = Gcp()
    gcp.timeout = 0.05
    async with heeding("gcp", gcp) as (_, task):
        await eventually(lambda: gcp.looks > 3)
        assert not task.done()


async def test_google_says_at_once_what_was_so_before() -> None:
    gcp = Gcp()
    gcp.taken.set()
    async with heeding("gcp", gcp) as (_, task):
        assert await task == GCP_NOTICE


async def test_azure_tells_all_machines_of_a_set_and_each_heeds_its_own_notice() -> None:
    azure = Azure()
    soon = email.utils.format_datetime(in_(45.0), usegmt=True)
    azure.events = [azure.event("workers_1", soon), azure.event("workers_3", soon, kind="Reboot")]
    async with heeding("azure", azure) as (_, task):
        await eventually(lambda: azure.looks > 3)
        assert not task.done()
        azure.events.append(azure.event("workers_3", soon))
        assert 35.0 < await task < 46.0


async def test_azure_says_no_time_when_it_has_begun() -> None:
    azure = Azure()
    azure.events = [azure.event("workers_3", "")]
    async with heeding("azure", azure) as (_, task):
        assert await task == 0.0


@pytest.mark.parametrize(
    ("cloud", "nonsense"),
    [
        ("aws", response(500)),
        ("gcp", response(body=b"<html>")),
        ("azure", response(body=b"[]")),
        ("azure", response(body=b'{"Events": [{"EventType": "Preempt", "Resources": null}]}')),
        ("aws", b"nonsense\r\n\r\n"),
    ],
)
async def test_what_cannot_be_understood_is_logged_once_and_asked_again(
    cloud: str, nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    service = {"aws": Aws, "gcp": Gcp, "azure": Azure}[cloud]()
    good, count = service.answer, 0

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        if count < 5:
            writer.write(nonsense)
            writer.close()
        else:
            await good(asked, writer)

    service.answer = answer  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        async with heeding(cloud, service) as (_, task):
            await eventually(lambda: service.looks > 0)
            assert not task.done()
    (record,) = caplog.records
    assert "the metadata service at http://127.0.0.1" in record.message


@pytest.mark.parametrize(
    ("cloud", "body"),
    [
        ("aws", b"[" * 200_000),
        ("azure", b"[" * 200_000),
        ("azure", json.dumps({"Events": [Azure().event("workers_3", NEVER)]}).encode()),
    ],
    ids=["deep", "deep", "a year that never comes"],
)
async def test_a_notice_in_which_a_number_or_its_depth_is_beyond_all_bounds_is_asked_for_again(
    cloud: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    service = {"aws": Aws, "azure": Azure}[cloud]()
    good, count = service.answer, 0

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        is_look = "instance-action" in asked.path or "scheduledevents" in asked.path
        count += is_look
        if is_look and count < 4:
            writer.write(response(body=body))
        else:
            await good(asked, writer)

    service.answer = answer  # type: ignore[method-assign]
    async with heeding(cloud, service) as (_, task):
        await eventually(lambda: service.looks > 0)
        assert not task.done()
    (record,) = caplog.records
    assert "it is asked again" in record.message


async def test_one_that_is_not_there_does_not_stop_the_worker(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async with serving(Aws().answer) as server:
        gone = server.url("").rstrip("/")
    options = WorkerSettings(spot="aws", spot_url=gone)
    task = asyncio.create_task(heed_notice(options, lambda _: None))
    await eventually(lambda: bool(caplog.records))
    assert not task.done()
    task.cancel()


def test_an_address_that_is_none_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"DUMBWAITER_WORKER__SPOT_URL: .*write http://"):
        load_settings(environ={"DUMBWAITER_WORKER__SPOT_URL": "169.254.169.254"})


# --- the worker ---

#: It runs until it is let go.
PATIENT = """
import time
from pathlib import Path

class Model:
    def __call__(self, text: str) -> str:
        Path(__file__).with_name("begun").touch()
        while not Path(__file__).with_name("go").exists():
            time.sleep(0.01)
        return text.upper()
"""


async def test_after_a_notice_what_can_end_in_time_ends_also_beyond_the_grace(tmp_path: Path) -> None:
    async with kitchen(tmp_path, PATIENT, options=WorkerSettings(grace=0.2)) as it:
        await it.send("long", "one")
        await eventually((tmp_path / "begun").exists)
        it.consumer.leave_by(60.0)
        await eventually(lambda: "draining" in it.states)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await asyncio.shield(it.running)
        await it.send("late", "late")
        (tmp_path / "go").touch()
        await it.running
        assert (await it.result("one")).body == b"LONG"
        stats = await it.broker.stats(QUEUE)
        assert (stats.ready, stats.locked) == (1, 0), "nothing more was taken"


async def test_what_does_not_end_before_the_machine_goes_back_in_time(tmp_path: Path) -> None:
    async with kitchen(tmp_path, PATIENT, options=WorkerSettings(grace=60.0)) as it:
        await it.send("long", "one")
        await eventually((tmp_path / "begun").exists)
        started = time.monotonic()
        it.consumer.leave_by(1.5)
        await it.running
        assert 1.0 < time.monotonic() - started < 1.5 + 2.0
        (back,) = await it.broker.receive(QUEUE, max_messages=1, max_wait=0.0)
        assert back.delivery_count == 1


async def test_what_can_hardly_end_before_the_machine_goes_back_at_once(tmp_path: Path) -> None:
    async with kitchen(tmp_path, PATIENT) as it:
        it.consumer._workload.recent.append((1, 600.0))
        await it.send("long", "one")
        await eventually((tmp_path / "begun").exists)
        started = time.monotonic()
        it.consumer.leave_by(120.0)
        await it.running
        assert time.monotonic() - started < 5.0
        assert (await it.broker.stats(QUEUE)).ready == 1


async def test_sigterm_after_a_notice_leaves_no_more_than_the_grace(tmp_path: Path) -> None:
    async with kitchen(tmp_path, PATIENT, options=WorkerSettings(grace=0.4)) as it:
        await it.send("long", "one")
        await eventually((tmp_path / "begun").exists)
        it.consumer.leave_by(120.0)
        await eventually(lambda: "draining" in it.states)
        it.stop.set()
        started = time.monotonic()
        await it.running
        assert time.monotonic() - started < 5.0
        assert (await it.broker.stats(QUEUE)).ready == 1


async def test_a_worker_that_retires_heeds_a_notice_too(tmp_path: Path) -> None:
    async with kitchen(tmp_path, PATIENT) as it:
        await it.send("long", "one")
        await eventually((tmp_path / "begun").exists)
        it.retire.set()
        await eventually(lambda: "draining" in it.states)
        it.consumer.leave_by(0.5)
        await it.running
        assert (await it.broker.stats(QUEUE)).ready == 1


@pytest.mark.parametrize("ends_by", ["the signal", "itself"])
async def test_the_whole_worker_leaves_by_the_notice_and_waits_for_the_end(
    tmp_path: Path, ends_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "AFTERWARDS", 0.2)
    (tmp_path / "network.py").write_text(PATIENT)
    (tmp_path / "go").touch()
    aws, store = Aws(), open_store(f"file://{tmp_path}/blobs")
    async with serving(aws.answer) as server, open_broker("memory:") as broker:
        states: list[str] = []
        stop = asyncio.Event()
        options = WorkerSettings(spot="aws", spot_url=server.url("").rstrip("/"))
        spec = ModelSpec(name=QUEUE, target="network:Model", project=str(tmp_path))
        task = asyncio.create_task(
            run_worker(broker, store, spec, options, on_status=lambda status: states.append(status.state), stop=stop)
        )
        await eventually(lambda: "ready" in states, within=20.0)
        aws.taken_in = 600.0 if ends_by == "the signal" else 1.5

        async def nobody_is_there() -> bool:
            return "draining" in states and await workers_of(store, QUEUE) == []

        await eventually(nobody_is_there, within=10.0)
        await broker.send(QUEUE, [Message(body=b"late", content_type="text/plain")])
        if ends_by == "the signal":
            assert not task.done(), "whoever would start it anew would do it here"
            stop.set()
        assert await task == 0
        assert (await broker.stats(QUEUE)).ready == 1
