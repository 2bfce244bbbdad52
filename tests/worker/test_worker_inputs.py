"""Inputs that lie elsewhere: what counts as one, and what becomes of those that cannot be fetched."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kitchen import QUEUE, Kitchen, kitchen

from dumbwaiter.answers import failure_of
from dumbwaiter.config import OutboundSettings, WorkerSettings
from dumbwaiter.message import WEBHOOKS_QUEUE, Message, is_url
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.models.loading import load_model
from dumbwaiter.notification import read
from dumbwaiter.testing import eventually
from dumbwaiter.worker.fetching import PLACES
from dumbwaiter.worker.inputs import Order, Places, may_hold_urls, order_of, urls_of, with_files

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("imports_are_forgotten")]

HERE = OutboundSettings(allow_http=True, allowed_networks=["127.0.0.1/32"], fetch_timeout=5.0)
URL = "https://pictures.example/cat.png"
SIZE = """
import numpy
import PIL.Image

class Model:
    def __call__(self, image: PIL.Image.Image) -> str:
        return f"{image.width}x{image.height}"
"""
SEVERAL = """
import numpy
import PIL.Image

class Model:
    def __call__(self, image: PIL.Image.Image, mask: numpy.ndarray = None, blob: bytes = b"", title: str = "") -> str:
        return f"{image.width} {None if mask is None else mask.dtype} {len(blob)} {title}"
"""


def places(folder: Path, code: str) -> Places:
    (folder / "network.py").write_text(code)
    model = load_model(ModelSpec(name="dish", target="network:Model", project=str(folder)))
    return Places.of(model.describe()["input"])


DEEP = b'{"image": "http://x/", "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
ONE_IMAGE = Places(files=frozenset({"image"}), alone=True, unwrapped=True, names=frozenset({"image"}))
TWO = Places(files=frozenset({"image", "mask"}), alone=True, names=frozenset({"image", "mask", "title"}))


def test_a_models_description_says_where_urls_may_stand(tmp_path: Path) -> None:
    assert places(tmp_path, SIZE) == ONE_IMAGE


def test_of_several_parameters_those_that_are_files_may_be_urls(tmp_path: Path) -> None:
    found = places(tmp_path, SEVERAL)
    assert found.files == {"image", "mask", "blob"}
    assert found.alone
    assert not found.unwrapped


@pytest.mark.parametrize("annotation", ["str", "dict", "list[str]", "float"])
def test_text_and_json_models_keep_their_strings(tmp_path: Path, annotation: str) -> None:
    found = places(tmp_path, f"class Model:\n    def __call__(self, x: {annotation}) -> str: return str(x)\n")
    assert urls_of("application/json", json.dumps(URL).encode(), found) == {}
    assert urls_of("application/json", json.dumps({"x": URL}).encode(), found) == {}


@pytest.mark.parametrize(
    ("value", "where", "urls"),
    [
        (URL, ONE_IMAGE, URL),
        ({"image": URL}, ONE_IMAGE, URL),
        ({"image": URL, "more": 1}, ONE_IMAGE, {"image": URL}),
        ({"image": "data:image/png;base64,"}, ONE_IMAGE, {}),
        ({"image": "http"}, ONE_IMAGE, {}),
        ([URL], ONE_IMAGE, {}),
        (None, ONE_IMAGE, {}),
        (URL, TWO, URL),
        ({"image": URL, "title": URL}, TWO, {"image": URL}),
        ({"image": URL, "mask": "HTTP://X/"}, TWO, {"image": URL, "mask": "HTTP://X/"}),
        ({"title": URL}, TWO, {}),
        (URL, Places(), {}),
    ],
)
def test_urls_are_found_where_the_model_takes_files(value: object, where: Places, urls: object) -> None:
    assert urls_of("application/json; charset=utf-8", json.dumps(value).encode(), where) == urls


@pytest.mark.parametrize("content_type", [None, "text/plain", "image/png", "application/octet-stream"])
def test_only_json_is_looked_into(content_type: str | None) -> None:
    assert urls_of(content_type, json.dumps(URL).encode(), ONE_IMAGE) == {}


@pytest.mark.parametrize("body", [b'{"image": "http', b'\xff"http', b'"http' + b"[" * 100_000, DEEP])
def test_json_that_is_none_is_left_to_the_models_codec(body: bytes) -> None:
    assert urls_of("application/json", body, ONE_IMAGE) == {}


def test_slashes_may_be_escaped() -> None:
    assert urls_of("application/json", rb'"https:\/\/pictures.example\/cat.png"', ONE_IMAGE) == URL


@pytest.mark.parametrize(
    "body",
    [
        b'"Https://pictures.example/cat.png"',
        rb'"\u0068\u0054tp\u0073://pictures.example/cat.png"',
        rb'{"image": "\u0048TT\u0070:\u002f/x/"}',
    ],
)
def test_a_url_may_have_capitals_and_escapes(body: bytes) -> None:
    assert urls_of("application/json", body, ONE_IMAGE) != {}


def spellings(letter: str) -> st.SearchStrategy[str]:
    """One character of a JSON string as it may be written: in either case, as it is or escaped."""
    either = [letter.lower(), letter.upper()]
    escaped = [spelling for one in either for spelling in (f"\\u{ord(one):04x}", f"\\u{ord(one):04X}")]
    return st.sampled_from([*either, *escaped, *(["\\/"] if letter == "/" else [])])


JSON_STRINGS = st.sampled_from(["http://x/", "https://x/", "httpx://", "ttp://x", " http://x/"]).flatmap(
    lambda text: st.tuples(*map(spellings, text)).map(lambda letters: f'"{"".join(letters)}"')
)


@given(JSON_STRINGS, st.sampled_from(["%s", '{"image": %s}', '{"title":1,"mask":%s}']))
def test_a_url_is_found_however_it_is_spelled(text: str, around: str) -> None:
    body = (around % text).encode()
    assert bool(urls_of("application/json", body, TWO)) == is_url(json.loads(text))
    assert may_hold_urls("application/json", body, TWO) or not is_url(json.loads(text))


def test_an_argument_that_is_not_unicode_is_left_to_the_models_codec() -> None:
    assert urls_of("application/json", b'{"image": "http://\xff"}', TWO) == {}


def test_what_is_fetched_stands_as_data_in_the_place_of_its_url() -> None:
    body = b'{"image": "https://x/", "big": 123456789012345678901234567890, "title": "soup"}'
    replaced = with_files(body, {"image": ("image/png; a=1,2", b"png")})
    assert b":123456789012345678901234567890," in replaced
    assert b'"data:image/png;base64,cG5n"' in replaced
    assert b"data:application/octet-stream;" in with_files(body, {"image": ("a,b", b"png")})


def test_an_order_that_is_nested_too_deeply_is_none() -> None:
    deep = DEEP.replace(b"image", b"blob_url").replace(b"more", b"function_event_url")
    assert order_of(Message(body=deep), ONE_IMAGE) is None


ORDER = {"blob_url": "https://blobs.example/1", "function_event_url": "https://functions.example/event"}


def order(body: object, **attributes: object) -> Order | None:
    return order_of(Message(body=json.dumps(body).encode(), **attributes), ONE_IMAGE)


def test_the_articles_message_is_an_order() -> None:
    assert order(ORDER) == order({**ORDER, "more": [1]}, content_type="application/json") == Order(**ORDER)


@pytest.mark.parametrize(
    "body",
    [
        {"blob_url": ORDER["blob_url"]},
        {**ORDER, "blob_url": "file:///etc/passwd"},
        {**ORDER, "function_event_url": 7},
        {**ORDER, "function_event_url": "inbox"},
        [ORDER],
        "function_event_url",
    ],
)
def test_what_lacks_a_url_is_no_order(body: object) -> None:
    assert order(body) is None


def test_a_message_with_wishes_of_its_own_is_no_order() -> None:
    assert order(ORDER, reply_to="inbox") is None
    assert order(ORDER, data_ref="blob:claims/1") is None
    assert order(ORDER, extensions={"keep": "true"}) is None
    assert order(ORDER, extensions={"webhook": "https://x/"}) is None
    assert order({**ORDER, "padding": "x" * 70_000}) is None


def test_what_the_model_itself_takes_is_no_order() -> None:
    mine = Places(names=frozenset({"blob_url", "size"}))
    assert order_of(Message(body=json.dumps(ORDER).encode()), mine) is None


# --- fetched for real ---


@dataclass
class Site:
    """An HTTP server on loopback; *pages* by path: status, content type, body."""

    port: int = 0
    pages: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    def let_go(self) -> None:
        """Answer what hangs: every path below /hang."""
        self.hanging.set()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split()[1].decode()
        self.asked.append(path)
        if path.startswith("/hang"):
            await self.hanging.wait()
        status, content_type, body = self.pages.get(path, (404, "text/plain", b"no"))
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + body
        )
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[Site]:
    it = Site()
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    async with server:
        yield it


def png(width: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, 2)).save(file, "PNG")
    return file.getvalue()


async def ask(it: Kitchen, value: object, **attributes: object) -> Message:
    body = json.dumps(value).encode()
    message = Message(body=body, content_type="application/json", **attributes)
    return await it.asker.ask(QUEUE, message, timeout=20.0)


async def test_a_picture_behind_a_url_is_fetched_whatever_its_server_calls_it(tmp_path: Path) -> None:
    async with site() as web, kitchen(tmp_path, SIZE, outbound=HERE) as it:
        web.pages["/cat"] = (200, "image/png", png(7))
        web.pages["/unsaid"] = (200, "application/octet-stream", png(8))
        assert (await ask(it, web.url("/cat"))).body == b"7x2"
        assert (await ask(it, {"image": web.url("/unsaid")})).body == b"8x2"


async def test_urls_are_also_found_in_json_that_came_by_claim_check(tmp_path: Path) -> None:
    async with site() as web, kitchen(tmp_path, SIZE, outbound=HERE) as it:
        web.pages["/cat"] = (200, "image/png", png(7))
        await it.store.put("claims/1", json.dumps({"image": web.url("/cat")}).encode())
        message = Message(content_type="application/json", data_ref="blob:claims/1")
        assert (await it.asker.ask(QUEUE, message, timeout=20.0)).body == b"7x2"


async def test_several_files_are_fetched_and_texts_are_not(tmp_path: Path) -> None:
    async with site() as web, kitchen(tmp_path, SEVERAL, outbound=HERE) as it:
        file = io.BytesIO()
        np.save(file, np.zeros((2, 2), dtype="float16"))
        web.pages["/cat"] = (200, "image/png", png(7))
        web.pages["/mask"] = (200, "application/x-npy", file.getvalue())
        web.pages["/blob"] = (200, "text/plain", b"12345")
        value = {name: web.url(f"/{path}") for name, path in (("image", "cat"), ("mask", "mask"), ("blob", "blob"))}
        answer = await ask(it, {**value, "title": web.url("/title")})
        assert answer.body.decode() == f"7 float16 5 {web.url('/title')}"
        assert "/title" not in web.asked


@pytest.mark.parametrize("path", ["/gone", "/large"])
async def test_a_url_that_does_not_give_a_file_is_a_bad_input(tmp_path: Path, path: str) -> None:
    small = msgspec.structs.replace(HERE, fetch_limit=1000)
    async with site() as web, kitchen(tmp_path, SIZE, outbound=small) as it:
        web.pages["/large"] = (200, "image/png", bytes(2000))
        failure = failure_of(await ask(it, web.url(path)))
        assert failure is not None
        assert failure.code == "bad-input"
        assert len(web.asked) == 1


async def test_a_url_that_must_not_be_reached_is_a_bad_input_and_is_not_reached(tmp_path: Path) -> None:
    async with site() as web, kitchen(tmp_path, SIZE) as it:  # with the settings that are there by default
        web.pages["/cat"] = (200, "image/png", png(7))
        failure = failure_of(await ask(it, web.url("/cat")))
        assert failure is not None
        assert (failure.code, failure.attempts) == ("bad-input", 1)
        failure = failure_of(await ask(it, f"https://127.0.0.1:{web.port}/cat"))
        assert failure is not None
        assert failure.code == "bad-input"
        assert web.asked == []


async def test_a_server_that_is_down_is_asked_again_later(tmp_path: Path) -> None:
    async with site() as web, kitchen(tmp_path, SIZE, outbound=HERE) as it:
        web.pages["/cat"] = (503, "text/plain", b"later")
        asking = asyncio.create_task(ask(it, web.url("/cat")))
        await eventually(lambda: web.asked)
        web.pages["/cat"] = (200, "image/png", png(7))
        assert (await asking).body == b"7x2"


async def test_when_it_stays_down_the_reason_is_told_before_the_deadline(tmp_path: Path) -> None:
    async with site() as web, kitchen(tmp_path, SIZE, outbound=HERE) as it:
        web.pages["/cat"] = (503, "text/plain", b"later")
        failure = failure_of(await ask(it, web.url("/cat"), deadline=time.time() + 1.0))
        assert failure is not None
        assert failure.code == "input-unreachable"
        assert "503" in failure.message


async def test_what_is_fetched_counts_as_what_is_in_hand(tmp_path: Path) -> None:
    code = SIZE.replace("return", "__import__('time').sleep(0.02)\n        return")
    options = WorkerSettings(max_nbytes_in_hand=1)
    async with site() as web, kitchen(tmp_path, code, outbound=HERE, options=options) as it:
        web.pages["/cat"] = (200, "image/png", png(7))
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, it.consumer._hand.nbytes_in_runner)
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        answers = await asyncio.gather(*(ask(it, web.url("/cat")) for _ in range(20)))
        watching.cancel()
        assert {answer.body for answer in answers} == {b"7x2"}
        assert most <= PLACES * len(png(7))


async def test_urls_that_hang_hold_up_neither_whoever_brings_its_input_nor_who_fetches_from_elsewhere(
    tmp_path: Path,
) -> None:
    """However many there are: those that find no place wait in the queue, and it does not count."""
    async with site() as web, kitchen(tmp_path, SIZE, outbound=HERE) as it:
        web.pages["/cat"] = (200, "image/png", png(7))
        for number in range(4 * PLACES):
            web.pages[f"/hang/{number}"] = (200, "image/png", png(7))
            body = json.dumps(web.url(f"/hang/{number}")).encode()
            hanging = Message(body=body, content_type="application/json", tenant="grey")
            await it.broker.send(QUEUE, [hanging])
        await eventually(lambda: len(web.asked) >= 4)
        plain = Message(body=png(5), content_type="image/png")
        assert (await it.asker.ask(QUEUE, plain, timeout=10.0)).body == b"5x2"
        assert (await ask(it, web.url("/cat"), tenant="nice")).body == b"7x2"
        assert sum(path.startswith("/hang") for path in web.asked) <= PLACES
        web.let_go()
        await eventually(it.is_empty, within=60.0)
        assert await it.broker.dead_letters(QUEUE) == []


async def test_an_input_that_does_not_come_before_its_deadline_is_given_up(tmp_path: Path) -> None:
    async with site() as web, kitchen(tmp_path, SIZE, outbound=HERE) as it:
        failure = failure_of(await ask(it, web.url("/hang"), deadline=time.time() + 0.5))
        assert failure is not None
        assert (failure.code, failure.message) == (
            "deadline-exceeded",
            "its input was not fetched before its deadline",
        )
        web.let_go()


async def test_a_worker_that_stops_hands_back_what_it_fetches(tmp_path: Path) -> None:
    async with site() as web, kitchen(tmp_path, SIZE, outbound=HERE) as it:
        await it.broker.send(
            QUEUE, [Message(body=json.dumps(web.url("/hang")).encode(), content_type="application/json")]
        )
        await eventually(lambda: web.asked)
        it.stop.set()
        await it.running
        (delivery,) = await it.broker.receive(QUEUE, max_messages=1, max_wait=5.0)
        assert delivery.delivery_count == 1
        web.let_go()


async def test_the_articles_message_is_answered_at_the_url_that_it_names(tmp_path: Path) -> None:
    async with site() as web, kitchen(tmp_path, SIZE, outbound=HERE) as it:
        web.pages["/blob"] = (200, "application/octet-stream", png(9))
        body = json.dumps({"blob_url": web.url("/blob"), "function_event_url": web.url("/event")}).encode()
        await it.broker.send(QUEUE, [Message(id="one", body=body)])
        assert (await it.result("one")).body == b"9x2"
        await eventually(lambda: _has_queue(it))
        (delivery,) = await it.broker.receive(WEBHOOKS_QUEUE, max_messages=5, max_wait=5)
        told = read(delivery.message)
        assert (told.id, told.url, told.style, told.event) == ("one", web.url("/event"), "reply", "completed")
        assert "/event" not in web.asked, "the worker itself posts nothing"


async def test_an_order_whose_blob_is_gone_is_answered_with_the_failure(tmp_path: Path) -> None:
    async with site() as web, kitchen(tmp_path, SIZE, outbound=HERE) as it:
        body = json.dumps({"blob_url": web.url("/gone"), "function_event_url": web.url("/event")}).encode()
        await it.broker.send(QUEUE, [Message(id="one", body=body)])
        failure = failure_of(await it.result("one"))
        assert failure is not None
        assert failure.code == "bad-input"
        await eventually(lambda: _has_queue(it))
        (delivery,) = await it.broker.receive(WEBHOOKS_QUEUE, max_messages=5, max_wait=5)
        assert read(delivery.message).url == web.url("/event")


async def _has_queue(it: Kitchen) -> bool:
    return WEBHOOKS_QUEUE in await it.broker.queues()
