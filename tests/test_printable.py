"""What foreigners wrote is printed, and gives no orders to the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("half \ud83d", r"half \ud83d"),
        ("Grüße, 您好 👩‍🔬 \\x1b", "Grüße, 您好 👩‍🔬 \\x1b"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text, shown):
    assert printable(text) == shown


def test_lines_may_be_kept():
    assert printable("a\n\tb\r\x1b[m", keep_lines=True) == "a\n\tb\\r\\x1b[m"


@given(st.text())
def test_whatever_it_was_it_is_one_line_that_every_stream_takes(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert "\x1b" not in shown
    shown.encode()
