"""What the fields of a form mean, by what the model says it takes."""

from __future__ import annotations

import msgspec
import pytest

from dumbwaiter.gateway.predictions.parameters import Parameters

NUMBER = {"type": "number"}
POINT = {"$ref": "#/$defs/Point", "$defs": {"Point": {"type": "object", "properties": {"x": NUMBER, "name": {}}}}}
NODE = {"$ref": "#/$defs/Node", "$defs": {"Node": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}}}


def several(**properties):
    return Parameters({"input": {"kind": "arguments", "schema": {"type": "object", "properties": properties}}})


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (NUMBER, "40"),
        ({"type": "integer"}, "-3"),
        ({"type": "boolean"}, "true"),
        ({"anyOf": [NUMBER, {"type": "null"}]}, "null"),
        ({"type": ["array", "number"]}, "[1, 2]"),
        ({"enum": [1, 2]}, "2"),
        ({"const": 7}, "7"),
        ({"allOf": [NUMBER]}, " 0.5 "),
        (POINT, '{"x": 1}'),
    ],
)
def test_a_text_is_json_where_the_parameter_takes_no_text(schema, text):
    assert several(a=schema).value_of("a", text) == msgspec.Raw(text.encode())


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({}, "40"),
        ({"type": "string"}, "40"),
        ({"anyOf": [NUMBER, {"type": "string"}]}, "40"),
        ({"enum": ["1", "2"]}, "1"),
        ({"oneOf": [{"const": "a"}, {"const": 1}]}, "1"),
        (NODE, "40"),
        ({"$ref": "#/$defs/Missing"}, "40"),
        (NUMBER, "forty"),
        (NUMBER, ""),
        (NUMBER, "[" * 5000),
    ],
)
def test_a_text_stays_a_text_where_it_may_be_one_or_is_no_json(schema, text):
    assert several(a=schema).value_of("a", text) == text


def test_nothing_is_known_of_other_fields_and_of_a_model_that_never_said():
    assert several(a=NUMBER).value_of("b", "40") == "40"
    assert Parameters({}).value_of("a", "40") == "40"
    assert Parameters({}).only is None


def test_the_members_of_an_object_that_is_the_one_input_are_parameters():
    parameters = Parameters({"input": {"kind": "json", "name": "point", "schema": POINT}})
    assert parameters.only is None
    assert parameters.value_of("x", "1") == msgspec.Raw(b"1")
    assert parameters.value_of("name", "1") == "1"


@pytest.mark.parametrize(
    ("kind", "schema", "only"),
    [
        ("image", {"type": "string"}, "x"),
        ("array", {"type": ["array", "number"]}, "x"),
        ("json", NUMBER, "x"),
        ("json", {}, None),
        ("any", {}, None),
        ("arguments", {"type": "object"}, None),
    ],
)
def test_a_model_of_one_input_says_so_unless_that_may_be_an_object(kind, schema, only):
    assert Parameters({"input": {"kind": kind, "name": "x", "schema": schema}}).only == only
