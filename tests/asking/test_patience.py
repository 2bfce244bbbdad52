"""A caller's patience: a number of seconds that remembers when it was made."""

from __future__ import annotations

import pytest

from dumbwaiter.asking import Patience
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


async def test_it_is_the_number_that_the_caller_said():
    assert Patience(2.5) == 2.5
    assert f"{Patience(60):g} s" == "60 s"


@pytest.mark.parametrize(("seconds", "most", "least"), [(60, 60.0, 0.1), (0, 0.0, 0.0), (-1, 0.0, 0.0)])
async def test_what_is_left_is_never_more_than_was_said_and_never_less_than_nothing(seconds, most, least):
    assert least <= Patience(seconds).left <= most


async def test_made_of_another_one_it_does_not_begin_anew():
    patience = Patience(0.02)
    await eventually(lambda: patience.left == 0.0)
    assert Patience(patience) is patience
    assert patience == 0.02
