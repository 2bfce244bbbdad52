"""The body of an infer request."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from dumbwaiter.gateway.http.problems import ProblemError
from dumbwaiter.gateway.oip.requests import read_request

INPUT = {"name": "x", "shape": [2], "datatype": "INT8", "data": [1, 2]}
BINARY = {"name": "x", "shape": [2], "datatype": "INT8", "parameters": {"binary_data_size": 2}}


def read(binary=b"", inputs=(INPUT,), **members):
    header = json.dumps({"inputs": list(inputs), **members}).encode()
    return read_request(header + binary, len(header) if binary else None)


def test_the_least_request_has_inputs_alone():
    request = read()
    (tensor,) = request.inputs
    assert (tensor.name, tensor.shape, tensor.data) == ("x", (2,), b"\x01\x02")
    assert (request.id, request.binary, request.priority, request.timeout) == (None, False, 0, None)


def test_binary_data_follow_in_the_order_of_the_inputs():
    second = {**BINARY, "name": "y"}
    request = read(b"\x01\x02\x03\x04", [BINARY, {**INPUT, "name": "z"}, second])
    assert [bytes(tensor.data) for tensor in request.inputs] == [b"\x01\x02", b"\x01\x02", b"\x03\x04"]


def test_unknown_members_are_passed_over():
    assert read(model_name="x", anything=[1, {}]).inputs


@pytest.mark.parametrize(
    ("members", "binary"),
    [
        ({"parameters": {"binary_data_output": True}}, True),
        ({"parameters": {"binary_data_output": True}, "outputs": [{"name": "output"}]}, True),
        ({"outputs": [{"name": "output", "parameters": {"binary_data": True}}]}, True),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "output", "parameters": {"binary_data": False}}],
            },
            False,
        ),
        ({"outputs": [{"name": "output"}]}, False),
    ],
)
def test_the_output_is_binary_when_asked_for(members, binary):
    assert read(**members).binary is binary


@pytest.mark.parametrize(("said", "priority"), [(0, 0), (1, 9), (2, 8), (10, 0), (19, -9), (2**63, -9)])
def test_priority_1_is_the_most_urgent(said, priority):
    assert read(parameters={"priority": said}).priority == priority


def test_a_timeout_is_in_microseconds():
    assert read(parameters={"timeout": 1_500_000}).timeout == 1.5
    assert read(parameters={"timeout": 0}).timeout is None


def test_hints_that_change_nothing_are_taken():
    inputs = [{**INPUT, "parameters": {"content_type": "np"}}]
    assert read(b"", inputs, parameters={"content_type": "np", "sequence_id": 0}).inputs


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"parameters": {"temperature": 1}}, "unknown parameter 'temperature'"),
        ({"parameters": {"sequence_id": 7, "sequence_start": True}}, "no sequences"),
        ({"parameters": {"sequence_id": "a"}}, "no sequences"),
        ({"parameters": {"priority": -1}}, "priority"),
        ({"parameters": {"priority": True}}, "priority"),
        ({"parameters": {"timeout": "soon"}}, "timeout"),
        ({"parameters": {"binary_data_output": 1}}, "binary_data_output"),
        ({"parameters": {"a": {}}}, "parameters are an object"),
        ({"parameters": []}, "parameters are an object"),
        ({"parameters": {"a": "b" * 20_000}}, "bytes of parameters"),
        ({"outputs": [{"name": "scores"}]}, "asks for 'scores'"),
        ({"outputs": [{"name": "output"}, {"name": "output"}]}, "one output"),
        ({"outputs": [{"name": "output", "parameters": {"classification": 3}}]}, "classification"),
        ({"outputs": [{"name": "output", "parameters": {"shared_memory_region": "a"}}]}, "shared memory"),
        ({"inputs": []}, "0 inputs"),
        ({"inputs": [INPUT] * 2}, "twice"),
        ({"inputs": [{**INPUT, "name": str(n)} for n in range(65)]}, "65 inputs"),
        ({"inputs": [{**INPUT, "shape": [-1]}]}, "shape[0]"),
        ({"inputs": [{**INPUT, "shape": [2.0]}]}, "shape[0]"),
        ({"inputs": [{**INPUT, "shape": [2**64]}]}, "shape[0]"),
        ({"inputs": [{**INPUT, "shape": 2}]}, "shape"),
        ({"inputs": [{**INPUT, "datatype": None}]}, "datatype"),
        ({"inputs": [{"name": "x"}]}, "datatype"),
        ({"inputs": [{**INPUT, "name": 1}]}, "name"),
        ({"inputs": [{**INPUT, "data": {"a": 1}}]}, "(nested) list"),
        ({"inputs": [{**BINARY, "data": [1, 2]}]}, "both"),
        ({"inputs": [BINARY]}, "0 bytes of binary data are left"),
        ({"inputs": [{**BINARY, "parameters": {"binary_data_size": -1}}]}, "number of bytes"),
        ({"inputs": [{**BINARY, "parameters": {"binary_data_size": 2**70}}]}, "are left"),
        ({"inputs": [{**BINARY, "parameters": {"shared_memory_region": "a"}}]}, "shared memory"),
        ({"inputs": [{**BINARY, "parameters": {}}]}, "neither"),
        ({"inputs": None}, "inputs"),
        ({"id": 7}, "id"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(members, reason):
    body = json.dumps({"inputs": [INPUT], **members}).encode()
    assert reason in refusal(read_request, body, None)


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"", None),
        (b"[]", None),
        (b"{", None),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}', None),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [Infinity]}]}', None),
        (
            b'{"inputs": [{"name": "x", "shape": [1], "datatype": "INT8", "data": '
            + b"[" * 10**5
            + b"]" * 10**5
            + b"}]}",
            None,
        ),
        (b'{"inputs": ' + b'[{"a":' * 10**5, None),
        (b'{"id": "\xff", "inputs": []}', None),
        (b"{}", 3),
        (b"{}", 0),
        (json.dumps({"inputs": [INPUT]}).encode() + b"123", None),
        (json.dumps({"inputs": [INPUT]}).encode(), 5),
    ],
    ids=range(12),
)
def test_what_is_no_request_at_all_is_refused(body, length):
    assert refusal(read_request, body, length)


def test_binary_data_that_belong_to_no_input_are_refused():
    assert "1 bytes of binary data belong to no input" in refusal(read, b"123", [BINARY])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("name", "shape", "datatype", "data", "parameters"), JSON),
)


@given(MEMBERS, JSON, JSON, st.binary(max_size=8))
def test_any_request_is_read_or_refused(members, parameters, outputs, binary):
    said = {"inputs": [{**INPUT, **members}], "parameters": parameters, "outputs": outputs}
    header = json.dumps(said).encode()
    with contextlib.suppress(ProblemError):
        assert read_request(header + binary, len(header)).inputs
