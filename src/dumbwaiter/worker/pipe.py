"""What consumer and runner say to each other over a socket pair: frames of msgpack metadata, then raw bodies.

Frame: metadata length (u32), bodies' length (u64), metadata, bodies one after the other. Never pickled.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from dumbwaiter.devices import admission
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.policies.footprints import Footprint, Observation
from dumbwaiter.policies.retrying import Fault as FaultKind

_HEADER = struct.Struct("<IQ")
_MAX_BUFFERS = 512
_MOST_META_NBYTES = 256 * 1024 * 1024


class Load(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """To the runner, first of all: construct this model.

    *device* is the address of the device that it shares with others, for open_allocator(); None when it shares none.
    *probes*: nobody else uses that device until Ready is said, so measure there what the model takes.
    """

    spec: ModelSpec
    device: str | None = None
    probes: bool = False


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One input. *deadline* in Unix seconds; *received_at* on the monotonic clock, which both processes share.

    *reports*: its progress is wanted, and it may be cancelled.
    """

    slot: int
    content_type: str | None
    nbytes: int
    deadline: float | None
    received_at: float
    alone: bool
    reports: bool = False


class Predict(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """To the runner: inputs, their bodies following in order.

    From now on it runs *most* inputs at once, those it already has as well; None: as many as it likes.
    """

    items: list[Item]
    most: int | None = None


class Drop(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """To the runner: do not start these inputs; those that had not started come back as Returned."""

    slots: list[int]


class Drain(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """To the runner: start nothing more; say what was not started."""


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """From the runner: the model stands, and takes *footprint* of the device that it shares; None if it shares none."""

    max_batch: int
    signature: dict[str, Any]
    load_seconds: float
    footprint: Footprint | None = None


class LoadFailed(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """From the runner: the model could not be constructed; the runner exits."""

    message: str
    detail: str


OUT_OF_MEMORY = "out-of-memory"
"""The code of a fault of an input for which the device had too little memory left."""


class Fault(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why one input has no output."""

    kind: FaultKind
    code: str
    message: str
    detail: str = ""


class Result(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The outcome of one input; times in seconds, *batched* from receive to the start of its batch."""

    slot: int
    content_type: str
    nbytes: int
    batched: float
    device: float
    batch_size: int
    fault: Fault | None = None


class Done(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """From the runner: outcomes, bodies following; *target* and *seconds_each* are what batching has learnt, and
    *decode_seconds* what one thread takes to decode an input.

    *target* is what is worth aiming at, whatever Predict.most allows just now. *observations*: what batches took of the
    device that it shares. *out_of_memory*: the device lacked room for a batch, or for the weights that were to be woken
    for it; what was not run for that reason comes as Returned, after this.
    """

    results: list[Result]
    target: int
    seconds_each: float
    observations: list[Observation] = []
    out_of_memory: bool = False
    decode_seconds: float = 0.0


class Returned(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """From the runner, after Drain or Drop, or when the device lacks room: these have not run and will not."""

    slots: list[int]


class Report(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How the input in *slot* is getting on: its model starts, an encoded chunk of its output, text that it printed."""

    slot: int
    event: Literal["start", "output", "log"]
    content_type: str = ""
    nbytes: int = 0


class Progress(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """From the runner, for inputs that report: chunks and texts following in order."""

    reports: list[Report]


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """To the runner: nobody wants these outputs any more. As Drop, and a batch of nothing else is interrupted."""

    slots: list[int]


class Found(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """From the runner, before Ready or LoadFailed: there is a class of that name, and it could be imported."""


class Move(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """To the runner: between two batches, empty its cache on the device, or park or wake its weights."""

    what: admission.What


class Moved(admission.Moved, frozen=True, array_like=True, tag=13):
    """From the runner, one for each Move, in order. A runner that shares no device moves nothing."""


ToRunner: TypeAlias = Load | Predict | Drop | Drain | Cancel | Move
FromRunner: TypeAlias = Found | Ready | LoadFailed | Done | Returned | Progress | Moved
_encode = msgspec.msgpack.Encoder().encode
_decode_to_runner = msgspec.msgpack.Decoder(ToRunner).decode
_decode_from_runner = msgspec.msgpack.Decoder(FromRunner).decode


def frame(meta: ToRunner | FromRunner, bodies: Sequence[bytes | memoryview] = ()) -> list[bytes | memoryview]:
    """The buffers of one frame, for a scattering send."""
    encoded = _encode(meta)
    return [_HEADER.pack(len(encoded), sum(map(len, bodies))) + encoded, *(body for body in bodies if len(body))]


def split(nbytes: Sequence[int], bodies: memoryview) -> Iterator[memoryview]:
    """Cut *bodies* into pieces of *nbytes* each."""
    start = 0
    for length in nbytes:
        yield bodies[start : start + length]
        start += length


class RunnerEnd:
    """The runner's end of the pipe: blocking, for threads. Sending is for one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(True)

    def receive(self) -> tuple[ToRunner, memoryview]:
        """The next frame. Raises EOFError when the consumer is gone."""
        meta_nbytes, bodies_nbytes = _HEADER.unpack(self._exactly(_HEADER.size))
        meta = _decode_to_runner(self._exactly(meta_nbytes))
        return meta, self._exactly(bodies_nbytes)

    def send(self, meta: FromRunner, bodies: Sequence[bytes | memoryview] = ()) -> None:
        """Send one frame whole. Raises OSError when the consumer is gone."""
        buffers = frame(meta, bodies)
        while buffers:
            sent = self._sock.sendmsg(buffers[:_MAX_BUFFERS])
            while buffers and sent >= len(buffers[0]):
                sent -= len(buffers.pop(0))
            if sent:
                buffers[0] = memoryview(buffers[0])[sent:]

    def close(self) -> None:
        """Close this process's end."""
        self._sock.close()

    def _exactly(self, nbytes: int) -> memoryview:
        whole = memoryview(bytearray(nbytes))
        got = 0
        while got < nbytes:
            count = self._sock.recv_into(whole[got:])
            if count == 0:
                raise EOFError("the consumer closed the pipe")
            got += count
        return whole


class ConsumerEnd:
    """The consumer's end of the pipe: asyncio streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> ConsumerEnd:
        """Take over a connected socket."""
        reader, writer = await asyncio.open_connection(sock=sock, limit=4 * 1024 * 1024)
        return cls(reader, writer)

    async def receive(self) -> tuple[FromRunner, memoryview]:
        """The next frame. Raises EOFError or OSError when the runner is gone, anything else when it talks nonsense."""
        meta_nbytes, bodies_nbytes = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
        if meta_nbytes > _MOST_META_NBYTES:
            raise ValueError(f"a frame that claims {meta_nbytes} bytes of metadata is none")
        meta = _decode_from_runner(await self._reader.readexactly(meta_nbytes))
        return meta, memoryview(await self._reader.readexactly(bodies_nbytes) if bodies_nbytes else b"")

    async def send(self, meta: ToRunner, bodies: Sequence[bytes | memoryview] = ()) -> None:
        """Send one frame; returns when the runner's socket has room again. Raises OSError when it is gone."""
        if self._writer.is_closing():  # uvloop would raise a RuntimeError
            raise ConnectionResetError("the pipe to the runner is closed")
        self._writer.writelines(frame(meta, bodies))
        await self._writer.drain()

    def close(self) -> None:
        """Close the socket; the runner sees the end of the pipe and exits."""
        self._writer.close()
