"""What a request takes of the memory that all share, and gives back."""

from __future__ import annotations

import pytest

from dumbwaiter.gateway.http.budget import SMALL, Budget
from dumbwaiter.gateway.http.problems import ProblemError

LIMIT = 16 * SMALL


def refusal(hold, nbytes, **options):
    taken = hold.nbytes
    with pytest.raises(ProblemError) as caught:
        hold.take(nbytes, **options)
    assert hold.nbytes == taken
    return caught.value.problem


def test_what_is_given_back_is_there_for_others():
    budget = Budget(LIMIT)
    with budget.hold() as one, budget.hold() as other:
        one.take(10 * SMALL)
        assert refusal(other, 5 * SMALL).status == 503
        one.keep(4 * SMALL)
        other.take(5 * SMALL)
        one.keep(9 * SMALL)
        assert (one.nbytes, budget.taken) == (4 * SMALL, 9 * SMALL)
    assert budget.taken == 0


def test_what_never_fits_is_told_with_what_to_do_and_what_does_not_fit_now_is_to_be_asked_again():
    budget = Budget(LIMIT)
    with budget.hold() as one, budget.hold() as other:
        other.take(10 * SMALL)
        now = refusal(one, 6 * SMALL, or_else="send less")
        assert (now.status, now.code) == (503, "overloaded")
        never = refusal(one, 15 * SMALL, or_else="send less")
        assert (never.status, never.code) == (413, "body-too-large")
        assert never.detail.endswith("(gateway.memory_limit); send less")
        assert refusal(one, 15 * SMALL).status == 503


def test_the_reserve_is_for_small_requests_alone():
    with Budget(LIMIT).hold() as large:
        large.take(14 * SMALL)
        assert refusal(large, 1, or_else="send less").status == 413
    with Budget(SMALL).hold() as small:
        small.take(SMALL, or_else="send less")
