"""JSON in and out: what it cannot carry is an error, never a silent null."""

from __future__ import annotations

import dataclasses
import enum
import json
import typing

import msgspec
import numpy as np
import pydantic
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dumbwaiter.content_types import parse_content_type
from dumbwaiter.errors import BadInputError, ModelLoadError, PermanentError
from dumbwaiter.models.codecs_json import JsonCodec, PydanticCodec, convert_json, decode_json, encode_json

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
SAID = parse_content_type("application/json")


class Point(msgspec.Struct, forbid_unknown_fields=True):
    x: int
    y: float = 0.0


class Nest(msgspec.Struct):
    inner: Nest | None = None


@dataclasses.dataclass
class Box:
    name: str
    corners: list[Point]


class Named(typing.TypedDict):
    name: str


class Order(pydantic.BaseModel):
    dish: str
    plates: int = pydantic.Field(default=1, ge=1)
    notes: list[typing.Any] = []


class Callback(pydantic.BaseModel):
    call: typing.Callable[[], int] | None = None


def complaint(body):
    with pytest.raises(BadInputError) as caught:
        decode_json(body)
    return str(caught.value)


def refusal(value):
    with pytest.raises(PermanentError) as caught:
        encode_json(value)
    return str(caught.value)


@given(JSON_VALUES)
def test_every_json_value_comes_back_as_it_went(value):
    assert decode_json(encode_json(value)) == value
    assert decode_json(memoryview(json.dumps(value, ensure_ascii=False).encode())) == value


@pytest.mark.parametrize("body", [b"NaN", b"[1, NaN]", b'{"a": Infinity}', b"-Infinity"])
def test_nan_and_infinity_in_a_body_are_refused_and_named(body):
    said = complaint(body)
    assert said.startswith("the body is not valid JSON: ")
    if b"-" not in body:
        assert said.endswith("NaN and Infinity are not JSON")


@pytest.mark.parametrize("depth", [1_500, 2_000, 100_000])
def test_json_that_is_nested_too_deeply_is_an_error_and_not_a_dead_worker(depth):
    assert complaint(b"[" * depth + b"]" * depth) == "the JSON body is nested too deeply"
    assert complaint(b'{"a":' * depth + b"1" + b"}" * depth) == "the JSON body is nested too deeply"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is not valid JSON: Input data was truncated"),
        (b'{"a": ', "the body is not valid JSON: Input data was truncated"),
        (b"{'a': 1}", "object keys must be strings"),
        (b"[1] 2", "trailing characters"),
        (b'"\xff"', "the body is not valid JSON: not UTF-8"),
        (b"1e999", "the JSON body does not fit: Number out of range"),
        (b"9" * 5_000, "the JSON body does not fit: Integer value out of range"),
        (rb'"\udc00 and more"', "surrogate"),
    ],
)
def test_broken_json_says_what_is_wrong_with_it(body, reason):
    assert reason in complaint(body)


def test_nan_inside_a_text_is_no_excuse_for_another_fault():
    assert complaint(b'{"NaN": 1,') == "the body is not valid JSON: Input data was truncated"


@pytest.mark.parametrize(
    ("annotation", "body", "value"),
    [
        (Point, b'{"x": 1}', Point(1)),
        (Box, b'{"name": "b", "corners": [{"x": 1, "y": 2}]}', Box("b", [Point(1, 2.0)])),
        (Named, b'{"name": "n", "more": 1}', {"name": "n"}),
        (dict, b'{"a": [1]}', {"a": [1]}),
        (dict[str, float], b'{"a": 1}', {"a": 1.0}),
        (list[int] | None, b"null", None),
        (int | str, b'"a"', "a"),
        (typing.Literal["cat", "dog"], b'"cat"', "cat"),
        (tuple[int, str], b'[1, "a"]', (1, "a")),
        (float, b"1", 1.0),
    ],
)
def test_json_becomes_the_annotated_type(annotation, body, value):
    codec = JsonCodec(annotation)
    for content_type in ("application/json", None, "text/plain", "application/x-www-form-urlencoded"):
        assert codec.from_body(parse_content_type(content_type), body) == value
    assert codec.from_json(json.loads(body)) == value


@pytest.mark.parametrize(
    ("annotation", "body", "reason"),
    [
        (Point, b'{"y": 1}', "the JSON body does not fit: Object missing required field `x`"),
        (Point, b'{"x": "1"}', "Expected `int`, got `str` - at `$.x`"),
        (Point, b'{"x": 1, "z": 2}', "unknown field `z`"),
        (list[int], b"[1, 2, 3.5]", "Expected `int`, got `float` - at `$[2]`"),
        (typing.Literal["cat"], b'"dog"', "Invalid enum value 'dog'"),
    ],
)
def test_json_of_another_shape_says_what_and_where(annotation, body, reason):
    codec = JsonCodec(annotation)
    with pytest.raises(BadInputError) as caught:
        codec.from_body(SAID, body)
    assert reason in str(caught.value)
    with pytest.raises(BadInputError, match="the JSON value does not fit"):
        codec.from_json(json.loads(body))


def test_a_value_that_is_nested_too_deeply_for_its_type_is_an_error():
    value: dict = {}
    for _ in range(5_000):
        value = {"inner": value}
    with pytest.raises(BadInputError, match="the JSON value is nested too deeply"):
        convert_json(value, Nest)


@pytest.mark.parametrize("content_type", ["image/png", "application/x-npy", "audio/wav", "video/mp4"])
@pytest.mark.parametrize("codec", [JsonCodec(dict), PydanticCodec(Order)])
def test_what_cannot_be_json_is_refused_by_its_content_type(codec, content_type):
    with pytest.raises(BadInputError) as caught:
        codec.from_body(parse_content_type(content_type), b"{}")
    assert str(caught.value) == f"expected application/json, got {content_type}"


def test_a_type_that_no_json_can_become_is_found_when_the_model_is_loaded():
    class Opaque:
        pass

    with pytest.raises(ModelLoadError, match="no input can be decoded as Opaque: "):
        JsonCodec(Opaque)


def test_a_dataclass_that_names_what_does_not_exist_is_found_when_the_model_is_loaded():
    @dataclasses.dataclass
    class Broken:
        x: Missing  # noqa: F821

    with pytest.raises(ModelLoadError, match="no input can be decoded as Broken: name 'Missing' is not defined"):
        JsonCodec(Broken)


def test_a_pydantic_model_is_validated_and_a_fault_is_placed():
    codec = PydanticCodec(Order)
    assert codec.from_body(SAID, b'{"dish": "soup", "plates": 2}') == Order(dish="soup", plates=2)
    with pytest.raises(BadInputError) as caught:
        codec.from_json({"dish": "soup", "plates": 0})
    assert str(caught.value) == (
        "the JSON value does not fit: Input should be greater than or equal to 1 - at `$.plates`"
    )
    with pytest.raises(BadInputError, match=r"Field required - at `\$\.dish`"):
        codec.from_json({})


def test_a_pydantic_model_takes_no_nan_and_no_endless_depth():
    codec = PydanticCodec(Order)
    with pytest.raises(BadInputError, match="NaN and Infinity are not JSON"):
        codec.from_body(SAID, b'{"dish": "soup", "notes": [NaN]}')
    for depth in (300, 900, 2_000):
        with pytest.raises(BadInputError, match=r"nested too deeply|recursion limit"):
            codec.from_body(SAID, b'{"dish": "soup", "notes": ' + b"[" * depth + b"]" * depth + b"}")


def test_places_inside_lists_are_written_as_indices():
    class Menu(pydantic.BaseModel):
        orders: list[Order]

    with pytest.raises(BadInputError, match=r"at `\$\.orders\[1\]\.dish`"):
        PydanticCodec(Menu).from_json({"orders": [{"dish": "soup"}, {"dish": 1}]})


def test_schemas_are_those_of_the_types():
    assert JsonCodec(list[int]).schema() == {"type": "array", "items": {"type": "integer"}}
    assert PydanticCodec(Order).schema()["required"] == ["dish"]


def test_a_pydantic_model_without_a_schema_is_still_served():
    assert PydanticCodec(Callback).schema() == {"type": "object"}


class Colour(enum.Enum):
    RED = "red"


class Loud(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (None, b"null"),
        ([None, "null"], b'[null,"null"]'),
        (np.float32(0.5), b"0.5"),
        (np.int64(3), b"3"),
        (np.bool_(True), b"true"),
        (np.str_("a"), b'"a"'),
        (np.arange(4).reshape(2, 2), b"[[0,1],[2,3]]"),
        ({"a": [np.eye(1), torch.tensor(2)]}, b'{"a":[[[1.0]],2]}'),
        (torch.tensor([1.5], dtype=torch.bfloat16), b"[1.5]"),
        (torch.tensor([1.5], requires_grad=True), b"[1.5]"),
        (torch.nn.Parameter(torch.zeros(1)), b"[0.0]"),
        (torch.eye(2).to_sparse(), b"[[1.0,0.0],[0.0,1.0]]"),
        (Point(1, 2.0), b'{"x":1,"y":2.0}'),
        (Box("b", []), b'{"name":"b","corners":[]}'),
        (Order(dish="soup"), b'{"dish":"soup","plates":1,"notes":[]}'),
        (Colour.RED, b'"red"'),
        (Loud("a"), b'"a"'),
        ((1, {2}), b"[1,[2]]"),
        (2**70, b"1180591620717411303424"),
    ],
)
def test_what_models_return_becomes_json(value, encoded):
    assert encode_json(value) == encoded


def test_a_picture_inside_json_is_a_data_url():
    assert encode_json({"mask": Image.new("L", (1, 1))}).startswith(b'{"mask":"data:image/png;base64,')


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (float("nan"), "nan - at `$`"),
        ({"a": [1, {"b": float("inf")}]}, "inf - at `$.a[1].b`"),
        (np.array([0.0, np.nan]), "nan - at `$[1]`"),
        (torch.tensor([[float("-inf")]]), "-inf - at `$[0][0]`"),
        ([None, float("nan")], "nan - at `$[1]`"),
        (Point(1, float("nan")), "nan - at `$.y`"),
        ({"scores": (float("nan"),)}, "nan - at `$.scores[0]`"),
    ],
)
def test_nan_in_an_output_is_an_error_that_names_its_place(value, place):
    assert refusal(value) == f"JSON cannot carry {place}; replace it, for example by None"


def test_what_json_cannot_carry_is_named():
    assert "objects of type object are not supported" in refusal([object()])
    assert refusal(1j) == "JSON cannot carry this complex: objects of type complex are not supported"
    assert "JSON cannot carry this Tensor" in refusal(torch.tensor([1j]))
    assert "JSON cannot carry this dict" in refusal({(1, 2): 3})
    assert "JSON cannot carry this str" in refusal("\ud800")


def test_an_open_file_is_refused_and_stays_open(tmp_path):
    with (tmp_path / "file").open("w") as file:
        assert "objects of type TextIOWrapper are not supported" in refusal(file)
        file.write("still open")


def test_a_value_that_holds_itself_is_an_error():
    loop: list = []
    loop.append(loop)
    assert refusal(loop) == "the value is nested too deeply for JSON"
