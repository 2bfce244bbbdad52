"""Weights are fetched once for a node: whole or not at all, whoever dies and however many want them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import io
import os
import re
import subprocess
import sys
import threading
import traceback
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter import object_stores
from dumbwaiter.blobs import open_store
from dumbwaiter.errors import ModelLoadError
from dumbwaiter.models import downloading
from dumbwaiter.models.downloading import _boot
from dumbwaiter.models.progress import Progress, bar
from dumbwaiter.models.weights import local_weights
from dumbwaiter.testing import eventually
from store_servers import SERVER_KINDS

SCRIPT = Path(__file__).with_name("download_process.py")
NBYTES = 24 * 1024 * 1024


class SlowStore(ThreadingHTTPServer):
    """An object by GET, with ranges; it stops after *pause_after* bytes of an answer until *goes_on*.

    *of_ranges*: status, headers, first byte and end of what it answers to any range, where that is not as it should be.
    *is_replaced_then*: after such an answer; and it knows no conditions.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _SlowRequest)
        self.body = os.urandom(NBYTES)
        self.pause_after = None
        self.goes_on = threading.Event()
        self.sent = []
        self.of_ranges = None
        self.is_replaced_then = False

    def replace(self):
        self.body = os.urandom(NBYTES)


class _SlowRequest(BaseHTTPRequestHandler):
    def do_GET(self):
        body, tag = self.server.body, f'"{hashlib.md5(self.server.body).hexdigest()}"'
        if self.headers.get("if-match") not in {None, tag} and not self.server.is_replaced_then:
            self.send_response(412)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        if asked and self.server.of_ranges is not None:
            self.answer_strangely(body, tag)
            return
        start = int(asked[1]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", tag)
        self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        self.end_headers()
        stop = self.server.pause_after
        try:
            self.wfile.write(body[start:stop])
            if stop is not None:
                self.server.goes_on.wait(30)
                self.wfile.write(body[max(start, stop) :])
            self.server.sent.append(start)
        except OSError:
            pass  # whoever asked has died

    def answer_strangely(self, body, tag):
        status, headers, start, end = self.server.of_ranges
        part = body[start:end]
        if self.server.is_replaced_then:
            self.server.replace()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(part)), "ETag": tag}.items():
            self.send_header(name, value)
        self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(part)

    def log_message(self, *args):
        pass


@pytest.fixture
def slow(monkeypatch):
    server = SlowStore()
    for name, value in {
        "AWS_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_REGION": "local",
    }.items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.goes_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetching(tmp_path):
    """Start processes that fetch into one folder; what still runs is killed after the test."""
    children = []

    def start(uri="s3://kitchen/net.bin"):
        command = [sys.executable, str(SCRIPT), uri, str(tmp_path)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        children.append(subprocess.Popen(command, text=True, **pipes))
        return children[-1]

    yield start
    for one in children:
        one.kill()
        one.communicate()


def kept(tmp_path, pattern="[!.]*"):
    return sorted((tmp_path / ".dumbwaiter/weights").glob(pattern))


def unfinished_nbytes(tmp_path):
    return sum(path.stat().st_size for path in kept(tmp_path, ".tmp-*"))


def content(said):
    return Path(said.strip()).read_bytes()


async def kill_in_the_middle(slow, fetching, tmp_path):
    slow.pause_after = NBYTES // 2
    first = fetching()
    await eventually(lambda: unfinished_nbytes(tmp_path) >= NBYTES // 4, what="a part of the weights")
    first.kill()
    first.wait()
    assert kept(tmp_path) == []
    slow.pause_after = None


@pytest.mark.anyio
async def test_who_comes_after_a_process_that_was_killed_reads_on_where_it_stopped(slow, fetching, tmp_path):
    await kill_in_the_middle(slow, fetching, tmp_path)
    there = unfinished_nbytes(tmp_path)
    out, said = await asyncio.to_thread(fetching().communicate)
    assert content(out) == slow.body
    assert slow.sent[-1] == there > 0
    assert f"going on after {there:,} bytes that are there" in said
    assert kept(tmp_path, ".tmp-*") == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    "of_ranges",
    [
        (200, {}, 0, NBYTES),
        (206, {}, 5, NBYTES),
        (206, {"Content-Range": f"bytes 0-4/{NBYTES}"}, 0, 5),
        (206, {"Content-Range": "some"}, 0, 5),
        (416, {}, 0, 0),
    ],
    ids=["all-of-it", "an-unnamed-part", "another-part", "an-unreadable-part", "refused"],
)
async def test_from_a_store_that_gives_no_parts_all_of_it_is_fetched_again(slow, fetching, tmp_path, of_ranges):
    await kill_in_the_middle(slow, fetching, tmp_path)
    slow.of_ranges = of_ranges
    process = fetching()
    out, said = await asyncio.to_thread(process.communicate)
    assert content(out) == slow.body
    assert "its store gives no part of it; fetching all of it again" in said
    assert kept(tmp_path, ".tmp-*") == []


@pytest.mark.anyio
async def test_a_store_that_fails_meanwhile_costs_nothing_of_the_part(slow, fetching, tmp_path, monkeypatch):
    await kill_in_the_middle(slow, fetching, tmp_path)
    there = unfinished_nbytes(tmp_path)
    slow.of_ranges = (500, {}, 0, 0)
    monkeypatch.setattr(downloading, "connect", partial(object_stores.connect, retry_for=0.1))
    with pytest.raises(ModelLoadError, match="500 Internal Server Error"):
        await asyncio.to_thread(local_weights, "s3://kitchen/net.bin", project=tmp_path)
    assert unfinished_nbytes(tmp_path) == there
    slow.of_ranges = None
    assert local_weights("s3://kitchen/net.bin", project=tmp_path).read_bytes() == slow.body
    assert slow.sent[-1] == there


@pytest.mark.anyio
async def test_an_object_that_is_replaced_before_all_of_it_is_fetched_again_is_not_mixed(slow, fetching, tmp_path):
    """Such a store may not know conditions either."""
    await kill_in_the_middle(slow, fetching, tmp_path)
    slow.of_ranges = (200, {}, 0, NBYTES)
    slow.is_replaced_then = True
    out, _ = await asyncio.to_thread(fetching().communicate)
    assert "it was replaced in this moment; start again" in out
    slow.of_ranges = None
    out, _ = await asyncio.to_thread(fetching().communicate)
    assert content(out) == slow.body


@pytest.mark.anyio
async def test_a_part_of_an_object_that_was_replaced_since_is_not_used(slow, fetching, tmp_path):
    await kill_in_the_middle(slow, fetching, tmp_path)
    slow.replace()
    out, _ = await asyncio.to_thread(fetching().communicate)
    assert content(out) == slow.body


@pytest.mark.anyio
async def test_a_part_from_before_the_machine_was_started_anew_is_not_used(slow, fetching, tmp_path):
    await kill_in_the_middle(slow, fetching, tmp_path)
    [part] = kept(tmp_path, ".tmp-*")
    part.rename(re.sub(r"\.tmp-\w+-", ".tmp-another0boot-", str(part)))
    out, said = await asyncio.to_thread(fetching().communicate)
    assert content(out) == slow.body
    assert "going on" not in said
    assert kept(tmp_path, ".tmp-*") == []


def test_each_run_of_the_machine_names_what_it_leaves_unfinished_otherwise(tmp_path, monkeypatch):
    names = {_boot()}
    for text in ("0f9e8d7c-0000\n", "1f9e8d7c-0000\n"):
        (tmp_path / "boot_id").write_text(text)
        monkeypatch.setattr("dumbwaiter.boot._BOOT_ID", tmp_path / "boot_id")
        names.add(_boot())
    monkeypatch.setattr("dumbwaiter.boot._BOOT_ID", tmp_path / "missing")
    assert len(names | {_boot()}) == 4


def test_the_name_of_what_was_fetched_is_synced_after_it_has_it(slow, tmp_path, monkeypatch):
    """Else a worker may find the file gone after the machine's fall, though its log says that it is here."""
    synced = []

    def fsync(descriptor):
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), bool(kept(tmp_path))))
        real(descriptor)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    path = local_weights("s3://kitchen/net.bin", project=tmp_path)
    assert [one.name.startswith(".tmp-") for one, _ in synced[:1]] == [True]
    assert synced[1:] == [(path.parent, True)]


@pytest.mark.anyio
async def test_workers_that_start_at_once_wait_for_one_download(slow, fetching, tmp_path):
    slow.pause_after = NBYTES // 2
    workers = [fetching() for _ in range(4)]
    waiting = asyncio.gather(*(asyncio.to_thread(one.communicate) for one in workers))
    await eventually(lambda: unfinished_nbytes(tmp_path) >= NBYTES // 4, what="a part of the weights")
    slow.pause_after = None
    slow.goes_on.set()
    told = await waiting
    [path] = kept(tmp_path)
    assert {out.strip() for out, _ in told} == {str(path)}
    assert path.read_bytes() == slow.body
    assert sum("MB are here" in said for _, said in told) == 1


def test_who_waits_for_another_process_says_so(slow, tmp_path, capsys):
    local_weights("s3://kitchen/net.bin", project=tmp_path)
    [path] = kept(tmp_path)
    path.unlink()
    holder = path.with_name(f".lock-{path.name}").open("ab")
    fcntl.flock(holder, fcntl.LOCK_EX)
    threading.Timer(0.3, holder.close).start()
    assert local_weights("s3://kitchen/net.bin", project=tmp_path).read_bytes() == slow.body
    assert "another process fetches it; waiting for that" in capsys.readouterr().err


def test_a_disk_that_is_full_keeps_no_part_and_is_named(slow, tmp_path):
    limited = f"ulimit -f {NBYTES // 2048}; exec {sys.executable} {SCRIPT} s3://kitchen/net.bin {tmp_path}"
    ended = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert ended.stdout == "weights s3://kitchen/net.bin cannot be fetched: [Errno 27] File too large\n"
    assert kept(tmp_path, "*[!k]*") == kept(tmp_path, ".lock-*")


def test_a_digest_in_the_uri_is_checked_and_then_no_store_is_asked(slow, tmp_path, monkeypatch):
    uri = f"s3://kitchen/net.bin#sha256={hashlib.sha256(slow.body).hexdigest()}"
    path = local_weights(uri, project=tmp_path)
    assert path.read_bytes() == slow.body
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")
    assert local_weights(uri, project=tmp_path) == path


def test_a_pin_that_only_begins_like_that_of_a_file_in_the_cache_is_refused(slow, tmp_path):
    digest = hashlib.sha256(slow.body).hexdigest()
    local_weights(f"s3://kitchen/net.bin#sha256={digest}", project=tmp_path)
    with pytest.raises(ModelLoadError, match=f"its SHA-256 is {digest}"):
        local_weights(f"s3://kitchen/net.bin#sha256={digest[:60]}{'0' * 4}", project=tmp_path)


def test_a_pinned_file_that_was_changed_since_is_fetched_anew(slow, tmp_path):
    uri = f"s3://kitchen/net.bin#sha256={hashlib.sha256(slow.body).hexdigest()}"
    for _ in range(2):  # also once it is known to be good
        path = local_weights(uri, project=tmp_path)
        assert local_weights(uri, project=tmp_path).read_bytes() == slow.body
        before = path.stat()
        path.write_bytes(os.urandom(len(slow.body)))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert local_weights(uri, project=tmp_path).read_bytes() == slow.body
    assert len(slow.sent) >= 3


@pytest.mark.parametrize(
    "name", ["a**b.bin", "a[1].bin", "x\ny.bin", "..", "n\0l.bin", "\x1b[31mred.bin", "\xfc" * 150 + ".bin"]
)
def test_a_name_that_is_odd_is_fetched_or_refused_as_any_other(slow, tmp_path, name):
    refused = ""
    try:
        path = local_weights(f"s3://kitchen/{name}", project=tmp_path)
    except ModelLoadError as error:
        refused = str(error)
    assert not set(refused) & set("\n\x1b\0")
    if not refused:
        assert path.read_bytes() == slow.body
        assert path.suffix in {".bin", ""}
        assert path.parent == tmp_path / ".dumbwaiter/weights"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:s3cret@kitchen/net.bin",
        "s3://kitchen/net.bin?X-Amz-Signature=s3cret",
        "az://s3cret@account/net.bin",
        "https://user:s3cret@host/net.bin?sig=s3cret",
        "s3://AKIA:s3cret@kitchen/net.bin#sha256=short",
    ],
)
def test_what_is_secret_in_a_uri_is_told_to_nobody(tmp_path, monkeypatch, capfd, uri):
    for name, value in {"AWS_ENDPOINT": "http://127.0.0.1:9", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "local"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setattr(downloading, "connect", partial(object_stores.connect, retry_for=0.1))
    with pytest.raises(ModelLoadError) as caught:
        local_weights(uri, project=tmp_path)
    told = [str(caught.value), *capfd.readouterr(), *traceback.format_exception(caught.value)]
    assert "s3cret" not in "".join(told).replace(uri, "")  # our own source lines hold none


def test_weights_of_another_digest_are_refused_and_thrown_away(slow, tmp_path):
    said = f"its SHA-256 is {hashlib.sha256(slow.body).hexdigest()}; it was changed or damaged"
    for _ in range(2):
        with pytest.raises(ModelLoadError, match=said):
            local_weights(f"s3://kitchen/net.bin#sha256={'0' * 64}", project=tmp_path)
    assert kept(tmp_path) == kept(tmp_path, ".tmp-*") == []


@pytest.mark.parametrize("fragment", ["", "md5=00", "sha256=", "sha256=xyz", f"sha256={'0' * 63}"])
def test_a_fragment_that_is_no_digest_is_refused(tmp_path, fragment):
    with pytest.raises(ModelLoadError, match="after # stands sha256= and 64 hex digits"):
        local_weights(f"s3://kitchen/net.bin#{fragment}", project=tmp_path)


@pytest.mark.anyio
@pytest.mark.parametrize("name", SERVER_KINDS)
async def test_weights_come_from_a_real_store_and_a_part_of_them_is_completed(
    name, store_server, monkeypatch, tmp_path, fetching
):
    server = store_server(name)
    for key, value in server.environment.items():
        monkeypatch.setenv(key, value)
    body, url = os.urandom(12 * 1024 * 1024), server.new_url()
    await open_store(url).put("net.bin", body)
    path = local_weights(f"{url}/net.bin", project=tmp_path)
    assert path.read_bytes() == body
    path.with_name(f".tmp-{_boot()}-{path.name}").write_bytes(body[:5_000_000])
    path.unlink()
    out, said = await asyncio.to_thread(fetching(f"{url}/net.bin").communicate)
    assert content(out) == body
    assert "going on after 5,000,000 bytes" in said


@given(st.integers(0, 10**13), st.integers(0, 10**13), st.floats(0, 1e12))
def test_a_bar_is_as_wide_whatever_it_shows(done, size, rate):
    assert re.fullmatch(r"\[#*\.*\] [\d,.]+ of [\d,.]+ MB, [\d,.]+ MB/s", bar(done, size, rate))
    assert len(bar(done, size, rate).partition("]")[0]) == 31


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_person_sees_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("s3://kitchen/net.bin", 2_000_000) as progress:
        progress.show(2_000_000)
    assert f"\rweights s3://kitchen/net.bin [{'#' * 30}] 2.0 of 2.0 MB, " in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")
