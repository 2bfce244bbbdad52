"""Retry-After is read as seconds or a date, and what is neither says nothing."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.retry_after import seconds_of

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        (email.utils.formatdate(NOW + 90, usegmt=True), 90.0),
        (email.utils.formatdate(NOW - 90, usegmt=True), 0.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        ("9" * 5000, 999_999_999.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(text, seconds):
    assert seconds_of(text, now=NOW) == seconds


@given(st.text())
def test_no_text_of_retry_after_is_an_error(text):
    seconds = seconds_of(text, now=NOW)
    assert seconds is None or seconds >= 0
