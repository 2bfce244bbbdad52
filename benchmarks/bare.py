"""The bare references: what the same work costs without any serving system, in the same run on the same machine."""

from __future__ import annotations

import fcntl
import io
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import apsw
from PIL import Image

from models import Batchable, Picture


def batchable(requests: int) -> float:
    """Requests per second of the batchable model in a plain loop, always 16 at a time."""
    model, started = Batchable(), time.perf_counter()
    for start in range(0, requests, model.max_batch):
        model([b""] * min(model.max_batch, requests - start))
    return requests / (time.perf_counter() - started)


def picture(jpeg: bytes, requests: int) -> float:
    """Pictures per second when one process decodes and runs, one after the other."""
    model = Picture()
    model(Image.open(io.BytesIO(jpeg)))
    started = time.perf_counter()
    for _ in range(requests):
        image = Image.open(io.BytesIO(jpeg))
        image.load()
        model(image)
    return requests / (time.perf_counter() - started)


# --- a queue over SQLite written by hand, with the same durability: every send and every completion is synced ---

_SCHEMA = """
create table if not exists message(
    seq integer primary key autoincrement, id text not null unique, priority integer not null default 0,
    token integer, locked_until real, delivery_count integer not null default 0, body blob);
create index if not exists ready on message(priority desc, seq) where token is null;
create index if not exists locked on message(locked_until) where token is not null;
create table if not exists reply(seq integer primary key autoincrement, id text, body blob);
"""
_READY = "select seq, id, body from message where token is null order by priority desc, seq limit 64"
_LOCK = "update message set token=?, locked_until=?, delivery_count=delivery_count+1 where seq=?"


class HandWritten:
    """One connection of the hand-written queue: a file lock, short transactions, datagrams as wake-ups."""

    def __init__(self, folder: str, me: str, peer: str) -> None:
        self._folder, self._peer = folder, f"{folder}/{peer}"
        self.db = apsw.Connection(f"{folder}/queue.db")
        self.db.execute("pragma journal_mode=wal; pragma wal_autocheckpoint=0")
        self.db.execute(_SCHEMA)
        self._lock = os.open(f"{folder}/lock", os.O_CREAT | os.O_RDWR)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"{folder}/{me}")
        self._commits = 0

    def begin(self, synchronous: str) -> None:
        """Start a transaction that is synced (full) or not (normal) when it commits."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.db.execute(f"pragma synchronous={synchronous}; begin immediate")

    def commit(self) -> None:
        """Commit; every thousand times also move the log into the file."""
        self.db.execute("commit")
        self._commits += 1
        if self._commits % 1000 == 0:
            self.db.execute("pragma wal_checkpoint(passive)")
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def wake(self) -> None:
        """Tell the other side that there is something."""
        try:
            self._socket.sendto(b"", socket.MSG_DONTWAIT, self._peer)
        except (BlockingIOError, FileNotFoundError, ConnectionRefusedError):
            return  # it is awake, or not there yet

    def wait(self) -> None:
        """Wait until the other side has something for us."""
        self._socket.recv(16)


def serve_by_hand(folder: str) -> None:
    """The worker: lock up to 64 messages, echo them, complete them, for ever."""
    queue = HandWritten(folder, "worker", "asker")
    while True:
        token = secrets.randbits(62)
        queue.begin("normal")
        rows = list(queue.db.execute(_READY))
        until = time.monotonic() + 30.0
        queue.db.executemany(_LOCK, [(token, until, seq) for seq, _, _ in rows])
        queue.commit()
        if not rows:
            queue.wait()
            continue
        queue.begin("full")
        queue.db.executemany("insert into reply(id, body) values (?, ?)", [row[1:] for row in rows])
        queue.db.executemany("delete from message where seq=? and token=?", [(row[0], token) for row in rows])
        queue.commit()
        queue.wake()


def echo_by_hand(requests: int, in_flight: int, body: bytes) -> tuple[float, list[float]]:
    """Requests per second, and the seconds of each round trip, through the hand-written queue; answers are checked."""
    with tempfile.TemporaryDirectory() as folder:
        queue = HandWritten(folder, "asker", "worker")
        command = [sys.executable, str(Path(__file__)), folder]
        worker = subprocess.Popen(command)
        try:
            _ask_by_hand(queue, 200, in_flight, body)
            return _ask_by_hand(queue, requests, in_flight, body)
        finally:
            worker.kill()
            worker.wait()


def _ask_by_hand(queue: HandWritten, requests: int, in_flight: int, body: bytes) -> tuple[float, list[float]]:
    sent_at: dict[str, float] = {}
    took: list[float] = []
    sent, started = 0, time.perf_counter()
    while len(took) < requests:
        room = min(in_flight - len(sent_at), requests - sent)
        if room:
            queue.begin("full")
            now = time.perf_counter()
            for _ in range(room):
                name = secrets.token_hex(16)
                queue.db.execute("insert into message(id, body) values (?, ?)", (name, body))
                sent_at[name] = now
            queue.commit()
            sent += room
            queue.wake()
        queue.wait()
        queue.begin("normal")
        answers = list(queue.db.execute("delete from reply returning id, body"))
        queue.commit()
        now = time.perf_counter()
        for message, answer in answers:
            if answer != body:
                raise AssertionError("the echo is wrong")
            took.append(now - sent_at.pop(message))
    return requests / (time.perf_counter() - started), took


if __name__ == "__main__":
    serve_by_hand(sys.argv[1])
