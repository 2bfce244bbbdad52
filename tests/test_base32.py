"""Bytes as text that sorts as they do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.base32 import decode, encode


@given(st.binary(max_size=64))
def test_what_is_encoded_comes_back(raw):
    text = encode(raw)
    assert decode(text) == raw
    assert set(text) <= set("0123456789abcdefghijklmnopqrstuv")


@given(st.lists(st.binary(min_size=26, max_size=26)))
def test_texts_of_one_length_sort_as_their_bytes_do(raws):
    assert sorted(map(encode, raws)) == [encode(raw) for raw in sorted(raws)]


def test_the_letters_are_those_of_the_standard():
    """https://www.rfc-editor.org/rfc/rfc4648#section-10, in lower case and without padding."""
    assert [encode(raw) for raw in (b"", b"f", b"fo", b"foobar")] == ["", "co", "cpng", "cpnmuoj1e8"]


@pytest.mark.parametrize("text", ["z", "0w", "é", "0", "a b"])
def test_what_is_no_such_text_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - binascii words it as it likes
        decode(text)
