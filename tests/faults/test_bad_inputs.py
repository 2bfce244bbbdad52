"""Bad input through both doors of a real `serve`: a clear error each time, and the next good input is answered."""

from __future__ import annotations

import io
import json
import struct
import zlib

import httpx
import psutil
import pytest
from PIL import Image

from processes import Serving, starting

MODELS = """
from PIL import Image


class Sizes:
    def __call__(self, image: Image.Image) -> list[int]:
        return list(image.size)


class Total:
    def __call__(self, numbers: list[float]) -> float:
        return sum(numbers)


class Short:
    def __call__(self, texts: list[str]) -> list[str]:
        return texts[1:]


class Nan:
    def __call__(self, text: str) -> dict:
        return {"score": float("nan")}
"""


def jpeg(width: int = 320, height: int = 200) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 50).convert("RGB").save(file, "JPEG", quality=90)
    return file.getvalue()


def png_bomb(side: int) -> bytes:
    """A PNG of side x side black pixels: its header says so, and its data would unpack to that."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side + 1)) for _ in range(1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "light.py").write_text(MODELS)
    with starting(folder) as start:
        serving = start("light:Sizes", "light:Total", "light:Short", "light:Nan").ready()
        yield serving


@pytest.fixture
def family(served):
    """Every process of the system is the same one after the test."""
    before = {process.pid for process in psutil.Process(served.process.pid).children(recursive=True)}
    assert len(before) == 10, "a gateway, a courier, and a consumer and a runner for each model"
    yield before
    assert {process.pid for process in psutil.Process(served.process.pid).children(recursive=True)} == before


def ask(served: Serving, model: str, body: bytes, content_type: str) -> httpx.Response:
    url = served.models[model]["url"] if model in served.models else f"{served.gateway}/v1/models/{model}/predictions"
    return httpx.post(url, content=body, headers={"Content-Type": content_type}, timeout=40, trust_env=False)


WHOLE = jpeg()
JSON, JPEG, PNG = "application/json", "image/jpeg", "image/png"
DEEP = b"[" * 2000 + b"]" * 2000
BAD = {
    "an unknown model": (
        "sizs",
        WHOLE,
        JPEG,
        404,
        "unknown-model",
        "no model named 'sizs'; known: nan, short, sizes",
    ),
    "an empty body": ("sizes", b"", JPEG, 400, "empty-body", "the body is empty"),
    "a wrong type": ("sizes", b"a cat", "text/plain", 422, "bad-input", "expected an image"),
    "no picture": ("sizes", b"not a picture at all", JPEG, 422, "bad-input", "expected an image"),
    "a truncated JPEG": ("sizes", WHOLE[: len(WHOLE) // 2], JPEG, 422, "bad-input", "the image is damaged"),
    "a decompression bomb": ("sizes", png_bomb(60_000), PNG, 422, "bad-input", "limit of 50000000"),
    "JSON 2,000 levels deep": (
        "total",
        b'{"input": ' + DEEP + b"}",
        JSON,
        400,
        "invalid-json",
        "nested too deeply",
    ),
    "NaN": ("total", b'{"input": [1, NaN]}', JSON, 400, "invalid-json", "not JSON"),
    "a number beyond all": ("total", b'{"input": [1e999]}', JSON, 422, "bad-input", "out of range"),
    "no JSON at all": ("total", b'{"input": [1,', JSON, 400, "invalid-json", "not JSON"),
    "JSON of another shape": ("total", b'{"inptu": [1]}', JSON, 422, "bad-input", "inptu"),
    "JSON of another type": ("total", b'{"input": {"a": 1}}', JSON, 422, "bad-input", "does not fit"),
    "a model that returns too few": (
        "short",
        b"soup",
        "text/plain",
        500,
        "model-error",
        "returned 0 outputs",
    ),
    "a model that returns NaN": ("nan", b"soup", "text/plain", 500, "model-error", "cannot carry nan - at `$.score`"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_input_gets_a_clear_error_and_the_next_good_one_an_answer(served, family, case):
    model, body, content_type, status, code, words = case
    response = ask(served, model, body, content_type)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert words in response.json()["detail"]
    assert ask(served, "sizes", WHOLE, JPEG).json()["output"] == [320, 200]
    assert ask(served, "total", b'{"input": [1, 2.5]}', JSON).json()["output"] == 3.5


def test_a_body_of_1_gb_is_refused_long_before_its_end(served, family):
    sent = 0

    def gigabyte():
        nonlocal sent
        while sent < 1024:
            sent += 1
            yield bytes(1024 * 1024)

    memory = psutil.Process(served.pids["gateway"]).memory_info().rss
    response = httpx.post(served.models["sizes"]["url"], content=gigabyte(), timeout=40, trust_env=False)
    assert response.status_code == 413
    assert "exceeds the limit of 33554432 bytes" in response.json()["detail"]
    assert sent < 200, "MiB that were sent"
    assert psutil.Process(served.pids["gateway"]).memory_info().rss - memory < 100e6
    assert ask(served, "sizes", WHOLE, JPEG).json()["output"] == [320, 200]


def test_bad_input_on_the_queue_is_answered_too_and_becomes_a_dead_letter_with_its_reason(served, family):
    (served.project / "half.jpg").write_bytes(WHOLE[:1000])
    (served.project / "whole.jpg").write_bytes(WHOLE)
    submitted = served.run("submit", "sizes", "--json", "half.jpg", "whole.jpg")
    bad, good = (json.loads(line) for line in submitted.stdout.splitlines())
    assert submitted.returncode == 1
    assert (bad["status"], bad["error"]["code"]) == ("failed", "bad-input")
    assert (good["status"], good["output"]) == ("succeeded", [320, 200])
    letters = json.loads(served.run("dead-letters", "list", "sizes", "--json").stdout)
    (letter,) = [letter for letter in letters if letter["message_id"] == bad["id"]]
    assert letter["reason"] == "bad-input"
    assert "the image is damaged" in letter["detail"]
    assert letter["nbytes"] == 1000, "nothing of it is lost"


def test_each_request_is_still_accounted_for(served):
    stats = json.loads(served.run("queues", "--json").stdout)
    assert {one["queue"]: one["ready"] + one["locked"] + one["delayed"] for one in stats} == dict.fromkeys(
        ("nan", "short", "sizes", "total"), 0
    )
