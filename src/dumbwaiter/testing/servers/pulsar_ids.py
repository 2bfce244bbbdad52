"""pulsar-lite with ids of consumers that are told apart by connection, as Apache Pulsar tells them.

A client numbers its consumers from 0 on. pulsar-lite 0.2.0 takes these numbers for those of the whole subscription, so
that of two clients that consume alike it sends one away. This stands before it, on the port that clients know, and adds
to every number what is its connection's alone; nothing else of what is said is changed, but the address in the answer
to a look-up, which would lead past it.

python -m dumbwaiter.testing.servers.pulsar_ids PORT [--tls KEY CERTIFICATE] PROGRAM ARGUMENT...

takes TLS on the port if it has a certificate. It starts the program with ``--addr 127.0.0.1:...`` behind its arguments,
and ends it when it ends itself, also by kill -9.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import signal
import socket
import ssl
import subprocess
import sys
import time

HOST = "127.0.0.1"
_PR_SET_PDEATHSIG = 1
_EACH = 1_000_000
"""How many consumers a connection may have."""

#: Number of a command in BaseCommand -> that of its field ``consumer_id``. Source: PulsarApi.proto of Apache Pulsar.
_CONSUMER_ID = {4: 4, 9: 1, 10: 1, 11: 1, 12: 1, 16: 1, 20: 1, 25: 4, 27: 1, 28: 1, 29: 1, 31: 1, 38: 1}
_LOOKUP_ANSWER, _SERVICE_URL, _SERVICE_URL_TLS = 24, 1, 2
_VARINT, _BYTES = 0, 2


def rewritten(command: bytes, *, add: int, url: bytes) -> bytes:
    """A BaseCommand with *add* added to the consumer's id, and *url* for the address that a look-up has found."""
    out = bytearray()
    for number, kind, value in _fields(command):
        if number == _LOOKUP_ANSWER and isinstance(value, bytes):
            _write(out, number, kind, _found_at(value, url))
        elif number in _CONSUMER_ID and isinstance(value, bytes):
            _write(out, number, kind, _added(value, _CONSUMER_ID[number], add))
        else:
            _write(out, number, kind, value)
    return bytes(out)


def _added(message: bytes, field: int, add: int) -> bytes:
    out = bytearray()
    for number, kind, value in _fields(message):
        _write(out, number, kind, value + add if number == field and isinstance(value, int) else value)
    return bytes(out)


def _found_at(message: bytes, url: bytes) -> bytes:
    out = bytearray()
    for number, kind, value in _fields(message):
        if number not in (_SERVICE_URL, _SERVICE_URL_TLS):
            _write(out, number, kind, value)
    _write(out, _SERVICE_URL_TLS if url.startswith(b"pulsar+ssl:") else _SERVICE_URL, _BYTES, url)
    return bytes(out)


def _fields(message: bytes) -> list[tuple[int, int, int | bytes]]:
    """The fields of a protobuf message: number, wire type and value; fixed ones as their bytes."""
    fields: list[tuple[int, int, int | bytes]] = []
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            number, place = _varint(message, place)
            fields.append((key >> 3, kind, number))
            continue
        length = 8 if kind == 1 else 4
        if kind == _BYTES:
            length, place = _varint(message, place)
        fields.append((key >> 3, kind, message[place : place + length]))
        place += length
    return fields


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place


def _write(out: bytearray, number: int, kind: int, value: int | bytes) -> None:
    _write_varint(out, number << 3 | kind)
    if isinstance(value, int):
        _write_varint(out, value)
        return
    if kind == _BYTES:
        _write_varint(out, len(value))
    out += value


def _write_varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, add: int, url: bytes) -> None:
    """Frames of *reader* to *writer*, until either ends. A frame: its length, a command with its length, and a rest."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            whole = int.from_bytes(await reader.readexactly(4), "big")
            frame = await reader.readexactly(whole)
            size = int.from_bytes(frame[:4], "big")
            command, rest = rewritten(frame[4 : 4 + size], add=add, url=url), frame[4 + size :]
            lengths = (4 + len(command) + len(rest)).to_bytes(4, "big") + len(command).to_bytes(4, "big")
            writer.write(b"".join((lengths, command, rest)))
            await writer.drain()
    writer.close()


async def _serve(port: int, behind: int, context: ssl.SSLContext | None) -> None:
    url = f"{'pulsar+ssl' if context else 'pulsar'}://{HOST}:{port}".encode()
    numbers = itertools.count(1)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        add = next(numbers) * _EACH
        try:
            inner_reader, inner_writer = await asyncio.open_connection(HOST, behind)
        except OSError:
            writer.close()
            return
        for stream in (writer, inner_writer):
            stream.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(
            _pass_on(reader, inner_writer, add, url), _pass_on(inner_reader, writer, -add, url), return_exceptions=True
        )

    server = await asyncio.start_server(connect, HOST, port, ssl=context)
    async with server:
        await server.serve_forever()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _started(command: list[str], behind: int) -> subprocess.Popen[bytes]:
    """The program, listening. Whoever had its files before may be about to end: it is started again for a while."""
    give_up_at = time.monotonic() + 10
    while True:
        process = subprocess.Popen(  # noqa: S603 - the tests' own server
            [*command, "--addr", f"{HOST}:{behind}"],
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread runs yet
        )
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((HOST, behind), timeout=1.0):
                return process
            time.sleep(0.01)
        if time.monotonic() > give_up_at:
            sys.exit(f"{command[0]} ended with {process.returncode}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        port: int = one.getsockname()[1]
    return port


def _main(port: int, command: list[str]) -> None:
    context = None
    if command[0] == "--tls":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(command[2], command[1])
        command = command[3:]
    behind = _free_port()
    process = _started(command, behind)
    try:
        asyncio.run(_serve(port, behind, context))
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
