"""Lock tokens, as they may come back from a file."""

from __future__ import annotations

import pytest

from dumbwaiter.brokers.sqlite.settling import (
    ALL_FROM,
    TOKENS_OF_ONE,
    first_token_of,
    is_lock_token,
    lock_token,
    parse_lock_token,
)


def test_a_lock_token_names_the_message_and_the_fence():
    assert parse_lock_token(lock_token(17, 2**61)) == (17, 2**61)
    assert is_lock_token(lock_token(17, 2**61))


@pytest.mark.parametrize(
    "text", ["", "17", "17.", ".4", "17.4.1", "-1.4", " 17.4", "17.٤", f"1.{2**63}", "9" * 20 + ".1"]
)
def test_what_sqlite_could_not_read_is_no_lock_token(text):
    assert not is_lock_token(text)


def test_a_claim_to_all_names_the_first_token():
    assert first_token_of(f"{ALL_FROM}{5 * TOKENS_OF_ONE}") == 5 * TOKENS_OF_ONE


@pytest.mark.parametrize("text", ["", "17.4", "0", ALL_FROM, f"{ALL_FROM}17", f"{ALL_FROM}-0", f"{ALL_FROM}{2**62}"])
def test_any_other_text_names_none(text):
    assert first_token_of(text) is None
