"""Long JSON answers: they become the tensors that short ones become."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.gateway.oip import outputs, tensors
from dumbwaiter.gateway.oip.long_json import find_tensor
from dumbwaiter.gateway.oip.outputs import join, most_join_nbytes

JSON = "application/json"

SCALARS = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text('ab"\\[]{},é\U0001f600', max_size=4),
    st.none(),
)


@st.composite
def rectangular(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    element = draw(st.sampled_from([st.booleans(), st.integers(-9, 9), st.floats(-1, 1), st.text(max_size=3), SCALARS]))

    def nest(lengths):
        return [nest(lengths[1:]) for _ in range(lengths[0])] if lengths else draw(element)

    return nest(shape)


VALUES = rectangular() | st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4), max_leaves=12)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=3)


def seen_whole(body):
    part = outputs._part_of_json(body)
    return part and (part.datatype, part.shape, part.data if isinstance(part.data, list) else bytes(part.data))


@given(VALUES | OBJECTS, st.sampled_from([None, 1]), st.booleans(), st.sampled_from([1, 4, 65536]))
def test_a_text_is_the_same_tensor_in_pieces_as_it_is_as_a_whole(value, indent, ascii_only, piece):
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    whole = seen_whole(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "PIECE_NBYTES", piece)
        found = find_tensor(body)
    assert (found and (*found[:2], found[2] if isinstance(found[2], list) else bytes(found[2]))) == whole


@pytest.mark.parametrize(
    "text", ["[1 2]", "[1,2", "]", "[[1],]", "nul", "[1][2]", '["a" "b"]', '["\\ud800"]', "", "[é]"]
)
def test_what_is_no_json_or_no_text_is_no_tensor(text):
    assert find_tensor(text.encode()) is None


def test_a_long_answer_is_read_so_and_takes_no_more_than_was_said():
    values = [[1, 2.5, 3]] * 20_000
    body = json.dumps(values).encode()
    tensor = join((), [(JSON, body)], name="output")
    assert (tensor.datatype, tensor.shape, tensor.nbytes) == ("FP64", (20_000, 3), 480_000)
    assert tensor.nbytes <= most_join_nbytes([(JSON, body)])
    texts = json.dumps(["a"] * 20_000).encode()
    tensor = join((), [(JSON, texts)], name="output")
    assert tensor.elements() == [b"a"] * 20_000
    assert tensor.nbytes <= most_join_nbytes([(JSON, texts)])


def test_whole_numbers_that_are_followed_by_others_are_floats_too():
    body = json.dumps([2**53 + 1] * 20_000 + [0.5] + [7] * 20_000).encode()
    tensor = join((), [(JSON, body)], name="output")
    assert tensor.datatype == "FP64"
    assert memoryview(tensor.buffer()).cast("d").tolist() == [float(2**53)] * 20_000 + [0.5] + [7.0] * 20_000
