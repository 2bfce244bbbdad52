"""A client of KEDA's service, whose messages are made from the definition on the page docs/keda.md."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from dumbwaiter.testing import eventually

PAGE = Path(__file__).parents[2] / "docs" / "keda.md"
SERVICE = "externalscaler.ExternalScaler"
SCALARS = {"string": 9, "bool": 8, "int64": 3, "double": 1}
OPTIONAL, REPEATED, MESSAGE = 1, 3, 11


def definition():
    (text,) = re.findall(r"```proto\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return text


def described():
    """The definition as descriptors, read as little as it needs."""
    file = descriptor_pb2.FileDescriptorProto(name="on-the-page.proto", package="externalscaler", syntax="proto3")
    for name, body in re.findall(r"message (\w+) \{(.*?)\}", definition(), re.DOTALL):
        message = file.message_type.add(name=name)
        for kind, field, number in re.findall(r"^ +([\w<>, ]+) (\w+) = (\d+);$", body, re.MULTILINE):
            add_field(message, kind, field, int(number))
    return file


def add_field(message, kind, field, number):
    if kind == "map<string, string>":
        entry = message.nested_type.add(name=f"{field[0].upper()}{field[1:]}Entry")
        entry.options.map_entry = True
        for name, place in (("key", 1), ("value", 2)):
            entry.field.add(name=name, number=place, label=OPTIONAL, type=SCALARS["string"])
        kind = f"repeated {message.name}.{entry.name}"
    repeated = kind.startswith("repeated ")
    kind = kind.removeprefix("repeated ")
    made = message.field.add(name=field, number=number, label=REPEATED if repeated else OPTIONAL)
    made.type = SCALARS.get(kind, MESSAGE)
    if kind not in SCALARS:
        made.type_name = f".externalscaler.{kind}"


def classes():
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described())
    names = re.findall(r"message (\w+) ", definition())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"externalscaler.{name}")) for name in names
    }


MESSAGES = classes()
VERBS = {
    verb: (asked, bool(stream), answered)
    for verb, asked, stream, answered in re.findall(r"rpc (\w+)\((\w+)\) returns \((stream )?(\w+)\);", definition())
}


class Keda:
    """What KEDA asks, for one connection; *metadata* are those of a trigger."""

    def __init__(self, port, *, trusted=None):
        address = f"127.0.0.1:{port}"
        if trusted is None:
            self.channel = grpc.aio.insecure_channel(address)
        else:
            self.channel = grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(trusted))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.channel.close()

    def call(self, verb, request, within=20.0):
        asked, is_stream, answered = VERBS[verb]
        make = self.channel.unary_stream if is_stream else self.channel.unary_unary
        known = {
            "request_serializer": MESSAGES[asked].SerializeToString,
            "response_deserializer": MESSAGES[answered].FromString,
        }
        return make(f"/{SERVICE}/{verb}", **known)(request, timeout=within)

    def reference(self, metadata):
        return MESSAGES["ScaledObjectRef"](name="infer", namespace="shop", scalerMetadata=metadata)

    async def is_active(self, **metadata):
        return (await self.call("IsActive", self.reference(metadata))).result

    async def metric_spec(self, **metadata):
        (spec,) = (await self.call("GetMetricSpec", self.reference(metadata))).metricSpecs
        return spec.metricName, spec.targetSize, spec.targetSizeFloat

    async def metric(self, name="", **metadata):
        request = MESSAGES["GetMetricsRequest"](scaledObjectRef=self.reference(metadata), metricName=name)
        (value,) = (await self.call("GetMetrics", request)).metricValues
        assert value.metricValue == value.metricValueFloat
        return value.metricName, value.metricValueFloat

    @contextlib.asynccontextmanager
    async def following(self, **metadata):
        """A StreamIsActive, until the block ends."""
        call = self.call("StreamIsActive", self.reference(metadata), within=None)
        stream = Stream(call)
        try:
            yield stream
        finally:
            call.cancel()
            stream.reading.cancel()
            await asyncio.gather(stream.reading, return_exceptions=True)


class Stream:
    """What a stream told, each with its moment on time.monotonic(); *ended* is how it did."""

    def __init__(self, call):
        self.told = []
        self.ended = None
        self.call = call
        self.reading = asyncio.create_task(self._read())

    async def _read(self):
        try:
            async for response in self.call:
                self.told.append((time.monotonic(), response.result))
        except grpc.aio.AioRpcError as error:
            self.ended = error.code()
        else:
            self.ended = grpc.StatusCode.OK

    async def next_is(self, state):
        """Wait until it has told *state* last."""
        await eventually(lambda: self.states[-1:] == [state], what=f"{state}, after {self.states}")

    async def end(self):
        """Wait until it has ended, however that was."""
        await eventually(self.reading.done, what=f"the end, after {self.states}")

    @property
    def states(self):
        return [state for _, state in self.told]


@contextlib.contextmanager
def refused(code, match=""):
    """The block's call fails with this status, and its details match."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    assert caught.value.code() is code, caught.value
    assert re.search(match, caught.value.details()), caught.value.details()


async def outcome(call):
    """What it returns, or else the status that it fails with."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return error.code()
