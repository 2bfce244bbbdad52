"""From a body to the arguments of __call__."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pictures import as_file, photograph
from PIL import Image

from dumbwaiter.content_types import parse_content_type
from dumbwaiter.errors import BadInputError
from dumbwaiter.models.arguments import SeveralInputs, SingleInput
from dumbwaiter.models.codecs import input_codec
from dumbwaiter.models.codecs_image import image_to_data_url
from dumbwaiter.models.signature import Parameter


def single(annotation, name="x"):
    return SingleInput(Parameter(name, annotation, True, True), codec_of(annotation, name))


def several(*parameters):
    """Parameters as (name, annotation, required)."""
    made = [Parameter(name, annotation, required, True) for name, annotation, required in parameters]
    return SeveralInputs(made, [codec_of(annotation, name) for name, annotation, _ in parameters])


def codec_of(annotation, name):
    return input_codec(annotation, name, image_mode="RGB", max_pixels=1_000_000)


def decode(inputs, body, content_type="application/json"):
    return inputs.decode(
        parse_content_type(content_type), body if isinstance(body, bytes) else json.dumps(body).encode()
    )


def complaint(inputs, body, content_type="application/json"):
    with pytest.raises(BadInputError) as caught:
        decode(inputs, body, content_type)
    return str(caught.value)


CLASSIFY = [("image", Image.Image, True), ("top", int, False)]
PAIR = [("a", float, True), ("b", float, True), ("scale", float, False)]


@pytest.mark.parametrize(
    ("annotation", "value"), [(str, "hi"), (np.ndarray, [1, 2]), (Image.Image, None)], ids=["text", "array", "image"]
)
def test_json_may_wrap_the_one_input_under_its_name(annotation, value):
    value = image_to_data_url(photograph("chelsea")) if value is None else value
    wrapped, bare = decode(single(annotation), {"x": value}), decode(single(annotation), value)
    assert np.array_equal(np.asarray(wrapped), np.asarray(bare))
    assert decode(single(annotation), b" \n " + json.dumps({"x": value}).encode()) is not None


def test_json_under_another_name_is_not_the_input():
    assert complaint(single(str), {"y": "hi"}) == "expected text, got a JSON object"
    assert complaint(single(str), {"x": "hi", "y": 1}) == "expected text, got a JSON object"
    assert complaint(single(str), b'{"x": ').startswith("the body is not valid JSON")


def test_an_input_that_may_itself_be_an_object_is_never_unwrapped():
    assert decode(single(dict), {"x": 1}) == {"x": 1}
    assert decode(single(None), {"x": 1}) == {"x": 1}
    assert decode(single(bytes), b'{"x": 1}') == b'{"x": 1}'


def test_the_one_input_describes_itself():
    assert single(str, "prompt").describe() == {"name": "prompt", "kind": "text", "schema": {"type": "string"}}


def test_several_inputs_come_as_a_json_object_by_name():
    arguments = decode(several(*PAIR), {"b": 2, "a": 1})
    assert (arguments.by_position, arguments.by_name) == ([1.0, 2.0], {})
    arguments = decode(several(*PAIR), {"b": 2, "a": 1, "scale": 3})
    assert arguments.by_position == [1.0, 2.0, 3.0]


def test_after_a_gap_arguments_are_passed_by_name():
    inputs = several(("a", int, False), ("b", int, False))
    arguments = decode(inputs, {"b": 2})
    assert (arguments.by_position, arguments.by_name) == ([], {"b": 2})


def test_where_nothing_is_required_an_empty_object_asks_for_the_defaults():
    inputs = several(("a", int, False), ("b", int, False))
    assert decode(inputs, {}).by_name == {}
    assert decode(inputs, 7).by_position == [7]


@pytest.mark.parametrize("content_type", [None, "application/json", "application/x-www-form-urlencoded", "text/plain"])
def test_an_object_of_arguments_is_read_also_where_nobody_said_json(content_type):
    assert decode(several(*PAIR), {"a": 1, "b": 2}, content_type).by_position == [1.0, 2.0]


def test_where_only_the_first_is_required_it_may_come_alone():
    inputs = several(*CLASSIFY)
    for kind in ("image/jpeg", None):
        arguments = decode(inputs, as_file(photograph("chelsea"), "JPEG"), kind)
        assert arguments.by_position[0].size == (451, 300)
    assert decode(inputs, image_to_data_url(photograph("chelsea"))).by_position[0].size == (451, 300)
    arguments = decode(inputs, {"image": image_to_data_url(photograph("chelsea")), "top": 3})
    assert arguments.by_position[1] == 3


def test_an_object_that_is_the_first_input_itself_may_come_alone():
    inputs = several(("data", dict, True), ("k", int, False))
    assert decode(inputs, {"a": 1}).by_position == [{"a": 1}]
    assert decode(inputs, {"k": 1}).by_position == [{"k": 1}]
    assert decode(inputs, {"data": {"a": 1}, "k": 2}).by_position == [{"a": 1}, 2]
    assert decode(inputs, {"data": 1, "z": 2}).by_position == [{"data": 1, "z": 2}]
    assert complaint(inputs, b'{"a": ').startswith("expected a JSON object with data, [k]; the body is not valid JSON")


def test_a_text_that_looks_like_json_but_is_none_is_the_text():
    inputs = several(("text", str, True), ("n", int, False))
    assert decode(inputs, b"{not json", None).by_position == ["{not json"]
    assert decode(inputs, b"{not json", "text/plain").by_position == ["{not json"]
    assert decode(inputs, b'{"text": "hi", "n": 2}', None).by_position == ["hi", 2]


@pytest.mark.parametrize(
    ("parameters", "body", "said"),
    [
        (PAIR, {"a": 1}, "missing input 'b'; expected a, b, [scale]"),
        (PAIR, {}, "missing input 'a', 'b'; expected a, b, [scale]"),
        (PAIR, {"a": 1, "b": 2, "scal": 3}, "unknown input 'scal'; did you mean 'scale'?"),
        (PAIR, {"a": 1, "b": 2, "zzzz": 3}, "unknown input 'zzzz'; it takes a, b, [scale]"),
        (PAIR, {"x" * 500: 1}, f"unknown input '{'x' * 60}'; it takes a, b, [scale]"),
        (
            PAIR,
            {"input": {"a": 1, "b": 2}},
            "unknown input 'input'; it takes a, b, [scale]: send them without {\"input\": ...} around them",
        ),
        (PAIR, [1, 2], "expected a JSON object with a, b, [scale], got a JSON array"),
        (PAIR, {"a": "1", "b": 2}, "input 'a': the JSON value does not fit: Expected `float`, got `str`"),
        (CLASSIFY, {"imge": "data:,"}, "unknown input 'imge'; did you mean 'image'?"),
        (CLASSIFY, {"top": 1}, "missing input 'image'; expected image, [top]"),
    ],
)
def test_what_is_missing_unknown_or_wrong_is_named(parameters, body, said):
    assert complaint(several(*parameters), body) == said


def test_what_is_wrong_with_one_input_names_it():
    assert complaint(several(*CLASSIFY), {"image": "cat.jpg"}) == (
        "input 'image': expected an image (JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF), as its own body, or in JSON as a"
        " data: or https: URL; got the JSON string 'cat.jpg'"
    )


def test_an_envelope_whose_type_nobody_said_is_told_to_say_it():
    said = complaint(several(*PAIR), {"input": {"a": 1, "b": 2}}, None)
    assert said.endswith("over HTTP send Content-Type: application/json, on a queue the arguments alone")
    assert decode(several(("input", dict, True), ("k", int, True)), {"input": {}, "k": 1}, None).by_position == [{}, 1]


def test_a_content_type_is_listed_once():
    assert several(("data", dict, True), ("k", int, False)).content_types.count("application/json") == 1


def test_a_body_that_cannot_be_an_object_is_refused_by_its_type():
    assert complaint(several(*PAIR), b"\x89PNG", "image/png") == (
        "expected a JSON object with a, b, [scale], got image/png"
    )


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "application/json", None])
def test_a_body_that_is_no_object_is_told_what_to_send_whatever_its_type_says(content_type):
    jpeg = as_file(photograph("chelsea"), "JPEG")
    assert complaint(several(*PAIR), jpeg, content_type) == (
        "expected a JSON object with a, b, [scale], got image/jpeg"
    )
    assert complaint(several(*PAIR), b"a=1", content_type) == (
        "expected a JSON object with a, b, [scale]; the body is not valid JSON: invalid character (byte 0)"
    )
    assert (
        complaint(several(*PAIR), b"7", content_type) == "expected a JSON object with a, b, [scale], got a JSON number"
    )


def test_several_inputs_describe_themselves():
    described = several(*CLASSIFY).describe()
    assert described["kind"] == "arguments"
    assert described["kinds"] == {"image": "image", "top": "json"}
    assert described["schema"]["required"] == ["image"]
    assert described["schema"]["properties"]["top"] == {"type": "integer"}
    assert several(*CLASSIFY).content_types[:2] == ("application/json", "image/jpeg")
    assert several(*PAIR).content_types == ("application/json",)
    assert several(*PAIR).cheap
    assert not several(*CLASSIFY).cheap
