"""The printed curl lines work as they stand."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess

import httpx
import msgspec
import pytest
from PIL import Image

from dumbwaiter.cli.sample_request import curl_line, prediction_url, sample_value
from processes import starting

KINDS = """
import dataclasses
import enum
import typing

import msgspec
import numpy
from PIL import Image


class Text:
    def __call__(self, text: str) -> str:
        return text.upper()


class Number:
    def __call__(self, number: typing.Annotated[int, msgspec.Meta(gt=5, le=9)]) -> int:
        return number + 1


class Mapping:
    def __call__(self, numbers: dict[str, float]) -> float:
        return sum(numbers.values())


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Box:
    corner: tuple[int, float]
    colour: Colour
    names: typing.Annotated[list[str], msgspec.Meta(min_length=2)]
    inner: "Box | None"
    note: str = ""


class Structure:
    def __call__(self, box: Box) -> bool:
        return box.colour is Colour.RED and len(box.names) >= 2


class Arguments:
    def __call__(self, a: int, b: float, flag: bool, *, words: list[str], top: int = 5) -> list:
        return [a + b, flag, len(words), top]


class Beside:
    def __call__(self, image: Image.Image, prompt: str) -> str:
        return f"{image.width} x {image.height}: {prompt}"


class Picture:
    def __call__(self, image: Image.Image, top: int = 5) -> list:
        return [image.width, image.height, top]


class Array:
    def __call__(self, array: numpy.ndarray) -> float:
        return float(array.sum())


class Bytes:
    def __call__(self, body: bytes) -> int:
        return len(body)


class Unsaid:
    def __call__(self, what):
        return type(what).__name__
"""
OUTPUTS = {
    "text": "SOME TEXT",
    "number": 7,
    "mapping": 1.0,
    "structure": True,
    "arguments": [1.5, True, 1, 5],
    "beside": "1 x 1: some text",
    "picture": [8, 6, 5],
    "array": 6.0,
    "bytes": 10,
    "unsaid": "str",
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """One `serve` with a model for each kind of input, and a picture at hand."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "kinds.py").write_text(KINDS)
    Image.new("RGB", (8, 6)).save(folder / "cat.jpg")
    with starting(folder) as start:
        yield start(*(f"kinds:{name.title()}" for name in OUTPUTS)).ready()


def ask_by(line, folder):
    """Run *line* in a shell, or, where there is no curl, send what it would send."""
    if shutil.which("curl"):
        done = subprocess.run(
            f"{line} --silent --show-error --noproxy '*'", shell=True, cwd=folder, capture_output=True, check=True
        )
        return json.loads(done.stdout)
    _, option, body, _, header, url = shlex.split(line)
    content = (folder / body[1:]).read_bytes() if body.startswith("@") else body.encode()
    assert option in {"-d", "--data-binary"}
    name, _, value = header.partition(": ")
    return httpx.post(url, content=content, headers={name: value}, trust_env=False).json()


@pytest.mark.parametrize("model", OUTPUTS)
def test_the_line_of_each_kind_of_input_works_as_it_is_printed(kinds, model):
    answer = ask_by(kinds.models[model]["curl"], kinds.project)
    assert answer["status"] == "succeeded", answer
    assert answer["output"] == OUTPUTS[model]


def test_each_line_says_what_it_sends(kinds):
    lines = {name: model["curl"].removeprefix("curl ").split(" http")[0] for name, model in kinds.models.items()}
    assert lines["text"] == "--data-binary 'some text' -H 'Content-Type: text/plain'"
    assert lines["picture"] == "--data-binary @cat.jpg -H 'Content-Type: image/jpeg'"
    assert lines["mapping"] == """-d '{"input":{"a":0.5,"b":0.5}}' -H 'Content-Type: application/json'"""
    assert lines["arguments"].startswith("""-d '{"input":{"a":1,"b":0.5,"flag":true,"words":["some text"]}}' """)


def test_a_model_that_says_nothing_of_its_input_gets_a_line_too():
    assert curl_line("http://h:1", "m", {}, picture="cat.jpg").endswith(" http://h:1/v1/models/m/predictions")


def test_a_picture_is_named_as_the_shell_reads_it():
    line = curl_line("http://h:1", "m", {"input": {"kind": "image"}}, picture="my cat.jpg")
    assert shlex.split(line)[2] == "@my cat.jpg"


def test_a_name_is_quoted_for_the_url_and_the_shell():
    assert prediction_url("http://h:1", "a b'c") == "http://h:1/v1/models/a%20b%27c/predictions"


class Tree(msgspec.Struct):
    left: Tree | None
    leaves: list[Tree]
    named: dict[str, Tree]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer", "minimum": 10}, 10),
        ({"type": "integer", "exclusiveMinimum": 1}, 2),
        ({"type": "integer", "maximum": 0}, 0),
        ({"type": "number", "exclusiveMaximum": 0}, -1),
        ({"type": "string", "minLength": 12}, "some textxxx"),
        ({"type": "string", "maxLength": 4}, "some"),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"enum": ["red", "green"]}, "red"),
        ({"const": 3}, 3),
        ({"type": "string", "examples": ["a cat"]}, "a cat"),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, True),
        ({"type": "null"}, None),
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}}, {"a": 1}),
        ({}, "some text"),
    ],
)
def test_a_sample_fits_its_schema(schema, value):
    assert sample_value(schema) == value


def test_a_type_that_holds_itself_ends_and_fits():
    sample = sample_value(msgspec.json.schema(Tree))
    assert msgspec.convert(sample, Tree) == Tree(left=None, leaves=[], named={})
