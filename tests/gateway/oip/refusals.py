"""What a refused call says."""

from __future__ import annotations

import pytest

from dumbwaiter.gateway.http.problems import ProblemError
from dumbwaiter.gateway.oip.problems import status_of


def refusal(call, *arguments, status=400, **named):
    """The reason with which *call* refuses; its status must be *status*."""
    with pytest.raises(ProblemError) as caught:
        call(*arguments, **named)
    assert status_of(caught.value.problem.status) == status
    assert len(caught.value.problem.detail) < 1000
    return caught.value.problem.detail
