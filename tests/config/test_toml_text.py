"""Keys and texts that are written read as what they were."""

from __future__ import annotations

import tomllib

from hypothesis import example, given
from hypothesis import strategies as st

from dumbwaiter.config.toml_text import key, quoted


@given(st.text(st.characters(codec="utf-8")))
@example("")
@example("a.b")
@example('"\\')
@example("\x00\n\x7f")
def test_any_key_and_text_reads_as_it_was(text):
    assert tomllib.loads(f"{key(text)} = {quoted(text)}") == {text: text}


def test_a_key_that_may_be_bare_is():
    assert (key("scale_in-2"), key("a.b")) == ("scale_in-2", '"a.b"')
